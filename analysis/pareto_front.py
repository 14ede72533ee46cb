#!/usr/bin/env python3
"""The Pareto front of a sweep with several objectives: one objective vs. another.

python analysis/pareto_front.py sweep.h5 -o front.pdf
python analysis/pareto_front.py sweep.h5 --y loss --x train_time
"""

import sys

from mpisweep.views import figures
from mpisweep.views.script import figure_arguments, run_script, write_figure


def main() -> None:
    sweeps, options, arguments = figure_arguments("front", __doc__)
    write_figure(figures.draw("front", sweeps, **options), arguments)


if __name__ == "__main__":
    sys.exit(run_script(main))
