"""Trials of several ranks: when one is over, and what it has died of.  Where one runs:
:mod:`mpisweep.scheduling.room`.

When one is over ---------------- When every one of its ranks has let go of it.  The first that fails, is lost
or gives it back takes the others with it: they get :data:`LINGER_S` to notice by themselves, and are then
made to.  What the trial has died of is the most telling of all that was heard (:data:`_TELLING`): when one
rank runs out of memory the others complain of a broken connection.  When rank 0 has completed, the others get
:data:`FAREWELL_S`.

Pure: no clock, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, FailureCause, Slot, TrialState

__all__ = ["FAREWELL_S", "LINGER_S", "TeamTrial", "all_devices"]

#: How long the other ranks of a trial that cannot go on have to say what they have seen, in seconds.
LINGER_S = 2.0
#: How long they have to return when rank 0 has completed, in seconds.
FAREWELL_S = 30.0

#: The most telling cause first.
_TELLING = (
    FailureCause.OUT_OF_MEMORY,
    FailureCause.CRASH,
    FailureCause.TIMEOUT,
    FailureCause.EXCEPTION,
    FailureCause.LOST,
)


@dataclass(slots=True)
class TeamTrial:
    """A running trial of several ranks; rank *i* of it is in ``slots[i]``."""

    number: int
    attempt: int
    slots: tuple[Slot, ...]
    #: Those that have not let go of it.
    waits_for: set[Slot] = field(default_factory=set)
    #: What those that have ended said, in the order in which it was heard.
    ends: list[EndedBlock] = field(default_factory=list)
    #: How those that gave it back did so.
    returns: dict[Slot, AttemptEnd] = field(default_factory=dict)
    #: How long those that hold it were told to take at most.
    told_s: float = math.inf
    #: Why a slot lost it, where that is known.
    why: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nobody holds it any more."""
        return not self.waits_for

    @property
    def linger_s(self) -> float:
        """How long those that hold it may take to let go of it; infinite while it is to go on."""
        if self.returns or any(block.states[0] == TrialState.FAILED for block in self.ends):
            return LINGER_S
        return math.inf if self.slots[0] in self.waits_for else FAREWELL_S

    def rank_of(self, slot: Slot) -> int:
        """Which of its ranks is in a slot."""
        return self.slots.index(slot)

    def verdict(self) -> EndedBlock | AttemptEnd:
        """The end of a trial that is over, or why it has none."""
        failed = [block for block in self.ends if block.states[0] == TrialState.FAILED]
        if any(block.causes[0] == FailureCause.OUT_OF_MEMORY for block in failed):
            return self._failure(failed)
        lead = [block for block in self.ends if self.rank_of(Slot(block.worker, block.slot)) == 0]
        if lead and not failed:
            return lead[0]
        # The broken connections that a lost or interrupted rank leaves behind are no failures.
        for end in (AttemptEnd.LOST, AttemptEnd.INTERRUPTED):
            if end in self.returns.values():
                return end
        return self._failure(failed) if failed else AttemptEnd.RECLAIMED

    def _failure(self, failed: Sequence[EndedBlock]) -> EndedBlock:
        told = min(failed, key=lambda block: _TELLING.index(FailureCause(block.causes[0])))
        rank = self.rank_of(Slot(told.worker, told.slot))
        lead = next((block for block in failed if self.rank_of(Slot(block.worker, block.slot)) == 0), told)
        return replace(
            told, worker=self.slots[0].rank, slot=self.slots[0].place, metrics=lead.metrics,
            messages=[f"rank {rank} of {len(self.slots)}: {told.messages[0]}"],
        )  # fmt: skip


def all_devices(own: Sequence[Sequence[tuple[str, str]]]) -> tuple[tuple[str, str], ...]:
    """The variables by which a program sees the devices of several slots: each slot's values, joined by
    commas.

    >>> all_devices([[("CUDA_VISIBLE_DEVICES", "2")], [("CUDA_VISIBLE_DEVICES", "3")]])
    (('CUDA_VISIBLE_DEVICES', '2,3'),)
    """
    values: dict[str, list[str]] = {}
    for variables in own:
        for name, value in variables:
            values.setdefault(name, []).append(value)
    return tuple((name, ",".join(found)) for name, found in values.items())
