"""Load a sweep for commands and scripts with the argument ``--at``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mpisweep.results import ResultsError

if TYPE_CHECKING:
    from mpisweep.results.load import Sweep

__all__ = ["add_at", "load_at"]


def add_at(parser: argparse.ArgumentParser) -> None:
    """Add the argument ``--at``."""
    parser.add_argument(
        "--at",
        metavar="AXIS=N",
        help="compare trials after equal training, read from their curves: step=N, samples=N or seconds=N",
    )


def load_at(options: argparse.Namespace) -> Sweep:
    """Load ``options.file``, at the budget ``options.at`` if there is one.

    Raises:
        ResultsError: if the file cannot be read, the budget is none, or no trial has values at it.
    """
    from mpisweep.results.budgets import parse_budget
    from mpisweep.results.load import load

    if options.at is None:
        return load(options.file)
    try:
        budget = parse_budget(options.at)
    except ValueError as error:
        raise ResultsError(f"--at: {error}") from None
    return load(options.file).at(**budget.arguments)
