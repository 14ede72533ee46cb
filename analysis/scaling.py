#!/usr/bin/env python3
"""Speedup and efficiency of trials vs. their number of ranks.

python analysis/scaling.py resnet50.h5 -o scaling.pdf
python analysis/scaling.py resnet50.h5 --metric wall_time
"""

import sys

from mpisweep.views import figures
from mpisweep.views.script import figure_arguments, run_script, write_figure


def main() -> None:
    sweeps, options, arguments = figure_arguments("scaling", __doc__)
    write_figure(figures.draw("scaling", sweeps, **options), arguments)


if __name__ == "__main__":
    sys.exit(run_script(main))
