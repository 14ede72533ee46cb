"""From a sweep file and a path to a sweep that is ready to run: new, or going on where it stopped.

Everything that can be refused is refused here, before a trial runs: a sweep that another run is writing, a
results file that is something else, a sweep file that no longer describes what the results file holds.

A master that takes over from one that is gone goes the same way, and keeps the run's name.  First of all it
fences those before it, which may hang and come back (:mod:`mpisweep.results.claim`); the opening record of the new
segment says how far the older ones count, and what counts is synced before anything is done about it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mpisweep.batch.jobfacts import Allocation
from mpisweep.batch.walltime import StopPlan, plan_stop
from mpisweep.blocks import InferredBlock, RunRecord, TrialsBlock, encode
from mpisweep.master.snapshotter import Recorder
from mpisweep.processes.kernel import this_host
from mpisweep.records import AttemptEnd, Direction, EndReason, Slot, TrialState
from mpisweep.results import ResultsError, journal_folder, shares_folder
from mpisweep.results.claim import Claim, ClaimedError, FollowedError, RunOverError
from mpisweep.results.columns import CODE
from mpisweep.results.journal import Damage, Journal, segments, sync_segments
from mpisweep.results.replay import SweepState
from mpisweep.results.reports import Reading
from mpisweep.scheduling.durations import DurationModel, work_from_names
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search import LargestBatch, Sampler, make_sampler
from mpisweep.search.frontier import Evidence, MemoryFrontier, evidence_of
from mpisweep.search.numbering import Known, Trials, number_trials
from mpisweep.spec import RANKS, Spec, parse_spec

__all__ = [
    "KnownSweep",
    "Mastership",
    "Opened",
    "RunEndedError",
    "SharePlan",
    "describe_differences",
    "duration_model",
    "known_trials",
    "move_aside",
    "open_sweep",
    "read_here",
    "run_has_ended",
    "trial_widths",
]

#: Trials are introduced to the journal in blocks of this size.
_TRIALS_A_BLOCK = 4096
_CHARS_A_BLOCK = 1 << 22

#: How long too few workers are waited with, in units of the silence after which a rank counts as lost.
_PATIENCE = 2.0

#: A list of trials has at most so many parts.
_SPANS_AT_MOST = 6

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """A sweep that is ready to run."""

    #: The HDF5 file that is written: of a split sweep, this run's part.
    path: Path
    trials: Trials
    #: The best trial of the runs before, and its objective.
    best: tuple[int, float] | None
    #: Whether trials have metrics, as far as is known.
    measures: bool
    scheduler: Scheduler
    journal: Journal
    claim: Claim
    #: When to stop for the end of the allocation; None where that is not known.
    stop: StopPlan | None
    #: The place in a sweep that several allocations share; None where this one has it all.
    share: SharePlan | None = None


@dataclass(frozen=True, slots=True)
class Mastership:
    """Which master of which run somebody is.

    Attributes:
        run: name of the run.
        epoch: of this master, see :mod:`mpisweep.rank.succession`.
        is_first: whether there was none before it.
        has_begun: whether one before it has told that it has opened the sweep.
    """

    run: str
    epoch: int
    is_first: bool
    has_begun: bool = False


class RunEndedError(Exception):
    """The run is over of which somebody is, or was about to be, the master; :attr:`reason` is how it has ended."""

    def __init__(self, reason: EndReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class SharePlan(Protocol):
    """The place of a run in a sweep that several allocations share; see :class:`mpisweep.master.joining.Share`."""

    @property
    def path(self) -> Path:
        """The results file of the whole sweep."""

    @property
    def member(self) -> str:
        """Name of this run."""

    @property
    def base(self) -> KnownSweep | None:
        """What was known before the sweep was shared."""

    def trials(self, known: Known | None) -> Trials:
        """All trials, with what this run's own file has of them."""


