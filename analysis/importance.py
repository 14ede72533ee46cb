#!/usr/bin/env python3
"""How much of a metric each parameter explains, by PED-ANOVA or fANOVA.

python analysis/importance.py sweep.h5 -o importance.pdf
python analysis/importance.py sweep.h5 --method fanova
"""

import sys

from mpisweep.views import figures
from mpisweep.views.script import figure_arguments, run_script, write_figure


def main() -> None:
    sweeps, options, arguments = figure_arguments("importance", __doc__)
    write_figure(figures.draw("importance", sweeps, **options), arguments)


if __name__ == "__main__":
    sys.exit(run_script(main))
