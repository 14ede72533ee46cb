"""The command compare: two sweeps over the same space."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpisweep.cli.arguments import Commands, add_json, at_least_1, print_json
from mpisweep.results import behind_link
from mpisweep.views.reading import add_at, load_at

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Register compare."""
    compare = commands.add_parser(
        "compare",
        help="compare two sweeps over the same space",
        description="Compare the configurations that two results files have in common, such as those of two "
        "machines, settings or commits: differences of a metric with 95%% intervals, wall time and energy.",
    )
    compare.add_argument("first", metavar="A", type=Path, help="results file")
    compare.add_argument("second", metavar="B", type=Path, help="results file to compare with it")
    compare.add_argument("--metric", metavar="METRIC", help="metric to compare (default: the objective of A)")
    compare.add_argument(
        "-k", type=at_least_1, default=10, metavar="K",
        help="number of configurations in the table, those that differ most (default: 10)",
    )  # fmt: skip
    compare.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="draw the differences (.png, .svg, .pdf)"
    )
    add_at(compare)
    add_json(compare)
    compare.set_defaults(command=_compare)


def _compare(options: argparse.Namespace) -> int:
    from mpisweep.results.pairing import paired
    from mpisweep.views.paired import paired_fields, print_paired

    sweeps = []
    for path in (options.first, options.second):
        options.file = behind_link(path)
        sweeps.append(load_at(options))
    a, b = sweeps
    pairs = paired(a, b, options.metric)
    if options.output is not None:
        from mpisweep.views.figures import save
        from mpisweep.views.figures.paired import draw_paired

        save(draw_paired(pairs, a, b), options.output)
    if options.json:
        print_json(paired_fields(pairs, a, b))
    else:
        print_paired(pairs, a, b, options.k)
    return 0
