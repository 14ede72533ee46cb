"""Tables on the terminal, and plain text where standard output is none."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

__all__ = ["print_whole"]


def print_whole(console: Console, table: Table) -> None:
    """Print a table at its full width, so that no number is cut off."""
    natural = Console(width=10_000).measure(table).maximum
    if natural <= console.width:
        console.print(table)
    else:
        Console(width=natural).print(table)
