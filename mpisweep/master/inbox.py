"""The master's inbox: what ranks send becomes events for the scheduler, records and answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from mpisweep.blocks import EndedBlock, JoinedRecord, LeftRecord, decode, encode
from mpisweep.master.devicechecks import DeviceChecks
from mpisweep.master.effects import Effects
from mpisweep.master.outbox import Outbox
from mpisweep.master.roster import Roster
from mpisweep.master.steering import Steering
from mpisweep.messages import (
    Broken,
    DeviceChecked,
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
from mpisweep.records import EndReason, FailureCause, Slot, TrialState
from mpisweep.results.journal.segments import RECORD_BYTES
from mpisweep.scheduling.events import SlotBroken, TrialsEnded, TrialsReclaimed, WorkerJoined, WorkerLost
from mpisweep.scheduling.scheduler import Scheduler

__all__ = ["Inbox"]

#: How much a result may grow when it becomes that of a trial of several ranks, in bytes.
_ROOM_BYTES = 4096

log = logging.getLogger(__name__)


class Inbox:
    """Takes what ranks send to the master.

    Args:
        steering: takes events.
        scheduler: knows which ranks run a trial.
        effects: takes records.
        outbox: takes acknowledgements.
        roster: the ranks that have joined.
        checks: compares their devices, and lets them join.
        send: sends messages to a rank at once.
    """

    def __init__(
        self,
        steering: Steering,
        scheduler: Scheduler,
        effects: Effects,
        outbox: Outbox,
        roster: Roster,
        checks: DeviceChecks,
        send: Callable[[int, Sequence[Message]], None],
    ) -> None:
        self._steering = steering
        self._scheduler = scheduler
        self._effects = effects
        self._outbox = outbox
        self._roster = roster
        self._checks = checks
        self._send = send

    def on_messages(self, rank: int, messages: Sequence[ToMaster], now: float) -> None:
        """Take messages of a worker, in order."""
        handle = self._steering.handle
        for message in messages:
            match message:
                case Ended(delivery, body):
                    self._on_ended(rank, delivery, body, now)
                case Reported(body):
                    self._on_reported(rank, body)
                case ReclaimedTrials(slot, numbers, attempts, end):
                    handle(TrialsReclaimed(Slot(rank, slot), numbers, attempts, end), now)
                case Broken(slot, trial, why, is_gone):
                    if not is_gone:
                        log.warning("rank %d: %s", rank, why)
                    handle(SlotBroken(Slot(rank, slot), trial, why, is_gone), now)
                case Hello():
                    self._on_hello(rank, message, now)
                case DeviceChecked(body):
                    hello = self._roster.hello(rank)
                    if hello is not None:
                        self._checks.on_checked(rank, hello, body, now)
                case RendezvousReady(number, attempt, address):
                    self._pass_rendezvous_on(rank, number, attempt, address)
                case StopWanted():
                    self._steering.request_stop(EndReason.SIGNAL, now)

    def on_lost(self, rank: int, why: str, now: float) -> None:
        """Note that a rank died, or was silent until it counted as dead."""
        hello = self._roster.leave(rank)
        # The master before has logged those that were gone before this one took over.
        log.log(
            logging.WARNING if hello else logging.DEBUG,
            "rank %d is lost (%s); its trials are retried elsewhere", rank, why,
        )  # fmt: skip
        self._checks.on_lost(rank, now)
        self._steering.handle(WorkerLost(rank), now)
        self._effects.append(encode(LeftRecord(rank, time.time(), why)))
        if hello is not None:
            self._end_process_of(hello)

    def _end_process_of(self, hello: Hello) -> None:
        """Have the process of a lost rank killed on its own node: it may hang and hold its device."""
        rank = self._roster.neighbour_of(hello)
        if rank is not None:
            self._send(rank, [Kill(hello.host, hello.process, hello.process_start)])

    def _on_ended(self, rank: int, delivery: int, body: bytes, now: float) -> None:
        block = decode(body)
        assert isinstance(block, EndedBlock)
        if len(body) > RECORD_BYTES - _ROOM_BYTES:
            log.error(
                "rank %d sent a result of %d MiB, more than a record holds: its trials fail",
                rank,
                len(body) >> 20,
            )
            block = _too_large(block, len(body))
            body = encode(block)
        self._steering.handle(TrialsEnded(block), now, body)
        number = block.numbers[0]
        if self._scheduler.team(number):
            self._outbox.hold(number, rank, delivery)
            return
        # Nothing was appended for a block that was dropped: this token is synced already, or soon.
        self._outbox.acknowledge(self._effects.last_token, rank, delivery)

    def _on_reported(self, rank: int, body: bytes) -> None:
        if len(body) > RECORD_BYTES:
            log.error(
                "rank %d sent %d MiB of reports at once, more than a record holds: dropped",
                rank,
                len(body) >> 20,
            )
            return
        self._effects.store_reports(body)

    def _on_hello(self, rank: int, hello: Hello, now: float) -> None:
        log.debug("rank %d has joined: %s, %s", rank, hello.host, hello.device)
        self._roster.join(rank, hello)
        joined = JoinedRecord(
            rank, hello.host, hello.device, hello.cores, hello.slots, time.time(), hello.kind, hello.gpus
        )
        self._effects.append(encode(joined))
        cores = hello.cores / max(hello.slots, 1)
        joins = WorkerJoined(
            rank,
            hello.slots,
            hello.held,
            hello.host,
            hello.kind,
            hello.gone,
            cores,
            hello.gpus,
            hello.packed_gpu,
        )
        self._checks.on_hello(rank, joins, now)

    def _pass_rendezvous_on(self, rank: int, number: int, attempt: int, address: str) -> None:
        lead, *others = self._scheduler.team(number) or (None,)
        # A later attempt may be led by the same rank, and has a rendezvous of its own.
        if (
            lead is not None
            and lead.rank == rank
            and self._scheduler.held.get(lead, {}).get(number) == attempt
        ):
            for slot in others:
                self._send(slot.rank, [Rendezvous(slot.place, number, attempt, address)])


def _too_large(block: EndedBlock, size: int) -> EndedBlock:
    """The end of trials whose results are too large to be read again."""
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
