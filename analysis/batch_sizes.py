#!/usr/bin/env python3
"""The objective vs. the batch size at equal steps, samples and seconds, with trends.

python analysis/batch_sizes.py resnet50.h5 -o batch_sizes.pdf
"""

import sys

from mpisweep.views import figures
from mpisweep.views.script import figure_arguments, run_script, write_figure


def main() -> None:
    sweeps, options, arguments = figure_arguments("batch-sizes", __doc__)
    write_figure(figures.draw("batch-sizes", sweeps, **options), arguments)


if __name__ == "__main__":
    sys.exit(run_script(main))
