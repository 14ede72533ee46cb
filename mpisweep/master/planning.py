"""What the planner knows of a sweep: the trials that are left, and what earlier runs took.

The sweep's own results file and one of another sweep (``--from``) say how long trials take, how often they
fail and are lost, how long runs take to start, and how many workers ran per node.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mpisweep.blocks import ImportedBlock
from mpisweep.master.importing import known_imports
from mpisweep.master.known import KnownSweep, duration_model, known_trials, trial_widths, trial_work
from mpisweep.records import AttemptEnd, TrialState, Value
from mpisweep.results import ResultsError
from mpisweep.results.journal.reader import Damage
from mpisweep.results.state import SweepState
from mpisweep.results.storing import read_here
from mpisweep.scheduling.drawing import Ahead, Observed
from mpisweep.scheduling.durations import WORK_NAMES, DurationModel
from mpisweep.scheduling.pilot import pilot_trials
from mpisweep.search import LearningSearch, Sampler
from mpisweep.search.numbering import Trials, number_trials
from mpisweep.spec import Spec, parse_spec

__all__ = ["Knowledge", "knowledge_of", "pilot_of", "to_propose", "trials_ahead"]

#: Attempts that cost time and gave no result.
_IN_VAIN = (AttemptEnd.LOST, AttemptEnd.SUSPECT, AttemptEnd.NOT_FRESH, AttemptEnd.TOO_LARGE)
#: States of trials that ran to an end.
_RAN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known of a sweep before its next run.

    Attributes:
        ahead: the trials that are left.
        trials: all trials.
        ended: number of those that have ended.
        measured: number of trials whose durations are known, and of those from another sweep.
        measured_elsewhere: of which from another sweep.
        devices: kinds of devices that they ran on.
        startups: ranks of each earlier run, and seconds from its start to its workers' first trials.
        closings: seconds that closing took in earlier runs.
        workers_per_node: in the last of them; None if there is none.
        notes: sentences about what was assumed.
    """

    ahead: Ahead
    trials: Trials
    ended: int
    measured: int
    measured_elsewhere: int
    devices: tuple[str, ...]
    startups: tuple[tuple[int, float], ...]
    closings: tuple[float, ...]
    workers_per_node: int | None
    notes: tuple[str, ...]


def knowledge_of(spec: Spec, sampler: Sampler, path: Path, other: Path | None = None) -> Knowledge:
    """Read what is known of a sweep.

    Args:
        spec: the sweep.
        sampler: its configurations.
        path: its results file, which need not exist.
        other: a results file of another sweep; None for none.

    Raises:
        ResultsError: if a file cannot be read or is of no use.
    """
    states: list[SweepState] = []

    def read(file: Path) -> tuple[SweepState | None, list[Damage]]:
        state, damages = read_here(file)
        states.extend(() if state is None else [state])
        return state, damages

    known = known_trials(spec, path, read)
    notes: list[str] = []
    imported, elsewhere = known_imports(known), 0
    if other is not None and other.resolve() != path.resolve():
        state, _ = read_here(other)
        if state is None:
            raise ResultsError(f"{other}: no such results file")
        found = _from_other(spec, other, state, notes)
        elsewhere = len(found.wall_time_s)
        imported = found if imported is None else _both(imported, found)
        states.append(state)
    trials = number_trials(spec, sampler, known)
    model = duration_model(spec, trials, known, imported)
    own = [] if known is None else known.measured[0]
    return Knowledge(
        trials_ahead(spec, sampler, trials, known, model, _observed(states, model, own=known is not None)),
        trials,
        sum(TrialState(state).is_end for state in trials.states),
        len(own) + (0 if imported is None else sum(one is not None for one in imported.wall_time_s)),
        elsewhere,
        tuple(dict.fromkeys(kind for state in states for kind in state.workers["device_kind"] if kind)),
        tuple(found for state in states for found in _startups(state)),
        tuple(float(seconds) for state in states[::-1] for seconds in state.allocations["closing_time"]),
        next(filter(None, (_workers_per_node(state, spec) for state in states)), None),
        tuple(notes),
    )


def to_propose(spec: Spec, sampler: Sampler, known: KnownSweep | None) -> int:
    """Number of trials that a search is still to propose."""
    made = len(known.proposed_after) if known is not None else 0
    wanted = sampler.trials * spec.repeats.first if isinstance(sampler, LearningSearch) else 0
    return max(0, wanted - made)


def trials_ahead(
    spec: Spec,
    sampler: Sampler,
    trials: Trials,
    known: KnownSweep | None,
    model: DurationModel,
    observed: Observed,
) -> Ahead:
    """The trials of a sweep that have not ended, with those that a search is still to propose."""
    return Ahead(
        model,
        [
            number
            for number, state in enumerate(trials.states)
            if not TrialState(state).is_end and number not in trials.excluded
        ],
        to_come=to_propose(spec, sampler, known),
        widths=trial_widths(spec, trials),
        timeout_s=spec.limits.timeout_s,
        retries=spec.limits.retries,
        observed=observed,
    )


def pilot_of(spec: Spec, trials: Trials, count: int) -> frozenset[int]:
    """The trials of a pilot: first repeats only, whatever has ended."""
    candidates = [n for n, repeat in enumerate(trials.repeat_of) if not repeat and n not in trials.excluded]
    searched = {name: trials.parameters[name] for name in spec.space.names}
    return frozenset(pilot_trials(searched, trial_work(spec, trials), candidates, count))


