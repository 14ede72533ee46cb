"""Arguments that commands and scripts share: types, and sweeps at a budget (``--at``)."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mpisweep.results import ResultsError
from mpisweep.spec import parse_duration

if TYPE_CHECKING:
    from mpisweep.results.budgets import Budget
    from mpisweep.results.load import Sweep

__all__ = ["add_at", "at_least_1", "budget_of", "duration", "load_at", "read_at"]


def at_least_1(text: str) -> int:
    """Parse an integer of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


def duration(text: str) -> float:
    """Parse a duration, in seconds."""
    seconds = parse_duration(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a valid duration; expected e.g. 2:00:00, 90m or 3600"
        )
    return seconds


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
    from mpisweep.results.load import load

    return read_at(load(options.file), options.at)


def read_at(sweep: Sweep, text: str | None) -> Sweep:
    """The sweep at a budget as a user writes it; the sweep itself without one.

    Raises:
        ResultsError: if the text is no budget, or no trial has values at it.
    """
    return sweep if text is None else sweep.at(**budget_of(text).arguments)


def budget_of(text: str) -> Budget:
    """A budget as a user writes it.

    Raises:
        ResultsError: if it is none.
    """
    from mpisweep.results.budgets import parse_budget

    try:
        return parse_budget(text)
    except ValueError as error:
        raise ResultsError(f"--at: {error}") from None