def open_sweep(
    spec: Spec,
    path: Path,
    *,
    fresh: bool,
    recorder: Recorder,
    mastership: Mastership,
    allocation: Allocation,
    ranks: int,
    environment: dict[str, str],
    version: str,
    launch: str = "",
    until: float | None = None,
    share: SharePlan | None = None,
) -> Opened:
    """Claim the sweep, find out what is left to do, and start the journal.

    It waits for the disk: a rank calls it in a thread of its own.

    Args:
        spec: the sweep file.
        path: of the HDF5 file.
        fresh: whether to begin anew and move what is there aside.
        recorder: reads the results file.
        mastership: of whom.
        allocation: where this run lives.
        ranks: how many MPI ranks.
        environment: what the file will say was around.
        version: of this program.
        launch: the command that has started the ranks.
        until: when the allocation ends, by the monotonic clock; None where nobody knows.
        share: where several allocations share the sweep, and `path` is the part of this one.

    Raises:
        ResultsError: when the sweep cannot be gone on with, saying why and what to do.
        OSError: when the disk fails, or the folder cannot be written.
        RunOverError: when the run is over whose mastership this is.
        FollowedError: when a later master of it has taken over.
    """
    claim = _claim(path, recorder, mastership, allocation.job_id, is_share=share is not None)
    try:
        if share is None and mastership.is_first:
            end_shares(spec, path, recorder, fresh=fresh)
        if fresh and not (mastership.has_begun or _knows_run(path, recorder, claim.run)):
            move_aside(path, claim.token)
        known = known_trials(spec, path, recorder.read)
        # What the masters before have written may never have been synced; from here on it counts.
        sync_segments(journal_folder(path))
        if mastership.is_first:
            _say_what_was_edited(known or (share.base if share else None), environment)
        follows = known is not None and claim.run in known.allocations_table["run"]
        sampler = make_sampler(spec)
        trials = number_trials(spec, sampler, known) if share is None else share.trials(known)
        opening = RunRecord(
            run=claim.run,
            epoch=mastership.epoch,
            host=this_host(),
            pid=os.getpid(),
            started_at=time.time(),
            ranks=ranks,
            batch_system=allocation.system,
            job_id=allocation.job_id,
            command=sys.argv,
            version=version,
            spec=spec.text,
            source=spec.source,
            environment=environment,
            launch=launch,
            follows=known.covered if known else {},
        )
        journal = Journal(journal_folder(path), opening, claim.token)
        journal.start()
    except (RunOverError, FollowedError):
        raise
    except BaseException as error:
        # A disk that fails a run that is under way may be there again in a moment.
        if mastership.is_first or not isinstance(error, OSError):
            claim.release()
        raise
    search = _search(spec, sampler, trials, known)
    _introduce(journal, trials)
    before = known or (share.base if share else None)
    if share is None:
        _take_back_inferences(journal, trials)
    now = time.monotonic()
    closings = before.allocations_table["closing_time"] if before else ()
    stop = plan_stop(now, None if until is None else until - now, spec.limits.grace_s, closings)
    scheduler = Scheduler(
        trials.states,
        trials.attempts,
        duration_model(spec, trials, before),
        retries=spec.limits.retries,
        grace_s=spec.limits.grace_s,
        held=known.held if known and follows else {},
        losses=_losses(known, launch, follows),
        deadline=None if stop is None else stop.trials_end_at,
        same_failures=spec.limits.same_failures,
        quarantine=spec.limits.quarantine,
        shared=share is not None,
        widths=trial_widths(spec, trials),
        teams=known.teams if known and follows else {},
        # What one member finds out about memory the others do not know, and most trials are not its own.
        frontier=_frontier(spec, trials, known) if share is None else None,
        search=search,
        fresh=known.not_fresh() if known else (),
        fresh_process=spec.fresh_process,
        # A rank that was given up for its silence may be back.
        patience_s=_PATIENCE * spec.limits.silence_s,
    )
    best, measures = (before.best, before.has_metrics) if before else (None, False)
    return Opened(path, trials, best, measures or spec.measures, scheduler, journal, claim, stop, share)


