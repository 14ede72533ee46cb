#!/usr/bin/env python3
"""Speedup and efficiency of trials vs. their number of ranks.

python analysis/scaling.py resnet50.h5 -o scaling.pdf
python analysis/scaling.py resnet50.h5 --metric wall_time
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
    parser.add_argument("-o", "--output", type=Path, help="PNG, SVG or PDF (default: scaling.png)")
    parser.add_argument("--metric", help="a rate or a duration (default: images_per_second, else wall_time)")
    options = parser.parse_args()
    output = options.output or Path("scaling.png")
    sweep = mpisweep.load(options.file)
    figures.save(figures.draw_scaling(sweep, options.metric), output)
    print(output)


if __name__ == "__main__":
    sys.exit(run_script(main))
