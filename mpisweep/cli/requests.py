"""The commands retry, skip, first and add, which ask something of a sweep that exists."""

from __future__ import annotations

import argparse
import getpass
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpisweep.cli.arguments import Commands, add_file
from mpisweep.progress import counted
from mpisweep.records import Request, RequestKind
from mpisweep.results import ResultsError, journal_folder, shares_folder
from mpisweep.spec import ADDING, LEARNING, Spec

if TYPE_CHECKING:
    from mpisweep.results.load import Sweep

__all__ = ["add_commands", "ask"]

_NUMBERS = re.compile(r"(\d{1,18})(?::(\d{1,18}))?")
#: States of the trials to which a request applies, and of those for which nothing is left to do.
_APPLIES = {
    RequestKind.RETRY: ("failed", "skipped"), RequestKind.SKIP: ("waiting",), RequestKind.FIRST: ("waiting",),
}  # fmt: skip
_DONE = {RequestKind.RETRY: "waiting", RequestKind.SKIP: "skipped", RequestKind.FIRST: ""}


def add_commands(commands: Commands) -> None:
    """Register retry, skip, first and add."""
    retry = commands.add_parser(
        "retry",
        help="run failed trials again",
        description="Ask a sweep to run failed or skipped trials again, e.g. after a bug was fixed. They "
        "keep their numbers, and their attempts are counted on. A running sweep queues them at once, any "
        "other one when it is run again.",
    )
    add_file(retry)
    _add_numbers(retry, nargs="*")
    retry.add_argument("--failed", action="store_true", help="all trials that have failed")
    retry.set_defaults(command=_retry)

    skip = commands.add_parser(
        "skip",
        help="do not run some trials",
        description="Ask a sweep not to run trials that wait; `mpisweep retry` undoes it.",
    )
    add_file(skip)
    _add_numbers(skip, nargs="+")
    skip.set_defaults(command=lambda options: _ask_of(options, RequestKind.SKIP))

    first = commands.add_parser(
        "first",
        help="run some trials next",
        description="Ask a sweep to run trials that wait before all others, in the given order.",
    )
    add_file(first)
    _add_numbers(first, nargs="+")
    first.set_defaults(command=lambda options: _ask_of(options, RequestKind.FIRST))

    add = commands.add_parser(
        "add",
        help="add points to a grid",
        description="Ask a sweep over a grid, or over a list of points, to run more points. Parameters that "
        "are not given take the values of the sweep file. The new trials are numbered after the old ones.",
    )
    add_file(add)
    add.add_argument(
        "-p",
        dest="parameter",
        action="append",
        required=True,
        metavar="NAME=VALUES",
        help="range, list or value of a searched parameter, e.g. batch_size=701:1024",
    )
    add.set_defaults(command=_add)


def _add_numbers(parser: argparse.ArgumentParser, *, nargs: str) -> None:
    parser.add_argument(
        "numbers", nargs=nargs, type=_numbers, metavar="NUMBER", help="trial number, or FIRST:LAST"
    )


def _numbers(text: str) -> range:
    found = _NUMBERS.fullmatch(text)
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a trial number, nor FIRST:LAST")
    return range(int(found[1]), int(found[2] or found[1]) + 1)


# ------------------------------------------------------------------------------------- the commands


def _retry(options: argparse.Namespace) -> int:
    if bool(options.numbers) == options.failed:
        raise ResultsError(f"{options.file}: give either the numbers of trials or --failed")
    if not options.failed:
        return _ask_of(options, RequestKind.RETRY)
    sweep = _sweep_for(options.file, RequestKind.RETRY)
    failed = [int(number) for number in sweep.trials["number"][sweep.trials["state"] == "failed"]]
    if not failed:
        print(f"{options.file}: no trial has failed")
        return 0
    print(_asked(sweep, RequestKind.RETRY, failed))
    return 0


def _ask_of(options: argparse.Namespace, kind: RequestKind) -> int:
    for line in ask(options.file, kind, options.numbers):
        print(line)
    return 0


def ask(path: Path, kind: RequestKind, given: Iterable[range]) -> list[str]:
    """Ask a sweep to retry or skip trials, or to run them first.

    Args:
        path: the results file.
        kind: what is asked.
        given: numbers of trials.

    Returns:
        What was done, in sentences.

    Raises:
        ResultsError: if it does not apply to one of them, or cannot be written.
    """
    sweep = _sweep_for(path, kind)
    numbers, done = _checked(sweep, given, kind)
    return [*done, *([_asked(sweep, kind, numbers)] if numbers else [])]


def _add(options: argparse.Namespace) -> int:
    from mpisweep.search.more_points import more_points

    sweep = _sweep_for(options.file, RequestKind.ADD)
    points, excluded = more_points(sweep.spec, options.parameter)
    known = {tuple(sweep.searched(number).items()) for number in range(len(sweep.trials))}
    new = [point for point in points if tuple(point.items()) not in known]
    what = " ".join(options.parameter)
    if not new:
        print(f"{options.file}: nothing to add: the sweep has every point of {what}")
        return 0
    request = _request(RequestKind.ADD, configurations=tuple(new))
    texts = [f"add {counted(len(new), 'point')} ({what})"]
    if sweep.spec.repeats.first > 1:
        texts.append(f"with {sweep.spec.repeats.first} repeats each")
    if excluded:
        texts.append(f"without {excluded:,} that violate a constraint")
    print(_sent(options.file, request, " ".join(texts)))
    return 0


