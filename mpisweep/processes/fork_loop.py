"""The main loop of a fork server: start children, reap them, and end all their descendants.

:mod:`mpisweep.processes.forkserver` is the rank's handle on it and explains why it exists.

Process lifetimes (Linux: PR_SET_PDEATHSIG)::

    rank --> fork server --> trial process and its process group

The kernel signals the fork server when its rank dies, for whatever reason, and kills the trial processes when
the fork server dies.  The fork server kills a rank that hangs, if it is asked to watch it: on a node with one
rank no other process can.  A trial process leads a process group, and the fork server kills the rest of that
group when the leader has ended; a descendant that has left the group becomes a child of the fork server when
its parent ends (the fork server is a subreaper), and is killed as such.

Signals: batch systems send some to every process of a job, hence also to the fork server, which receives them
from nobody else.  It ignores them and records their time
(:class:`mpisweep.processes.shared_page.SignalPage`), so that a trial that dies of the same signal is not
blamed for it.  Its children start with these signals ignored.

A process inside a driver or a file system that hangs survives SIGKILL.  If a killed process, or a descendant
that a child has left behind, does not end within the time limit, the fork server reports it (:class:`Stays`)
and never waits for it again.  A fork that fails for lack of processes or memory is retried with growing
pauses, while everything else continues.

Requests go over a SEQPACKET socket pair, one JSON text each, with their descriptors; notices come back.  The
arguments of a child are in an unnamed file, because a sweep file may be larger than any packet.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import math
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from mpisweep.dataclass import asdict, dataclass
from mpisweep.processes.kernel import (
    FORK_PAUSES_S,
    JOB_SIGNALS,
    NO_ROOM,
    adopt_orphans,
    delivery_s,
    die_with_parent,
    end_descendants,
    kill_group,
)
from mpisweep.processes.shared_page import SignalPage

__all__ = ["PACKET_BYTES", "RANK_DIED", "Died", "Notice", "Stays", "run_fork_server"]

#: Maximum size of a request or notice.
PACKET_BYTES = 1 << 20
#: Signal to the fork server when its rank has died; not SIGKILL, because it has processes to end.
RANK_DIED = signal.SIGRTMIN
#: How often a watched rank is checked, in seconds.
_WATCH_S = 1.0
#: How long to wait for descendants of a child before other work continues, in seconds.
_AT_ONCE_S = 0.05


@dataclass(frozen=True, slots=True)
class Died:
    """A child has ended; `status` is the exit code, or the negative number of the signal.

    `why` is the reason if it could not be forked.
    """

    child: int
    status: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Stays:
    """A killed child has not ended in time, or an ended one left a process that has not.

    `process` is the number of that process.
    """

    child: int
    process: int


Notice = Died | Stays


@dataclass(slots=True)
class _Start:
    """A child whose fork failed and is retried."""

    entry: str
    files: list[int]
    #: Number of tries, and seconds until the next one.
    tries: int = 0
    left_s: float = 0.0


@dataclass(slots=True)
class _Leaving:
    """A child that has ended and may have left processes, which have `left_s` seconds to end."""

    status: int
    left_s: float


def run_fork_server(control: socket.socket, signals_file: int, patience_s: float, rank: int) -> NoReturn:
    """Run a fork server until its end.

    Args:
        control: its end of the socket pair.
        signals_file: descriptor of the page that records the time of signals.
        patience_s: time limit for the end of a killed process, in seconds.
        rank: the process that forked it.
    """
    server = _Server(control, SignalPage(signals_file), patience_s)
    _child_main(server.run, parent=rank, death_signal=RANK_DIED)


class _Server:
    """The loop of the fork server and its state."""

    def __init__(self, control: socket.socket, signals: SignalPage, patience_s: float) -> None:
        self._patience_s = patience_s
        #: Children waiting for a fork.
        self._starts: dict[int, _Start] = {}
        #: Killed child -> seconds until it must have ended.
        self._killed: dict[int, float] = {}
        self._leaving: dict[int, _Leaving] = {}
        #: Killed processes that have not ended in time.
        self._stuck: set[int] = set()
        self._control = control
        self._signals = signals
        #: Child number -> process id, for children that are not reaped.
        self._children: dict[int, int] = {}
        #: Children that the rank has killed.
        self._killed_by_rank: set[int] = set()
        self._wakeup: socket.socket | None = None
        #: The rank's copy of the data, to remove if SIGTERM ends the rank; empty for none.
        self._copy = ""
        self._was_terminated = False
        self._rank = os.getppid()
        #: Limit on the rank's silence, and its current silence, in seconds; see :meth:`_watch_rank`.
        self._silence_s = math.inf
        self._silent_s = 0.0

    def run(self) -> None:
        """Serve until the rank dies or closes the connection."""
        waker, self._wakeup = socket.socketpair()
        for end in (waker, self._wakeup):
            end.setblocking(False)
        for number in JOB_SIGNALS:
            signal.signal(number, lambda caught, _: self._note(caught))
        signal.signal(RANK_DIED, lambda *_: self._leave())
        adopt_orphans()
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._wakeup, selectors.EVENT_READ)
            while True:
                looked = time.monotonic()
                ready = [key.fileobj for key, _ in selector.select(self._timeout_s())]
                # Time in which this process did not run does not count.
                passed_s = min(time.monotonic() - looked, 2 * _WATCH_S)
                self._watch_rank(passed_s)
                # Before reaping: time that has passed until now must not count for children reaped below.
                self._keep_time(passed_s)
                if self._wakeup in ready:
                    with contextlib.suppress(BlockingIOError):
                        self._wakeup.recv(4096)
                    self._reap()
                if self._control in ready and not self._serve_request():
                    break
        self._leave()

    def _timeout_s(self) -> float | None:
        waits = [start.left_s for start in self._starts.values()]
        waits += [*self._killed.values(), *(leaving.left_s for leaving in self._leaving.values())]
        if not math.isinf(self._silence_s):
            waits.append(_WATCH_S)
        return max(0.0, min(_WATCH_S, *waits)) if waits else None

    def _watch_rank(self, seconds: float) -> None:
        """Kill the rank if it has been silent for too long."""
        self._silent_s += seconds
        if self._silent_s > self._silence_s:
            self._silence_s = math.inf
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._rank, signal.SIGKILL)

    def _note(self, caught: int) -> None:
        self._was_terminated |= caught == signal.SIGTERM
        self._signals.note()

    def _leave(self) -> NoReturn:
        """End every descendant, then this process."""
        signal.signal(RANK_DIED, signal.SIG_IGN)
        with contextlib.suppress(OSError):
            while packet := self._control.recv(PACKET_BYTES, socket.MSG_DONTWAIT):
                self._copy = json.loads(packet).get("copy", self._copy)
        copy = self._copy if self._was_terminated else ""
        if copy:
            # mpirun kills the group of a rank half a second after it has sent SIGTERM.
            os.setpgid(0, 0)
        for process in self._children.values():
            kill_group(process)
        end_descendants(keep=self._stuck, within_s=self._patience_s)
        if copy:
            from mpisweep.staged.copies import remove_after_death

            remove_after_death(copy)
        os._exit(0)

    def _serve_request(self) -> bool:
        try:
            packet, files, _, _ = socket.recv_fds(self._control, PACKET_BYTES, 16)
        except ConnectionResetError:
            return False
        if not packet:
            return False
        match json.loads(packet):
            case {"spawn": entry, "child": child}:
                self._begin(child, _Start(entry, files))
                return True
            case {"kill": child}:
                self._kill(child)
            case {"beat": _}:
                self._silent_s = 0.0
            case {"copy": folder}:
                self._copy = folder
            case {"watch": silence_s}:
                self._silence_s, self._silent_s = silence_s or math.inf, 0.0
            case {"preload": modules, "pack": pack}:
                from mpisweep.processes.staging import import_modules

                import_modules(modules, pack)
        _close_all(files)
        return True

    def _kill(self, child: int) -> None:
        if start := self._starts.pop(child, None):
            _close_all(start.files)
            self._send(Died(child, -signal.SIGKILL))
        elif child in self._children:
            # The rank also asks for the kill of a child that has ended by itself, when its line is closed.
            if not _has_ended(self._children[child]):
                self._killed_by_rank.add(child)
                self._killed.setdefault(child, self._patience_s)
            kill_group(self._children[child])

    def _begin(self, child: int, start: _Start) -> None:
        """Fork a child; if the system lacks processes or memory, retry later."""
        files = start.files
        try:
            self._fork(child, lambda: _call(start.entry, files))
        except OSError as error:
            if error.errno in NO_ROOM and start.tries < len(FORK_PAUSES_S):
                start.left_s = FORK_PAUSES_S[start.tries]
                start.tries += 1
                self._starts[child] = start
                return
            seconds = sum(FORK_PAUSES_S[: start.tries])
            self._send(Died(child, 1, f"no process could be started for {seconds:.1f} s: {error.strerror}"))
        self._starts.pop(child, None)
        _close_all(files)

    def _keep_time(self, seconds: float) -> None:
        """Retry failed forks, and report processes that should have ended by now."""
        for child, start in list(self._starts.items()):
            start.left_s -= seconds
            if start.left_s <= 0:
                self._begin(child, start)
        for child in list(self._killed):
            self._killed[child] -= seconds
            if self._killed[child] <= 0:
                del self._killed[child]
                if not _has_ended(self._children[child]):
                    self._report_stuck(child, [self._children.pop(child)])
        for leaving in self._leaving.values():
            leaving.left_s -= seconds
        overdue = [child for child, leaving in self._leaving.items() if leaving.left_s <= 0]
        if overdue:
            if stay := end_descendants(self._known(), within_s=0.0):
                del self._leaving[overdue[0]]
                self._report_stuck(overdue[0], stay)
            # The other children waited for the same processes.
            self._report_ended()

    def _report_stuck(self, child: int, processes: list[int]) -> None:
        self._stuck.update(processes)
        self._killed_by_rank.discard(child)
        self._send(Stays(child, processes[0]))

    def _send(self, notice: Notice) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.send(json.dumps(asdict(notice)).encode())

    def _fork(self, child: int, run: Callable[[], object]) -> None:
        server = os.getpid()
        gc.freeze()  # As in the rank, and for all that was imported since.
        process = os.fork()
        if process == 0:
            signal.set_wakeup_fd(-1)
            for number in JOB_SIGNALS:
                signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
            for number in (signal.SIGCHLD, RANK_DIED):
                signal.signal(number, signal.SIG_DFL)
            self._control.close()
            for other, start in self._starts.items():
                if other != child:
                    _close_all(start.files)
            os.setpgid(0, 0)
            _child_main(run, parent=server)
        # Parent and child both set it, so that it holds whichever runs first.
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(process, process)
        self._children[child] = process

    def _reap(self) -> None:
        for child, process in list(self._children.items()):
            if not _has_ended(process):
                continue
            # Before the leader is reaped, no other group can get its number.
            kill_group(process)
            _, status = os.waitpid(process, 0)
            del self._children[child]
            self._killed.pop(child, None)
            self._leaving[child] = _Leaving(os.waitstatus_to_exitcode(status), self._patience_s)
        for process in [process for process in self._stuck if _has_ended(process)]:
            kill_group(process)
            os.waitpid(process, 0)
            self._stuck.discard(process)
        self._report_ended()

    def _known(self) -> set[int]:
        """Child processes that must not be ended."""
        return {*self._children.values(), *self._stuck}

    def _report_ended(self) -> None:
        if self._leaving and not end_descendants(self._known(), within_s=_AT_ONCE_S):
            for child, leaving in self._leaving.items():
                self._report_died(child, leaving.status)
            self._leaving.clear()

    def _report_died(self, child: int, status: int) -> None:
        """Report the end of a child that has left no processes."""
        if -status in (*JOB_SIGNALS, signal.SIGKILL) and child not in self._killed_by_rank:
            # The trial must not be blamed if this process or its rank is signalled a little later.
            within_s = delivery_s()
            self._signals.await_any(time.monotonic_ns() - int(within_s * 1e9), within_s)
        self._killed_by_rank.discard(child)
        self._send(Died(child, status))


def _child_main(run: Callable[[], object], parent: int, death_signal: int = signal.SIGKILL) -> NoReturn:
    """Run the body of a forked child, then exit without the parent's handlers."""
    status = 1
    try:
        die_with_parent(parent, death_signal)
        run()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        # Not sys.exit, because the exit handlers are the parent's.
        os._exit(status)


def _has_ended(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _close_all(files: Sequence[int]) -> None:
    for file in files:
        os.close(file)


def _call(entry: str, files: list[int]) -> None:
    """Call the function of a child; the first file holds its arguments, read from its beginning."""
    module, _, function = entry.partition(":")
    run = getattr(importlib.import_module(module), function)
    with open(files[0], "rb") as stored:
        stored.seek(0)
        arguments = json.load(stored)
    run(files[1:], arguments)
