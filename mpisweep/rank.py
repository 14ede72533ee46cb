"""One rank from its first instruction to its last: a worker, on rank 0 the master, around one transport.

The order of the first steps matters.  The fork server is forked before MPI is initialised, and before any
thread exists.  On rank 0 it forks the snapshot process first and only then imports what the workload needs,
so that the results file is there while torch is still being imported.

Every rank knows by :mod:`mpisweep.succession` who is master.  A master's first word is Lead, whereupon every
worker says Hello with all that it holds; so a master that takes over from a dead one and the first one begin
in the same way (:mod:`mpisweep.leading`).

One loop serves everything and blocks nowhere, and touches nothing of the sweep on the disk: threads and processes
beside it do that.  While there is nothing to do it sleeps in poll(), which the
trial processes and the journal end at once; MPI has no descriptor to poll, so the sleep grows from 50
microseconds to 8 milliseconds and no further: an idle rank costs about one percent of a core.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mpisweep import __version__
from mpisweep.batch.allocation import this_allocation, warn_of_unknown_end, with_end
from mpisweep.batch.base import Allocation
from mpisweep.batch.walltime import HURRIED_GRACE_S
from mpisweep.devices import LayoutError, Node, lay_out, this_node
from mpisweep.environment import describe_environment
from mpisweep.forkserver import ForkServer, ForkServerLostError
from mpisweep.keeper import Keeper
from mpisweep.leading import DiskFailedError, Leading
from mpisweep.messages import (
    Abandon,
    Acknowledge,
    Beat,
    Begun,
    Finish,
    Follow,
    Give,
    Kill,
    Lead,
    Meet,
    Message,
    StopTrials,
    StopWanted,
    TakeBack,
    ToMaster,
    ToWorker,
)
from mpisweep.opening import Mastership, Opened, RunEndedError, run_has_ended
from mpisweep.processes import adopt_orphans, end_descendants, kill_if_same, process_start
from mpisweep.recorder import Recorder
from mpisweep.records import DeviceShare, EndReason
from mpisweep.results import ResultsError, logs_folder, stop_file, trials_folder
from mpisweep.results.claim import FollowedError, RunOverError, run_name
from mpisweep.spec import RANKS, CommandWorkload, Spec
from mpisweep.splitting import AlreadyCompleteError
from mpisweep.staging import PackError, pack_file, prepare_pack
from mpisweep.succession import FIRST_WORD_FACTOR, Succession
from mpisweep.transport import Transport, TransportError, connect, expected_rank
from mpisweep.trialprocess import PROGRAM_END_S, ProcessSetting
from mpisweep.vigil import Vigil
from mpisweep.worker import Worker

if TYPE_CHECKING:
    from mpisweep.master import Master
    from mpisweep.progress import ProgressSink
    from mpisweep.splitting import Share

__all__ = ["RankOptions", "configure_logging", "run_rank"]

#: Sleep while nothing happens, in seconds: the first, and the longest with MPI and without.
_NAP_FIRST_S = 50e-6
_NAP_AT_MOST_S = 8e-3
_NAP_ALONE_S = 20e-3
#: Signals that ask for a stop.
_STOP_SIGNALS = frozenset({int(signal.SIGUSR1), int(signal.SIGXCPU)})
#: How often a rank gives a sign of life, in seconds.
_BEAT_S = 1.0
#: A rank that gives no sign of life for this many times the silence, and so many seconds more, is killed by its own fork
#: server: the others have given it up by then, and nobody else may be able to.
_HANGS_FACTOR = 2.0
_HANGS_BEYOND_S = 5.0
#: A process that was killed has at least so many seconds to end.
_END_AT_LEAST_S = 3.0
#: A turn of the loop that comes this late means that the rank itself was held up, in seconds.
_HELD_UP_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RankOptions:
    """What the command line says beside the sweep file."""

    path: Path
    fresh: bool
    master: str
    walltime_s: float | None
    sink: ProgressSink
    #: Names the command that has started the ranks; the same when it starts them again.
    launch: str = ""
    #: Why the sweep cannot run, where that was seen already; rank 0 tells the others, which wait for it.
    refusal: str = ""
    #: In how many shares several allocations do the sweep together; None where this one has it alone.
    split: int | None = None
    #: Whether trial processes' imports come from one file, see :mod:`mpisweep.staging`.
    stage_env: bool = False
    #: When the allocation ends, in seconds since 1970, where a launcher has found out.
    ends_at: float | None = None
    #: Whether other ranks of this launch have begun the sweep.
    has_begun: bool = False


@dataclass(frozen=True, slots=True)
class _Place:
    """What a rank finds out before MPI is there: where the results file lies, and where this run lives."""

    path: Path
    allocation: Allocation


def run_rank(spec: Spec, options: RankOptions) -> int:
    """Be this rank until the sweep's run has ended; returns the exit code that all ranks share."""
    waker = _watch_signals()
    is_first = expected_rank() in (0, None)
    template = spec.workload.template if isinstance(spec.workload, CommandWorkload) else ""
    environment = describe_environment(spec.folder, template) if is_first else {}
    # One rank asks for all of them, and before MPI is there: it means starting a process.
    allocation_ends_at = _allocation_ends_at(options) if is_first and not options.launch else options.ends_at
    # Whoever serves MPI does not ask the disk.
    place = _Place(options.path.resolve(), this_allocation())
    if is_first and options.stage_env:
        # The other ranks wait for this one in MPI_Init, and want the pack after that.
        _stage(spec)
    node = this_node()
    adopt_orphans()
    # Ending a process that holds much memory takes seconds, however impatient its user is.
    server = ForkServer.start(max(spec.limits.silence_s, _END_AT_LEAST_S))
    _end_if_stuck(FIRST_WORD_FACTOR * spec.limits.silence_s)
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
        # Open MPI's ULFM tells the others at once of a rank that was killed, and of one that has exited not at all.
        os.kill(os.getpid(), signal.SIGKILL)
        raise
    except Exception:
        log.exception("this is a bug in mpisweep; every rank is ended, and nothing acknowledged is lost")
        transport.abort()
        raise
    return exit_code


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
        place: _Place,
        node: Node,
        server: ForkServer,
        transport: Transport,
        environment: dict[str, str],
        allocation_ends_at: float | None,
    ) -> None:
        self._ends_at = allocation_ends_at
        self._spec = spec
        self._options = options
        self._place = place
        self._node = node
        self._server = server
        self._transport = transport
        self._environment = environment
        #: While this rank is becoming the master; then the master.
        self._leading: Leading | None = None
        self._recorder: Recorder | None = None
        self._master: Master | None = None
        self._worker: Worker | None = None
        #: Whether this rank was asked or told to stop; every new master is told.
        self._stop_wanted = False
        #: Whether this rank's worker was told to stop, and whether SIGXCPU leaves it less time for that.
        self._stopping = False
        self._hurried = False
        now = time.monotonic()
        self._started = now
        self._succession = Succession(
            transport.rank, transport.size, silence_s=spec.limits.silence_s, now=now
        )
        #: The last master's last word.
        self._leader: Lead | None = None
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
        _end_if_stuck(None)
        if refusal:
            log.error("%s", refusal)
            self._refuse(2)
            return 2
        if self._succession.must_lead:
            # First of all, so that the process that reads the file is there while torch is still being imported.
            self._lead()
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
        """What this rank's worker may use of its node, None when it hosts none; and, on rank 0, why nothing can run.

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
                f"{self._spec.source}: {RANKS}: trials have up to {self._spec.most_ranks} ranks, but there are "
                f"{workers} workers; start more ranks"
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

    # ------------------------------------------------------------------------------------- becoming master

    def _lead(self) -> None:
        """Tell everybody that this rank is the master, and begin to be it."""
        former, succession = self._leader, self._succession
        succession.lead()
        run = former.run if former else run_name()
        process = os.getpid()
        self._leader = Lead(
            run, self._transport.host, process, process_start(process), succession.epoch, self._ends_at,
            former is not None and former.has_begun,
        )  # fmt: skip
        # Also to those that were given up for their silence: they may be back, and follow another.
        for rank in range(self._transport.size):
            self._transport.send(rank, [self._leader])
            if former is not None:
                # It may hang and not be dead; only its own node can end it.
                self._transport.send(rank, [Kill(former.host, former.process, former.process_start)])
        if former is not None:
            log.warning("rank %d is the master now", self._transport.rank)
        is_first = former is None and succession.epoch == 0
        mastership = Mastership(run, succession.epoch, is_first, self._leader.has_begun)
        self._recorder = recorder = Recorder(self._server)
        self._leading = Leading(
            () if is_first else succession.alive,
            lambda: self._open(recorder, mastership),
            0.0 if is_first and not self._options.has_begun else self._spec.limits.disk_s,
        )

    def _open(self, recorder: Recorder, mastership: Mastership) -> Opened:
        """Open the sweep; runs in a thread of its own."""
        path = self._options.path
        try:
            share = self._join(recorder, mastership)
            return self._open_part(recorder, mastership, path if share is None else share.part, share)
        except RunOverError as error:
            raise run_has_ended(path, recorder, mastership.run) from error

    def _join(self, recorder: Recorder, mastership: Mastership) -> Share | None:
        """The place of this run in a split sweep; None where it has the sweep alone."""
        if self._options.split is None:
            return None
        from mpisweep.splitting import join

        return join(
            self._spec, self._options.path, self._options.split, recorder, job_id=self._place.allocation.job_id,
            member=mastership.run, has_begun=mastership.has_begun,
        )  # fmt: skip

    def _open_part(self, recorder: Recorder, mastership: Mastership, path: Path, share: Share | None) -> Opened:
        from mpisweep.opening import open_sweep

        return open_sweep(
            self._spec,
            path,
            fresh=self._options.fresh,
            recorder=recorder,
            mastership=mastership,
            allocation=self._place.allocation,
            ranks=self._transport.size,
            environment=self._environment,
            version=__version__,
            launch=self._options.launch,
            until=self._allocation_until(),
            share=share,
        )

    def _allocation_until(self) -> float | None:
        """When this run's time ends by the monotonic clock, the walltime or the allocation, whichever comes first."""
        ends: list[float] = []
        if self._options.walltime_s is not None:
            ends.append(self._started + self._options.walltime_s)
        if self._ends_at is not None:
            ends.append(time.monotonic() + self._ends_at - time.time())
        return min(ends, default=None)

    def _take_office(self, leading: Leading, now: float) -> None:
        """The sweep is open, or why it is not is known."""
        outcome, self._leading = leading.outcome, None
        leading.close()
        match outcome:
            case Opened():
                self._become_master(outcome, now)
                assert self._master is not None
                for rank, missed in leading.kept:
                    if isinstance(missed, str):
                        self._master.on_lost(rank, missed, now)
                    else:
                        self._master.on_messages(rank, missed, now)
                return
            case AlreadyCompleteError():
                log.info("%s: every trial has ended", self._options.path.name)
                self._refuse(outcome.exit_code)
            case FollowedError():
                # Its first word is on its way.
                self._succession.give_way(now)
            case RunEndedError(reason=reason):
                how = "another run has taken the sweep over" if reason is EndReason.SUPERSEDED else reason.value
                log.warning("%s: the run has ended without rank %d: %s", self._spec.name, self._transport.rank, how)
                self._refuse(reason.exit_code)
            case DiskFailedError():
                log.error(
                    "the files of the sweep could not be used for %g s (%s); everything that was acknowledged is on "
                    "disk: make room and run again", self._spec.limits.disk_s, outcome,
                )  # fmt: skip
                self._refuse(EndReason.DISK.exit_code)
            case ResultsError() | OSError():
                # Every rank leaves with the same code; the others wait for a word.
                log.error("%s", _in_words(outcome))
                self._refuse(2)
            case BaseException():
                raise outcome
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None

    def _become_master(self, opened: Opened, now: float) -> None:
        from mpisweep.master import Master

        assert self._recorder is not None
        assert self._leader is not None
        if opened.stop is not None:
            log.info(
                "the sweep stops in %.0f s, %.0f s before the end of its time",
                opened.stop.stop_at - now, opened.stop.ends_at - opened.stop.stop_at,
            )  # fmt: skip
        self._leader = replace(self._leader, run=opened.claim.run, has_begun=True)
        for rank in range(self._transport.size):
            self._transport.send(rank, [Begun(opened.claim.run)])
        self._recorder.write(opened.path, opened.claim.token)
        keeper = None
        if opened.share is not None:
            keeper = Keeper(
                self._server, opened.share.path, member=opened.claim.run, job_id=self._place.allocation.job_id,
                silence_s=self._spec.limits.silence_s,
            )  # fmt: skip
        self._master = Master(
            spec=self._spec,
            trials=opened.trials,
            best=opened.best,
            measures=opened.measures,
            tells_end=not self._options.launch,
            scheduler=opened.scheduler,
            journal=opened.journal,
            recorder=self._recorder,
            vigil=Vigil(opened.claim, stop_file(opened.path), self._spec.limits.silence_s),
            send=self._transport.send,
            sink=self._options.sink,
            stop_at=None if opened.stop is None else opened.stop.stop_at,
            folders=(trials_folder(self._place.path),),
            now=now,
            keeper=keeper,
        )

    def _refuse(self, exit_code: int) -> None:
        self._exit_code = exit_code
        self._finish_others()

    # ------------------------------------------------------------------------------------- the loop

    def _loop(self, waker: int) -> None:
        nap_s = 0.0
        longest_s = _NAP_ALONE_S if self._transport.size == 1 else _NAP_AT_MOST_S
        while self._exit_code is None:
            ready = _sleep([waker, *self._files()], nap_s)
            caught = _drain(waker) if waker in ready else set()
            if caught & _STOP_SIGNALS:
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
            self._succession.excuse(now - self._last_turn)
        self._last_turn = now
        happened = False
        for rank, messages in self._transport.receive():
            happened = True
            self._deliver(rank, messages, now)
        self._watch_over(now)
        if self._worker is not None:
            happened = self._worker.step(now, ready) or happened
        if self._leading is not None:
            self._leading.keep_time(now)
            if self._leading.outcome is not None:
                happened = True
                self._take_office(self._leading, now)
        if self._master is not None:
            happened = self._master.step(now, ready) or happened
            if self._master.fenced is not None:
                self._give_way(self._master.fenced, now)
            elif self._master.exit_code is not None:
                self._exit_code = self._master.exit_code
                self._finish_others()
        return happened

    def _give_way(self, fenced: FollowedError | RunOverError, now: float) -> None:
        """The sweep was taken over while this rank, its master, was held up."""
        self._step_down()
        if isinstance(fenced, FollowedError):
            self._succession.give_way(now)
            return
        assert self._leader is not None
        run = self._leader.run
        self._recorder = recorder = Recorder(self._server)

        def find_out() -> Opened:
            raise run_has_ended(self._options.path, recorder, run)

        self._leading = Leading((), find_out, 0.0)

    def _step_down(self) -> None:
        """Another rank is the master, or about to say so."""
        if self._leading is not None:
            self._leading.drop()
            self._leading = None
        if self._master is not None:
            self._master.step_down()
            self._master = None
        self._recorder = None

    def _deliver(self, rank: int, messages: Sequence[Message], now: float) -> None:
        succession = self._succession
        succession.hear(rank, now)
        if succession.is_lost(rank) and self._is_leader:
            # It was given up, but is back: what it says now has no meaning before it has said hello anew.
            succession.welcome(rank, now)
            self._given_up.discard(rank)
            assert self._leader is not None
            self._transport.send(rank, [self._leader])
            messages = [message for message in messages if isinstance(message, Lead)]
        for_master: list[ToMaster] = []
        for_worker: list[ToWorker] = []
        for message in messages:
            match message:
                case Lead():
                    self._follow(rank, message, now)
                case Follow(epoch):
                    if self._leading is not None and epoch == succession.epoch:
                        self._leading.follow(rank)
                case Begun(run):
                    if rank == succession.master and self._leader is not None:
                        self._leader = replace(self._leader, run=run, has_begun=True)
                case Beat():
                    pass
                case Kill(host, process, start):
                    if host == self._transport.host:
                        kill_if_same(process, start)
                case Finish(exit_code):
                    if rank == succession.master:
                        self._exit_code = exit_code
                case Give() | Meet() | Abandon() | TakeBack() | StopTrials() | Acknowledge():
                    # The word of a former master is worth nothing.
                    if rank == succession.master:
                        for_worker.append(self._in_time(message) if isinstance(message, StopTrials) else message)
                case _:
                    for_master.append(message)
        if for_master and self._master is not None:
            self._master.on_messages(rank, for_master, now)
        elif for_master and self._leading is not None:
            self._leading.keep(rank, for_master)
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
        if not self._succession.obeys(rank, lead.epoch, now):
            return
        if self._is_leader and rank != self._transport.rank:
            log.warning("rank %d has become master while this rank was held up", rank)
            self._step_down()
        self._leader, self._ends_at = lead, lead.ends_at
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
        for rank in others if self._is_leader else [self._succession.master]:
            self._transport.send(rank, [Beat()])

    def _on_lost(self, rank: int, why: str, now: float) -> None:
        known = not self._succession.is_lost(rank)
        if why == "it died":
            self._given_up.discard(rank)
        if not known:
            return
        self._succession.lose(rank, now)
        if self._master is not None:
            self._master.on_lost(rank, why, now)
        elif self._leading is not None:
            self._leading.lose(rank, why)
        elif self._succession.must_lead:
            log.warning("rank %d, the master, is lost (%s)", rank, why)
            self._lead()
            assert self._leading is not None
            # Those of its workers that are gone will not say hello.
            for gone in sorted(set(range(self._transport.size)) - set(self._succession.alive)):
                self._leading.lose(gone, "it died before this master took over")

    def _finish_others(self) -> None:
        """Tell every rank how the run has ended; one that hangs is told when it is back."""
        assert self._exit_code is not None
        for rank in range(self._transport.size):
            if rank != self._transport.rank:
                self._transport.send(rank, [Finish(self._exit_code)])

    @property
    def _is_leader(self) -> bool:
        """Whether this rank is the master, or on its way to that."""
        return self._master is not None or self._leading is not None

    def _files(self) -> list[int]:
        files = self._worker.files() if self._worker is not None else [self._server.fileno()]
        files += [self._leading.fileno()] if self._leading is not None else []
        return files + (self._master.files() if self._master is not None else [])

    def _tell_master(self, messages: Sequence[Message]) -> None:
        if self._succession.is_led:
            self._transport.send(self._succession.master, messages)


