"""Users' requests in the results: what each does to trials, and its row in /requests.

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from mpisweep.blocks import RequestRecord
from mpisweep.records import FailureCause, RequestKind, TrialState
from mpisweep.results.state import SweepState, Table, numbers_in

__all__ = ["attempts_since", "first_trials", "note_request"]

_WAITING = int(TrialState.WAITING)
_SKIPPED = int(TrialState.SKIPPED)
#: States that a retry undoes.
_RETRIED = frozenset((int(TrialState.FAILED), _SKIPPED))


def note_request(state: SweepState, record: RequestRecord) -> None:
    """Apply a request to its trials, and add its row; trials that it adds are there already."""
    state.grow(max(record.numbers, default=-1) + 1)
    trials = state.trials
    failures: list[str] = []
    for number, attempt in zip(record.numbers, record.attempts, strict=True):
        if record.what == RequestKind.RETRY:
            failures.append(_failure_of(state, number))
            state.retried[number] = max(attempt, state.retried.get(number, 0))
            if trials["state"][number] in _RETRIED and trials["attempt"][number] == attempt:
                state.reset(number)
        elif record.what == RequestKind.SKIP and trials["state"][number] == _WAITING:
            trials["state"][number] = _SKIPPED
            trials["message"][number] = (
                f"skipped on request of {record.by}" if record.by else "skipped on request"
            )
            state.note_end(number)
    row = {
        "request": record.request, "what": record.what, "by": record.by, "asked_at": float(record.asked_at),
        "applied_at": float(record.applied_at), "trials": json.dumps(record.numbers),
        "attempts": json.dumps(record.attempts), "failures": json.dumps(failures), "refused": record.refused,
    }  # fmt: skip
    for name, column in state.requests.items():
        column.append(row[name])


def first_trials(state: SweepState) -> list[int]:
    """Trials that users asked to run first, in this order: those of the last request come first."""
    found: list[int] = []
    for what, trials in zip(state.requests["what"], state.requests["trials"], strict=True):
        if what == RequestKind.FIRST:
            found = [number for number in numbers_in(trials) if number < state.count] + found
    return list(dict.fromkeys(found))


def attempts_since(state: SweepState, retried: Mapping[int, int]) -> Table:
    """The attempts without those before a retry, which are no evidence about the trial."""
    attempts = state.attempts
    if not retried:
        return attempts
    pairs = zip(attempts["trial"], attempts["attempt"], strict=True)
    kept = [row for row, (number, attempt) in enumerate(pairs) if attempt > retried.get(number, 0)]
    return {name: [column[row] for row in kept] for name, column in attempts.items()}


def _failure_of(state: SweepState, number: int) -> str:
    """How the trial failed, e.g. ``exception: ValueError: ...``; empty for one that was skipped."""
    cause = FailureCause(state.trials["cause"][number])
    first_line = state.trials["message"][number].partition("\n")[0]
    return f"{cause.label}: {first_line}" if cause is not FailureCause.NONE else ""
