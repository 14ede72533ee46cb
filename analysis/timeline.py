#!/usr/bin/env python3
"""Which worker ran which trial when: one row per worker, one box per trial; blank is idle.

python analysis/timeline.py resnet50.h5 -o timeline.svg
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
    parser.add_argument("-o", "--output", type=Path, help="PNG, SVG or PDF (default: timeline.png)")
    options = parser.parse_args()
    output = options.output or Path("timeline.png")
    sweep = mpisweep.load(options.file)
    figures.save(figures.draw_timeline(sweep), output)
    print(output)


if __name__ == "__main__":
    sys.exit(run_script(main))
