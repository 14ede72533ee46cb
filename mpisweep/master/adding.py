"""The first records of a run about trials: new, reopened and excluded ones."""

from __future__ import annotations

from collections.abc import Container

from mpisweep.blocks import InfeasibleBlock, encode
from mpisweep.records import EXCLUDED, TrialState
from mpisweep.results.journal.writer import Journal
from mpisweep.search.numbering import Trials

__all__ = ["exclude", "record_trials", "reopen_infeasible"]

#: Maximum number of trials per block.
_TRIALS_A_BLOCK = 4096
_CHARS_A_BLOCK = 1 << 22


def record_trials(journal: Journal, trials: Trials) -> None:
    """Append the new trials to the journal."""
    if trials.first_new == trials.count:
        journal.append(encode(trials.block([], trials.baseline)))
        return
    # Bounds the size of a record, because parameters may be long texts.
    longest = sum(
        max((len(value) for value in column if isinstance(value, str)), default=0)
        for column in trials.parameters.values()
    )
    count = max(1, min(_TRIALS_A_BLOCK, _CHARS_A_BLOCK // max(1, longest)))
    for first in range(trials.first_new, trials.count, count):
        numbers = list(range(first, min(first + count, trials.count)))
        journal.append(encode(trials.block(numbers, trials.baseline)))


def reopen_infeasible(journal: Journal, trials: Trials, kept: Container[int] = ()) -> None:
    """Let trials wait again that earlier runs marked infeasible; the scheduler decides again.

    The run may have other devices, more memory, or a sweep file that no longer models memory.

    Args:
        journal: receives the record.
        trials: all trials.
        kept: trials that stay infeasible.
    """
    infeasible = [
        number
        for number, state in enumerate(trials.states)
        if state == TrialState.INFEASIBLE and number not in kept
    ]
    for number in infeasible:
        trials.states[number] = int(TrialState.WAITING)
    if infeasible:
        journal.append(encode(InfeasibleBlock(infeasible, "")))


def exclude(journal: Journal, trials: Trials) -> None:
    """Mark unended trials that violate a constraint as infeasible; a later run reopens them."""
    for text in dict.fromkeys(trials.excluded.values()):
        numbers = [number for number, broken in trials.excluded.items() if broken == text]
        for number in numbers:
            trials.states[number] = int(TrialState.INFEASIBLE)
        journal.append(encode(InfeasibleBlock(numbers, f"{EXCLUDED} {text!r} does not hold for it")))
