"""What is known of a sweep before it runs: what earlier runs have left, and what follows for the trials."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpisweep.records import AttemptEnd, Direction, Slot, TrialState
from mpisweep.results import ResultsError
from mpisweep.results.columns import CODE
from mpisweep.results.journal.reader import Damage
from mpisweep.results.state import SweepState
from mpisweep.results.storing import read_here
from mpisweep.scheduling.durations import DurationModel, work_from_names
from mpisweep.search.evidence import Evidence, evidence_of
from mpisweep.search.numbering import Known, Trials
from mpisweep.spec import RANKS, Spec, parse_spec

__all__ = [
    "KnownSweep",
    "describe_differences",
    "duration_model",
    "known_trials",
    "say_what_was_edited",
    "trial_widths",
    "trials_text",
]

log = logging.getLogger(__name__)

#: A list of trials has at most so many parts.
_SPANS_AT_MOST = 6


@dataclass(frozen=True, slots=True)
class KnownSweep(Known):
    """What a results file and its journal have, as far as a master needs it."""

    #: Segment -> how far it was read.
    covered: dict[str, int] = field(default_factory=dict)
    attempts_table: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    ranks_table: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    workers_table: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    allocations_table: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    #: (trials, seconds) that were measured.
    measured: tuple[list[int], list[float]] = ([], [])
    causes: Sequence[int] = ()
    #: Of each trial; empty where no trial has reported it.
    objectives: Sequence[float] = ()
    #: Whether a trial has reported any metric.
    has_metrics: bool = False

    @property
    def held(self) -> dict[Slot, dict[int, int]]:
        """What the slots of the last run hold, as far as the journal has it."""
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
        # A worker that has left holds nothing, but whatever it held was seen to when it left.
        for run, rank, left_at in zip(
            workers["allocation"], workers["rank"], workers["left_at"], strict=True
        ):
            if run == last and left_at == left_at:
                for slot in [slot for slot in held if slot.rank == rank and not held[slot]]:
                    del held[slot]
        return held

    @property
    def teams(self) -> dict[int, list[Slot]]:
        """The running trials of several ranks and their slots, as far as the journal has it."""
        return {number: slots for number, _, slots in self._running() if len(slots) > 1}

    def _running(self) -> Iterator[tuple[int, int, list[Slot]]]:
        """Number, attempt and slots of each running trial of the last run."""
        last = len(self.allocations_table["run"]) - 1
        workers, attempts, ranks = self.workers_table, self.attempts_table, self.ranks_table
        others: dict[tuple[int, int], list[Slot]] = {}
        for number, attempt, worker, place in zip(
            *(ranks[name] for name in ("trial", "attempt", "worker", "slot")), strict=True
        ):
            # Of a worker whose record is damaged nobody knows which it was.
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

    def edited(self, code: Mapping[str, str]) -> tuple[list[str], list[int]]:
        """Source files that are no longer what trials ran that have ended, and those trials.

        Args:
            code: the user's source files and their hashes now.
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
        """Trial, kind of device, and what the trial has shown of the memory there."""
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
            # What ran on several kinds of devices at once says nothing about any one of them.
            where = kinds[number, attempt]
            if len(where) == 1 and "" not in where:
                yield number, *where, evidence

    def not_fresh(self) -> set[int]:
        """Trials that have run out of memory in a process that was not fresh, and have not ended."""
        attempts = self.attempts_table
        tried = zip(attempts["trial"], attempts["end"], strict=True)
        return {
            n for n, end in tried if end == AttemptEnd.NOT_FRESH and not TrialState(self.states[n]).is_end
        }

    def losses(self, launch: str) -> dict[int, int]:
        """How often the worker of each trial was lost under one launch."""
        launches, of_worker = self.allocations_table["launch"], self.workers_table["allocation"]
        losses: dict[int, int] = {}
        for number, worker, end in zip(
            *(self.attempts_table[name] for name in ("trial", "worker", "end")), strict=True
        ):
            if end == AttemptEnd.LOST and worker >= 0 and launches[of_worker[worker]] == launch:
                losses[number] = losses.get(number, 0) + 1
        return losses

    def losses_of_crash(self, launch: str) -> dict[int, int]:
        """The same, where the last run has ended without a word and this is the next one."""
        losses = self.losses(launch)
        if not self.allocations_table["launch"] or self.allocations_table["launch"][-1] != launch:
            return losses
        # One of several ranks was lost once, whoever held it.
        for number in {number for trials in self.held.values() for number in list(trials)[:1]}:
            losses[number] = losses.get(number, 0) + 1
        return losses


# ------------------------------------------------------------------------------------- reading


