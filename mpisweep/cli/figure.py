"""The command figure: draw a figure for a paper, and write its numbers."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpisweep.cli.arguments import Commands, add_files
from mpisweep.results import ResultsError
from mpisweep.views.figure_kinds import KINDS, add_figure_options, figure_kind, kind_lines, used_options

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Register the command."""
    figure = commands.add_parser(
        "figure",
        help="draw a figure for a paper",
        description="Draw a figure as PDF, PNG or SVG, as wide as a column (89 mm) or a page (183 mm) of a "
        "journal, and write its numbers as CSV. Works on a finished, running or crashed sweep.",
    )
    figure.add_argument(
        "kind", nargs="?", choices=tuple(KINDS), metavar="KIND", help="kind of figure; see --list"
    )
    add_files(figure)
    figure.add_argument("--list", action="store_true", help="list the kinds and their options")
    add_figure_options(figure)
    figure.set_defaults(command=_figure)


def _figure(options: argparse.Namespace) -> int:
    if options.list:
        print("\n".join(kind_lines()))
        return 0
    if options.kind is None or not options.file:
        raise ResultsError("figure: expected KIND and FILE; `mpisweep figure --list` lists the kinds")
    kind = figure_kind(options.kind)
    options.output = options.output or Path(f"{options.file[0].stem}-{kind.name}.pdf")
    given = used_options(kind, options)
    # Only this command waits for matplotlib.
    from mpisweep.results.load import load
    from mpisweep.views.figures import draw
    from mpisweep.views.script import write_figure

    drawn = draw(kind.name, [load(file) for file in options.file], width=options.width, **given)
    try:
        write_figure(drawn, options)
    except OSError as error:
        raise ResultsError(f"{options.output}: cannot be written: {error.strerror}") from error
    return 0
