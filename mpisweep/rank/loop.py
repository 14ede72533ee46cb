"""The loop of a rank: a worker, on one rank the master, around one transport.

Every rank knows by :mod:`mpisweep.rank.succession` who is master; what it does as master is in
:mod:`mpisweep.rank.office`.

One loop serves everything, blocks nowhere, and touches nothing of the sweep on disk: threads and processes
beside it do that.  While there is nothing to do it sleeps in poll(), which the trial processes and the
journal end at once; MPI has no descriptor to poll, so the sleep grows from 50 microseconds to 8 milliseconds
and no further: an idle rank costs about one percent of a core.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

from mpisweep.batch.walltime import HURRIED_GRACE_S
from mpisweep.devices.nodes import Node
from mpisweep.messages import (
    AbandonTrial,
    Acknowledge,
    Beat,
    Begun,
    Finish,
    Follow,
    Give,
    Kill,
    Lead,
    Message,
    PruneTrial,
    ReclaimTrials,
    Rendezvous,
    StopTrials,
    StopWanted,
    ToMaster,
    ToWorker,
)
from mpisweep.processes.child import ProcessSetting
from mpisweep.processes.forkserver import ForkServer
from mpisweep.processes.kernel import kill_if_same
from mpisweep.processes.trialprocess import PROGRAM_END_S
from mpisweep.rank.layout import share_of_rank
from mpisweep.rank.office import Office
from mpisweep.rank.options import Place, RankOptions
from mpisweep.rank.signals import STOP_SIGNALS, Sleeper, drain, end_if_stuck
from mpisweep.rank.succession import Succession
from mpisweep.rank.transport import Transport
from mpisweep.rank.worker import Worker
from mpisweep.results import logs_folder, trials_folder
from mpisweep.spec import CommandWorkload, Spec

if TYPE_CHECKING:
    from mpisweep.rank.staging import Staging

__all__ = ["Rank"]

#: Sleep while nothing happens, in seconds: the first, the longest with MPI, and the longest without.
_NAP_FIRST_S = 50e-6
_NAP_AT_MOST_S = 8e-3
_NAP_ALONE_S = 20e-3
#: Time between two heartbeats, in seconds.
_BEAT_S = 1.0
#: The fork server kills its rank after this many times the silence plus so many seconds without a heartbeat:
#: the others have declared the rank dead by then, and nobody else may be able to end it.
_HANGS_FACTOR = 2.0
_HANGS_BEYOND_S = 5.0
#: A turn of the loop that comes this late means that the rank itself was stalled, in seconds.
_STALLED_S = 1.0

log = logging.getLogger(__name__)


class Rank:
    """One rank: a worker, an office of the master, and their messages with the other ranks.

    Args:
        spec: the sweep file.
        options: of the command line.
        place: where the results file lies, and where this run lives.
        node: this node's cores and devices.
        server: forks the trial processes.
        transport: between ranks.
        environment: the environment that the results file records.
        allocation_ends_at: in seconds since 1970; None if unknown.

    Attributes:
        staging: brought the data to this node; None if there is none to bring.
    """

    def __init__(
        self,
        spec: Spec,
        options: RankOptions,
        place: Place,
        node: Node,
        server: ForkServer,
        transport: Transport,
        environment: dict[str, str],
        allocation_ends_at: float | None,
    ) -> None:
        self._spec = spec
        self._options = options
        self._place = place
        self._node = node
        self._server = server
        self._transport = transport
        self._worker: Worker | None = None
        #: Whether this rank was asked or told to stop; it tells every new master.
        self._stop_wanted = False
        #: Whether this rank's worker was told to stop, and whether SIGXCPU leaves it less time for that.
        self._stopping = False
        self._hurried = False
        now = time.monotonic()
        self._succession = Succession(
            transport.rank, transport.size, silence_s=spec.limits.silence_s, now=now
        )
        self._office = Office(
            spec, options, place, server, transport, self._succession, environment, allocation_ends_at
        )
        #: Ranks that were declared dead for their silence, and may hang.
        self._given_up: set[int] = set()
        self.staging: Staging | None = None
        self._next_beat = now
        self._last_turn = now
        self._exit_code: int | None = None

    @property
    def nobody_hangs(self) -> bool:
        """Whether every rank has either ended or can be expected to leave now."""
        return not self._given_up

    def run(self, waker: int) -> int:
        """Run until the sweep's run ends; a signal makes `waker` readable."""
        share, refusal = share_of_rank(self._transport, self._node, self._spec, self._options)
        # What the ranks do together is done.
        end_if_stuck(None)
        if refusal:
            log.error("%s", refusal)
            self._end_with(2)
            return 2
        if self._spec.stage_data:
            _watch(self._server, self._transport, self._spec)
            self.staging = _staging(self._spec, self._options, self._place, self._transport, self._server)
            if (ended := self.staging.run(waker)) is not None:
                return ended
            self._stop_wanted = self.staging.stop_wanted
            self._succession.forgive_stall(time.monotonic() - self._last_turn)
        if self._succession.must_lead:
            # First, so that the process that reads the file exists while torch is still being imported.
            self._office.lead()
        built_in = self._spec.built_in
        if built_in is not None and built_in.preload:
            pack = _pack_of(built_in.preload) if self._options.stage_env else ""
            self._server.preload(built_in.preload, pack)
        if share is not None:
            setting = _process_setting(self._spec, self._options, self._place, self._transport, self.staging)
            self._worker = Worker(
                self._server, setting, [share], host=self._transport.host, tell_master=self._tell_master
            )
        _watch(self._server, self._transport, self._spec)
        self._last_turn = time.monotonic()
        self._loop(waker)
        self._server.watch(0)
        if self._worker is not None:
            self._worker.close()
        assert self._exit_code is not None
        return self._exit_code

    def _end_with(self, exit_code: int) -> None:
        self._exit_code = exit_code
        self._finish_others()

    # ------------------------------------------------------------------------------------- the loop

    def _loop(self, waker: int) -> None:
        sleeper = Sleeper()
        nap_s = 0.0
        longest_s = _NAP_ALONE_S if self._transport.size == 1 else _NAP_AT_MOST_S
        while self._exit_code is None:
            ready = sleeper.sleep([waker, *self._files()], nap_s)
            caught = drain(waker) if waker in ready else set()
            if caught & STOP_SIGNALS:
                self._tell_master([StopWanted()])
                self._stop_wanted = True
            if signal.SIGXCPU in caught:
                self._hurry()
            if self._turn(ready) or ready:
                nap_s = 0.0
                continue
            nap_s = min(max(2 * nap_s, _NAP_FIRST_S), longest_s)
            if self._worker is not None and self._worker.hurried:
                nap_s = min(nap_s, 1e-3)

    def _turn(self, ready: Set[int]) -> bool:
        """Do one turn of the loop, with the files that are readable; True if anything happened."""
        now = time.monotonic()
        if now - self._last_turn > _STALLED_S:
            self._succession.forgive_stall(now - self._last_turn)
        self._last_turn = now
        happened = False
        for rank, messages in self._transport.receive():
            happened = True
            self._deliver(rank, messages, now)
        self._watch_over(now)
        if self._worker is not None:
            happened = self._worker.step(now, ready) or happened
        happened = self._office.step(now, ready) or happened
        if self._office.exit_code is not None:
            self._end_with(self._office.exit_code)
        return happened

    def _deliver(self, rank: int, messages: Sequence[Message], now: float) -> None:
        succession = self._succession
        succession.hear(rank, now)
        if succession.is_lost(rank) and self._office.is_held:
            # It was declared dead but is back: ignore it until it has said Hello again.
            succession.welcome(rank, now)
            self._given_up.discard(rank)
            assert self._office.leader is not None
            self._transport.send(rank, [self._office.leader])
            messages = [message for message in messages if isinstance(message, Lead)]
        for_master: list[ToMaster] = []
        for_worker: list[ToWorker] = []
        for message in messages:
            match message:
                case Lead():
                    self._follow(rank, message, now)
                case Follow(epoch):
                    self._office.on_follow(rank, epoch)
                case Begun(run):
                    self._office.on_begun(rank, run)
                case Beat():
                    pass
                case Kill(host, process, start):
                    if host == self._transport.host:
                        kill_if_same(process, start)
                case Finish(exit_code):
                    if rank == succession.master:
                        self._exit_code = exit_code
                case (
                    Give() | Rendezvous() | AbandonTrial() | PruneTrial() | ReclaimTrials()
                    | StopTrials() | Acknowledge()
                ):  # fmt: skip
                    # Ignore messages from a superseded master.
                    if rank == succession.master:
                        for_worker.append(
                            self._in_time(message) if isinstance(message, StopTrials) else message
                        )
                case _:
                    for_master.append(message)
        if for_master:
            self._office.on_messages(rank, for_master, now)
        if for_worker and self._worker is not None:
            self._worker.on_messages(for_worker, now)

    def _hurry(self) -> None:
        """Give the trials less time to return, since PJM's limit is near."""
        if self._hurried:
            return
        self._hurried = True
        log.warning("SIGXCPU: trials of this rank have up to %g s to return", HURRIED_GRACE_S)
        if self._stopping and self._worker is not None:
            self._worker.on_messages([StopTrials(HURRIED_GRACE_S)], time.monotonic())

    def _in_time(self, stop: StopTrials) -> StopTrials:
        self._stopping = True
        # A successor of the master must know.
        self._stop_wanted = True
        return StopTrials(min(stop.grace_s, HURRIED_GRACE_S)) if self._hurried else stop

    def _follow(self, rank: int, lead: Lead, now: float) -> None:
        if not self._succession.accept_lead(rank, lead.epoch, now):
            return
        self._office.follow(lead, rank)
        self._tell_master([Follow(lead.epoch)])
        if self._worker is not None:
            self._worker.follow()
        if self._stop_wanted:
            self._tell_master([StopWanted()])

    def _watch_over(self, now: float) -> None:
        """Send heartbeats, and note which ranks are lost."""
        for rank in self._transport.lost():
            self._on_lost(rank, "it died", now)
        if now < self._next_beat:
            return
        self._next_beat = now + _BEAT_S
        if self._transport.size == 1:
            return
        self._server.beat()
        for rank in self._succession.silent(now):
            self._given_up.add(rank)
            self._on_lost(rank, f"no message from it for {self._spec.limits.silence_s:g} s", now)
        others = [rank for rank in self._succession.alive if rank != self._transport.rank]
        for rank in others if self._office.is_held else [self._succession.master]:
            self._transport.send(rank, [Beat()])

    def _on_lost(self, rank: int, why: str, now: float) -> None:
        known = not self._succession.is_lost(rank)
        if why == "it died":
            self._given_up.discard(rank)
        if not known:
            return
        self._succession.lose(rank, now)
        self._office.on_lost(rank, why, now)

    def _finish_others(self) -> None:
        """Tell every rank how the run ended; one that hangs reads it when it is back."""
        assert self._exit_code is not None
        for rank in range(self._transport.size):
            if rank != self._transport.rank:
                self._transport.send(rank, [Finish(self._exit_code)])

    def _files(self) -> list[int]:
        files = self._worker.files() if self._worker is not None else [self._server.fileno()]
        return files + self._office.files()

    def _tell_master(self, messages: Sequence[Message]) -> None:
        if self._succession.is_led:
            self._transport.send(self._succession.master, messages)


