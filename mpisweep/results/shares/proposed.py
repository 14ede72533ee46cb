"""The trials that members of a split sweep have proposed, in the merged sweep.  Pure."""

from __future__ import annotations

from collections.abc import Sequence

from mpisweep.records import TrialState
from mpisweep.results.shares.rounds import Round
from mpisweep.results.state import SweepState

__all__ = ["add_proposed", "order_as_told"]


def add_proposed(merged: SweepState, rounds: Sequence[Round]) -> None:
    """Add the trials of all rounds: a member may have died before its part had them."""
    for one in rounds:
        for number in one.numbers:
            merged.trials["configuration"][number] = one.configuration_of(number)
            merged.trials["repeat"][number] = one.repeat_of(number)
            configuration = one.configurations[(number - one.first) % len(one.configurations)]
            for name, value in configuration.items():
                merged.parameter_column(name)[number] = value


def order_as_told(merged: SweepState, base: SweepState, rounds: Sequence[Round]) -> None:
    """Number the ends in the order in which the search was told them, then by time.

    So a run that resumes alone proposes what the members would have proposed next.
    """
    trials = merged.trials
    for one in rounds:
        for number in one.numbers:
            trials["proposed_after"][number] = one.known
    told = sorted((order, number) for number, order in enumerate(base.trials["end_order"]) if order >= 0)
    order = [number for _, number in told] + [int(end[0]) for one in rounds for end in one.ends]
    ended = {number for number, state in enumerate(trials["state"]) if state >= TrialState.COMPLETE}
    # A result that was told and lost with its member is told again when its trial has run again.
    order = [number for number in dict.fromkeys(order) if number in ended]

    def ended_at(number: int) -> float:
        at: float = trials["started_at"][number] + trials["wall_time"][number]
        return at if at == at else 0.0

    order += sorted(ended - set(order), key=lambda number: (ended_at(number), number))
    trials["end_order"][:] = [-1] * merged.count
    for place, number in enumerate(order):
        trials["end_order"][number] = place
    merged.ends = len(order)
