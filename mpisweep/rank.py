"""One rank from its first instruction to its last: a worker, on rank 0 the master, around one transport.

The order of the first steps matters.  The fork server is forked before MPI is initialised, and before any
thread exists.  On rank 0 it forks the snapshot process first and only then imports what the workload needs,
so that the results file is there while torch is still being imported.

One loop serves everything and blocks nowhere.  While there is nothing to do it sleeps in poll(), which the
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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpisweep import __version__
from mpisweep.batch.allocation import this_allocation
from mpisweep.devices import LayoutError, Node, master_works, share_of, this_node
from mpisweep.environment import describe_environment
from mpisweep.forkserver import ForkServer
from mpisweep.messages import Ended, Finish, Hello, Message, Reported, Returned, StopWanted, ToMaster
from mpisweep.records import DeviceShare
from mpisweep.results import ResultsError, journal_folder, trials_folder
from mpisweep.spec import Spec
from mpisweep.transport import Transport, TransportError, connect, expected_rank
from mpisweep.trialprocess import ProcessSetting
from mpisweep.worker import Worker

if TYPE_CHECKING:
    from mpisweep.master import Master
    from mpisweep.progress import ProgressSink
    from mpisweep.results.claim import Claim

__all__ = ["RankOptions", "configure_logging", "run_rank"]

#: Sleep while nothing happens, in seconds: the first, and the longest with MPI and without.
_NAP_FIRST_S = 50e-6
_NAP_AT_MOST_S = 8e-3
_NAP_ALONE_S = 20e-3

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RankOptions:
    """What the command line says beside the sweep file."""

    path: Path
    fresh: bool
    master: str
    walltime_s: float | None
    sink: ProgressSink


def run_rank(spec: Spec, options: RankOptions) -> int:
    """Be this rank until the sweep's run has ended; returns the exit code that all ranks share."""
    is_first = expected_rank() in (0, None)
    environment = describe_environment(spec.folder) if is_first else {}
    node = this_node()
    server = ForkServer.start()
    try:
        transport = connect()
    except TransportError as error:
        if is_first:
            log.error("%s", error)
        return 2
    try:
        exit_code = _Rank(spec, options, node, server, transport, environment).run()
        transport.leave()
    except Exception:
        log.exception("this is a bug in mpisweep; every rank is ended, and nothing acknowledged is lost")
        transport.abort()
        raise
    server.close()
    return exit_code


