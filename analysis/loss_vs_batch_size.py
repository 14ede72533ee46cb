#!/usr/bin/env python3
"""Figure 1: a metric of every trial vs. one parameter; best, baseline and failed trials marked.

python analysis/loss_vs_batch_size.py resnet50.h5 -o figure1.pdf
python analysis/loss_vs_batch_size.py resnet50.h5 --metric images_per_second
python analysis/loss_vs_batch_size.py resnet50.h5 --at samples=76800
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
    parser.add_argument("-o", "--output", type=Path, help="PNG, SVG or PDF (default: loss_vs_batch_size.png)")
    parser.add_argument("--parameter", help="(default: the first one searched)")
    parser.add_argument("--metric", help="(default: the objective)")
    add_at(parser)
    options = parser.parse_args()
    output = options.output or Path("loss_vs_batch_size.png")
    sweep = load_at(options)
    parameter = options.parameter or figures.first_parameter(sweep)
    figure = figures.draw_metric(sweep, parameter, options.metric or sweep.objective)
    figures.save(figure, output)
    print(output)


if __name__ == "__main__":
    sys.exit(run_script(main))
