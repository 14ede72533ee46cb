#!/usr/bin/env python3
"""Learning curves of all trials, coloured by a parameter; best, median and baseline on top.

python analysis/learning_curves.py resnet50.h5 --smooth 10
python analysis/learning_curves.py resnet50.h5 --over time
"""

import sys

from mpisweep.views import figures
from mpisweep.views.script import figure_arguments, run_script, write_figure


def main() -> None:
    sweeps, options, arguments = figure_arguments("curves", __doc__)
    write_figure(figures.draw("curves", sweeps, **options), arguments)


if __name__ == "__main__":
    sys.exit(run_script(main))