class _Rank:
    """State of a rank's loop."""

    def __init__(
        self,
        spec: Spec,
        options: RankOptions,
        node: Node,
        server: ForkServer,
        transport: Transport,
        environment: dict[str, str],
    ) -> None:
        self._spec = spec
        self._options = options
        self._node = node
        self._server = server
        self._transport = transport
        self._environment = environment
        self._master: Master | None = None
        self._claim: Claim | None = None
        self._worker: Worker | None = None
        self._stop_wanted = False
        self._exit_code: int | None = None

    def run(self) -> int:
        """The whole life of the rank."""
        waker = _watch_signals(self._on_signal)
        if self._transport.rank == 0:
            try:
                self._become_master()
            except (ResultsError, OSError) as error:
                # Every rank leaves with the same code; the others wait for a word.
                log.error("%s", error)
                return self._refuse()
        share, has_worker = self._layout()
        built_in = self._spec.built_in
        self._server.preload(built_in.preload if built_in else ())
        if has_worker:
            assert share is not None
            self._start_worker(share)
        self._loop(waker)
        if self._worker is not None:
            self._worker.close()
        if self._claim is not None:
            self._leave_journal()
        assert self._exit_code is not None
        return self._exit_code

    # ------------------------------------------------------------------------------------- beginning

    def _become_master(self) -> None:
        from mpisweep.opening import open_sweep

        opened = open_sweep(
            self._spec,
            self._options.path,
            fresh=self._options.fresh,
            server=self._server,
            allocation=this_allocation(),
            ranks=self._transport.size,
            environment=self._environment,
            version=__version__,
        )
        from mpisweep.master import Master

        self._claim = opened.claim
        now = time.monotonic()
        walltime_s = self._options.walltime_s
        margin_s = self._spec.limits.grace_s + _closing_s(walltime_s)
        self._master = Master(
            spec=self._spec,
            trials=opened.trials,
            best=opened.best,
            scheduler=opened.scheduler,
            journal=opened.journal,
            recorder=opened.recorder,
            send=self._transport.send,
            sink=self._options.sink,
            stop_at=None if walltime_s is None else now + max(0.0, walltime_s - margin_s),
            now=now,
        )

    def _refuse(self) -> int:
        for rank in range(1, self._transport.size):
            self._transport.send(rank, [Finish(2)])
        # The others are still finding their devices, which takes all ranks of a node.
        with contextlib.suppress(LayoutError):
            self._layout()
        return 2

    def _layout(self) -> tuple[DeviceShare | None, bool]:
        """What this rank may use of its node, and whether it hosts a worker."""
        node, transport = self._node, self._transport
        cores = transport.share_on_node(node.cores)
        works = [
            rank != 0 or master_works(self._options.master, node, len(cores))
            for rank in transport.node_ranks
        ]
        if transport.size == 1:
            works = [True]
        mine = transport.node_ranks.index(transport.rank)
        if not works[mine]:
            return None, False
        core_sets = [own for own, does in zip(cores, works, strict=True) if does]
        return self._share(node, sum(works[:mine]), core_sets), True

    def _share(self, node: Node, worker: int, core_sets: Sequence[tuple[int, ...]]) -> DeviceShare:
        try:
            return share_of(node, worker, core_sets, self._transport.host)
        except LayoutError as error:
            log.error("%s", error)
            self._transport.abort(2)
            raise

    def _start_worker(self, share: DeviceShare) -> None:
        spec = self._spec
        setting = ProcessSetting(
            spec=spec.text,
            source=spec.source,
            folder=spec.folder,
            trials_folder=trials_folder(self._options.path.resolve()),
            worker=self._transport.rank,
            timeout_s=spec.limits.timeout_s,
        )
        self._worker = Worker(
            self._server, setting, [share], host=self._transport.host, tell_master=self._tell_master
        )
        self._worker.greet()

    # ------------------------------------------------------------------------------------- the loop

    def _loop(self, waker: int) -> None:
        nap_s = 0.0
        longest_s = _NAP_ALONE_S if self._transport.size == 1 else _NAP_AT_MOST_S
        while self._exit_code is None:
            ready = _sleep([waker, *self._files()], nap_s)
            if waker in ready:
                _drain(waker)
            if self._turn(ready) or ready:
                nap_s = 0.0
                continue
            nap_s = min(max(2 * nap_s, _NAP_FIRST_S), longest_s)
            if self._worker is not None and self._worker.hurried:
                nap_s = min(nap_s, 1e-3)

    def _turn(self, ready: Set[int]) -> bool:
        """Once around, with the files that are readable; True when anything happened."""
        now = time.monotonic()
        happened = False
        for rank, messages in self._transport.receive():
            happened = True
            self._deliver(rank, messages, now)
        if self._stop_wanted:
            self._stop_wanted = False
            self._tell_master([StopWanted()])
            happened = True
        if self._worker is not None:
            happened = self._worker.step(now, ready) or happened
            if self._worker.exit_code is not None:
                self._exit_code = self._worker.exit_code
        if self._master is not None:
            happened = self._master.step(now, ready) or happened
            if self._master.exit_code is not None:
                self._exit_code = self._master.exit_code
                self._finish_others()
            if self._claim is not None:
                self._claim.beat(now)
        return happened

    def _deliver(self, rank: int, messages: Sequence[Message], now: float) -> None:
        for_master: list[ToMaster] = []
        for_worker: list[Message] = []
        for message in messages:
            if isinstance(message, (Ended, Reported, Returned, Hello, StopWanted)):
                for_master.append(message)
            elif isinstance(message, Finish):
                self._exit_code = message.exit_code
            else:
                for_worker.append(message)
        if for_master and self._master is not None:
            self._master.on_messages(rank, for_master, now)
        if for_worker and self._worker is not None:
            self._worker.on_messages(for_worker, now)

    def _finish_others(self) -> None:
        assert self._exit_code is not None
        for rank in range(1, self._transport.size):
            self._transport.send(rank, [Finish(self._exit_code)])

    def _leave_journal(self) -> None:
        """The last snapshot holds everything: what is left of the journal folder is the claim."""
        assert self._claim is not None
        self._claim.release()
        with contextlib.suppress(OSError):
            journal_folder(self._options.path).rmdir()

    def _files(self) -> list[int]:
        files = self._worker.files() if self._worker is not None else [self._server.fileno()]
        return files + (self._master.files() if self._master is not None else [])

    def _tell_master(self, messages: Sequence[Message]) -> None:
        self._transport.send(0, messages)

    def _on_signal(self) -> None:
        self._stop_wanted = True


def _closing_s(walltime_s: float | None) -> float:
    """Time kept for the last snapshot and for leaving: a twentieth of a short walltime, at most 30 s."""
    return 0.0 if walltime_s is None else min(30.0, walltime_s / 20)


def _watch_signals(on_signal: object) -> int:
    """Have SIGUSR1 and SIGXCPU (PJM's elapse limit) ask for a stop; returns a descriptor they make readable."""
    assert callable(on_signal)
    waker, inner = os.pipe()
    for end in (waker, inner):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(inner, warn_on_full_buffer=False)
    for number in (signal.SIGUSR1, signal.SIGXCPU):
        signal.signal(number, lambda *_: on_signal())
    return waker


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


def _drain(file: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(file, 4096)


def configure_logging(rank: int, host: str, *, quiet: bool) -> None:
    """Python's logging to standard error, rank and host in each line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s rank {rank} {host}: %(message)s", datefmt="%H:%M:%S")
    )
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, handlers=[handler], force=True)
