#!/usr/bin/env python3
"""Which worker ran which trial when: one row per worker, one box per trial; blank is idle.

python analysis/timeline.py resnet50.h5 -o timeline.svg
"""

import sys

from mpisweep.views import figures
from mpisweep.views.script import figure_arguments, run_script, write_figure


def main() -> None:
    sweeps, options, arguments = figure_arguments("timeline", __doc__)
    write_figure(figures.draw("timeline", sweeps, **options), arguments)


if __name__ == "__main__":
    sys.exit(run_script(main))
