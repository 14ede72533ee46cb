"""One rank from its first instruction to its last: a worker, on rank 0 the master, around one transport.

The order of the first steps matters.  The fork server is forked before MPI is initialised, and before any
thread exists.  On rank 0 it forks the snapshot process first and only then imports what the workload needs,
so that the results file is there while torch is still being imported.

Every rank knows by :mod:`mpisweep.rank.succession` who is master; what it does once it is that itself is in
:mod:`mpisweep.rank.office`.

One loop serves everything and blocks nowhere, and touches nothing of the sweep on the disk: threads and
processes beside it do that.  While there is nothing to do it sleeps in poll(), which the trial processes and
the journal end at once; MPI has no descriptor to poll, so the sleep grows from 50 microseconds to 8
milliseconds and no further: an idle rank costs about one percent of a core.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Sequence, Set
from pathlib import Path

from mpisweep.batch.allocation import this_allocation, warn_of_unknown_end, with_end
from mpisweep.batch.walltime import HURRIED_GRACE_S
from mpisweep.devices.nodes import LayoutError, Node, lay_out, this_node
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
    ReclaimTrials,
    Rendezvous,
    StopTrials,
    StopWanted,
    ToMaster,
    ToWorker,
)
from mpisweep.processes.child import ProcessSetting
from mpisweep.processes.forkserver import ForkServer, ForkServerLostError
from mpisweep.processes.kernel import adopt_orphans, end_descendants, kill_if_same
from mpisweep.processes.staging import PackError, pack_file, prepare_pack
from mpisweep.processes.trialprocess import PROGRAM_END_S
from mpisweep.rank.environment import describe_environment, describe_sources
from mpisweep.rank.office import Office
from mpisweep.rank.options import Place, RankOptions
from mpisweep.rank.signals import STOP_SIGNALS, Sleeper, drain, end_if_stuck, watch_signals
from mpisweep.rank.succession import FIRST_WORD_FACTOR, Succession
from mpisweep.rank.transport import Transport, TransportError, connect, is_first_rank
from mpisweep.rank.worker import Worker
from mpisweep.records import DeviceShare
from mpisweep.results import logs_folder, trials_folder
from mpisweep.results.columns import CODE
from mpisweep.spec import RANKS, CommandWorkload, FunctionWorkload, Spec

__all__ = ["RankOptions", "run_rank"]

#: Sleep while nothing happens, in seconds: the first, and the longest with MPI and without.
_NAP_FIRST_S = 50e-6
_NAP_AT_MOST_S = 8e-3
_NAP_ALONE_S = 20e-3
#: How often a rank gives a sign of life, in seconds.
_BEAT_S = 1.0
#: A rank that gives no sign of life for this many times the silence, and so many seconds more, is killed by
#: its own fork server: the others have given it up by then, and nobody else may be able to.
_HANGS_FACTOR = 2.0
_HANGS_BEYOND_S = 5.0
#: A process that was killed has at least so many seconds to end.
_END_AT_LEAST_S = 3.0
#: A turn of the loop that comes this late means that the rank itself was held up, in seconds.
_HELD_UP_S = 1.0

log = logging.getLogger(__name__)


def run_rank(spec: Spec, options: RankOptions) -> int:
    """Be this rank until the sweep's run has ended; returns the exit code that all ranks share."""
    waker = watch_signals()
    is_first = is_first_rank()
    environment = _environment(spec) if is_first else {}
    # One rank asks for all of them, and before MPI is there: it means starting a process.
    allocation_ends_at = _allocation_ends_at(options) if is_first and not options.launch else options.ends_at
    # Whoever serves MPI does not ask the disk.
    place = Place(options.path.resolve(), this_allocation(known=options.batch_system))
    if is_first and options.stage_env:
        # The other ranks wait for this one in MPI_Init, and want the pack after that.
        _stage(spec)
    node = this_node()
    adopt_orphans()
    # Ending a process that holds much memory takes seconds, however impatient its user is.
    server = ForkServer.start(max(spec.limits.silence_s, _END_AT_LEAST_S))
    end_if_stuck(FIRST_WORD_FACTOR * spec.limits.silence_s)
    try:
        transport = connect()
    except TransportError as error:
        if is_first:
            log.error("%s", error)
        return 2
    try:
        rank = _Rank(spec, options, place, node, server, transport, environment, allocation_ends_at)
        exit_code = rank.run(waker)
        server.close()
        transport.leave(exit_code, politely=rank.nobody_hangs)
    except TransportError as error:
        log.error("%s", error)
        transport.abort()
        raise
    except ForkServerLostError:
        # Without it this rank can neither start nor end a trial.  Where MPI survives the loss of a rank the
        # others go on; where it does not, the launcher starts all of them again.
        log.error("the fork server of this rank was killed; this rank is lost")
        end_descendants(within_s=server.patience_s)
        # Open MPI's ULFM tells the others at once of a rank that was killed, and of one that has exited not
        # at all.
        os.kill(os.getpid(), signal.SIGKILL)
        raise
    except Exception:
        log.exception("this is a bug in mpisweep; every rank is ended, and nothing acknowledged is lost")
        transport.abort()
        raise
    return exit_code


def _environment(spec: Spec) -> dict[str, str]:
    """What the results file will say was around."""
    workload, template = spec.workload, ""
    if isinstance(workload, CommandWorkload):
        template = workload.template
        code = describe_sources(
            spec.folder, arguments=workload.arguments, others=[template] if template else []
        )
    else:
        code = describe_sources(
            spec.folder, module=workload.module if isinstance(workload, FunctionWorkload) else ""
        )
    return describe_environment(spec.folder, template) | ({CODE: code} if code else {})


