"""Argument types and arguments shared by several commands."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mpisweep.batch.variables import LAUNCH_VARIABLE
from mpisweep.rank.transport import expected_rank
from mpisweep.results import ResultsError, behind_link
from mpisweep.views.reading import at_least_1, duration

if TYPE_CHECKING:
    from mpisweep.cli.parser import Parser
    from mpisweep.results.load import Sweep

__all__ = [
    "Commands",
    "add_file",
    "add_files",
    "add_json",
    "add_trial",
    "add_workers",
    "at_least_0",
    "at_least_1",
    "duration",
    "master_policy",
    "print_json",
    "sweep_with_trial",
]  # fmt: skip

#: The type that ``add_subparsers`` of a parser returns.
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def at_least_0(text: str) -> int:
    """Parse an integer of at least 0."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 0")
    return int(text)


def _file(text: str) -> Path:
    path = Path(text)
    if not path.name:
        raise argparse.ArgumentTypeError(f"{text!r} is not a file name")
    return behind_link(path)


def add_file(parser: argparse.ArgumentParser) -> None:
    """Add the argument ``file``, a results file."""
    parser.add_argument("file", type=_file, metavar="FILE", help="results file")


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add the argument ``file``, any number of results files."""
    parser.add_argument("file", nargs="*", type=_file, metavar="FILE", help="results file, or several")


def add_trial(parser: argparse.ArgumentParser) -> None:
    """Add the arguments ``file`` and ``number``, a trial in a results file."""
    add_file(parser)
    parser.add_argument("number", type=int, metavar="NUMBER", help="trial number")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the argument ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def print_json(shown: Mapping[str, object]) -> None:
    """Print a JSON object; docs/commands.md lists the keys of each command's."""
    print(json.dumps(shown, indent=2, allow_nan=False, ensure_ascii=False))


def sweep_with_trial(options: argparse.Namespace) -> Sweep:
    """Load the results file, and check that it has the trial.

    Raises:
        ResultsError: if it cannot be read or has no such trial.
    """
    from mpisweep.results.load import load

    sweep = load(options.file)
    if not 0 <= options.number < len(sweep.trials):
        raise ResultsError(
            f"{options.file}: there is no trial {options.number}; the last is {len(sweep.trials) - 1}"
        )
    return sweep


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add ``-n`` and ``--master``."""
    parser.add_argument(
        "-n",
        "--workers",
        type=at_least_1,
        metavar="N",
        help="number of workers on all nodes together (default: one per GPU; else as many as the job "
        "requested; else one per core, up to 16 per node)",
    )
    parser.add_argument(
        "--master",
        choices=("auto", "works", "idle"),
        default="auto",
        help="let rank 0 run trials too (default: only if a device would be idle)",
    )


def master_policy(options: argparse.Namespace) -> str:
    """The policy for rank 0; with -n it is a worker, even if there are fewer cores.

    For the launcher and the ranks that it starts; under an ``mpirun`` that was typed -n places nothing.
    """
    is_placed = options.workers and (expected_rank() is None or LAUNCH_VARIABLE in os.environ)
    return "works" if is_placed and options.master == "auto" else str(options.master)
