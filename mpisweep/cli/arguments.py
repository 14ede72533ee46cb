"""What the arguments of several commands have in common: numbers, durations, a results file and a trial in
it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mpisweep.results import ResultsError, behind_link
from mpisweep.spec import parse_duration

if TYPE_CHECKING:
    from mpisweep.results.load import Sweep

__all__ = [
    "Commands", "add_file", "add_trial", "at_least_0", "at_least_1", "duration", "sweep_with_trial",
]  # fmt: skip

#: What a parser's ``add_subparsers`` returns.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def at_least_1(text: str) -> int:
    """A whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


def at_least_0(text: str) -> int:
    """A whole number, or 0."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 0")
    return int(text)


def duration(text: str) -> float:
    """Seconds."""
    seconds = parse_duration(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a valid duration; expected e.g. 2:00:00, 90m or 3600"
        )
    return seconds


def _file(text: str) -> Path:
    path = Path(text)
    if not path.name:
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a file")
    return behind_link(path)


def add_file(parser: argparse.ArgumentParser) -> None:
    """Take a results file, as ``file``."""
    parser.add_argument("file", type=_file, metavar="FILE", help="a results file")


def add_trial(parser: argparse.ArgumentParser) -> None:
    """Take a results file and the number of a trial, as ``file`` and ``number``."""
    add_file(parser)
    parser.add_argument("number", type=int, metavar="NUMBER", help="trial number")


def sweep_with_trial(options: argparse.Namespace) -> Sweep:
    """The sweep of a results file, which has the trial that was asked for.

    Raises:
        ResultsError: when it cannot be read, or has no such trial.
    """
    from mpisweep.results.load import load

    sweep = load(options.file)
    if not 0 <= options.number < len(sweep.trials):
        raise ResultsError(
            f"{options.file}: there is no trial {options.number}; the last is {len(sweep.trials) - 1}"
        )
    return sweep
