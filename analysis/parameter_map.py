#!/usr/bin/env python3
"""A metric over two parameters: cells of a grid, points, or medians of many trials.

python analysis/parameter_map.py sweep.h5 -o map.pdf
python analysis/parameter_map.py sweep.h5 --parameter learning_rate --parameter batch_size
"""

import sys

from mpisweep.views import figures
from mpisweep.views.script import figure_arguments, run_script, write_figure


def main() -> None:
    sweeps, options, arguments = figure_arguments("map", __doc__)
    write_figure(figures.draw("map", sweeps, **options), arguments)


if __name__ == "__main__":
    sys.exit(run_script(main))
