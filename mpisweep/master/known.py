"""The results of a sweep's earlier runs, and the duration model and widths of its trials."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpisweep.blocks import ImportedBlock
from mpisweep.master.best import BestSoFar
from mpisweep.master.sharing import alone_times
from mpisweep.records import EXCLUDED, AttemptEnd, Slot, TrialState
from mpisweep.results import ResultsError
from mpisweep.results.columns import CODE
from mpisweep.results.journal.reader import Damage
from mpisweep.results.requested import attempts_since, first_trials
from mpisweep.results.state import SweepState, retried_attempts
from mpisweep.results.stopping import stopping_of
from mpisweep.results.storing import read_here
from mpisweep.results.suggested import searched_part, suggested_of
from mpisweep.scheduling.durations import DurationModel, work_from_names
from mpisweep.search.evidence import Evidence, evidence_of
from mpisweep.search.learning import Outcome
from mpisweep.search.numbering import Known, Trials
from mpisweep.search.spread import places
from mpisweep.search.stopping import Stopping
from mpisweep.spec import RANKS, Spec, parse_spec

__all__ = [
    "KnownSweep",
    "describe_differences",
    "duration_model",
    "known_trials",
    "trial_widths",
    "trial_work",
    "trials_text",
    "warn_about_edits",
]

log = logging.getLogger(__name__)

#: Maximum number of parts in a list of trials.
_MAX_SPANS = 6


@dataclass(frozen=True, slots=True)
class KnownSweep(Known):
    """The contents of a results file and its journal that a master needs."""

    #: Segment -> offset up to which it was read.
    covered: dict[str, int] = field(default_factory=dict)
    #: Without the attempts before a user's retry.
    attempts_table: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    ranks_table: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    workers_table: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    allocations_table: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    trials_table: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    sharing_table: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    #: (trials, seconds) of the measured durations, as without others on the GPU.
    measured: tuple[list[int], list[float]] = ([], [])
    causes: Sequence[int] = ()
    #: Final values of each metric, per trial.
    metrics: Mapping[str, Sequence[float]] = field(default_factory=dict)
    #: The values of each objective, one per trial; NaN where it was not reported.
    objectives: Sequence[Sequence[float]] = ()
    #: Proposed trial -> the number of ends that a learning search knew when it proposed it.
    proposed_after: Mapping[int, int] = field(default_factory=dict)
    #: Per trial, its position in the order of ends; -1 before its end.
    end_order: Sequence[int] = ()
    #: Trials known from elsewhere.
    imported: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    #: Users' requests that were applied: their names, retried trial -> its last attempt before, and the
    #: trials to run first, in this order.
    requests: Sequence[str] = ()
    retried: Mapping[int, int] = field(default_factory=dict)
    first: Sequence[int] = ()
    #: Per trial, the step of its last report if it was pruned; -1 for others.
    pruned_at: Sequence[int] = ()
    #: Trial -> what an objective of Optuna has asked for.
    suggested: Mapping[int, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    #: Infeasible trials that need too much memory.
    too_large: Container[int] = ()
    #: Whether a trial has reported any metric.
    has_metrics: bool = False
    #: The rules of [stop] by these results: with the end of the last run, or as its next master goes on.
    rules: Stopping | None = None
    rules_within_run: Stopping | None = None

    def tell(self, best: BestSoFar) -> None:
        """Note the complete trials there."""
        complete = [n for n, state in enumerate(self.states) if state == TrialState.COMPLETE]
        asked = [self.suggested.get(number) for number in complete] if self.suggested else []
        best.note(complete, [[column[number] for number in complete] for column in self.objectives], asked)

    @property
    def held(self) -> dict[Slot, dict[int, int]]:
        """Slot of the last run -> the trials that it holds, according to the journal."""
        last = len(self.allocations_table["run"]) - 1
        workers = self.workers_table
        held: dict[Slot, dict[int, int]] = {
            Slot(rank, place): {}
            for run, rank, slots in zip(workers["allocation"], workers["rank"], workers["slots"], strict=True)
            if run == last
            for place in range(slots)
        }
        for number, attempt, slots in self._running():
            for slot in slots:
                if slot in held:
                    held[slot][number] = attempt
        # A worker that has left holds nothing; its trials were requeued when it left.
        for run, rank, left_at in zip(
            workers["allocation"], workers["rank"], workers["left_at"], strict=True
        ):
            if run == last and left_at == left_at:
                for slot in [slot for slot in held if slot.rank == rank and not held[slot]]:
                    del held[slot]
        return held

    @property
    def teams(self) -> dict[int, list[Slot]]:
        """Running trials of several ranks -> their slots, according to the journal."""
        return {number: slots for number, _, slots in self._running() if len(slots) > 1}

    def _running(self) -> Iterator[tuple[int, int, list[Slot]]]:
        """Number, attempt and slots of each running trial of the last run."""
        last = len(self.allocations_table["run"]) - 1
        workers, attempts, ranks = self.workers_table, self.attempts_table, self.ranks_table
        others: dict[tuple[int, int], list[Slot]] = {}
        for number, attempt, worker, place in zip(
            *(ranks[name] for name in ("trial", "attempt", "worker", "slot")), strict=True
        ):
            # The record of this worker is damaged.
            if worker < 0:
                continue
            others.setdefault((number, attempt), []).append(Slot(workers["rank"][worker], place))
        for number, attempt, worker, place, end in zip(
            *(attempts[name] for name in ("trial", "attempt", "worker", "slot", "end")), strict=True
        ):
            is_running = end == AttemptEnd.RUNNING and self.states[number] == TrialState.RUNNING
            if is_running and worker >= 0 and workers["allocation"][worker] == last:
                lead = Slot(workers["rank"][worker], place)
                yield number, attempt, [lead, *others.get((number, attempt), ())]

    def ends(self) -> list[tuple[int, Outcome, int]]:
        """(trial, outcome, pruned_at) of the ended trials, in the order of their ends."""
        ended = [n for n, state in enumerate(self.states) if TrialState(state).is_end]
        # Files of earlier versions have no order: their ends come first.
        ended.sort(key=lambda number: (self.end_order[number], number))
        return [(number, self._outcome(number), self.pruned_at[number]) for number in ended]

    def _outcome(self, number: int) -> Outcome:
        is_result = self.states[number] == TrialState.COMPLETE or self.pruned_at[number] >= 0
        return [column[number] for column in self.objectives] if is_result else None

    def edited(self, code: Mapping[str, str]) -> tuple[list[str], list[int]]:
        """Source files that changed since ended trials ran them, and those trials.

        Args:
            code: the user's source files -> their current hashes.
        """
        allocation = self.workers_table["allocation"]
        before = [_hashes(text) for text in self.allocations_table["code"]]
        changed = [
            [name for name, digest in hashes.items() if code.get(name, digest) != digest] for hashes in before
        ]
        attempts = self.attempts_table
        files: dict[str, None] = {}
        trials: set[int] = set()
        for number, worker, end in zip(*(attempts[name] for name in ("trial", "worker", "end")), strict=True):
            if worker < 0 or end != AttemptEnd.ENDED or not TrialState(self.states[number]).is_end:
                continue
            if allocation[worker] >= 0 and (names := changed[allocation[worker]]):
                files |= dict.fromkeys(names)
                trials.add(number)
        return list(files), sorted(trials)

    def memory_evidence(self) -> Iterator[tuple[int, str, Evidence]]:
        """Trial, kind of device, and the trial's evidence about the memory there."""
        workers, attempts, ranks = self.workers_table, self.attempts_table, self.ranks_table
        kinds: dict[tuple[int, int], set[str]] = {}
        for table in (attempts, ranks):
            for number, attempt, worker in zip(
                *(table[name] for name in ("trial", "attempt", "worker")), strict=True
            ):
                kinds.setdefault((number, attempt), set()).add(
                    workers["device_kind"][worker] if worker >= 0 else ""
                )
        for number, attempt, end in zip(
            *(attempts[name] for name in ("trial", "attempt", "end")), strict=True
        ):
            evidence = Evidence.TOO_LARGE if end == AttemptEnd.TOO_LARGE else Evidence.NOTHING
            if end == AttemptEnd.ENDED:
                evidence = evidence_of(self.states[number], self.causes[number])
            # A trial that ran on several kinds of devices is no evidence about any of them.
            where = kinds[number, attempt]
            if len(where) == 1 and "" not in where:
                yield number, *where, evidence

    def not_fresh(self) -> set[int]:
        """Unended trials that need a fresh process.

        They ran out of memory in a process that was not fresh, or a user retries them.
        """
        attempts = self.attempts_table
        tried = zip(attempts["trial"], attempts["end"], strict=True)
        found = {n for n, end in tried if end == AttemptEnd.NOT_FRESH} | self.retried.keys()
        return {n for n in found if not TrialState(self.states[n]).is_end}

    def losses(self, launch: str) -> dict[int, int]:
        """Trial -> number of workers lost with it under one launch."""
        launches, of_worker = self.allocations_table["launch"], self.workers_table["allocation"]
        losses: dict[int, int] = {}
        table = self.attempts_table
        for number, worker, end in zip(table["trial"], table["worker"], table["end"], strict=True):
            if end == AttemptEnd.LOST and worker >= 0 and launches[of_worker[worker]] == launch:
                losses[number] = losses.get(number, 0) + 1
        return losses

    def losses_of_crash(self, launch: str) -> dict[int, int]:
        """Like :meth:`losses`, with the losses of a last run that died without closing."""
        losses = self.losses(launch)
        if not self.allocations_table["launch"] or self.allocations_table["launch"][-1] != launch:
            return losses
        # A trial of several ranks counts once, not once per slot.
        for number in {number for trials in self.held.values() for number in list(trials)[:1]}:
            losses[number] = losses.get(number, 0) + 1
        return losses


