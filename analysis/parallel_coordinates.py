#!/usr/bin/env python3
"""One line per trial across its parameters to the metric, the best on top.

python analysis/parallel_coordinates.py sweep.h5 -o parallel.pdf
"""

import sys

from mpisweep.views import figures
from mpisweep.views.script import figure_arguments, run_script, write_figure


def main() -> None:
    sweeps, options, arguments = figure_arguments("parallel", __doc__)
    write_figure(figures.draw("parallel", sweeps, **options), arguments)


if __name__ == "__main__":
    sys.exit(run_script(main))
