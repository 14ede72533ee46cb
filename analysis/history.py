#!/usr/bin/env python3
"""The best so far over trials or time, with failed and pruned trials; several files for comparison.

python analysis/history.py sweep.h5 -o history.pdf
python analysis/history.py tpe.h5 random.h5 --over time
"""

import sys

from mpisweep.views import figures
from mpisweep.views.script import figure_arguments, run_script, write_figure


def main() -> None:
    sweeps, options, arguments = figure_arguments("history", __doc__)
    write_figure(figures.draw("history", sweeps, **options), arguments)


if __name__ == "__main__":
    sys.exit(run_script(main))
