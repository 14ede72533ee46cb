"""From a sweep file and a path to a sweep that is ready to run: new, or going on where it stopped.

Everything that can be refused is refused here, before a trial runs: a sweep that another run is writing, a
results file that is something else, a sweep file that no longer describes what the results file holds.

A master that takes over from one that is gone goes the same way, and keeps the run's name.  First of all it
fences those before it, which may hang and come back (:mod:`mpisweep.results.claim`); the opening record of
the new segment says how far the older ones count, and what counts is synced before anything is done about it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mpisweep.batch.jobfacts import Allocation
from mpisweep.batch.walltime import StopPlan, plan_stop
from mpisweep.blocks import RunRecord
from mpisweep.master.adding import introduce, take_back_inferences
from mpisweep.master.joining import Share
from mpisweep.master.known import KnownSweep, duration_model, known_trials, say_what_was_edited, trial_widths
from mpisweep.master.snapshotter import Snapshotter
from mpisweep.processes.kernel import this_host
from mpisweep.records import EndReason, TrialState
from mpisweep.results import ResultsError, journal_folder, shares_folder
from mpisweep.results.claim import Claim, FollowedError, RunOverError
from mpisweep.results.holder import ClaimedError
from mpisweep.results.journal.segments import sync_segments
from mpisweep.results.journal.writer import Journal
from mpisweep.results.runs import move_aside
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search import LargestBatch, Sampler, make_sampler
from mpisweep.search.frontier import MemoryFrontier
from mpisweep.search.numbering import Trials, number_trials
from mpisweep.spec import Spec

__all__ = [
    "Mastership",
    "Opened",
    "RunEndedError",
    "RunFacts",
    "open_sweep",
    "run_has_ended",
]

#: How long too few workers are waited with, in units of the silence after which a rank counts as lost.
_PATIENCE = 2.0

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
    share: Share | None = None


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


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run says of itself.

    Attributes:
        allocation: where it lives.
        ranks: how many MPI ranks.
        environment: what the file will say of versions and code.
        version: of this program.
        launch: the command that has started the ranks.
        until: when the allocation ends, by the monotonic clock; None where nobody knows.
    """

    allocation: Allocation
    ranks: int
    environment: dict[str, str]
    version: str
    launch: str = ""
    until: float | None = None


