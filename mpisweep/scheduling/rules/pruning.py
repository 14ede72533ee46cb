"""Hopeless trials, as a pruner finds them by their curves (:mod:`mpisweep.search.pruning`).

The advice comes later than the reports that it follows from: by then the trial may have ended, or another
attempt may be running.
"""

from __future__ import annotations

from mpisweep.scheduling.core import Core
from mpisweep.scheduling.decisions import Decision, Prune

__all__ = ["on_prune_advised"]


def on_prune_advised(core: Core, number: int, attempt: int, rank: int) -> list[Decision]:
    """Have the slots that run this attempt ask it to return; none if it is over."""
    team = core.teams.get(number)
    if team is not None:
        if team.attempt != attempt:
            return []
        team.is_pruned = True
        return [Prune(slot, number, attempt) for slot in team.slots if slot in team.waits_for]
    return [
        Prune(slot, number, attempt)
        for slot in core.slots.of_rank(rank)
        if core.slots.held[slot].get(number) == attempt
    ]
