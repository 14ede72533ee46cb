"""Opening a sweep, new or resumed: from a sweep file and a path to one that is ready to run.

Every refusal happens here, before a trial runs: another run is writing the sweep, the results file is of
another kind, or the sweep file no longer describes the trials in it.

A master that takes over opens the sweep the same way, and keeps the run's name.  It first fences superseded
masters, which may hang and come back (:mod:`mpisweep.results.claim`).  The opening record of its journal
segment states up to which offset the older segments count, and everything that counts is synced before the
master acts on it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from mpisweep.batch.jobfacts import Allocation
from mpisweep.batch.walltime import StopPlan, plan_stop
from mpisweep.blocks import ImportedBlock, RunRecord, encode
from mpisweep.master.adding import exclude, record_trials, reopen_infeasible
from mpisweep.master.best import BestSoFar, follow_best
from mpisweep.master.importing import known_imports
from mpisweep.master.joining import Share
from mpisweep.master.known import KnownSweep, duration_model, known_trials, trial_widths, warn_about_edits
from mpisweep.master.leading import Mastership, RunEndedError
from mpisweep.master.packing import make_packing
from mpisweep.master.planning import pilot_of
from mpisweep.master.request_watch import RequestWatch
from mpisweep.master.searching import (
    LearningPast,
    learning_past,
    make_ceiling,
    make_frontier,
    make_race,
    make_rules,
    make_search,
)
from mpisweep.master.snapshotter import Snapshotter
from mpisweep.processes.kernel import this_host
from mpisweep.records import EndReason
from mpisweep.results import ResultsError, journal_folder, shares_folder
from mpisweep.results.claim import Claim, FollowedError, RunOverError
from mpisweep.results.holder import ClaimedError
from mpisweep.results.journal.segments import sync_segments
from mpisweep.results.journal.writer import Journal
from mpisweep.results.runs import move_aside
from mpisweep.scheduling.proposals import Proposals
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search import AddingSearch, LearningSearch, Sampler, make_sampler
from mpisweep.search.numbering import Trials, number_trials
from mpisweep.spec import Spec

__all__ = [
    "Opened",
    "RunFacts",
    "ended_error",
    "open_sweep",
]

#: How long a run waits for more workers, as a multiple of the silence after which a rank counts as lost.
_PATIENCE_SILENCES = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """A sweep that is ready to run."""

    #: The HDF5 file of this run; for a split sweep, its part.
    path: Path
    trials: Trials
    #: The best trials of earlier runs.
    best: BestSoFar
    #: Whether trials are known to report metrics.
    measures: bool
    scheduler: Scheduler
    journal: Journal
    claim: Claim
    #: When to stop before the allocation ends; None if its end is unknown.
    stop: StopPlan | None
    #: This run's part of a split sweep; None if the sweep is not split.
    share: Share | None = None
    #: The learning search; None for any other.
    learning: LearningPast | None = None
    #: Users' requests; None if this run takes none, because the sweep is split.
    requests: RequestWatch | None = None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Facts about this run that its results record.

    Attributes:
        allocation: its allocation.
        ranks: number of MPI ranks.
        environment: versions and code of its environment.
        version: version of this program.
        launch: id of the command that started the ranks.
        until: when the allocation ends, by the monotonic clock; None if unknown.
        pilot: number of trials to which it is limited; 0 for no limit.
        queue_wait_s: how long its job waited in the queue; None if unknown.
    """

    allocation: Allocation
    ranks: int
    environment: dict[str, str]
    version: str
    launch: str = ""
    until: float | None = None
    pilot: int = 0
    queue_wait_s: float | None = None


