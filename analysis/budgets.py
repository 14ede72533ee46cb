#!/usr/bin/env python3
"""A metric vs. a parameter at equal steps, samples and seconds, one panel each.

python analysis/budgets.py resnet50.h5 -o budgets.pdf
python analysis/budgets.py resnet50.h5 --at step=300 --at seconds=60
"""

import sys

from mpisweep.views import figures
from mpisweep.views.script import figure_arguments, run_script, write_figure


def main() -> None:
    sweeps, options, arguments = figure_arguments("budgets", __doc__)
    write_figure(figures.draw("budgets", sweeps, **options), arguments)


if __name__ == "__main__":
    sys.exit(run_script(main))
