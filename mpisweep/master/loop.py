"""The master's loop: time, confirmations of the disk, snapshots, members of a split sweep.

Messages come in at :mod:`mpisweep.master.inbox`, and events become decisions and effects in
:mod:`mpisweep.master.steering`.  The promises about results rest on the order in which things reach the
outside:

* an assignment is sent once its record is written;
* a result is acknowledged once its record is synced, and only while nobody can have taken over the sweep;
* another process replaces the results file, and says what the new one covers.

Nothing in here waits for a disk, nor touches one: the journal and the claim have threads, the file has a
process.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence, Set
from pathlib import Path

from mpisweep.blocks import encode
from mpisweep.master.best import BestSoFar
from mpisweep.master.closing import Closing, Stage
from mpisweep.master.devicechecks import DeviceChecks
from mpisweep.master.disk_watch import DiskWatch
from mpisweep.master.effects import Effects
from mpisweep.master.expectation import Expectation
from mpisweep.master.inbox import Inbox
from mpisweep.master.lease_client import LeaseClient
from mpisweep.master.outbox import Outbox
from mpisweep.master.prune_client import PruneClient
from mpisweep.master.request_watch import RequestWatch
from mpisweep.master.roster import Roster
from mpisweep.master.search_client import SearchClient
from mpisweep.master.side_events import SideEvents
from mpisweep.master.snapshotter import Snapshotter
from mpisweep.master.standing import Standing
from mpisweep.master.steering import Steering
from mpisweep.master.vigil import Vigil
from mpisweep.messages import Message, ToMaster
from mpisweep.progress import ProgressSink
from mpisweep.records import EndReason
from mpisweep.results.claim import FollowedError, RunOverError
from mpisweep.results.journal.writer import Journal
from mpisweep.scheduling.events import TimePassed
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search.numbering import Trials
from mpisweep.spec import Spec

__all__ = ["Master"]

#: Time between two ticks of the scheduler, in seconds.
_TICK_S = 0.02
#: Snapshots cost at most this share of the run.
_SNAPSHOT_SHARE = 0.02
#: The shortest time between two snapshots, in seconds.
_SNAPSHOT_EVERY_S = 1.0

log = logging.getLogger(__name__)


class Master:
    """The master of one run.

    Args:
        spec: the sweep file.
        trials: all trials and what was known of them at the start.
        best: the best trials of earlier runs.
        measures: whether trials are known to have metrics.
        tells_end: whether to log how the run ended; a launcher does that itself.
        scheduler: decides.
        journal: takes records.
        snapshotter: makes snapshots.
        vigil: renews the claim.
        send: sends messages to a rank.
        sink: shows progress.
        stop_at: when to stop for the walltime, by the monotonic clock; None for never.
        folders: removed at the end if they are empty.
        ranks: number of MPI ranks.
        now: the monotonic clock now.
        clock: that clock.
        lease_client: gets trials of a split sweep; None if this run has the sweep alone.
        search_client: asks a learning search for proposals; None for other searches.
        prune_client: has running trials judged; None if none is pruned.
        request_watch: reads users' requests; None if this run takes none.
        planned: what a plan predicted, as median and 95% bound in seconds; None without one.

    Attributes:
        fenced: set once a later master or another run has taken over the sweep.
    """

    def __init__(
        self,
        *,
        spec: Spec,
        trials: Trials,
        best: BestSoFar,
        measures: bool,
        tells_end: bool,
        scheduler: Scheduler,
        journal: Journal,
        snapshotter: Snapshotter,
        vigil: Vigil,
        send: Callable[[int, Sequence[Message]], None],
        sink: ProgressSink,
        stop_at: float | None,
        folders: Sequence[Path],
        ranks: int,
        now: float,
        clock: Callable[[], float] = time.monotonic,
        lease_client: LeaseClient | None = None,
        search_client: SearchClient | None = None,
        prune_client: PruneClient | None = None,
        request_watch: RequestWatch | None = None,
        planned: tuple[float, float] | None = None,
    ) -> None:
        self._spec, self._journal = spec, journal
        self._snapshotter = snapshotter
        self._vigil = vigil
        self._is_shared = lease_client is not None
        self._sink = sink
        self._stop_at, self._clock = stop_at, clock
        #: Time of the last step; and before which confirmations do not count: this rank was stalled since.
        self._last_step = self._confirm_after = now
        self._roster = Roster()
        self._next_tick = self._next_snapshot = now
        self._recorded_token, self._tells_end = -1, tells_end
        self._outbox = Outbox(send)
        self._standing = Standing(spec, trials, scheduler, best, measures, now)
        self._effects = Effects(
            trials, journal, self._outbox, send, self._roster, self._standing, lease_client, search_client,
            prune_client, spec, request_watch,
        )  # fmt: skip
        self._expectation = Expectation(spec, trials, scheduler, ranks, planned, now)
        self._disk = DiskWatch(journal, spec.limits.disk_s)
        self._closing = Closing(
            journal, snapshotter, vigil, lease_client, folders, spec.limits.disk_s, self._tell_end
        )
        self._steering = Steering(
            scheduler, self._effects, self._standing, self._closing, spec.limits.grace_s
        )
        self._side_events = SideEvents(
            spec.name, self._steering, self._closing, lease_client, search_client, prune_client
        )
        self._checks = DeviceChecks(
            spec.limits.slow_devices == "exclude", ranks, self._roster, self._steering, self._effects
        )
        self._inbox = Inbox(
            self._steering, scheduler, self._effects, self._outbox, self._roster, self._checks, send
        )
        self.fenced: FollowedError | RunOverError | None = None

    @property
    def exit_code(self) -> int | None:
        """The exit code of a run that is over; None before."""
        return self._closing.exit_code

    def files(self) -> list[int]:
        """Descriptors that are readable when there is something to do."""
        others = [self._snapshotter.fileno(), *self._side_events.files()]
        return [self._journal.fileno(), *others] if self._closing.journal_open else others

    def begin(self, now: float) -> None:
        """Take the requests that users have made before: without them the sweep may be complete."""
        self._take_requests(now)

    def on_messages(self, rank: int, messages: Sequence[ToMaster], now: float) -> None:
        """Take messages of a worker, in order."""
        self._inbox.on_messages(rank, messages, now)

    def on_lost(self, rank: int, why: str, now: float) -> None:
        """Note that a rank died, or was silent until it counted as dead."""
        self._inbox.on_lost(rank, why, now)

    def step_down(self) -> None:
        """Release everything and touch nothing: another rank is the master."""
        self._closing.abandon()
        self._side_events.close()

    # ----------------------------------------------------------------------------------- the turn of the loop

    def step(self, now: float, ready: Set[int]) -> bool:
        """Send what is safe, keep time, make snapshots, show progress; True if anything was sent.

        Args:
            now: the monotonic clock.
            ready: descriptors that are readable.
        """
        if now - self._last_step > self._vigil.lease_s:
            self._confirm_after = now
        self._last_step = now
        if self._closing.journal_open and self._journal.fileno() in ready:
            self._journal.drain()
        if self._snapshotter.fileno() in ready:
            self._snapshotter.listen()
        was_over = self._closing.stage is Stage.OVER
        self._side_events.hear(ready, now)
        if self._closing.stage is Stage.OVER and not was_over:
            # Other members have ended the sweep: nobody would serve what the scheduler still asks for.
            return True
        if self._closing.stage is Stage.RUNNING:
            self._checks.step(now)
            if not self._is_shared and (stated := self._expectation.stated(now)) is not None:
                self._effects.append(encode(stated))
        sent = self._closing.journal_open and self._release()
        if now >= self._next_tick:
            self._next_tick = now + _TICK_S
            self._steering.handle(TimePassed(), now)
            if self._stop_at is not None and now >= self._stop_at:
                self._stop_at = None
                self._steering.request_stop(EndReason.WALLTIME, now)
            if self._closing.journal_open and self._disk.check(now):
                self._closing.give_up_disk()
            self._look_at_vigil(now)
            self._take_requests(now)
            self._side_events.keep_time(now)
        if self._closing.stage is Stage.RUNNING:
            self._snapshot(now)
        elif self._closing.step(now, self._is_settled()):
            sent = True
        if self._sink.wants(now):
            self._sink.show(self._standing.progress(now))
        return sent

    def _is_settled(self) -> bool:
        return self._journal.synced >= self._effects.last_token and not self._outbox.owes_acknowledgements

    def _release(self) -> bool:
        written = self._journal.written
        # In this order: a record synced after the clock is read may be too late.
        synced = self._journal.synced
        if not self._is_sole(self._clock()):
            synced = -1
        if self._effects.desk.release(synced):
            self._vigil.hurry()
        return self._outbox.release(written, synced)

    def _is_sole(self, now: float) -> bool:
        """Whether no other rank can have taken over yet: a successor will find what is on disk."""
        confirmed_at = self._vigil.confirmed_at
        return confirmed_at >= self._confirm_after and now - confirmed_at <= self._vigil.lease_s

    def _take_requests(self, now: float) -> None:
        # Those that come later are for the next run.
        requests = self._effects.desk.take() if self._closing.stage is Stage.RUNNING else None
        if requests is not None:
            self._steering.handle(requests, now)

    def _snapshot(self, now: float) -> None:
        """Ask for a snapshot if there is something new and the last one is long enough ago."""
        self._snapshotter.keep_time(now)
        compacted = self._snapshotter.poll()
        if compacted is not None:
            pause_s = max(_SNAPSHOT_EVERY_S, compacted.seconds / _SNAPSHOT_SHARE)
            self._next_snapshot = now + pause_s
        if (
            now >= self._next_snapshot
            and not self._snapshotter.busy
            and self._journal.synced > self._recorded_token
        ):
            self._recorded_token = self._journal.synced
            self._snapshotter.compact(self._journal.segment)

    def _look_at_vigil(self, now: float) -> None:
        vigil = self._vigil
        if vigil.stop_seen:
            vigil.stop_seen = False
            log.info("stop requested (the stop file exists)")
            if self._closing.stage is Stage.RUNNING and not self._is_shared:
                self._effects.desk.note_stop()
            self._steering.request_stop(EndReason.REQUEST, now)
        # If the other members have ended a split sweep, the lease agent says so.
        if self._closing.stage not in (Stage.CLAIM, Stage.OVER) and not self._is_shared:
            self.fenced = vigil.lost

    # ------------------------------------------------------------------------------------- the end

    def _tell_end(self, reason: EndReason) -> None:
        self._sink.show(self._standing.progress(self._clock()))
        if self._tells_end:
            log.log(
                logging.INFO if reason.exit_code == 0 else logging.WARNING,
                "%s: %s",
                self._spec.name,
                reason.value,
            )
        for text in self._roster.findings:
            # A device that is kept out for its check is told once.
            if text not in self._roster.quarantines:
                log.warning("device check: %s", text)
        for text in self._roster.quarantines:
            log.warning("quarantined: %s", text)
