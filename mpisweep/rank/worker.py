"""A rank's worker, between the transport and the trial processes.

It passes messages on and remembers three things: each result, and each report, until the master acknowledges
the trial's end; and which slots have trials to be reclaimed.  So it can tell a new master everything that the
old one may not have stored.  It decides nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence, Set

from mpisweep.blocks import EndedBlock, decode
from mpisweep.messages import (
    AbandonTrial,
    Acknowledge,
    Broken,
    DeviceChecked,
    Ended,
    Give,
    Hello,
    Message,
    PruneTrial,
    ReclaimedTrials,
    ReclaimTrials,
    Rendezvous,
    RendezvousReady,
    Reported,
    StopTrials,
    ToWorker,
)
from mpisweep.processes.child import ProcessSetting
from mpisweep.processes.forkserver import ForkServer, Notice
from mpisweep.processes.kernel import process_start
from mpisweep.processes.trial_events import (
    Broke,
    Checked,
    Reclaimed,
    RendezvousOpened,
    Reports,
    Result,
    TrialEvent,
)
from mpisweep.processes.trialprocess import TrialProcess
from mpisweep.records import DeviceShare

__all__ = ["Worker"]

#: How long a trial process about to begin a trial has to see that the trial was reclaimed, in seconds.
#: The store of one core reaches another within microseconds; see :mod:`mpisweep.processes.shared_page`.
_RECLAIM_S = 0.002


class Worker:
    """The worker of one rank.

    Args:
        server: forks its trial processes.
        setting: the setting of all of them.
        shares: what each slot may use; one trial process per slot.
        host: name of the node.
        tell_master: sends messages to the current master.
    """

    def __init__(
        self,
        server: ForkServer,
        setting: ProcessSetting,
        shares: Sequence[DeviceShare],
        *,
        host: str,
        tell_master: Callable[[Sequence[Message]], None],
    ) -> None:
        self._server = server
        self._shares = tuple(shares)
        self._host = host
        self._tell_master = tell_master
        self._slots = [TrialProcess(server, setting, index, share) for index, share in enumerate(shares)]
        #: Slot -> the check of its device.
        self._checks: dict[int, DeviceChecked] = {}
        self._deliveries = 0
        #: Delivery number -> result, until it is acknowledged.
        self._unacknowledged: dict[int, bytes] = {}
        #: Slot -> when to collect the trials that were reclaimed.
        self._reclaiming: dict[int, float] = {}
        #: Slot -> rendezvous of the trial of which it runs rank 0.
        self._rendezvous: dict[int, RendezvousReady] = {}
        #: (number, attempt) -> ReportBlocks of a trial whose end is not acknowledged.
        self._reports: dict[tuple[int, int], list[bytes]] = {}

    def follow(self) -> None:
        """Say Hello to a new master, with everything that the one before may not have stored."""
        # Trials that the old master reclaimed are skipped, and reported when their turn comes.
        self._reclaiming.clear()
        label = ", ".join(share.label for share in self._shares)
        cores = sum(len(share.cores) for share in self._shares)
        process = os.getpid()
        hello = Hello(
            self._host, label, cores, len(self._slots), self._held(), process, process_start(process),
            tuple(share.environment for share in self._shares), self._shares[0].kind,
            tuple(slot for slot, process in enumerate(self._slots) if process.is_gone),
            self._shares[0].gpu_count, self._shares[0].gpus[0] if self._shares[0].is_packed else "",
        )  # fmt: skip
        reports = [Reported(body) for bodies in self._reports.values() for body in bodies]
        ended = [Ended(delivery, body) for delivery, body in self._unacknowledged.items()]
        self._tell_master([hello, *self._checks.values(), *reports, *ended, *self._rendezvous.values()])

    def _held(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        held: list[list[tuple[int, int]]] = [[] for _ in self._slots]
        for body in self._unacknowledged.values():
            block = _ended(body)
            held[block.slot] += zip(block.numbers, block.attempts, strict=True)
        for slot, process in enumerate(self._slots):
            held[slot] += process.held
        return tuple(tuple(trials) for trials in held)

    def files(self) -> list[int]:
        """Descriptors that are readable when there is something to do."""
        files = [process.fileno() for process in self._slots]
        return [self._server.fileno(), *(file for file in files if file >= 0)]

    def on_messages(self, messages: Sequence[ToWorker], now: float) -> None:
        """Carry out the master's orders."""
        for message in messages:
            match message:
                case Give(slot, count, body, team):
                    self._slots[slot].give(body, count, team)
                    if self._slots[slot].is_over:
                        # The run stops, which a new master may not know yet.
                        self._reclaim(slot, now)
                case Rendezvous(slot, number, attempt, address):
                    self._slots[slot].set_rendezvous(number, attempt, address)
                case AbandonTrial(slot, number, attempt, linger_s):
                    self._slots[slot].abandon(number, attempt, now + linger_s)
                case PruneTrial(slot, number, attempt):
                    self._slots[slot].prune(number, attempt)
                case Acknowledge(deliveries):
                    for delivery in deliveries:
                        self._forget(delivery)
                case ReclaimTrials(slot):
                    self._reclaim(slot, now)
                case StopTrials(grace_s):
                    for slot, process in enumerate(self._slots):
                        self._reclaim(slot, now)
                        process.stop(grace_s, now)

    def step(self, now: float, ready: Set[int]) -> bool:
        """Serve the trial processes; True if anything happened.

        Args:
            now: the monotonic clock.
            ready: descriptors that are readable.
        """
        out: list[Message] = []
        for slot, process in enumerate(self._slots):
            if process.fileno() in ready or process.has_unsent:
                self._pass_on(slot, process.receive(), out)
            process.keep_time(now)
        if self._server.fileno() in ready:
            for notice in self._server.notices():
                self._on_notice(notice, out)
        for slot in [slot for slot, due in self._reclaiming.items() if now >= due]:
            del self._reclaiming[slot]
            self._pass_on(slot, [self._slots[slot].reclaimed()], out)
        if out:
            self._tell_master(out)
        return bool(out)

    def close(self) -> None:
        """Close the trial processes."""
        for process in self._slots:
            process.close()

    @property
    def hurried(self) -> bool:
        """Whether something is due within milliseconds."""
        return bool(self._reclaiming)

    def _reclaim(self, slot: int, now: float) -> None:
        self._slots[slot].reclaim()
        self._reclaiming[slot] = now + _RECLAIM_S

    def _on_notice(self, notice: Notice, out: list[Message]) -> None:
        for slot, process in enumerate(self._slots):
            self._pass_on(slot, process.on_notice(notice), out)

    def _pass_on(self, slot: int, events: Sequence[TrialEvent], out: list[Message]) -> None:
        for event in events:
            match event:
                case Result(body):
                    self._rendezvous.pop(slot, None)
                    self._deliveries += 1
                    self._unacknowledged[self._deliveries] = body
                    out.append(Ended(self._deliveries, body))
                case Checked(body):
                    self._checks[slot] = DeviceChecked(body)
                    out.append(self._checks[slot])
                case RendezvousOpened(number, attempt, address):
                    self._rendezvous[slot] = RendezvousReady(number, attempt, address)
                    out.append(self._rendezvous[slot])
                case Reports(number, attempt, body):
                    self._reports.setdefault((number, attempt), []).append(body)
                    out.append(Reported(body))
                case Broke(trial, why, is_gone):
                    self._rendezvous.pop(slot, None)
                    if trial is not None:
                        self._reports.pop(trial, None)
                    out.append(Broken(slot, trial, why, is_gone))
                case Reclaimed(numbers, attempts, end):
                    if slot in self._rendezvous and self._rendezvous[slot].number in numbers:
                        del self._rendezvous[slot]
                    for trial in zip(numbers, attempts, strict=True):
                        self._reports.pop(trial, None)
                    out.append(ReclaimedTrials(slot, numbers, attempts, end))

    def _forget(self, delivery: int) -> None:
        body = self._unacknowledged.pop(delivery, None)
        if body is None or not self._reports:
            return
        block = _ended(body)
        for trial in zip(block.numbers, block.attempts, strict=True):
            self._reports.pop(trial, None)


def _ended(body: bytes) -> EndedBlock:
    block = decode(body)
    assert isinstance(block, EndedBlock)
    return block