def _watch(server: ForkServer, transport: Transport, spec: Spec) -> None:
    """Have the fork server end this rank if it hangs."""
    if transport.size > 1:
        server.watch(_HANGS_FACTOR * spec.limits.silence_s + _HANGS_BEYOND_S)


def _pack_of(modules: Sequence[str]) -> str:
    from mpisweep.processes.staging import pack_file

    return os.fspath(pack_file(modules))


def _staging(
    spec: Spec, options: RankOptions, place: Place, transport: Transport, server: ForkServer
) -> Staging:
    """The rank's part in staging; only ranks that stage data import it."""
    from mpisweep.rank.staging import Staging, StagingOrder

    return Staging(StagingOrder.of(spec, options, place), transport, server)


def _process_setting(
    spec: Spec, options: RankOptions, place: Place, transport: Transport, staging: Staging | None
) -> ProcessSetting:
    """The setting that this rank's trial processes share."""
    logs = logs_folder(place.path)
    if options.split is not None:
        # Ranks of other members log beside it.
        logs /= f"{transport.host}-{os.getpid()}"
    return ProcessSetting(
        spec=spec.text,
        source=spec.source,
        folder=spec.folder,
        trials_folder=trials_folder(place.path),
        log_file=logs / f"rank-{transport.rank:04d}.log",
        worker=transport.rank,
        timeout_s=spec.limits.timeout_s,
        stall_s=spec.limits.stall_s,
        slack_s=PROGRAM_END_S if isinstance(spec.workload, CommandWorkload) else 0.0,
        environment=() if staging is None else staging.environment,
    )
