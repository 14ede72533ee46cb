"""Tables on the terminal, and plain text where standard output is none."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["print_table", "print_whole"]


def print_whole(console: Console, table: Table) -> None:
    """Print a table at its full width, so that no number is cut off."""
    natural = Console(width=10_000).measure(table).maximum
    if natural <= console.width:
        console.print(table)
    else:
        Console(width=natural).print(table)


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Container[int] = (), folds: bool = False
) -> None:
    """Print rows of text as a table.

    Args:
        headings: one per column.
        rows: the cells.
        right: columns that are aligned to the right.
        folds: whether the last column goes over several lines if the terminal is too narrow.
    """
    console = Console()
    drawn = Table(header_style="bold", box=box.SIMPLE_HEAD)
    last = len(headings) - 1
    for index, heading in enumerate(headings):
        drawn.add_column(
            escape(heading),
            justify="right" if index in right else "left",
            no_wrap=not (folds and index == last),
        )
    for cells in rows:
        drawn.add_row(*map(escape, cells))
    if folds and console.is_terminal:
        console.print(drawn)
    else:
        print_whole(console, drawn)