def open_sweep(
    spec: Spec,
    path: Path,
    *,
    fresh: bool,
    snapshotter: Snapshotter,
    mastership: Mastership,
    facts: RunFacts,
    read_imports: Callable[[], ImportedBlock],
    share: Share | None = None,
) -> Opened:
    """Claim the sweep, read its results, and start the journal.

    It blocks on the disk: a rank calls it in a thread of its own.

    Args:
        spec: the sweep file.
        path: the HDF5 file.
        fresh: whether to move existing results aside and start over.
        snapshotter: reads the results file.
        mastership: identity of this master.
        facts: facts about this run.
        read_imports: reads the trials that the sweep file imports.
        share: this run's part of a split sweep, whose file is `path`; None if the sweep is not split.

    Raises:
        ResultsError: if the sweep cannot be resumed, with the reason and what to do.
        OSError: if the disk fails, or the folder cannot be written.
        RunOverError: if this master's run is over.
        FollowedError: if a later master has taken over.
    """
    claim = _claim(path, snapshotter, mastership, facts.allocation.job_id, is_share=share is not None)
    with _released_on_failure(claim, mastership):
        if share is None and mastership.is_first:
            end_shares(spec, path, snapshotter, fresh=fresh)
        if fresh and not (mastership.has_begun or _has_run(path, snapshotter, claim.run)):
            move_aside(path, claim.token)
        past = _read_past(spec, path, snapshotter, claim.run, share)
        if mastership.is_first:
            warn_about_edits(past.before, facts.environment)
        sampler = make_sampler(spec)
        trials = number_trials(spec, sampler, past.known) if share is None else share.trials(past.known)
        imported = known_imports(past.known)
        new_imports = None if imported is not None else _new_imports(spec, share, read_imports)
        opening = _opening_record(spec, claim.run, mastership.epoch, facts, past.known)
        journal = _start_journal(path, claim, opening, new_imports)
    search = make_search(spec, sampler, trials, past.known)
    record_trials(journal, trials)
    if share is None:
        reopen_infeasible(journal, trials, _told(sampler, past))
    exclude(journal, trials)
    stop = _plan_stop(spec, facts.until, past.before)
    learned = past.known if share is None else share.base  # members read what has become known since
    learning = learning_past(spec, sampler, trials, learned, imported or new_imports)
    scheduler = _scheduler(spec, trials, past, facts, stop, search, learning, share)
    before = past.before
    best = _best(spec, trials, before)
    measures = spec.measures or (before is not None and before.has_metrics)
    requests = _requests(path, claim, past.known) if share is None else None
    return Opened(path, trials, best, measures, scheduler, journal, claim, stop, share, learning, requests)


def _best(spec: Spec, trials: Trials, before: KnownSweep | None) -> BestSoFar:
    """The best of earlier runs, followed from now on."""
    best = follow_best(spec.objectives, trials, spec.repeats.first)
    if before is not None:
        before.tell(best)
    return best


def _requests(path: Path, claim: Claim, known: KnownSweep | None) -> RequestWatch:
    """The requests that users have made and that no run has applied."""
    watch = RequestWatch(path, claim.token, known.requests if known else ())
    watch.look()
    return watch


def _told(sampler: Sampler, past: _Past) -> Container[int]:
    """Trials that need too much memory, as a learning search was told once and for all."""
    return past.known.too_large if past.known and isinstance(sampler, LearningSearch) else ()


def _new_imports(
    spec: Spec, share: Share | None, read_imports: Callable[[], ImportedBlock]
) -> ImportedBlock | None:
    """Read the trials known from elsewhere for the first time; all members of a split have the same."""
    if share is not None:
        return share.imported
    return read_imports() if spec.imports else None


@contextlib.contextmanager
def _released_on_failure(claim: Claim, mastership: Mastership) -> Iterator[None]:
    """Release the claim if the sweep is refused inside."""
    try:
        yield
    except (RunOverError, FollowedError):
        raise
    except BaseException as error:
        # In a running sweep a failed disk may recover, so the claim stays.
        if mastership.is_first or not isinstance(error, OSError):
            claim.release()
        raise


@dataclass(frozen=True, slots=True)
class _Past:
    """The results from before this master.

    Attributes:
        known: the contents of its results file; None if there is none.
        before: the same, or the results from before the split.
        follows: whether earlier masters of the same run have written to it.
    """

    known: KnownSweep | None
    before: KnownSweep | None
    follows: bool

    def losses(self, launch: str) -> dict[int, int]:
        """Trial -> number of workers lost with it under this launch."""
        if self.known is None or not launch:
            return {}
        return self.known.losses(launch) if self.follows else self.known.losses_of_crash(launch)


def _read_past(spec: Spec, path: Path, snapshotter: Snapshotter, run: str, share: Share | None) -> _Past:
    """Read the results of earlier masters and runs, and sync them."""
    known = known_trials(spec, path, snapshotter.read)
    # Earlier masters may have written records without syncing them; from here on they count.
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
        deadline=None if facts.until is None else time.time() + facts.until - time.monotonic(),
        queue_wait_s=facts.queue_wait_s,
    )


def _start_journal(
    path: Path, claim: Claim, opening: RunRecord, new_imports: ImportedBlock | None
) -> Journal:
    """Start the journal; trials known from elsewhere are in it before any proposal."""
    journal = Journal(journal_folder(path), opening, claim.token)
    journal.start()
    if new_imports is not None:
        journal.append(encode(new_imports))
    return journal


