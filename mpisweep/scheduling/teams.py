"""The end of a trial of several ranks, and its cause.

A trial is over when all of its ranks have left it.  As soon as one rank fails, is lost or returns the trial,
the others must leave it: they get :data:`LINGER_S` to exit by themselves, then their processes are killed.
The cause of the failure is the most specific one that any rank reported (:data:`_CAUSES`): when one rank
runs out of memory, the others report a broken connection.  When rank 0 has completed, the others get
:data:`RETURN_S`.  A trial is pruned as soon as one rank was: a failure of the others follows from that.
:mod:`mpisweep.scheduling.room` chooses the slots.

Pure: no clock, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, FailureCause, Slot, TrialState

__all__ = ["LINGER_S", "RETURN_S", "TeamTrial", "all_devices"]

#: Time for the other ranks of a failed trial to report their own error, in seconds.
LINGER_S = 2.0
#: Time for the other ranks to return after rank 0 has completed, in seconds.
RETURN_S = 30.0

#: Causes of failure, the most specific first.
_CAUSES = (
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
    #: Slots that still hold it.
    waits_for: set[Slot] = field(default_factory=set)
    #: Ends of its ranks, in the order of arrival.
    ends: list[EndedBlock] = field(default_factory=list)
    #: Slot that returned it without an end -> how.
    returns: dict[Slot, AttemptEnd] = field(default_factory=dict)
    #: The shortest linger time that was sent to its slots, in seconds.
    linger_sent_s: float = math.inf
    #: Why a slot lost it; empty if unknown.
    why: str = ""
    #: Whether all ranks were asked to return, because its curve is hopeless.
    is_pruned: bool = False

    @property
    def is_over(self) -> bool:
        """Whether no slot holds it any more."""
        return not self.waits_for

    @property
    def linger_s(self) -> float:
        """Time for its remaining slots to leave it, in seconds; infinite while it may continue."""
        if self.returns or any(block.states[0] == TrialState.FAILED for block in self.ends):
            # Each was asked to return, and may take its time to save.
            return RETURN_S if self.is_pruned else LINGER_S
        if self.slots[0] in self.waits_for:
            return math.inf
        # A trial that rank 0 ended by itself: the others wait for it in vain.
        return LINGER_S if self._pruned and not self.is_pruned else RETURN_S

    @property
    def _pruned(self) -> list[EndedBlock]:
        """The ends of ranks that were pruned, rank 0 first."""
        found = [block for block in self.ends if block.states[0] == TrialState.PRUNED]
        return sorted(found, key=lambda block: self.rank_of(Slot(block.worker, block.slot)))

    def rank_of(self, slot: Slot) -> int:
        """Rank of the trial that runs in a slot."""
        return self.slots.index(slot)

    def verdict(self) -> EndedBlock | AttemptEnd:
        """End of a trial that is over, or why it has none."""
        failed = [block for block in self.ends if block.states[0] == TrialState.FAILED]
        if any(block.causes[0] == FailureCause.OUT_OF_MEMORY for block in failed):
            return self._failure(failed)
        lead = [block for block in self.ends if self.rank_of(Slot(block.worker, block.slot)) == 0]
        if lead and not failed:
            return self._with_energy(lead[0])
        if pruned := self._pruned:
            # The others fail with broken connections once it has returned.
            return self._with_energy(self._as_lead(pruned[0], lead))
        # The other ranks of a lost or interrupted one fail with broken connections, which are not the cause.
        for end in (AttemptEnd.LOST, AttemptEnd.INTERRUPTED):
            if end in self.returns.values():
                return end
        return self._failure(failed) if failed else AttemptEnd.RECLAIMED

    def _with_energy(self, block: EndedBlock) -> EndedBlock:
        """The end of the trial with the energy of all its ranks, if that of each is known."""
        found = [end.energy_j[0] for end in self.ends if end.energy_j]
        known = [energy_j for energy_j in found if energy_j is not None]
        is_whole = len(known) == len(self.slots)
        return replace(block, energy_j=[sum(known)] if is_whole else []) if found else block

    def _as_lead(self, pruned: EndedBlock, lead: Sequence[EndedBlock]) -> EndedBlock:
        """The end of a pruned rank as that of the trial, whose metrics and curve are those of rank 0."""
        metrics = lead[0].metrics if lead else {}
        return replace(pruned, worker=self.slots[0].rank, slot=self.slots[0].place, metrics=metrics)

    def _failure(self, failed: Sequence[EndedBlock]) -> EndedBlock:
        cause = min(failed, key=lambda block: _CAUSES.index(FailureCause(block.causes[0])))
        rank = self.rank_of(Slot(cause.worker, cause.slot))
        lead = next((block for block in failed if self.rank_of(Slot(block.worker, block.slot)) == 0), cause)
        failure = replace(
            cause, worker=self.slots[0].rank, slot=self.slots[0].place, metrics=lead.metrics,
            messages=[f"rank {rank} of {len(self.slots)}: {cause.messages[0]}"],
        )  # fmt: skip
        return self._with_energy(failure)


def all_devices(own: Sequence[Sequence[tuple[str, str]]]) -> tuple[tuple[str, str], ...]:
    """Environment variables that show a program the devices of several slots, joined by commas.

    >>> all_devices([[("CUDA_VISIBLE_DEVICES", "2")], [("CUDA_VISIBLE_DEVICES", "3")]])
    (('CUDA_VISIBLE_DEVICES', '2,3'),)
    """
    values: dict[str, list[str]] = {}
    for variables in own:
        for name, value in variables:
            values.setdefault(name, []).append(value)
    return tuple((name, ",".join(devices)) for name, devices in values.items())
