"""The search of a sweep as a new master finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from mpisweep.blocks import EndedBlock
from mpisweep.master.known import KnownSweep
from mpisweep.records import TrialState
from mpisweep.search import AddingSearch, LearningSearch, Sampler
from mpisweep.search.frontier import MemoryFrontier
from mpisweep.search.numbering import Trials
from mpisweep.spec import ADDING, Spec

__all__ = ["LearningPast", "learning_past", "make_frontier", "make_search"]


@dataclass(frozen=True, slots=True)
class LearningPast:
    """A learning search, and what its process has to know.

    Attributes:
        known: per configuration, the number of ends known when it was proposed; -1 if it was not.
        ends: (trial, objective) of ended trials, in the order of their records.
    """

    search: LearningSearch
    known: Sequence[int]
    ends: Sequence[tuple[int, float | None]]

    @property
    def made(self) -> int:
        """Number of proposals so far."""
        return sum(count >= 0 for count in self.known)


def make_search(
    spec: Spec, sampler: Sampler, trials: Trials, known: KnownSweep | None
) -> AddingSearch | None:
    """Search that adds trials as results come in, with the results so far; None for any other."""
    if spec.search not in ADDING:
        return None
    search = cast(AddingSearch, sampler)
    names = [name for name in trials.parameters if name not in spec.space.names]
    for number in range(trials.count):
        # A baseline with other fixed options is no evidence about the searched trials.
        if all(trials.parameters[name][number] == trials.parameters[name][0] for name in names):
            search.add(number, {name: trials.parameters[name][number] for name in spec.space.names})
    if known is not None:
        search.tell(_ended(known))
    return search


def _ended(known: KnownSweep) -> EndedBlock:
    """The ends of the trials in a results file, as if they were one worker's."""
    numbers = [number for number, state in enumerate(known.states) if TrialState(state).is_end]
    return EndedBlock(
        worker=-1,
        slot=0,
        numbers=numbers,
        attempts=[known.attempts[number] for number in numbers],
        states=[known.states[number] for number in numbers],
        started_at=[],
        wall_time_s=[],
        metrics={name: [column[number] for number in numbers] for name, column in known.metrics.items()},
        causes=[known.causes[number] for number in numbers],
    )


def learning_past(sampler: Sampler, trials: Trials, known: KnownSweep | None) -> LearningPast | None:
    """The learning search of the sweep, with what is known; None if its search does not learn."""
    if not isinstance(sampler, LearningSearch):
        return None
    proposed_after = [-1] * trials.configurations
    for number, ends in enumerate(known.proposed_after if known is not None else ()):
        proposed_after[trials.configuration_of[number]] = ends
    return LearningPast(sampler, proposed_after, known.ends() if known is not None else [])


def make_frontier(spec: Spec, trials: Trials, known: KnownSweep | None) -> MemoryFrontier | None:
    """Memory frontier with the evidence of earlier runs; None if the sweep has none."""
    if not spec.space.memory or spec.search in ADDING:
        return None
    frontier = MemoryFrontier(trials.parameters, spec.space.memory)
    for number, kind, evidence in known.memory_evidence() if known else ():
        frontier.learn(number, kind, evidence)
    return frontier
