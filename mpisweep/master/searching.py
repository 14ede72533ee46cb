"""The search of a sweep as a new master finds it."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from mpisweep.blocks import EndedBlock, ImportedBlock
from mpisweep.master.known import KnownSweep
from mpisweep.records import TrialState
from mpisweep.search import AddingSearch, LearningSearch, Sampler
from mpisweep.search.ceiling import Ceiling
from mpisweep.search.frontier import MemoryFrontier
from mpisweep.search.learning import Outcome
from mpisweep.search.numbering import Trials
from mpisweep.search.stopping import Stopping
from mpisweep.spec import ADDING, LEARNING, Spec
from mpisweep.spec.space import Configuration, FloatRange

if TYPE_CHECKING:
    from mpisweep.search.racing import Race

__all__ = [
    "LearningPast",
    "learning_past",
    "make_ceiling",
    "make_frontier",
    "make_race",
    "make_rules",
    "make_search",
]


@dataclass(frozen=True, slots=True)
class LearningPast:
    """A learning search, and what its process has to know.

    Attributes:
        known: proposed configuration -> the number of ends known when it was proposed.
        ends: (trial, outcome, pruned_at) of ended trials, in the order of their records.
        imported: trials known from elsewhere; None if there are none.
        suggested: trial -> what an objective of Optuna has asked for in it.
        others: configurations with other fixed options, which are no evidence about the searched ones.
    """

    search: LearningSearch
    known: Mapping[int, int]
    ends: Sequence[tuple[int, Outcome, int]]
    imported: ImportedBlock | None = None
    others: Container[int] = ()
    suggested: Mapping[int, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def told_first(self) -> list[tuple[Configuration, float]]:
        """(Configuration, objective) of the trials known from elsewhere."""
        known = self.imported
        return [] if known is None else list(zip(known.configurations, known.objectives, strict=True))


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


def make_race(spec: Spec, trials: Trials, known: KnownSweep | None) -> Race | None:
    """Race with the results so far; None if each configuration has a fixed number of repeats."""
    if not spec.repeats.is_race:
        return None
    # It imports scipy, which other sweeps do not need.
    from mpisweep.search.racing import Race

    baseline = None if trials.baseline is None else trials.configuration_of[trials.baseline]
    race = Race(
        spec.repeats, spec.objective, spec.direction, trials.configuration_of, trials.repeat_of, baseline
    )
    columns = known.objectives if known is not None else ()
    objectives = columns[0] if columns else [math.nan] * trials.count
    # A trial that was infeasible may run now.
    for number, (state, value) in enumerate(zip(trials.states, objectives, strict=False)):
        if TrialState(state).is_end:
            cause = known.causes[number] if known is not None and number < len(known.causes) else 0
            race.note(number, state, cause, value)
    return race


def learning_past(
    spec: Spec, sampler: Sampler, trials: Trials, known: KnownSweep | None, imported: ImportedBlock | None
) -> LearningPast | None:
    """The learning search of the sweep, with what is known; None if its search does not learn."""
    if not isinstance(sampler, LearningSearch):
        return None
    after = known.proposed_after if known is not None else {}
    return LearningPast(
        sampler,
        {trials.configuration_of[number]: ends for number, ends in after.items()},
        known.ends() if known is not None else [],
        imported,
        _with_other_options(spec, trials),
        known.suggested if known is not None else {},
    )


def _with_other_options(spec: Spec, trials: Trials) -> frozenset[int]:
    """The baseline, if its fixed options differ from those of the searched trials."""
    usual = spec.full({})
    if trials.baseline is None:
        return frozenset()
    values = {name: column[trials.baseline] for name, column in trials.parameters.items()}
    differs = any(value != usual.get(name) for name, value in values.items() if name not in spec.space.names)
    return frozenset([trials.configuration_of[trials.baseline]] if differs else [])


def make_rules(
    spec: Spec, known: KnownSweep | None, *, follows: bool, base: KnownSweep | None, is_shared: bool
) -> Stopping | None:
    """The rules of [stop] with the results so far; None if the sweep has none.

    Args:
        spec: the sweep file.
        known: the results file of this run; None if there is none.
        follows: whether an earlier master of the same run has written to it.
        base: the results before a sweep was split, as long as this run has none of its own.
        is_shared: whether it is split; then a member by itself judges its own results by the target, and
            what all members have is judged when their results are merged.
    """
    if not spec.stop.is_set:
        return None
    if not is_shared:
        found = None if known is None else known.rules_within_run if follows else known.rules
        return found or Stopping(spec.stop, spec.objective, spec.direction)
    before = base.rules.reached() if known is None and base is not None and base.rules is not None else None
    rules = replace(spec.stop, patience=None, device_hours=None)
    own = Stopping(rules, spec.objective, spec.direction, ended_by=before)
    if known is not None:
        own.note(known.states, known.objectives[0])
    return own


def make_frontier(spec: Spec, trials: Trials, known: KnownSweep | None) -> MemoryFrontier | None:
    """Memory frontier with the evidence of earlier runs; None if the sweep has none."""
    if not spec.space.memory or spec.search in ADDING:
        return None
    frontier = MemoryFrontier(trials.parameters, spec.space.memory)
    for number, kind, evidence in known.memory_evidence() if known else ():
        frontier.learn(number, kind, evidence)
    return frontier


def make_ceiling(spec: Spec, trials: Trials, known: KnownSweep | None) -> Ceiling | None:
    """Ceiling of a learning search with the evidence of earlier runs; None for any other sweep."""
    if not spec.space.memory or spec.search not in LEARNING:
        return None
    ignored = {one.name for one in spec.space.parameters if isinstance(one, FloatRange)}
    ceiling = Ceiling(trials.parameters, spec.space.memory, ignored)
    for number, kind, evidence in known.memory_evidence() if known else ():
        ceiling.learn(number, kind, evidence)
    return ceiling