# ------------------------------------------------------------------------------------- another sweep


def _from_other(spec: Spec, path: Path, state: SweepState, notes: list[str]) -> ImportedBlock:
    """The durations of another sweep's complete trials, for the work of this one's."""
    names = spec.space.names
    if names and not set(names) & set(state.parameters):
        raise ResultsError(
            f"{path}: has no parameter of this sweep ({', '.join(names)}), so its durations say nothing; "
            "run a pilot with --pilot 5"
        )
    there = parse_spec(state.spec, source=state.source, folder=spec.folder, is_recorded=True)
    configurations: list[dict[str, Value]] = []
    seconds: list[float | None] = []
    factors: set[float] = set()
    for number, one in enumerate(state.trials["state"]):
        if one != TrialState.COMPLETE:
            continue
        own = {name: column[number] for name, column in state.parameters.items()}
        values = {name: value for name, value in own.items() if value is not None}
        factor = _work_ratio(spec, there, values)
        factors.add(factor)
        configurations.append(values)
        seconds.append(state.trials["wall_time"][number] * factor)
    if not seconds:
        raise ResultsError(f"{path}: has no complete trial, so that it says nothing about durations")
    if factors != {1.0}:
        low, high = min(factors), max(factors)
        times = f"{low:.3g}" if high < low * 1.001 else f"{low:.3g} to {high:.3g}"
        notes.append(f"a trial has {times} times the work that it had in {path}; so has its duration")
    return ImportedBlock([str(path)] * len(seconds), configurations, [0.0] * len(seconds), seconds)


def _work_ratio(spec: Spec, other: Spec, values: Mapping[str, Value]) -> float:
    """Work of a configuration here by that in the other sweep, whose fixed values may differ."""
    searched = {name: values[name] for name in spec.space.names if name in values}
    here, there = spec.full(searched), other.full(values)
    if spec.built_in is not None and spec.built_in is other.built_in:
        before = spec.built_in.work(there)
        return spec.built_in.work(here) / before if before > 0 else 1.0
    ratio = 1.0
    for name in WORK_NAMES & here.keys() & there.keys():
        new, old = here[name], there[name]
        if isinstance(new, (int, float)) and isinstance(old, (int, float)) and new > 0 and old > 0:
            ratio *= new / old
    return ratio


def _both(first: ImportedBlock, second: ImportedBlock) -> ImportedBlock:
    return ImportedBlock(
        [*first.sources, *second.sources],
        [*first.configurations, *second.configurations],
        [*first.objectives, *second.objectives],
        [*first.wall_time_s, *second.wall_time_s],
    )


# ------------------------------------------------------------------------------------- earlier runs


def _observed(states: list[SweepState], model: DurationModel, *, own: bool) -> Observed:
    """Early ends and lost attempts of all files; the first is the sweep's own, if there is one."""
    found = Observed()
    for index, state in enumerate(states):
        ended = [n for n, one in enumerate(state.trials["state"]) if one in _RAN]
        early = [n for n in ended if state.trials["state"][n] != TrialState.COMPLETE]
        usual_s = model.usual_s or 0.0
        shares = [
            state.trials["wall_time"][n] / expected_s
            for n in early
            if (expected_s := (model.expected_s(n) if own and index == 0 else usual_s) or usual_s) > 0
        ]
        ends = list(_ends_of_closed_runs(state))
        found = Observed(
            found.ended + len(ended),
            (*found.early, *(share for share in shares if share == share)),
            found.attempts + len(ends),
            found.lost + sum(end in _IN_VAIN for end in ends),
        )
    return found


def _ends_of_closed_runs(state: SweepState) -> Iterator[int]:
    """Ends of attempts; a run that was killed loses all that it runs, which is not the trials' doing."""
    is_closed = [bool(end) for end in state.allocations["end"]]
    attempts, allocation = state.attempts, state.workers["allocation"]
    for worker, end in zip(attempts["worker"], attempts["end"], strict=True):
        if worker >= 0 and is_closed[allocation[worker]] and end != AttemptEnd.RECLAIMED:
            yield end


def _startups(state: SweepState) -> Iterator[tuple[int, float]]:
    """Ranks of each run, and the median time until its workers got their first trials."""
    first: dict[int, float] = {}
    for worker, at in zip(state.attempts["worker"], state.attempts["assigned_at"], strict=True):
        if worker >= 0:
            first[worker] = min(at, first.get(worker, at))
    table = state.allocations
    for row, (ranks, started_at) in enumerate(zip(table["ranks"], table["started_at"], strict=True)):
        waited = [
            at - started_at for worker, at in first.items() if state.workers["allocation"][worker] == row
        ]
        if waited and started_at == started_at:
            yield ranks, max(0.0, statistics.median(waited))


def _workers_per_node(state: SweepState, spec: Spec) -> int | None:
    """Slots of the fullest node of the last run that had any; its GPUs where these are shared as measured."""
    workers = state.workers
    if not workers["host"]:
        return None
    last = max(workers["allocation"])
    counts: dict[str, float] = {}
    for host, slots, gpus, run in zip(
        *(workers[name] for name in ("host", "slots", "gpus", "allocation")), strict=True
    ):
        if run == last:
            counts[host] = counts.get(host, 0.0) + slots * (gpus if spec.packs and gpus > 0 else 1.0)
    return max(1, round(max(counts.values())))
