"""The master's loop: messages in, scheduler, journal, messages out, snapshots.  No decisions are made here.

The order in which things reach the outside is what the promises about results rest on:

* an assignment is sent once its record is written;
* a result is acknowledged once its record is synced, and while nobody can have taken the sweep over meanwhile;
* the file is replaced by another process, which tells what it covers.

Nothing in here waits for a disk, nor touches one: the journal and the claim have threads, the file has a process.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from mpisweep.blocks import (
    AssignedBlock,
    ClosedRecord,
    EndedBlock,
    InferredBlock,
    JoinedRecord,
    LeftRecord,
    QuarantineRecord,
    TrialsBlock,
    UnfinishedBlock,
    decode,
    encode,
)
from mpisweep.keeper import Keeper, Left, Over
from mpisweep.messages import (
    Abandon,
    Acknowledge,
    Assign,
    Commit,
    Decision,
    End,
    Ended,
    Event,
    Give,
    GiveUp,
    Hello,
    Infer,
    Introduce,
    Kill,
    Lease,
    LetGo,
    Meet,
    Meeting,
    Message,
    Quarantine,
    Reported,
    Returned,
    Stop,
    StopRequested,
    StopTrials,
    StopWanted,
    TakeBack,
    Team,
    TimePassed,
    ToMaster,
    TrialsEnded,
    TrialsReturned,
    Withdraw,
    WorkerJoined,
    WorkerLost,
)
from mpisweep.numbering import Trials
from mpisweep.progress import Progress, ProgressSink
from mpisweep.recorder import Recorder
from mpisweep.records import ENDED_WELL, Direction, EndReason, FailureCause, Slot, TrialState
from mpisweep.results.claim import FollowedError, RunOverError
from mpisweep.results.journal import RECORD_BYTES, Journal
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.scheduling.teams import all_devices
from mpisweep.spec import Spec
from mpisweep.vigil import Vigil

__all__ = ["Master"]

#: How often the scheduler is told that time has passed, in seconds.
_TICK_S = 0.02
#: Snapshots cost at most this share of the run.
_SNAPSHOT_SHARE = 0.02
#: The shortest time between two snapshots, in seconds.
_SNAPSHOT_EVERY_S = 1.0
#: Failures that are logged one by one; from there on only the count is seen.
_FAILURES_LOGGED = 20

#: How long the last snapshot is tried again before the journal is left to keep everything, in seconds.
_LAST_SNAPSHOT_S = 60.0
#: Pause after a last snapshot that failed, in seconds.
_AGAIN_S = 1.0
#: A disk that owes an answer for so long hangs, in seconds.
_HANGS_S = 5.0
#: How long the last steps may take after everything is on disk, in seconds.
_LEAVE_S = 10.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Best:
    """The best trial so far."""

    value: float | None = None
    number: int | None = None


class _Closing(Enum):
    """What the end of a run waits for, in this order."""

    #: That everything is in the journal, and acknowledged.
    JOURNAL = auto()
    #: That the last snapshot is written.
    SNAPSHOT = auto()
    #: That the other members of a split sweep are told.
    SHARE = auto()
    #: That the claim is released.
    CLAIM = auto()
    #: Nothing.
    OVER = auto()


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
        recorder: makes snapshots.
        vigil: keeps the claim.
        send: sends messages to a rank.
        sink: shows progress.
        stop_at: when to stop for the walltime, by the monotonic clock; None for never.
        folders: are removed at the end if they are empty.
        now: the monotonic clock now.
        clock: that clock.
        keeper: gets trials, where other allocations work on the sweep as well.
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
        recorder: Recorder,
        vigil: Vigil,
        send: Callable[[int, Sequence[Message]], None],
        sink: ProgressSink,
        stop_at: float | None,
        folders: Sequence[Path],
        now: float,
        clock: Callable[[], float] = time.monotonic,
        keeper: Keeper | None = None,
    ) -> None:
        self._spec = spec
        self._trials = trials
        self._scheduler = scheduler
        self._journal = journal
        self._recorder = recorder
        self._vigil = vigil
        self._keeper = keeper
        self._send = send
        self._sink = sink
        self._stop_at = stop_at
        self._folders = [str(folder) for folder in folders]
        self._failing_since: float | None = None
        self._clock = clock
        self._last_step = now
        #: What was confirmed before this time says nothing: this rank was held up since.
        self._confirm_after = now
        self._hellos: dict[int, Hello] = {}
        self._quarantines: dict[Slot, str] = {}
        self._again_at = math.inf
        self._started = now
        self._ended_before = self._ended_count()
        self._ranks: list[int] = []
        #: What may leave once the journal has written up to a token, and once it has synced up to one.
        self._after_write: deque[tuple[int, int, Message]] = deque()
        self._after_sync: deque[tuple[int, int, int]] = deque()
        #: Trial of several ranks -> what its ranks have delivered of it, until it has an end.
        self._undecided: dict[int, list[tuple[int, int]]] = {}
        self._last_token = 0
        self._next_tick = now
        self._next_snapshot = now
        self._recorded_token = -1
        self._best = _Best() if best is None else _Best(best[1], best[0])
        self._measures = measures
        self._tells_end = tells_end
        self._failures_logged = 0
        #: Whether something was said of a trial that is complete.
        self._notice_logged = False
        self._end: EndReason | None = None
        #: When the grace of the running trials is over, and since when there are none, in seconds since 1970.
        self._grace_over_at = math.inf
        self._closing_since = 0.0
        self._closing: _Closing | None = None
        self._close_by = math.inf
        self._journal_open = True
        self._journal_failure = ""
        #: Of a run that is over, apart from what :attr:`_closing` waits for.
        self._code = 0
        #: Why the sweep is not this master's any more, where a later master or another run has taken it over.
        self.fenced: FollowedError | RunOverError | None = None
        self.exit_code: int | None = None

    def files(self) -> list[int]:
        """Descriptors that are readable when there is something to do."""
        others = [self._recorder.fileno()]
        if self._keeper is not None:
            others.append(self._keeper.fileno())
        return [self._journal.fileno(), *others] if self._journal_open else others

    # ------------------------------------------------------------------------------------- messages in

    def on_messages(self, rank: int, messages: Sequence[ToMaster], now: float) -> None:
        """What a worker has sent."""
        for message in messages:
            match message:
                case Ended(delivery, body):
                    self._on_ended(rank, delivery, body, now)
                case Reported(body):
                    self._on_reported(rank, body)
                case Returned(slot, numbers, attempts, end):
                    self._handle(TrialsReturned(Slot(rank, slot), numbers, attempts, end), now)
                case Hello():
                    self._on_hello(rank, message, now)
                case Meeting(number, attempt, address):
                    self._pass_meeting_on(rank, number, attempt, address)
                case StopWanted():
                    self._request_stop(EndReason.SIGNAL, now)

    def _on_reported(self, rank: int, body: bytes) -> None:
        if len(body) > RECORD_BYTES:
            log.error("rank %d has sent %d MiB of reports at once, which no record holds: dropped", rank, len(body) >> 20)
            return
        self._append(body)

    def _pass_meeting_on(self, rank: int, number: int, attempt: int, address: str) -> None:
        lead, *others = self._scheduler.team(number) or (None,)
        # A later attempt may be led by the same rank, and has a meeting of its own.
        if lead is not None and lead.rank == rank and self._scheduler.held.get(lead, {}).get(number) == attempt:
            for slot in others:
                self._send(slot.rank, [Meet(slot.place, number, attempt, address)])

    def _on_hello(self, rank: int, hello: Hello, now: float) -> None:
        log.debug("rank %d has joined: %s, %s", rank, hello.host, hello.device)
        if rank not in self._hellos:
            self._ranks.append(rank)
        self._hellos[rank] = hello
        joined = JoinedRecord(rank, hello.host, hello.device, hello.cores, hello.slots, time.time(), hello.kind)
        self._append(encode(joined))
        self._handle(WorkerJoined(rank, hello.slots, hello.held, hello.host, hello.kind), now)

    def on_lost(self, rank: int, why: str, now: float) -> None:
        """A rank is gone, or has been silent for so long that it counts as gone."""
        hello = self._hellos.pop(rank, None)
        # Of those that were gone before this master took over somebody else has told.
        log.log(
            logging.WARNING if hello else logging.DEBUG,
            "rank %d is lost (%s); its trials are tried again elsewhere", rank, why,
        )  # fmt: skip
        if rank in self._ranks:
            self._ranks.remove(rank)
        self._handle(WorkerLost(rank), now)
        self._append(encode(LeftRecord(rank, time.time(), why)))
        if hello is not None:
            self._end_process_of(hello)

    def _end_process_of(self, hello: Hello) -> None:
        """Should the rank hang and not be dead, its device must be let go; only its own node can do that."""
        for rank, other in self._hellos.items():
            if other.host == hello.host:
                self._send(rank, [Kill(hello.host, hello.process, hello.process_start)])
                return

    def step_down(self) -> None:
        """Somebody else is master: let go of everything and touch nothing."""
        self._let_journal_go()
        self._vigil.end()
        self._recorder.close()
        if self._keeper is not None:
            self._keeper.close()

    def _let_journal_go(self) -> None:
        if self._journal_open:
            self._journal.abandon()
        self._journal_open = False

    def _on_ended(self, rank: int, delivery: int, body: bytes, now: float) -> None:
        block = decode(body)
        assert isinstance(block, EndedBlock)
        self._handle(TrialsEnded(block), now, body)
        number = block.numbers[0]
        if self._scheduler.team(number):
            self._undecided.setdefault(number, []).append((rank, delivery))
            return
        # Of a block that was dropped nothing was appended, and this token is synced already or soon.
        self._after_sync.append((self._last_token, rank, delivery))

    def _request_stop(self, reason: EndReason, now: float) -> None:
        if math.isinf(self._grace_over_at):  # a signal reaches every rank, and each passes it on
            log.info("%s: running trials have %g s to return", reason.value, self._spec.limits.grace_s)
        self._grace_over_at = min(self._grace_over_at, time.time() + self._spec.limits.grace_s)
        self._handle(StopRequested(reason), now)

    # ------------------------------------------------------------------------------------- decisions

    def _handle(self, event: Event, now: float, body: bytes | None = None) -> None:
        for decision in self._scheduler.handle(event, now):
            self._carry_out(decision, event, body)

    def _carry_out(self, decision: Decision, event: Event, body: bytes | None) -> None:
        match decision:
            case Assign(slots, numbers, attempts, fresh):
                self._assign(slots, numbers, attempts, fresh)
            case Commit(block):
                unchanged = isinstance(event, TrialsEnded) and block is event.block and body is not None
                self._append(body if unchanged and body is not None else encode(block))
                self._decided(block.numbers)
                self._note_ends(block)
            case Introduce(numbers, configurations):
                self._trials.grow(configurations)
                self._append(encode(TrialsBlock(numbers, self._trials.columns(numbers))))
            case Infer(numbers, why):
                self._append(encode(InferredBlock(numbers, why)))
                log.info("%d trials are infeasible: %s", len(numbers), why)
            case GiveUp(rank, numbers, attempts, end):
                self._append(encode(UnfinishedBlock(rank, numbers, attempts, int(end), time.time())))
                self._decided(numbers)
            case LetGo(slot, number, attempt, linger_s):
                self._send_in_turn(slot.rank, Abandon(slot.place, number, attempt, linger_s))
            case Withdraw(slot):
                self._send_in_turn(slot.rank, TakeBack(slot.place))
            case Stop(grace_s, only):
                for rank in self._ranks if only is None else [only]:
                    self._send(rank, [StopTrials(grace_s)])
            case Quarantine(slot, why):
                self._note_quarantine(slot, why)
            case Lease(shortest, ranks):
                assert self._keeper is not None
                self._keeper.lease(shortest, ranks)
            case End(decided):
                reason = self._judged(decided)
                self._append(encode(ClosedRecord(time.time(), reason.value)))
                self._closing_since = min(time.time(), self._grace_over_at)
                self._end = reason
                self._closing = _Closing.JOURNAL
                self._close_by = time.monotonic() + max(_LAST_SNAPSHOT_S, self._spec.limits.disk_s)

    def _judged(self, reason: EndReason) -> EndReason:
        """How the run ends, which the scheduler, who knows of no metrics, may think complete."""
        if reason is not EndReason.COMPLETE or not self._trials.count:
            return reason
        return EndReason.of_all(completed=True, measured=self._measures, finite=self._best.value is not None)

    def _note_quarantine(self, slot: Slot, why: str) -> None:
        hello = self._hellos[slot.rank]
        self._append(encode(QuarantineRecord(slot.rank, time.time(), why)))
        if why:
            self._quarantines[slot] = f"{hello.device} on {hello.host} (rank {slot.rank}): {why}"
            log.warning("quarantined: %s", self._quarantines[slot])
        elif slot in self._quarantines:
            del self._quarantines[slot]
            log.warning("rank %d is out of quarantine: its trials fail elsewhere too, or nobody else is left", slot.rank)

    def _assign(self, slots: Sequence[Slot], numbers: list[int], attempts: list[int], fresh: bool) -> None:
        columns = self._trials.columns(numbers)
        pairs = [[slot.rank, slot.place] for slot in slots]
        body = encode(AssignedBlock(pairs, time.time(), numbers, attempts, columns, fresh))
        token = self._append(body)
        teams: Sequence[Team | None] = self._teams_of(slots) if len(slots) > 1 else (None,)
        for slot, team in zip(slots, teams, strict=True):
            self._after_write.append((token, slot.rank, Give(slot.place, len(numbers), body, team)))

    def _send_in_turn(self, rank: int, message: Message) -> None:
        """Not before what it is about has been sent, which may still wait for the disk."""
        if any(receiver == rank for _, receiver, _ in self._after_write):
            self._after_write.append((self._after_write[-1][0], rank, message))
        else:
            self._send(rank, [message])

    def _teams_of(self, slots: Sequence[Slot]) -> list[Team]:
        """What each rank of a trial of several is told of the others."""
        hosts = [self._hellos[slot.rank].host for slot in slots]
        nodes = list(dict.fromkeys(hosts))
        teams: list[Team] = []
        for rank, host in enumerate(hosts):
            mates = [slot for slot, other in zip(slots, hosts, strict=True) if other == host]
            devices = [self._hellos[slot.rank].environment[slot.place] for slot in mates]
            teams.append(
                Team(
                    rank, len(slots), hosts[:rank].count(host), len(mates), nodes.index(host), len(nodes),
                    all_devices(devices),
                )
            )  # fmt: skip
        return teams

    def _decided(self, numbers: Sequence[int]) -> None:
        """A trial of several ranks has an end, or none: what its ranks have delivered can be acknowledged."""
        if self._undecided:
            for number in numbers:
                for rank, delivery in self._undecided.pop(number, ()):
                    self._after_sync.append((self._last_token, rank, delivery))

    def _append(self, body: bytes) -> int:
        self._last_token = self._journal.append(body)
        return self._last_token

    # ------------------------------------------------------------------------------------- effects

    def step(self, now: float, ready: Set[int]) -> bool:
        """Let out what has become safe, and see to time, snapshots and progress; True if anything left.

        Args:
            now: the monotonic clock.
            ready: descriptors that are readable.
        """
        if now - self._last_step > self._vigil.lease_s:
            self._confirm_after = now
        self._last_step = now
        if self._journal_open and self._journal.fileno() in ready:
            self._journal.drain()
        if self._recorder.fileno() in ready:
            self._recorder.listen()
        if self._keeper is not None and self._keeper.fileno() in ready:
            self._hear(self._keeper, now)
        sent = self._journal_open and self._release()
        if now >= self._next_tick:
            self._next_tick = now + _TICK_S
            self._handle(TimePassed(), now)
            if self._stop_at is not None and now >= self._stop_at:
                self._stop_at = None
                self._request_stop(EndReason.WALLTIME, now)
            self._watch_disk(now)
            self._look_at_vigil(now)
            if self._keeper is not None:
                self._keeper.keep_time(now)
        if self._closing is None:
            self._snapshot(now)
        elif self._close(now):
            sent = True
        if self._sink.wants(now):
            self._sink.show(self.progress(now))
        return sent

    def _release(self) -> bool:
        out: dict[int, list[Message]] = {}
        written = self._journal.written
        while self._after_write and self._after_write[0][0] <= written:
            _, rank, message = self._after_write.popleft()
            out.setdefault(rank, []).append(message)
        # In this order: what is synced later than the clock is read may be too late.
        synced = self._journal.synced
        if not self._is_sole(self._clock()):
            synced = -1
        deliveries: dict[int, list[int]] = {}
        while self._after_sync and self._after_sync[0][0] <= synced:
            _, rank, delivery = self._after_sync.popleft()
            deliveries.setdefault(rank, []).append(delivery)
        for rank, acknowledged in deliveries.items():
            out.setdefault(rank, []).append(Acknowledge(tuple(acknowledged)))
        for rank, messages in out.items():
            self._send(rank, messages)
        return bool(out)

    def _is_sole(self, now: float) -> bool:
        """Whether nobody can have taken over before now: what is on disk now is what a successor will find."""
        confirmed_at = self._vigil.confirmed_at
        return confirmed_at >= self._confirm_after and now - confirmed_at <= self._vigil.lease_s

    def _snapshot(self, now: float) -> None:
        """Have the file replaced when there is something new and the last time is long enough ago."""
        self._recorder.keep_time(now)
        folded = self._recorder.poll()
        if folded is not None:
            pause_s = max(_SNAPSHOT_EVERY_S, folded.seconds / _SNAPSHOT_SHARE)
            self._next_snapshot = now + pause_s
        if (
            now >= self._next_snapshot
            and not self._recorder.busy
            and self._journal.synced > self._recorded_token
        ):
            self._recorded_token = self._journal.synced
            self._recorder.fold(self._journal.segment)

    def _watch_disk(self, now: float) -> None:
        """Say when results cannot be written, and end the run when that has lasted for too long."""
        failure = self._disk_failure(now) if self._journal_open else ""
        if failure and not self._journal_failure:
            log.error("the journal cannot be written (%s); results stay with the workers until it can", failure)
            self._failing_since = self._journal.waits_since or now
        elif self._journal_failure and not failure:
            log.warning("the journal can be written again")
            self._failing_since = None
        self._journal_failure = failure
        if self._failing_since is not None and now - self._failing_since >= self._spec.limits.disk_s:
            log.error(
                "the journal could not be written for %g s (%s); everything that was acknowledged is on disk: "
                "make room and run again", self._spec.limits.disk_s, failure,
            )  # fmt: skip
            self._give_up_disk()

    def _disk_failure(self, now: float) -> str:
        """Why the journal cannot be written; empty while it can."""
        since = self._journal.waits_since
        if since is not None and now - since >= min(_HANGS_S, self._spec.limits.disk_s):
            return "the disk does not answer"
        return str(self._journal.failure or "")

    def _give_up_disk(self) -> None:
        """End at once: what the journal has is all that will be there."""
        self._failing_since = None
        self._let_journal_go()
        self._vigil.end()
        self._recorder.kill()
        self._end = EndReason.DISK
        self._end_with(EndReason.DISK.exit_code)

    def _end_with(self, exit_code: int) -> None:
        self._closing = _Closing.OVER
        self.exit_code = exit_code

    def _look_at_vigil(self, now: float) -> None:
        vigil = self._vigil
        if vigil.stop_seen:
            vigil.stop_seen = False
            log.info("stop requested (the stop file exists)")
            self._request_stop(EndReason.REQUEST, now)
        # Of a split sweep that the others have ended the process that keeps the leases tells.
        if self._closing not in (_Closing.CLAIM, _Closing.OVER) and self._keeper is None:
            self.fenced = vigil.lost

    # ------------------------------------------------------------------------------------- a shared sweep

    def _hear(self, keeper: Keeper, now: float) -> None:
        for told in keeper.hear():
            match told:
                case Left(code, who):
                    self._on_left(code, who)
                case Over(code):
                    self._on_over(code)
                case StopRequested(reason):
                    self._request_stop(reason, now)
                case _:
                    self._handle(told, now)

    def _on_left(self, code: int, who: str) -> None:
        assert self._end is not None
        if code != EndReason.SHARE.exit_code:
            log.info("%s: all trials of all members have ended, and are in one file", self._spec.name)
            self._code = code
        elif who:
            log.warning("%s: still at work on the sweep: %s", self._spec.name, who)
        else:
            log.warning("%s: some trials have not ended, and nobody is at work on them: run again", self._spec.name)
        if self._closing is _Closing.SHARE:
            self._begin_to_leave()

    def _on_over(self, code: int) -> None:
        """What this member shared with others is gone: the results file holds everything that counts."""
        if self._end is None:
            log.warning("%s: this member was silent; others have ended the sweep without it", self._spec.name)
        else:
            log.info("%s: all trials of all members have ended, and are in one file", self._spec.name)
        self.step_down()
        self._end = EndReason.SHARE
        self._end_with(code)

    # ------------------------------------------------------------------------------------- closing

    def _close(self, now: float) -> bool:
        """See to the next step of the end; True when there was one."""
        if self._closing is not _Closing.OVER:
            self._recorder.keep_time(now)
        match self._closing:
            case _Closing.JOURNAL:
                return self._close_journal(now)
            case _Closing.SNAPSHOT:
                return self._await_last_snapshot(now)
            case _Closing.CLAIM:
                return self._await_release(now)
        return False

    def _close_journal(self, now: float) -> bool:
        if self._recorder.busy:
            # A snapshot that was asked for before.
            self._recorder.poll()
        if self._journal.synced < self._last_token or self._after_sync or self._recorder.busy:
            if now >= self._close_by:
                self._lose_last_snapshot()
            return False
        self._journal.close()
        self._journal_open = False
        self._recorder.finish(self._closing_since)
        self._close_by = now + max(_LAST_SNAPSHOT_S, self._spec.limits.disk_s)
        self._closing = _Closing.SNAPSHOT
        return True

    def _await_last_snapshot(self, now: float) -> bool:
        snapshot = self._recorder.poll()
        if snapshot is None:
            if now >= self._close_by:
                self._lose_last_snapshot()
            elif now >= self._again_at:
                self._again_at = math.inf
                self._recorder.finish(self._closing_since)
            return False
        assert self._end is not None
        if snapshot.error:
            self._close_by = min(self._close_by, now + min(_LAST_SNAPSHOT_S, self._spec.limits.disk_s))
            self._again_at = now + _AGAIN_S
            return False
        self._code = self._end.exit_code
        self._sink.show(self.progress(now))
        if self._tells_end:
            log.log(logging.INFO if self._code == 0 else logging.WARNING, "%s: %s", self._spec.name, self._end.value)
        for text in self._quarantines.values():
            log.warning("quarantined: %s", text)
        if self._keeper is None:
            self._begin_to_leave()
        else:
            # What it brings with it decides how the run ends.
            self._closing = _Closing.SHARE
            self._keeper.leave()
        return True

    def _lose_last_snapshot(self) -> None:
        log.error("the last snapshot could not be written; the journal keeps everything: make room and run again")
        self._give_up_disk()

    def _begin_to_leave(self) -> None:
        self._vigil.end()
        self._recorder.leave(self._folders)
        self._close_by = time.monotonic() + _LEAVE_S
        self._closing = _Closing.CLAIM

    def _await_release(self, now: float) -> bool:
        # One that hangs here leaves a claim that is nobody's; everything is on disk.
        if self._recorder.poll() is None and now < self._close_by:
            return False
        self._end_with(self._code)
        return True

    # ------------------------------------------------------------------------------------- progress

    def progress(self, now: float) -> Progress:
        """How far the sweep is."""
        ended = self._ended_count()
        # Of a shared sweep, what is this member's.
        total = self._trials.count - self._scheduler.elsewhere
        elapsed_s = now - self._started
        infeasible = self._scheduler.count(TrialState.INFEASIBLE)
        # What was never run says nothing about how long the rest will take.
        rate = (ended - infeasible - self._ended_before) / elapsed_s if elapsed_s > 0 else 0.0
        number = self._best.number
        return Progress(
            total=total,
            ended=ended,
            failed=self._scheduler.count(TrialState.FAILED),
            infeasible=infeasible,
            running=self._scheduler.running,
            elapsed_s=elapsed_s,
            rate=rate,
            left_s=(total - ended) / rate if rate > 0 else None,
            objective=self._spec.objective,
            best=self._best.value,
            best_number=number,
            best_parameters={}
            if number is None
            else {name: self._trials.parameters[name][number] for name in self._spec.space.names},
        )

    def _ended_count(self) -> int:
        return sum(self._scheduler.count(state) for state in TrialState if state.is_end)

    def _note_ends(self, block: EndedBlock) -> None:
        self._measures = self._measures or bool(block.metrics)
        values = block.metrics.get(self._spec.objective)
        if values is not None:
            self._note_best(block, values)
        if block.causes:
            self._log_failures(block)

    def _note_best(self, block: EndedBlock, values: Sequence[float | None]) -> None:
        finite = [v for v in values if v is not None and math.isfinite(v)]
        if not finite:
            return
        smaller_is_better = self._spec.direction == Direction.MINIMIZE
        value = min(finite) if smaller_is_better else max(finite)
        old = self._best.value
        if old is None or (value < old if smaller_is_better else value > old):
            self._best = _Best(value, block.numbers[values.index(value)])

    def _log_failures(self, block: EndedBlock) -> None:
        for number, cause, message in zip(block.numbers, block.causes, block.messages, strict=True):
            if cause == FailureCause.NONE and not self._notice_logged and message and not message.startswith(ENDED_WELL):
                self._notice_logged = True
                log.warning("trial %d: %s; said once, the messages of all trials are in the results file", number, message)
            if cause == FailureCause.NONE or self._failures_logged >= _FAILURES_LOGGED:
                continue
            self._failures_logged += 1
            first = message.partition("\n")[0]
            log.warning("trial %d has failed (%s): %s", number, FailureCause(cause).label, first)
            if self._failures_logged == _FAILURES_LOGGED:
                log.warning("further failures are in the results file and not in this log")
