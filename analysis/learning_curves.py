#!/usr/bin/env python3
"""Learning curves of all trials, coloured by a parameter; best, median and baseline on top.

python analysis/learning_curves.py resnet50.h5 --smooth 10
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
    parser.add_argument("-o", "--output", type=Path, help="PNG, SVG or PDF (default: learning_curves.png)")
    parser.add_argument("--metric", help="(default: the objective, else loss)")
    parser.add_argument("--parameter", help="colours the curves (default: the first one searched)")
    parser.add_argument("--smooth", type=int, default=1, metavar="N", help="running mean over N reports")
    over = parser.add_mutually_exclusive_group()
    over.add_argument("--time", action="store_true", help="seconds on the axis instead of steps")
    over.add_argument("--samples", action="store_true", help="samples on the axis instead of steps")
    options = parser.parse_args()
    output = options.output or Path("learning_curves.png")
    sweep = mpisweep.load(options.file)
    metric = options.metric or (sweep.objective if sweep.objective in sweep.curve_names else "loss")
    axis = "time" if options.time else "samples" if options.samples else "step"
    figure = figures.draw_learning_curves(
        sweep, metric, parameter=options.parameter, over=axis, smooth=options.smooth
    )
    figures.save(figure, output)
    print(output)


if __name__ == "__main__":
    sys.exit(run_script(main))