# ------------------------------------------------------------------------------------- reading


def known_trials(
    spec: Spec, path: Path, read: Callable[[Path], tuple[SweepState | None, list[Damage]]] = read_here
) -> KnownSweep | None:
    """Read the trials in the results file; None if there is no file.

    Args:
        spec: the sweep file.
        path: the HDF5 file.
        read: reads it.

    Raises:
        ResultsError: if the sweep file no longer describes them.
    """
    state, damages = read(path)
    if state is None:
        return None
    for damage in damages:
        log.warning(
            "%s: %d bytes at offset %d of the journal are damaged; everything else is used",
            damage.segment, damage.length, damage.offset,
        )  # fmt: skip
    # If damage has destroyed the recorded sweep file, the current one replaces it.
    recorded = spec
    if state.spec:
        recorded = parse_spec(state.spec, source=state.source, folder=spec.folder, is_recorded=True)
    if differences := spec.differences(recorded):
        raise ResultsError(describe_differences(path, differences))
    complete = [n for n, s in enumerate(state.trials["state"]) if s == TrialState.COMPLETE]
    has_rules, retried = spec.stop.is_set, retried_attempts(state.requests)
    return KnownSweep(
        state.parameters, state.trials["state"], state.trials["attempt"], state.baseline,
        configurations=state.trials["configuration"],
        repeats=state.trials["repeat"],
        covered=state.covered,
        attempts_table=attempts_since(state, retried),
        ranks_table=state.ranks,
        workers_table=state.workers,
        allocations_table=state.allocations, trials_table=state.trials, sharing_table=state.sharing,
        causes=state.trials["cause"],
        metrics=state.metrics,
        objectives=[state.metrics.get(one.name) or [math.nan] * state.count for one in spec.objectives],
        proposed_after={n: ends for n, ends in enumerate(state.trials["proposed_after"]) if ends >= 0},
        imported=state.imported,
        requests=state.requests["request"], retried=retried, first=first_trials(state),
        end_order=state.trials["end_order"], pruned_at=state.trials["pruned_at"],
        suggested={n: searched_part(one) for n, one in suggested_of(state.suggested).items()},
        too_large=frozenset(
            number
            for number, message in enumerate(state.trials["message"])
            if state.trials["state"][number] == TrialState.INFEASIBLE and not message.startswith(EXCLUDED)
        ),
        has_metrics=bool(state.metrics),
        rules=stopping_of(spec, state, recorded=recorded) if has_rules else None,
        rules_within_run=stopping_of(spec, state, now=time.time()) if has_rules else None,
        measured=alone_times(state, complete),
    )  # fmt: skip


