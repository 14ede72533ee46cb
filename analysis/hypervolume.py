#!/usr/bin/env python3
"""The hypervolume of a sweep with several objectives, over the time of its runs.

python analysis/hypervolume.py sweep.h5 -o hypervolume.pdf
python analysis/hypervolume.py sweep.h5 --reference loss=3 --reference train_time=600
"""

import argparse
import sys
from pathlib import Path

import mpisweep
from mpisweep.views import figures
from mpisweep.views.script import run_script


def bound(text: str) -> tuple[str, float]:
    """Parse NAME=VALUE."""
    name, _, value = text.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"{text!r}: expected OBJECTIVE=VALUE, e.g. loss=3")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: {value!r} is not a valid number") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="a results file")
    parser.add_argument(
        "--reference",
        type=bound,
        action="append",
        default=[],
        metavar="OBJECTIVE=VALUE",
        help="reference point; repeatable (default: the worst value of each objective)",
    )
    parser.add_argument("-o", "--output", type=Path, help="PNG, SVG or PDF (default: hypervolume.png)")
    options = parser.parse_args()
    output = options.output or Path("hypervolume.png")
    sweep = mpisweep.load(options.file)
    figures.save(figures.draw_hypervolume(sweep, dict(options.reference)), output)
    print(output)


if __name__ == "__main__":
    sys.exit(run_script(main))