def _asked(sweep: Sweep, kind: RequestKind, numbers: Sequence[int]) -> str:
    """Write the request for these trials, and say so."""
    from mpisweep.master.known import trials_text

    attempts = sweep.trials["attempt"]
    request = _request(kind, trials=tuple((number, int(attempts[number])) for number in numbers))
    named = trials_text(sorted(numbers))
    words = {RequestKind.RETRY: "retry", RequestKind.SKIP: "skip"}
    return _sent(sweep.path, request, f"{words[kind]} {named}" if kind in words else f"run {named} first")


# ------------------------------------------------------------------------------------- what makes sense


def _sweep_for(path: Path, kind: RequestKind) -> Sweep:
    """Load the results; refuse a sweep that takes no such request."""
    from mpisweep.results.load import load_tables

    if shares_folder(path).exists():
        raise ResultsError(
            f"{path}: is split between several runs, which take no requests; stop them, and run it without "
            "--split"
        )
    sweep = load_tables(path)
    if why := _why_not(sweep.spec, kind):
        raise ResultsError(f"{path}: no trial can be {why}")
    return sweep


def _why_not(spec: Spec, kind: RequestKind) -> str:
    """The end of a sentence: which request makes no sense with this search, and why; empty if it does."""
    if kind is RequestKind.FIRST:
        return ""
    done = {RequestKind.RETRY: "retried", RequestKind.SKIP: "skipped", RequestKind.ADD: "added"}[kind]
    if spec.search in ADDING:
        return f"{done}: its search, {spec.search!r}, chooses trials from the results of those before"
    if kind is RequestKind.SKIP:
        return ""
    if spec.search in LEARNING:
        return f"{done}: its search, {spec.search!r}, has learned from the trials that ended"
    return f"{done}: its repeats are a race between configurations" if spec.repeats.is_race else ""


def _checked(sweep: Sweep, given: Iterable[range], kind: RequestKind) -> tuple[list[int], list[str]]:
    """The trials to which a request applies, and a sentence on those for which nothing is left to do.

    Raises:
        ResultsError: if it does not apply to one of the given trials.
    """
    from mpisweep.master.known import trials_text

    numbers = list(dict.fromkeys(_within(sweep, given)))
    states = _states(sweep)
    wrong: dict[str, list[int]] = {}
    for number in numbers:
        if states[number] not in (*_APPLIES[kind], _DONE[kind]):
            wrong.setdefault(states[number], []).append(number)
    if wrong:
        listed = ", ".join(
            f"{trials_text(sorted(of))} {'is' if len(of) == 1 else 'are'} {state}"
            for state, of in wrong.items()
        )
        applies = " and ".join(_APPLIES[kind])
        raise ResultsError(f"{sweep.path}: {listed}; {kind} applies to {applies} trials")
    said = []
    if done := [number for number in numbers if states[number] == _DONE[kind]]:
        are = "is" if len(done) == 1 else "are"
        said.append(f"{sweep.path}: {trials_text(sorted(done))} {are} {_DONE[kind]} already")
    return [number for number in numbers if states[number] in _APPLIES[kind]], said


def _within(sweep: Sweep, given: Iterable[range]) -> Iterable[int]:
    last = len(sweep.trials) - 1
    for numbers in given:
        if numbers[-1] > last:
            raise ResultsError(f"{sweep.path}: there is no trial {numbers[-1]}; the last is {last}")
        yield from numbers


def _states(sweep: Sweep) -> list[str]:
    """The state of each trial; one that waits in a slot behind another is waiting."""
    from mpisweep.results.holder import is_surely_gone
    from mpisweep.views.status import running_attempts

    is_gone = is_surely_gone(journal_folder(sweep.path))
    running = set() if is_gone else {int(attempt["trial"]) for attempt in running_attempts(sweep)}
    states = [str(state) for state in sweep.trials["state"]]
    return [
        "waiting" if state == "running" and number not in running else state
        for number, state in enumerate(states)
    ]


# ------------------------------------------------------------------------------------- the request


def _request(
    kind: RequestKind,
    trials: tuple[tuple[int, int], ...] = (),
    configurations: tuple[dict[str, int | float | str | bool], ...] = (),
) -> Request:
    from mpisweep.processes.kernel import this_host
    from mpisweep.results.requests import new_name

    return Request(new_name(), kind, trials, configurations, time.time(), f"{_user()}@{this_host()}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # The node does not know the user's number.
        return "unknown"


def _sent(path: Path, request: Request, what: str) -> str:
    """Write a request, and say what happens then."""
    from mpisweep.results.holder import is_surely_gone
    from mpisweep.results.requests import request_file, write_request

    try:
        write_request(path, request)
    except OSError as error:
        raise ResultsError(
            f"{request_file(path, request.name)}: cannot be written: {error.strerror}"
        ) from error
    then = (
        "no run is active; the same command that ran it does this first"
        if is_surely_gone(journal_folder(path))
        else f"the running sweep does this within seconds, and `mpisweep status {path}` shows it"
    )
    return f"{path}: asked to {what}; {then}"
