#!/usr/bin/env python3
"""Busy and idle workers over time, and why they were idle.

python analysis/utilisation.py resnet50.h5 -o utilisation.pdf
"""

import sys

from mpisweep.views import figures
from mpisweep.views.script import figure_arguments, run_script, write_figure


def main() -> None:
    sweeps, options, arguments = figure_arguments("utilisation", __doc__)
    write_figure(figures.draw("utilisation", sweeps, **options), arguments)


if __name__ == "__main__":
    sys.exit(run_script(main))