def _allocation_ends_at(options: RankOptions) -> float | None:
    allocation = with_end(this_allocation())
    if allocation.ends_at is None and options.walltime_s is None:
        warn_of_unknown_end(allocation)
    return allocation.ends_at


class _Rank:
    """State of a rank's loop."""

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
        #: Whether this rank was asked or told to stop; every new master is told.
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
        #: Ranks that were given up for being silent, and may hang.
        self._given_up: set[int] = set()
        self._next_beat = now
        self._last_turn = now
        self._exit_code: int | None = None

    @property
    def nobody_hangs(self) -> bool:
        """Whether every rank has either ended or can be expected to leave now."""
        return not self._given_up

    def run(self, waker: int) -> int:
        """The whole life of the rank; `waker` becomes readable by a signal."""
        share, refusal = self._layout()
        # What the ranks do together is done.
        end_if_stuck(None)
        if refusal:
            log.error("%s", refusal)
            self._end_with(2)
            return 2
        if self._succession.must_lead:
            # First of all, so that the process that reads the file is there while torch is still being
            # imported.
            self._office.lead()
        built_in = self._spec.built_in
        modules = built_in.preload if built_in else ()
        pack = os.fspath(pack_file(modules)) if self._options.stage_env and modules else ""
        self._server.preload(modules, pack)
        if share is not None:
            self._start_worker(share)
        if self._transport.size > 1:
            self._server.watch(_HANGS_FACTOR * self._spec.limits.silence_s + _HANGS_BEYOND_S)
        self._last_turn = time.monotonic()
        self._loop(waker)
        self._server.watch(0)
        if self._worker is not None:
            self._worker.close()
        assert self._exit_code is not None
        return self._exit_code

    # ------------------------------------------------------------------------------------- beginning

    def _layout(self) -> tuple[DeviceShare | None, str]:
        """What this rank's worker may use of its node, None when it hosts none; and, on rank 0, why nothing
        can run.

        All ranks call it.
        """
        transport = self._transport
        share: DeviceShare | None = None
        problem = ""
        shares = transport.share_on_node(self._node)
        try:
            share = lay_out(
                shares,
                has_master=transport.node_ranks[0] == 0,
                policy=self._options.master if transport.size > 1 else "works",
                devices_per_trial=self._spec.devices_per_trial,
                memory_bytes=self._spec.limits.memory_bytes,
                host=transport.host,
            )[transport.node_ranks.index(transport.rank)]
        except LayoutError as error:
            problem = str(error)
        problems = transport.gather(problem)
        if problems is None:
            return share, ""
        workers = transport.size - (self._options.master == "idle")
        if workers < self._spec.most_ranks:
            problems.append(
                f"{self._spec.source}: {RANKS}: trials have up to {self._spec.most_ranks} ranks, but there "
                f"are {workers} workers; start more ranks"
            )
        found = dict.fromkeys(filter(None, [self._options.refusal, *problems]))
        return share, "; ".join(found)

    def _start_worker(self, share: DeviceShare) -> None:
        spec = self._spec
        setting = ProcessSetting(
            spec=spec.text,
            source=spec.source,
            folder=spec.folder,
            trials_folder=trials_folder(self._place.path),
            log_file=self._logs() / f"rank-{self._transport.rank:04d}.log",
            worker=self._transport.rank,
            timeout_s=spec.limits.timeout_s,
            stall_s=spec.limits.stall_s,
            slack_s=PROGRAM_END_S if isinstance(spec.workload, CommandWorkload) else 0.0,
        )
        self._worker = Worker(
            self._server, setting, [share], host=self._transport.host, tell_master=self._tell_master
        )

    def _logs(self) -> Path:
        """Where this rank's trials log: of a split sweep, where no rank of another member does."""
        folder = logs_folder(self._place.path)
        return folder if self._options.split is None else folder / f"{self._transport.host}-{os.getpid()}"

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
        """Once around, with the files that are readable; True when anything happened."""
        now = time.monotonic()
        if now - self._last_turn > _HELD_UP_S:
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
            # It was given up, but is back: what it says now has no meaning before it has said hello anew.
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
                case Give() | Rendezvous() | AbandonTrial() | ReclaimTrials() | StopTrials() | Acknowledge():
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
        """PJM's elapse limit: the trials have less time to return, also when they were asked to before."""
        if self._hurried:
            return
        self._hurried = True
        log.warning("SIGXCPU: the trials of this rank have at most %g s to return", HURRIED_GRACE_S)
        if self._stopping and self._worker is not None:
            self._worker.on_messages([StopTrials(HURRIED_GRACE_S)], time.monotonic())

    def _in_time(self, stop: StopTrials) -> StopTrials:
        self._stopping = True
        # Whatever the master was asked by, its successor must know.
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
        """Give signs of life, and see who gives none."""
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
            self._on_lost(rank, f"nothing was heard of it for {self._spec.limits.silence_s:g} s", now)
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
        """Tell every rank how the run has ended; one that hangs is told when it is back."""
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


def _stage(spec: Spec) -> None:
    """Have the pack of imports ready; without it all ranks import as usual."""
    if spec.built_in is None:
        log.warning("--stage-env: this workload has nothing that is imported ahead of its trials")
        return
    try:
        prepare_pack(spec.built_in.preload)
    except PackError as error:
        log.warning("%s", error)