class RunEndedError(Exception):
    """The run is over of which somebody is, or was about to be, the master; :attr:`reason` is how it has
    ended.
    """

    def __init__(self, reason: EndReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def open_sweep(
    spec: Spec,
    path: Path,
    *,
    fresh: bool,
    snapshotter: Snapshotter,
    mastership: Mastership,
    facts: RunFacts,
    share: Share | None = None,
) -> Opened:
    """Claim the sweep, find out what is left to do, and start the journal.

    It waits for the disk: a rank calls it in a thread of its own.

    Args:
        spec: the sweep file.
        path: of the HDF5 file.
        fresh: whether to begin anew and move what is there aside.
        snapshotter: reads the results file.
        mastership: of whom.
        facts: of this run.
        share: where several allocations share the sweep, and `path` is the part of this one.

    Raises:
        ResultsError: when the sweep cannot be gone on with, saying why and what to do.
        OSError: when the disk fails, or the folder cannot be written.
        RunOverError: when the run is over whose mastership this is.
        FollowedError: when a later master of it has taken over.
    """
    claim = _claim(path, snapshotter, mastership, facts.allocation.job_id, is_share=share is not None)
    with _released_on_failure(claim, mastership):
        if share is None and mastership.is_first:
            end_shares(spec, path, snapshotter, fresh=fresh)
        if fresh and not (mastership.has_begun or _knows_run(path, snapshotter, claim.run)):
            move_aside(path, claim.token)
        past = _read_past(spec, path, snapshotter, claim.run, share)
        if mastership.is_first:
            say_what_was_edited(past.before, facts.environment)
        sampler = make_sampler(spec)
        trials = number_trials(spec, sampler, past.known) if share is None else share.trials(past.known)
        journal = _start_journal(
            path, claim, _opening_record(spec, claim.run, mastership.epoch, facts, past.known)
        )
    search = _search(spec, sampler, trials, past.known)
    introduce(journal, trials)
    if share is None:
        take_back_inferences(journal, trials)
    stop = _plan_stop(spec, facts.until, past.before)
    scheduler = _scheduler(spec, trials, past, facts.launch, stop, search, is_shared=share is not None)
    best, measures = (past.before.best, past.before.has_metrics) if past.before else (None, False)
    return Opened(path, trials, best, measures or spec.measures, scheduler, journal, claim, stop, share)


@contextlib.contextmanager
def _released_on_failure(claim: Claim, mastership: Mastership) -> Iterator[None]:
    """Let the claim go when the sweep is refused inside."""
    try:
        yield
    except (RunOverError, FollowedError):
        raise
    except BaseException as error:
        # A disk that fails a run that is under way may be there again in a moment.
        if mastership.is_first or not isinstance(error, OSError):
            claim.release()
        raise


@dataclass(frozen=True, slots=True)
class _Past:
    """What there was before this master.

    Attributes:
        known: what the file that it writes has; None where there is none.
        before: the same, or what was known before the sweep was split.
        follows: whether masters before it of the same run have written of it.
    """

    known: KnownSweep | None
    before: KnownSweep | None
    follows: bool

    def losses(self, launch: str) -> dict[int, int]:
        """How often the worker of each trial was lost under this launch."""
        if self.known is None or not launch:
            return {}
        return self.known.losses(launch) if self.follows else self.known.losses_of_crash(launch)


def _read_past(spec: Spec, path: Path, snapshotter: Snapshotter, run: str, share: Share | None) -> _Past:
    """Read what earlier masters and runs have left, and have it on the disk for good."""
    known = known_trials(spec, path, snapshotter.read)
    # What the masters before have written may never have been synced; from here on it counts.
    sync_segments(journal_folder(path))
    follows = known is not None and run in known.allocations_table["run"]
    return _Past(known, known or (share.base if share else None), follows)


def _opening_record(spec: Spec, run: str, epoch: int, facts: RunFacts, known: KnownSweep | None) -> RunRecord:
    """The first record of every segment of this master."""
    return RunRecord(
        run=run,
        epoch=epoch,
        host=this_host(),
        pid=os.getpid(),
        started_at=time.time(),
        ranks=facts.ranks,
        batch_system=facts.allocation.system,
        job_id=facts.allocation.job_id,
        command=sys.argv,
        version=facts.version,
        spec=spec.text,
        source=spec.source,
        environment=facts.environment,
        launch=facts.launch,
        follows=known.covered if known else {},
    )


def _start_journal(path: Path, claim: Claim, opening: RunRecord) -> Journal:
    journal = Journal(journal_folder(path), opening, claim.token)
    journal.start()
    return journal


def _plan_stop(spec: Spec, until: float | None, before: KnownSweep | None) -> StopPlan | None:
    now = time.monotonic()
    closings = before.allocations_table["closing_time"] if before else ()
    return plan_stop(now, None if until is None else until - now, spec.limits.grace_s, closings)


def _scheduler(
    spec: Spec,
    trials: Trials,
    past: _Past,
    launch: str,
    stop: StopPlan | None,
    search: LargestBatch | None,
    *,
    is_shared: bool,
) -> Scheduler:
    """The scheduler, with what is held and was lost before this master."""
    known = past.known
    return Scheduler(
        trials.states,
        trials.attempts,
        duration_model(spec, trials, past.before),
        retries=spec.limits.retries,
        grace_s=spec.limits.grace_s,
        held=known.held if known and past.follows else {},
        losses=past.losses(launch),
        deadline=None if stop is None else stop.trials_end_at,
        same_failures=spec.limits.same_failures,
        quarantine=spec.limits.quarantine,
        shared=is_shared,
        widths=trial_widths(spec, trials),
        teams=known.teams if known and past.follows else {},
        # What one member finds out about memory the others do not know, and most trials are not its own.
        frontier=None if is_shared else _frontier(spec, trials, known),
        search=search,
        fresh=known.not_fresh() if known else (),
        fresh_process=spec.fresh_process,
        # A rank that was given up for its silence may be back.
        patience_s=_PATIENCE * spec.limits.silence_s,
    )


def _claim(
    path: Path, snapshotter: Snapshotter, mastership: Mastership, job_id: str, *, is_share: bool
) -> Claim:
    """The claim of the sweep, taken anew or over from the master before."""
    folder = journal_folder(path)
    run, epoch = mastership.run, mastership.epoch
    if not mastership.is_first:
        try:
            return Claim.inherit(folder, job_id, run=run, epoch=epoch)
        except (RunOverError, FileNotFoundError):
            # Unless the master before this one had not come as far as claiming the sweep.
            if mastership.has_begun or _knows_run(path, snapshotter, run):
                raise
    try:
        # Shares that others have cleared away must not come into being again.
        return Claim.take(folder, job_id, run=run, epoch=epoch, parents=not is_share)
    except ClaimedError as error:
        raise ResultsError(str(error)) from error


def _knows_run(path: Path, snapshotter: Snapshotter, run: str) -> bool:
    try:
        state, _ = snapshotter.read(path)
    except ResultsError:
        # Whatever this is, the run has not made it.
        return False
    return state is not None and run in state.allocations["run"]


def run_has_ended(path: Path, snapshotter: Snapshotter, run: str) -> RunEndedError:
    """What to raise where a run is over: with the end that its results tell; where they tell none, another
    run came.
    """
    try:
        state, _ = snapshotter.read(path)
    except (ResultsError, OSError):
        state = None
    ends = dict(zip(state.allocations["run"], state.allocations["end"], strict=True)) if state else {}
    return RunEndedError(EndReason(ends[run]) if ends.get(run) else EndReason.SUPERSEDED)


def end_shares(spec: Spec, path: Path, snapshotter: Snapshotter, *, fresh: bool) -> None:
    """What several allocations had of a sweep that one goes on with alone is put together first, or moved
    aside.

    Raises:
        ResultsError: when others are at work on it.
    """
    if not shares_folder(path).exists():
        return
    snapshotter.gather(path, spec.limits.silence_s)
    if not fresh:
        log.info(
            "%s was shared by several runs; their parts were put together, and this run has it alone",
            path.name,
        )


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
        for number, (state, cause, value) in enumerate(
            zip(known.states, known.causes, objectives, strict=True)
        ):
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
