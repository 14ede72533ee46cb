#!/usr/bin/env python3
"""The trend of a metric over one numeric parameter, with its band and the region of its best.

python analysis/trend.py resnet50.h5 -o trend.pdf
python analysis/trend.py sweep.h5 --parameter learning_rate --metric wall_time
"""

import sys

from mpisweep.views import figures
from mpisweep.views.script import figure_arguments, run_script, write_figure


def main() -> None:
    sweeps, options, arguments = figure_arguments("trend", __doc__)
    write_figure(figures.draw("trend", sweeps, **options), arguments)


if __name__ == "__main__":
    sys.exit(run_script(main))
