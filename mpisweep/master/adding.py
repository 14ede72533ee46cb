"""The first records about trials: which there are, and that earlier conclusions about them are open again."""

from __future__ import annotations

from mpisweep.blocks import InfeasibleBlock, TrialsBlock, encode
from mpisweep.records import TrialState
from mpisweep.results.journal.writer import Journal
from mpisweep.search.numbering import Trials

__all__ = ["introduce", "take_back_inferences"]

#: Trials are introduced to the journal in blocks of this size.
_TRIALS_A_BLOCK = 4096
_CHARS_A_BLOCK = 1 << 22


def introduce(journal: Journal, trials: Trials) -> None:
    """Have the trials that are new in the journal."""
    if trials.first_new == trials.count:
        journal.append(encode(TrialsBlock([], {}, trials.baseline)))
        return
    # Texts may be long, and no record must be.
    longest = sum(
        max((len(value) for value in column if isinstance(value, str)), default=0)
        for column in trials.parameters.values()
    )
    count = max(1, min(_TRIALS_A_BLOCK, _CHARS_A_BLOCK // max(1, longest)))
    for first in range(trials.first_new, trials.count, count):
        numbers = list(range(first, min(first + count, trials.count)))
        journal.append(encode(TrialsBlock(numbers, trials.columns(numbers), trials.baseline)))


def take_back_inferences(journal: Journal, trials: Trials) -> None:
    """Trials that earlier runs have called infeasible wait again; whether they still are, the scheduler says.

    There may be other devices now, more memory, or nothing in the sweep file that speaks of memory.
    """
    infeasible = [number for number, state in enumerate(trials.states) if state == TrialState.INFEASIBLE]
    for number in infeasible:
        trials.states[number] = int(TrialState.WAITING)
    if infeasible:
        journal.append(encode(InfeasibleBlock(infeasible, "")))
