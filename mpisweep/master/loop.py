"""The master's loop: messages in, scheduler, journal, messages out, snapshots.  No decisions are made here.

The order in which things reach the outside is what the promises about results rest on:

* an assignment is sent once its record is written;
* a result is acknowledged once its record is synced, and while nobody can have taken the sweep over
  meanwhile;
* the file is replaced by another process, which tells what it covers.

Nothing in here waits for a disk, nor touches one: the journal and the claim have threads, the file has a
process.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from pathlib import Path

from mpisweep.blocks import (
    ClosedRecord,
    EndedBlock,
    JoinedRecord,
    LeftRecord,
    decode,
    encode,
)
from mpisweep.master.closing import Closing, Stage
from mpisweep.master.disk_watch import DiskWatch
from mpisweep.master.effects import Effects
from mpisweep.master.lease_client import EndedByOthers, LeaseClient, MemberLeft
from mpisweep.master.outbox import Outbox
from mpisweep.master.roster import Roster
from mpisweep.master.snapshotter import Snapshotter
from mpisweep.master.standing import Standing
from mpisweep.master.vigil import Vigil
from mpisweep.messages import (
    Broken,
    Ended,
    Hello,
    Kill,
    Message,
    ReclaimedTrials,
    Rendezvous,
    RendezvousReady,
    Reported,
    StopWanted,
    ToMaster,
)
from mpisweep.progress import ProgressSink
from mpisweep.records import EndReason, FailureCause, Slot, TrialState
from mpisweep.results.claim import FollowedError, RunOverError
from mpisweep.results.journal.segments import RECORD_BYTES
from mpisweep.results.journal.writer import Journal
from mpisweep.scheduling.decisions import End
from mpisweep.scheduling.events import (
    Event,
    SlotBroken,
    StopRequested,
    TimePassed,
    TrialsEnded,
    TrialsReclaimed,
    WorkerJoined,
    WorkerLost,
)
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search.numbering import Trials
from mpisweep.spec import Spec

__all__ = ["Master"]

#: How often the scheduler is told that time has passed, in seconds.
_TICK_S = 0.02
#: Snapshots cost at most this share of the run.
_SNAPSHOT_SHARE = 0.02
#: The shortest time between two snapshots, in seconds.
_SNAPSHOT_EVERY_S = 1.0
#: What a result may grow by when it becomes that of a trial of several ranks, in bytes.
_ROOM_BYTES = 4096

log = logging.getLogger(__name__)


def _too_large(block: EndedBlock, size: int) -> EndedBlock:
    """The end of trials whose results are larger than anything that could be read again."""
    count = len(block.numbers)
    why = (
        f"the result has {size >> 20:,} MiB, and the results file takes up to "
        f"{RECORD_BYTES >> 20:,} MiB at once; report less"
    )
    return replace(
        block,
        states=[int(TrialState.FAILED)] * count,
        metrics={},
        causes=[int(FailureCause.EXCEPTION)] * count,
        messages=[why] * count,
        warm=False,
    )


class Master:
    """The master of one run.

    Args:
        spec: the sweep file.
        trials: all trials and what was known of them at the start.
        best: the best trial of the runs before and its objective, where there is one.
        measures: whether trials have metrics, as far as is known beforehand.
        tells_end: whether to log how the run has ended; a launcher does that itself.
        scheduler: decides.
        journal: takes records.
        snapshotter: makes snapshots.
        vigil: keeps the claim.
        send: sends messages to a rank.
        sink: shows progress.
        stop_at: when to stop for the walltime, by the monotonic clock; None for never.
        folders: are removed at the end if they are empty.
        now: the monotonic clock now.
        clock: that clock.
        lease_client: gets trials, where other allocations work on the sweep as well.
    """

    def __init__(
        self,
        *,
        spec: Spec,
        trials: Trials,
        best: tuple[int, float] | None,
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
        now: float,
        clock: Callable[[], float] = time.monotonic,
        lease_client: LeaseClient | None = None,
    ) -> None:
        self._spec = spec
        self._scheduler = scheduler
        self._journal = journal
        self._snapshotter = snapshotter
        self._vigil = vigil
        self._lease_client = lease_client
        self._send = send
        self._sink = sink
        self._stop_at = stop_at
        self._clock = clock
        self._last_step = now
        #: What was confirmed before this time says nothing: this rank was held up since.
        self._confirm_after = now
        self._roster = Roster()
        self._next_tick = now
        self._next_snapshot = now
        self._recorded_token = -1
        self._tells_end = tells_end
        self._outbox = Outbox(send)
        self._standing = Standing(spec, trials, scheduler, best, measures, now)
        self._effects = Effects(
            trials, journal, self._outbox, send, self._roster, self._standing, lease_client
        )
        self._disk = DiskWatch(journal, spec.limits.disk_s)
        self._closing = Closing(
            journal, snapshotter, vigil, lease_client, folders, spec.limits.disk_s, self._tell_end
        )
        #: When the grace of the running trials is over, in seconds since 1970.
        self._grace_over_at = math.inf
        #: Why the sweep is not this master's any more, where a later master or another run has taken it over.
        self.fenced: FollowedError | RunOverError | None = None

    @property
    def exit_code(self) -> int | None:
        """Of a run that is over; None before."""
        return self._closing.exit_code

    def files(self) -> list[int]:
        """Descriptors that are readable when there is something to do."""
        others = [self._snapshotter.fileno()]
        if self._lease_client is not None:
            others.append(self._lease_client.fileno())
        return [self._journal.fileno(), *others] if self._closing.journal_open else others

    # ------------------------------------------------------------------------------------- messages in

    def on_messages(self, rank: int, messages: Sequence[ToMaster], now: float) -> None:
        """What a worker has sent."""
        for message in messages:
            match message:
                case Ended(delivery, body):
                    self._on_ended(rank, delivery, body, now)
                case Reported(body):
                    self._on_reported(rank, body)
                case ReclaimedTrials(slot, numbers, attempts, end):
                    self._handle(TrialsReclaimed(Slot(rank, slot), numbers, attempts, end), now)
                case Broken(slot, trial, why, is_gone):
                    if not is_gone:
                        log.warning("rank %d: %s", rank, why)
                    self._handle(SlotBroken(Slot(rank, slot), trial, why, is_gone), now)
                case Hello():
                    self._on_hello(rank, message, now)
                case RendezvousReady(number, attempt, address):
                    self._pass_rendezvous_on(rank, number, attempt, address)
                case StopWanted():
                    self._request_stop(EndReason.SIGNAL, now)

    def _on_reported(self, rank: int, body: bytes) -> None:
        if len(body) > RECORD_BYTES:
            log.error(
                "rank %d has sent %d MiB of reports at once, which no record holds: dropped",
                rank,
                len(body) >> 20,
            )
            return
        self._effects.append(body)

    def _pass_rendezvous_on(self, rank: int, number: int, attempt: int, address: str) -> None:
        lead, *others = self._scheduler.team(number) or (None,)
        # A later attempt may be led by the same rank, and has a meeting of its own.
        if (
            lead is not None
            and lead.rank == rank
            and self._scheduler.held.get(lead, {}).get(number) == attempt
        ):
            for slot in others:
                self._send(slot.rank, [Rendezvous(slot.place, number, attempt, address)])

    def _on_hello(self, rank: int, hello: Hello, now: float) -> None:
        log.debug("rank %d has joined: %s, %s", rank, hello.host, hello.device)
        self._roster.join(rank, hello)
        joined = JoinedRecord(
            rank, hello.host, hello.device, hello.cores, hello.slots, time.time(), hello.kind
        )
        self._effects.append(encode(joined))
        self._handle(WorkerJoined(rank, hello.slots, hello.held, hello.host, hello.kind, hello.gone), now)

    def on_lost(self, rank: int, why: str, now: float) -> None:
        """A rank is gone, or has been silent for so long that it counts as gone."""
        hello = self._roster.leave(rank)
        # Of those that were gone before this master took over somebody else has told.
        log.log(
            logging.WARNING if hello else logging.DEBUG,
            "rank %d is lost (%s); its trials are tried again elsewhere", rank, why,
        )  # fmt: skip
        self._handle(WorkerLost(rank), now)
        self._effects.append(encode(LeftRecord(rank, time.time(), why)))
        if hello is not None:
            self._end_process_of(hello)

    def _end_process_of(self, hello: Hello) -> None:
        """Should the rank hang and not be dead, its device must be let go; only its own node can do that."""
        rank = self._roster.neighbour_of(hello)
        if rank is not None:
            self._send(rank, [Kill(hello.host, hello.process, hello.process_start)])

    def step_down(self) -> None:
        """Somebody else is master: let go of everything and touch nothing."""
        self._closing.abandon()

    def _on_ended(self, rank: int, delivery: int, body: bytes, now: float) -> None:
        block = decode(body)
        assert isinstance(block, EndedBlock)
        if len(body) > RECORD_BYTES - _ROOM_BYTES:
            log.error(
                "rank %d has sent a result of %d MiB, which no record holds: its trials fail",
                rank,
                len(body) >> 20,
            )
            block = _too_large(block, len(body))
            body = encode(block)
        self._handle(TrialsEnded(block), now, body)
        number = block.numbers[0]
        if self._scheduler.team(number):
            self._outbox.hold(number, rank, delivery)
            return
        # Of a block that was dropped nothing was appended, and this token is synced already or soon.
        self._outbox.acknowledge(self._effects.last_token, rank, delivery)

    def _request_stop(self, reason: EndReason, now: float) -> None:
        if math.isinf(self._grace_over_at):  # a signal reaches every rank, and each passes it on
            log.info("%s: running trials have %g s to return", reason.value, self._spec.limits.grace_s)
        self._grace_over_at = min(self._grace_over_at, time.time() + self._spec.limits.grace_s)
        self._handle(StopRequested(reason), now)

    # ------------------------------------------------------------------------------------- decisions

    def _handle(self, event: Event, now: float, body: bytes | None = None) -> None:
        for decision in self._scheduler.handle(event, now):
            if isinstance(decision, End):
                self._begin_end(decision.reason)
            else:
                self._effects.carry_out(decision, event, body)

    def _begin_end(self, decided: EndReason) -> None:
        reason = self._standing.judge(decided)
        self._effects.append(encode(ClosedRecord(time.time(), reason.value)))
        self._closing.begin(reason, min(time.time(), self._grace_over_at))

    # ----------------------------------------------------------------------------------- the turn of the loop

    def step(self, now: float, ready: Set[int]) -> bool:
        """Let out what has become safe, and see to time, snapshots and progress; True if anything left.

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
        if self._lease_client is not None and self._lease_client.fileno() in ready:
            self._hear(self._lease_client, now)
            if self._closing.stage is Stage.OVER:
                # Others have ended the sweep: what the scheduler would still ask for has nobody to go to.
                return True
        sent = self._closing.journal_open and self._release()
        if now >= self._next_tick:
            self._next_tick = now + _TICK_S
            self._handle(TimePassed(), now)
            if self._stop_at is not None and now >= self._stop_at:
                self._stop_at = None
                self._request_stop(EndReason.WALLTIME, now)
            if self._closing.journal_open and self._disk.check(now):
                self._closing.give_up_disk()
            self._look_at_vigil(now)
            if self._lease_client is not None:
                self._lease_client.keep_time(now)
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
        # In this order: what is synced later than the clock is read may be too late.
        synced = self._journal.synced
        if not self._is_sole(self._clock()):
            synced = -1
        return self._outbox.release(written, synced)

    def _is_sole(self, now: float) -> bool:
        """Whether no other rank can have taken over yet, so that a successor finds what is on disk."""
        confirmed_at = self._vigil.confirmed_at
        return confirmed_at >= self._confirm_after and now - confirmed_at <= self._vigil.lease_s

    def _snapshot(self, now: float) -> None:
        """Have the file replaced when there is something new and the last time is long enough ago."""
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
            self._request_stop(EndReason.REQUEST, now)
        # Of a split sweep that the others have ended the process that keeps the leases tells.
        if self._closing.stage not in (Stage.CLAIM, Stage.OVER) and self._lease_client is None:
            self.fenced = vigil.lost

    # ------------------------------------------------------------------------------------- a shared sweep

    def _hear(self, lease_client: LeaseClient, now: float) -> None:
        for told in lease_client.hear():
            match told:
                case MemberLeft(code, who):
                    self._on_left(code, who)
                case EndedByOthers(code):
                    self._on_over(code)
                case StopRequested(reason):
                    self._request_stop(reason, now)
                case _:
                    self._handle(told, now)

    def _on_left(self, code: int, who: str) -> None:
        is_whole = code != EndReason.SHARE.exit_code
        if is_whole:
            log.info("%s: all trials of all members have ended, and are in one file", self._spec.name)
        elif who:
            log.warning("%s: other runs of the sweep are active: %s", self._spec.name, who)
        else:
            log.warning(
                "%s: some trials have not ended and no run is active: run the same command to resume",
                self._spec.name,
            )
        self._closing.left_share(code if is_whole else None)

    def _on_over(self, code: int) -> None:
        """What this member shared with others is gone: the results file holds everything that counts."""
        if self._closing.stage is Stage.RUNNING:
            log.warning("%s: this member was silent; others have ended the sweep without it", self._spec.name)
        else:
            log.info("%s: all trials of all members have ended, and are in one file", self._spec.name)
        self._closing.abandon()
        self._closing.end(EndReason.SHARE, code)

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
        for text in self._roster.quarantines:
            log.warning("quarantined: %s", text)