def _in_words(error: ResultsError | OSError) -> str:
    """Why a sweep is refused."""
    if isinstance(error, ResultsError):
        return str(error)
    return f"{error.filename}: cannot be written: {error.strerror}; -o names another place for the results"


def _stage(spec: Spec) -> None:
    """Have the pack of imports ready; without it all ranks import as usual."""
    if spec.built_in is None:
        log.warning("--stage-env: this workload has nothing that is imported ahead of its trials")
        return
    try:
        prepare_pack(spec.built_in.preload)
    except PackError as error:
        log.warning("%s", error)


def _watch_signals() -> int:
    """Have SIGUSR1 and SIGXCPU (PJM's elapse limit) ask for a stop; returns a descriptor they make readable."""
    waker, inner = os.pipe()
    for end in (waker, inner):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(inner, warn_on_full_buffer=False)
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: None)
    return waker


def _end_if_stuck(seconds: float | None) -> None:
    """Have the kernel end this process after so long; None calls that off.

    A rank that dies while MPI is being initialised leaves the others waiting for it inside MPI_Init, where no
    code of ours runs, and no fault tolerance of MPI's.  When they end, the launcher starts all of them again.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds or 0.0)


def _sleep(files: Sequence[int], seconds: float) -> frozenset[int]:
    """Until one of the files is readable or the time is up; returns those that are."""
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    # poll() counts in milliseconds; a shorter sleep is slept before it.
    if 0 < seconds < 1e-3:
        time.sleep(seconds)
    milliseconds = round(1000 * seconds) if seconds >= 1e-3 else 0
    return frozenset(file for file, _ in poll.poll(milliseconds))


def _drain(file: int) -> set[int]:
    """Empty the pipe; returns the numbers of the signals that were written to it."""
    with contextlib.suppress(BlockingIOError):
        return set(os.read(file, 4096))
    return set()


def configure_logging(rank: int | None, host: str, *, quiet: bool) -> None:
    """Python's logging to standard error, rank and host in each line; the launcher has neither."""
    who = "launcher" if rank is None else f"rank {rank} {host}"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"%(asctime)s {who}: %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, handlers=[handler], force=True)
