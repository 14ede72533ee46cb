#!/usr/bin/env python3
"""The hypervolume of a sweep with several objectives, over the time of its runs.

python analysis/hypervolume.py sweep.h5 -o hypervolume.pdf
python analysis/hypervolume.py sweep.h5 --reference loss=3 --reference train_time=600
"""

import sys

from mpisweep.views import figures
from mpisweep.views.script import figure_arguments, run_script, write_figure


def main() -> None:
    sweeps, options, arguments = figure_arguments("hypervolume", __doc__)
    write_figure(figures.draw("hypervolume", sweeps, **options), arguments)


if __name__ == "__main__":
    sys.exit(run_script(main))
