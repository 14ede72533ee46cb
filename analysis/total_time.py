#!/usr/bin/env python3
"""Figure 2: the trials one by one, as single jobs in the queue, and as one job.

python analysis/total_time.py resnet50.h5 -o figure2.pdf
python analysis/total_time.py resnet50.h5 --queue-wait 10m
"""

import sys

from mpisweep.views import figures
from mpisweep.views.script import figure_arguments, run_script, write_figure


def main() -> None:
    sweeps, options, arguments = figure_arguments("total", __doc__)
    write_figure(figures.draw("total", sweeps, **options), arguments)


if __name__ == "__main__":
    sys.exit(run_script(main))
