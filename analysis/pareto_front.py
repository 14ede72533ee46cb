#!/usr/bin/env python3
"""The Pareto front of a sweep with several objectives: one objective vs. another.

python analysis/pareto_front.py sweep.h5 -o front.pdf
python analysis/pareto_front.py sweep.h5 --y loss --x train_time
"""

import argparse
import sys
from pathlib import Path

from mpisweep.views import figures
from mpisweep.views.reading import add_at, load_at
from mpisweep.views.script import run_script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="a results file")
    parser.add_argument("--y", help="objective of the vertical axis (default: the first one)")
    parser.add_argument("--x", help="objective of the horizontal axis (default: the next one)")
    parser.add_argument("-o", "--output", type=Path, help="PNG, SVG or PDF (default: pareto_front.png)")
    add_at(parser)
    options = parser.parse_args()
    output = options.output or Path("pareto_front.png")
    figures.save(figures.draw_front(load_at(options), options.y, options.x), output)
    print(output)


if __name__ == "__main__":
    sys.exit(run_script(main))