def _plan_stop(spec: Spec, until: float | None, before: KnownSweep | None) -> StopPlan | None:
    now = time.monotonic()
    closings = before.allocations_table["closing_time"] if before else ()
    return plan_stop(now, None if until is None else until - now, spec.limits.grace_s, closings)


def _scheduler(
    spec: Spec,
    trials: Trials,
    past: _Past,
    facts: RunFacts,
    stop: StopPlan | None,
    search: AddingSearch | None,
    learning: LearningPast | None,
    share: Share | None,
) -> Scheduler:
    """Create the scheduler with the trials held and lost before this master."""
    known, is_shared = past.known, share is not None
    proposals = None
    if learning is not None:
        made = len(learning.known) + (0 if share is None else share.proposed)
        proposals = Proposals(learning.search.trials, made, spec.repeats.first)
    model = duration_model(spec, trials, past.before, None if learning is None else learning.imported)
    knows_frontier = not is_shared and proposals is None and not facts.pilot
    return Scheduler(
        trials.states,
        trials.attempts,
        model,
        retries=spec.limits.retries,
        grace_s=spec.limits.grace_s,
        held=known.held if known and past.follows else {},
        losses=past.losses(facts.launch),
        deadline=None if stop is None else stop.trials_end_at,
        same_failures=spec.limits.same_failures,
        quarantine=spec.limits.quarantine,
        shared=is_shared,
        widths=trial_widths(spec, trials),
        teams=known.teams if known and past.follows else {},
        # Members do not exchange evidence about memory, and most trials run elsewhere.
        frontier=make_frontier(spec, trials, known) if knows_frontier else None,
        ceiling=make_ceiling(spec, trials, known),
        search=search,
        proposals=proposals,
        race=None if facts.pilot else make_race(spec, trials, known),
        fresh=known.not_fresh() if known else (),
        retried=known.retried if known else None,
        first=known.first if known else (),
        fresh_process=spec.fresh_process,
        # A rank that was declared dead may come back.
        patience_s=_PATIENCE_SILENCES * spec.limits.silence_s,
        rules=make_rules(spec, known, follows=past.follows, base=past.before, is_shared=is_shared),
        only=pilot_of(spec, trials, facts.pilot) if facts.pilot else None,
        packing=make_packing(spec, trials, past.before, model),
    )


def _claim(
    path: Path, snapshotter: Snapshotter, mastership: Mastership, job_id: str, *, is_share: bool
) -> Claim:
    """Claim the sweep, or take the claim over from the previous master."""
    folder = journal_folder(path)
    run, epoch = mastership.run, mastership.epoch
    if not mastership.is_first:
        try:
            return Claim.inherit(folder, job_id, run=run, epoch=epoch)
        except (RunOverError, FileNotFoundError):
            # The previous master may have died before it claimed the sweep.
            if mastership.has_begun or _has_run(path, snapshotter, run):
                raise
    try:
        # Shares that other members have removed must not be created again.
        return Claim.take(folder, job_id, run=run, epoch=epoch, parents=not is_share)
    except ClaimedError as error:
        raise ResultsError(str(error)) from error


def _has_run(path: Path, snapshotter: Snapshotter, run: str) -> bool:
    try:
        state, _ = snapshotter.read(path)
    except ResultsError:
        # An unreadable file is not a result of this run.
        return False
    return state is not None and run in state.allocations["run"]


def ended_error(path: Path, snapshotter: Snapshotter, run: str) -> RunEndedError:
    """Error for a run that is over: with its recorded end, or as superseded if none is recorded."""
    try:
        state, _ = snapshotter.read(path)
    except (ResultsError, OSError):
        state = None
    ends = dict(zip(state.allocations["run"], state.allocations["end"], strict=True)) if state else {}
    return RunEndedError(EndReason(ends[run]) if ends.get(run) else EndReason.SUPERSEDED)


def end_shares(spec: Spec, path: Path, snapshotter: Snapshotter, *, fresh: bool) -> None:
    """Merge the parts of a split sweep that this run resumes alone.

    Raises:
        ResultsError: if other members are active.
    """
    if not shares_folder(path).exists():
        return
    snapshotter.gather(path, spec.limits.silence_s)
    if not fresh:
        log.info(
            "%s was split between several runs; their parts are merged, and this run resumes it alone",
            path.name,
        )