def describe_differences(path: Path, differences: list[str]) -> str:
    """Message for a results file that cannot be resumed with this sweep file."""
    listed = "".join(f"\n  {difference}" for difference in differences)
    return (
        f"{path}: was made from another sweep:{listed}\n"
        f"use another file (-o), or --fresh to move this one aside and start over"
    )


# ------------------------------------------------------------------------------------- user's code


def _hashes(text: str) -> dict[str, str]:
    """Source files and their hashes, as a run recorded them; empty if missing or damaged."""
    try:
        hashes = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(name): str(digest) for name, digest in hashes.items()} if isinstance(hashes, dict) else {}


def warn_about_edits(known: KnownSweep | None, environment: Mapping[str, str]) -> None:
    """Log a warning if the user's code has changed since earlier trials of the sweep."""
    if known is None:
        return
    files, trials = known.edited(_hashes(environment.get(CODE, "")))
    if files:
        log.warning(
            "%s %s changed since %s ran",
            _listed(files), "has" if len(files) == 1 else "have", trials_text(trials),
        )  # fmt: skip


def trials_text(numbers: Sequence[int]) -> str:
    """``trial 3``, ``trials 0 to 3, 5 and 9 to 12``; shortened if there are many gaps."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    if len(spans) > _MAX_SPANS:
        shown = spans[: _MAX_SPANS - 1]
        left = len(numbers) - sum(last - first + 1 for first, last in shown)
    else:
        shown, left = spans, 0
    texts = [str(first) if first == last else f"{first} to {last}" for first, last in shown]
    texts += [f"{left} more"] if left else []
    return f"trial{'s' * (len(numbers) > 1)} {_listed(texts)}"


def _listed(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + f" and {texts[-1]}"


# ------------------------------------------------------------------------------------- how long, how wide


def duration_model(
    spec: Spec, trials: Trials, known: KnownSweep | None, imported: ImportedBlock | None = None
) -> DurationModel:
    """Duration model of the trials, fitted to the measurements in `known` and elsewhere."""
    elsewhere = [
        (configuration, seconds)
        for configuration, seconds in (
            zip(imported.configurations, imported.wall_time_s, strict=True) if imported is not None else ()
        )
        if seconds is not None
    ]
    searched = {name: trials.parameters[name] for name in spec.space.names}
    model = DurationModel(searched, trial_work(spec, trials), trials.count, places(spec, trials), elsewhere)
    if known is not None:
        # The measurements of earlier runs still hold.
        model.observe(*known.measured)
    if model.is_due:
        model.fit()
    return model


def trial_widths(spec: Spec, trials: Trials) -> list[int] | None:
    """Number of ranks that each trial needs; None if all need one."""
    if spec.most_ranks == 1:
        return None
    columns = trials.parameters.get(RANKS)
    return (
        [spec.ranks({RANKS: value or 1}) for value in columns] if columns else [spec.ranks({})] * trials.count
    )


def trial_work(spec: Spec, trials: Trials) -> list[float] | None:
    """Relative work per rank of every trial; None if unknown."""
    work, widths = _whole_work(spec, trials), trial_widths(spec, trials)
    if work is None or widths is None:
        return work
    return [whole / width for whole, width in zip(work, widths, strict=True)]


def _whole_work(spec: Spec, trials: Trials) -> list[float] | None:
    built_in = spec.built_in
    if built_in is None:
        return work_from_names(trials.parameters)
    usual = spec.full({})
    if not trials.parameters:
        return [built_in.work(usual)] * trials.count
    return [built_in.work(usual | trials.configuration(number)) for number in range(trials.count)]
