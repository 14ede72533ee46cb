#!/usr/bin/env python3
"""The objective vs. the batch size at equal steps, samples and seconds, or steps and samples to a target.

python analysis/batch_sizes.py resnet50.h5 -o batch_sizes.pdf
python analysis/batch_sizes.py resnet50.h5 --target -o critical.pdf
"""

import argparse
import sys
from pathlib import Path

import mpisweep
from mpisweep.views import figures
from mpisweep.views.script import run_script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="a results file")
    parser.add_argument("-o", "--output", type=Path, help="PNG, SVG or PDF (default: batch_sizes.png)")
    parser.add_argument(
        "--target", action="store_true", help="steps and samples to the target, with the critical batch size"
    )
    options = parser.parse_args()
    output = options.output or Path("batch_sizes.png")
    sweep = mpisweep.load(options.file)
    draw = figures.draw_critical_batch if options.target else figures.draw_batch_sizes
    figures.save(draw(sweep), output)
    print(output)


if __name__ == "__main__":
    sys.exit(run_script(main))
