#!/usr/bin/env python3
"""Figure 2: summed time of all trials vs. wall time of the allocation.

python analysis/total_time.py resnet50.h5 -o figure2.pdf
"""

import argparse
import sys
from pathlib import Path

import mpisweep
from mpisweep.views import figures
from mpisweep.views.script import run_script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="a results file")
    parser.add_argument("-o", "--output", type=Path, help="PNG, SVG or PDF (default: total_time.png)")
    options = parser.parse_args()
    output = options.output or Path("total_time.png")
    sweep = mpisweep.load(options.file)
    figures.save(figures.draw_total_time(sweep), output)
    print(output)


if __name__ == "__main__":
    sys.exit(run_script(main))
