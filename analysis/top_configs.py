#!/usr/bin/env python3
"""Table 1: the best trials by the objective, or the front of several, with times and the baseline.

python analysis/top_configs.py resnet50.h5 -k 5
python analysis/top_configs.py resnet50.h5 --format latex > table1.tex
"""

import argparse
import sys
from pathlib import Path

from mpisweep.views import tables
from mpisweep.views.reading import add_at, load_at
from mpisweep.views.script import run_script

FORMATS = {"csv": tables.to_csv, "markdown": tables.to_markdown, "latex": tables.to_latex}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="a results file")
    parser.add_argument("-k", type=int, help="number of trials (default: 5; of a front 20)")
    parser.add_argument("--metric", help="to rank by (default: the objective; the front of several)")
    parser.add_argument(
        "--direction",
        choices=("minimize", "maximize"),
        help="better direction of the metric (default: the sweep's)",
    )
    parser.add_argument("--format", choices=("text", *FORMATS), default="text")
    parser.add_argument("-o", "--output", type=Path, help="write there instead of to the screen")
    add_at(parser)
    options = parser.parse_args()
    table = tables.top_table(load_at(options), options.k, options.metric, options.direction)
    if options.format == "text" and options.output is None:
        tables.print_top(table)
        return
    text = FORMATS.get(options.format, tables.to_markdown)(table)
    if options.output is None:
        print(text, end="")
    else:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_script(main))