def _claim(path: Path, recorder: Recorder, mastership: Mastership, job_id: str, *, is_share: bool) -> Claim:
    """The claim of the sweep, taken anew or over from the master before."""
    folder = journal_folder(path)
    run, epoch = mastership.run, mastership.epoch
    if not mastership.is_first:
        try:
            return Claim.inherit(folder, job_id, run=run, epoch=epoch)
        except (RunOverError, FileNotFoundError):
            # Unless the master before this one had not come as far as claiming the sweep.
            if mastership.has_begun or _knows_run(path, recorder, run):
                raise
    try:
        # Shares that others have cleared away must not come into being again.
        return Claim.take(folder, job_id, run=run, epoch=epoch, parents=not is_share)
    except ClaimedError as error:
        raise ResultsError(str(error)) from error


def _knows_run(path: Path, recorder: Recorder, run: str) -> bool:
    try:
        state, _ = recorder.read(path)
    except ResultsError:
        # Whatever this is, the run has not made it.
        return False
    return state is not None and run in state.allocations["run"]


def run_has_ended(path: Path, recorder: Recorder, run: str) -> RunEndedError:
    """What to raise where a run is over: with the end that its results tell; where they tell none, another run came."""
    try:
        state, _ = recorder.read(path)
    except (ResultsError, OSError):
        state = None
    ends = dict(zip(state.allocations["run"], state.allocations["end"], strict=True)) if state else {}
    return RunEndedError(EndReason(ends[run]) if ends.get(run) else EndReason.SUPERSEDED)


def end_shares(spec: Spec, path: Path, recorder: Recorder, *, fresh: bool) -> None:
    """What several allocations had of a sweep that one goes on with alone is put together first, or moved aside.

    Raises:
        ResultsError: when others are at work on it.
    """
    if not shares_folder(path).exists():
        return
    recorder.gather(path, spec.limits.silence_s)
    if not fresh:
        log.info("%s was shared by several runs; their parts were put together, and this run has it alone", path.name)


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
        for run, rank, left_at in zip(workers["allocation"], workers["rank"], workers["left_at"], strict=True):
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
        changed = [[name for name, digest in hashes.items() if code.get(name, digest) != digest] for hashes in before]
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
            for number, attempt, worker in zip(*(table[name] for name in ("trial", "attempt", "worker")), strict=True):
                kinds.setdefault((number, attempt), set()).add(workers["device_kind"][worker] if worker >= 0 else "")
        for number, attempt, end in zip(*(attempts[name] for name in ("trial", "attempt", "end")), strict=True):
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
        return {n for n, end in tried if end == AttemptEnd.NOT_FRESH and not TrialState(self.states[n]).is_end}

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


