#!/usr/bin/env python3
"""Figure 1: a metric of every trial vs. one parameter; best, baseline and every end marked.

python analysis/loss_vs_batch_size.py resnet50.h5 -o figure1.pdf --width column
python analysis/loss_vs_batch_size.py resnet50.h5 --metric images_per_second
python analysis/loss_vs_batch_size.py resnet50.h5 --at samples=76800 --data figure1.csv
"""

import sys

from mpisweep.views import figures
from mpisweep.views.script import figure_arguments, run_script, write_figure


def main() -> None:
    sweeps, options, arguments = figure_arguments("metric", __doc__)
    write_figure(figures.draw("metric", sweeps, **options), arguments)


if __name__ == "__main__":
    sys.exit(run_script(main))