def known_trials(
    spec: Spec, path: Path, read: Callable[[Path], tuple[SweepState | None, list[Damage]]] = read_here
) -> KnownSweep | None:
    """The trials that the results file has; None when there is no file.

    Args:
        spec: the sweep file.
        path: of the HDF5 file.
        read: reads it.

    Raises:
        ResultsError: when the sweep file no longer describes them.
    """
    state, damages = read(path)
    if state is None:
        return None
    for damage in damages:
        log.warning(
            "%s: %d bytes at offset %d of the journal are damaged; everything else is used",
            damage.segment, damage.length, damage.offset,
        )  # fmt: skip
    # Where damage has taken the sweep file in it, this one takes its place.
    recorded = spec
    if state.spec:
        recorded = parse_spec(state.spec, source=state.source, folder=spec.folder, is_recorded=True)
    found = spec.differences(recorded)
    if found:
        raise ResultsError(describe_differences(path, found))
    complete = [n for n, s in enumerate(state.trials["state"]) if s == TrialState.COMPLETE]
    return KnownSweep(
        state.parameters,
        state.trials["state"],
        state.trials["attempt"],
        state.baseline,
        _best_of(spec, state.trials["state"], state.metrics.get(spec.objective, [])),
        covered=state.covered,
        attempts_table=state.attempts,
        ranks_table=state.ranks,
        workers_table=state.workers,
        allocations_table=state.allocations,
        causes=state.trials["cause"],
        objectives=state.metrics.get(spec.objective, []),
        has_metrics=bool(state.metrics),
        measured=(complete, [state.trials["wall_time"][number] for number in complete]),
    )


def _best_of(spec: Spec, states: Sequence[int], values: Sequence[float]) -> tuple[int, float] | None:
    complete = [
        (number, value)
        for number, (state, value) in enumerate(zip(states, values, strict=False))
        if state == TrialState.COMPLETE and math.isfinite(value)
    ]
    if not complete:
        return None
    choose = min if spec.direction == Direction.MINIMIZE else max
    return choose(complete, key=lambda entry: entry[1])


def describe_differences(path: Path, found: list[str]) -> str:
    """Why a results file cannot be gone on with."""
    listed = "".join(f"\n  {difference}" for difference in found)
    return (
        f"{path}: was made from another sweep:{listed}\n"
        f"use another file (-o), or --fresh to move this one aside and begin anew"
    )


# ------------------------------------------------------------------------------------- user's code


def _hashes(text: str) -> dict[str, str]:
    """Source files and their hashes, as a run has recorded them; none where it has not, or damage has changed
    it.
    """
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(name): str(digest) for name, digest in found.items()} if isinstance(found, dict) else {}


def say_what_was_edited(known: KnownSweep | None, environment: Mapping[str, str]) -> None:
    """One line when the results so far are of other code than those to come; both are in one table from here
    on.
    """
    if known is None:
        return
    files, trials = known.edited(_hashes(environment.get(CODE, "")))
    if files:
        log.warning(
            "%s %s not what %s ran with",
            _listed(files), "is" if len(files) == 1 else "are", trials_text(trials),
        )  # fmt: skip


def trials_text(numbers: Sequence[int]) -> str:
    """``trial 3``, ``trials 0 to 7``, ``trials 0 to 3, 5 and 9 to 12``; of many gaps the first ones."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    if len(spans) > _SPANS_AT_MOST:
        shown = spans[: _SPANS_AT_MOST - 1]
        left = len(numbers) - sum(last - first + 1 for first, last in shown)
    else:
        shown, left = spans, 0
    texts = [str(first) if first == last else f"{first} to {last}" for first, last in shown]
    texts += [f"{left} more"] if left else []
    return f"trial{'s' * (len(numbers) > 1)} {_listed(texts)}"


def _listed(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + f" and {texts[-1]}"


# ------------------------------------------------------------------------------------- how long, how wide


def duration_model(spec: Spec, trials: Trials, known: KnownSweep | None) -> DurationModel:
    """What is expected of the trials' durations, by what is `known` of them."""
    model = DurationModel(
        {name: trials.parameters[name] for name in spec.space.names}, _work(spec, trials), trials.count
    )
    if known is not None:
        # What earlier runs have measured is not measured again.
        model.observe(*known.measured)
        if model.is_due:
            model.fit()
    return model


def trial_widths(spec: Spec, trials: Trials) -> list[int] | None:
    """How many ranks every trial needs; None where all need one."""
    if spec.most_ranks == 1:
        return None
    columns = trials.parameters.get(RANKS)
    return [spec.ranks({RANKS: value}) for value in columns] if columns else [spec.ranks({})] * trials.count


def _work(spec: Spec, trials: Trials) -> list[float] | None:
    """Relative work of every trial's rank, where anything is known about it."""
    work, widths = _whole_work(spec, trials), trial_widths(spec, trials)
    if work is None or widths is None:
        return work
    return [whole / width for whole, width in zip(work, widths, strict=True)]


def _whole_work(spec: Spec, trials: Trials) -> list[float] | None:
    built_in = spec.built_in
    if built_in is None:
        return work_from_names(trials.parameters)
    names = tuple(trials.parameters)
    usual = spec.full({})
    if not names:
        return [built_in.work(usual)] * trials.count
    return [
        built_in.work(usual | dict(zip(names, values, strict=True)))
        for values in zip(*trials.parameters.values(), strict=True)
    ]