def _hashes(text: str) -> dict[str, str]:
    """Source files and their hashes, as a run has recorded them; none where it has not, or damage has changed it."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(name): str(digest) for name, digest in found.items()} if isinstance(found, dict) else {}


def _say_what_was_edited(known: KnownSweep | None, environment: Mapping[str, str]) -> None:
    """One line when the results so far are of other code than those to come; both are in one table from here on."""
    if known is None:
        return
    files, trials = known.edited(_hashes(environment.get(CODE, "")))
    if files:
        those = files[0] if len(files) == 1 else ", ".join(files[:-1]) + f" and {files[-1]}"
        log.warning("%s %s not what %s ran with", those, "is" if len(files) == 1 else "are", _trials_text(trials))


def _trials_text(numbers: Sequence[int]) -> str:
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
    listed = texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + f" and {texts[-1]}"
    return f"trial{'s' * (len(numbers) > 1)} {listed}"


def read_here(path: Path) -> tuple[SweepState | None, list[Damage]]:
    """The state of a sweep, and what could not be read of its journal; None where there is none."""
    if not path.exists() and not segments(journal_folder(path)) and not shares_folder(path).exists():
        return None, []
    # h5py is for those who go on with a file; a new sweep starts without it.
    from mpisweep.results.merging import read_sweep

    damages: list[Damage] = []
    return read_sweep(path, damages, reading=Reading.TABLES), damages


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
    recorded = parse_spec(state.spec, source=state.source, folder=spec.folder) if state.spec else spec
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


def move_aside(path: Path, token: Path) -> Path | None:
    """Rename an old results file, and what the journal has of it, so that nothing is deleted.

    Args:
        path: of the HDF5 file.
        token: of the master who does it; see :mod:`mpisweep.results.claim`.

    Returns:
        The new name of the file; None when there was nothing.
    """
    folder = journal_folder(path)
    old_segments = segments(folder)
    if not path.exists() and not old_segments:
        return None
    stamp = time.strftime("%Y%m%d-%H%M%S")
    kept = path.with_name(f"{path.stem}.{stamp}{path.suffix}")
    count = 1
    while kept.exists() or journal_folder(kept).exists():
        count += 1
        kept = path.with_name(f"{path.stem}.{stamp}-{count}{path.suffix}")
    if old_segments:
        journal_folder(kept).mkdir()
        for name in old_segments:
            _move_through(token, folder / name, journal_folder(kept) / name)
    if path.exists():
        _move_through(token, path, kept)
    log.info("%s was moved to %s", path.name, kept.name)
    return kept


def _move_through(token: Path, old: Path, new: Path) -> None:
    os.rename(old, token / "moved")
    os.rename(token / "moved", new)


def _introduce(journal: Journal, trials: Trials) -> None:
    # Texts may be long, and no record must be.
    longest = sum(max((len(value) for value in column if isinstance(value, str)), default=0) for column in trials.parameters.values())
    count = max(1, min(_TRIALS_A_BLOCK, _CHARS_A_BLOCK // max(1, longest)))
    for first in range(trials.first_new, trials.count, count):
        numbers = list(range(first, min(first + count, trials.count)))
        journal.append(encode(TrialsBlock(numbers, trials.columns(numbers), trials.baseline)))
    if trials.first_new == trials.count:
        journal.append(encode(TrialsBlock([], {}, trials.baseline)))


def _take_back_inferences(journal: Journal, trials: Trials) -> None:
    """Trials that earlier runs have called infeasible wait again; whether they still are, the scheduler says.

    There may be other devices now, more memory, or nothing in the sweep file that speaks of memory.
    """
    infeasible = [number for number, state in enumerate(trials.states) if state == TrialState.INFEASIBLE]
    for number in infeasible:
        trials.states[number] = int(TrialState.WAITING)
    if infeasible:
        journal.append(encode(InferredBlock(infeasible, "")))


def _search(spec: Spec, sampler: Sampler, trials: Trials, known: KnownSweep | None) -> LargestBatch | None:
    """The search where it asks for trials by what has ended, told of what has."""
    if not isinstance(sampler, LargestBatch):
        return None
    names = [name for name in trials.parameters if name not in spec.space.names]
    for number in range(trials.count):
        # A baseline with other options says nothing about these.
        if all(trials.parameters[name][number] == trials.parameters[name][0] for name in names):
            sampler.add(number, {name: trials.parameters[name][number] for name in spec.space.names})
    if known is not None:
        objectives = known.objectives or [math.nan] * len(known.states)
        for number, (state, cause, value) in enumerate(zip(known.states, known.causes, objectives, strict=True)):
            if TrialState(state).is_end:
                sampler.note(number, state, cause, value)
    return sampler


def _frontier(spec: Spec, trials: Trials, known: KnownSweep | None) -> MemoryFrontier | None:
    """The memory frontier as far as earlier runs have found it."""
    if not spec.space.memory or spec.search == "largest_batch":
        return None
    frontier = MemoryFrontier(trials.parameters, spec.space.memory)
    for number, kind, evidence in known.memory_evidence() if known else ():
        frontier.learn(number, kind, evidence)
    return frontier


def _losses(known: KnownSweep | None, launch: str, follows: bool) -> dict[int, int]:
    if known is None or not launch:
        return {}
    return known.losses(launch) if follows else known.losses_of_crash(launch)


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
