#!/usr/bin/env python3
"""Steps and samples to a target vs. the batch size, with the critical batch size.

python analysis/critical_batch.py resnet50.h5 -o critical.pdf
"""

import sys

from mpisweep.views import figures
from mpisweep.views.script import figure_arguments, run_script, write_figure


def main() -> None:
    sweeps, options, arguments = figure_arguments("critical-batch", __doc__)
    write_figure(figures.draw("critical-batch", sweeps, **options), arguments)


if __name__ == "__main__":
    sys.exit(run_script(main))
