"""The inside of a fork server: start children, see them end, leave nothing of them behind.

The rank's handle on it, and why there is such a process, are in :mod:`mpisweep.processes.forkserver`.

Who dies with whom (Linux: PR_SET_PDEATHSIG)::

    rank --> fork server --> trial process and its process group

The kernel tells the fork server when its rank has died, however that happened, and kills the trial processes
when the fork server dies.  A rank that hangs without dying the fork server kills itself, once it is asked to
watch it: on a node where no other rank is nobody else could.  A trial process leads a process group of its
own, and the fork server kills what is left of that group when the leader has ended; what has left the group
as well becomes the fork server's child when its parent ends (a subreaper, as the kernel calls it), and is
killed as such.

Signals: batch systems send some to every process of a job, and the fork server with them, to which nobody
else sends any.  It is not ended by them and writes down when they came
(:class:`mpisweep.processes.shared_page.SignalPage`), so that a trial that ends by the same signal is not
blamed for it.  Its children are started with them ignored.

A process that is inside a driver or a file system that hangs does not end, whoever kills it.  One that was
killed, or anything that a child has left behind, and has not gone within a stated time is reported
(:class:`Stays`) and never waited for again.  A fork that fails because the system has no process or no memory
to give is tried again, with growing pauses in which everything else goes on.

Requests go over a SEQPACKET socket pair, one JSON text each, descriptors beside it; notices come back.  What
a child is told is in a file without a name, for a sweep file may be larger than any packet.
"""

from __future__ import annotations

import contextlib
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from mpisweep.processes.kernel import (
    FORK_PAUSES_S,
    NO_ROOM,
    SENT_TO_EVERYBODY,
    adopt_orphans,
    delivery_s,
    die_with_parent,
    end_descendants,
    kill_group,
)
from mpisweep.processes.shared_page import SignalPage
from mpisweep.processes.staging import PackError, imported_from

__all__ = ["PACKET_BYTES", "RANK_DIED", "Died", "Notice", "Stays", "run_fork_server"]

#: The longest request or notice.
PACKET_BYTES = 1 << 20
#: What the fork server gets when its rank has died: not SIGKILL, for it has processes to end.
RANK_DIED = signal.SIGRTMIN
#: How often a rank is looked at that is watched, in seconds.
_WATCH_S = 1.0
#: How long what a child has left behind is waited for before everything else goes on, in seconds.
_AT_ONCE_S = 0.05


@dataclass(frozen=True, slots=True)
class Died:
    """A child has ended; `status` is the exit code, or the negative number of the signal.

    `why` says why it never began, where it could not be forked.
    """

    child: int
    status: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Stays:
    """A child was killed and has not ended in time, or has ended and left a process behind that has not.

    `process` is the number of that process.
    """

    child: int
    process: int


Notice = Died | Stays


@dataclass(slots=True)
class _Start:
    """A child that there was no room for yet."""

    entry: str
    files: list[int]
    #: How often it was tried, and in how many seconds it is tried again.
    tries: int = 0
    left_s: float = 0.0


@dataclass(slots=True)
class _Leaving:
    """A child that has ended, and left processes behind that may not have; `left_s`: how long they have."""

    status: int
    left_s: float


def run_fork_server(control: socket.socket, signals_file: int, patience_s: float, rank: int) -> NoReturn:
    """Everything that a fork server does, from its first instruction to its last.

    Args:
        control: its end of the socket pair.
        signals_file: descriptor of the page on which it writes down when signals came.
        patience_s: within how many seconds a process that was killed must have ended.
        rank: the process that has forked it.
    """
    server = _Server(control, SignalPage(signals_file), patience_s)
    _child_main(server.run, parent=rank, death_signal=RANK_DIED)


class _Server:
    """What runs in the fork server."""

    def __init__(self, control: socket.socket, signals: SignalPage, patience_s: float) -> None:
        self._patience_s = patience_s
        #: Children that are yet to be forked.
        self._starts: dict[int, _Start] = {}
        #: Children that were killed -> how long they have to end.
        self._killed: dict[int, float] = {}
        self._leaving: dict[int, _Leaving] = {}
        #: Processes that were killed and have not ended in time.
        self._stuck: set[int] = set()
        self._control = control
        self._signals = signals
        #: Child number -> process id, of those that are not reaped.
        self._children: dict[int, int] = {}
        #: Children that the rank wanted dead.
        self._condemned: set[int] = set()
        self._wakeup: socket.socket | None = None
        self._rank = os.getppid()
        #: How long the rank may be silent, and for how long it has been; see :meth:`_watch_rank`.
        self._silence_s = math.inf
        self._silent_s = 0.0

    def run(self) -> None:
        """Until the rank has died, or needs this process no longer."""
        waker, self._wakeup = socket.socketpair()
        for end in (waker, self._wakeup):
            end.setblocking(False)
        for number in SENT_TO_EVERYBODY:
            signal.signal(number, lambda *_: self._signals.note())
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
                # Before anybody is reaped: what has passed by now is not of the time that those leave for
                # leaving.
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
        """Kill the rank when it has been silent for too long."""
        self._silent_s += seconds
        if self._silent_s > self._silence_s:
            self._silence_s = math.inf
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._rank, signal.SIGKILL)

    def _leave(self) -> NoReturn:
        """End every descendant, then this process."""
        signal.signal(RANK_DIED, signal.SIG_IGN)
        for process in self._children.values():
            kill_group(process)
        end_descendants(keep=self._stuck, within_s=self._patience_s)
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
            case {"watch": silence_s}:
                self._silence_s, self._silent_s = silence_s or math.inf, 0.0
            case {"preload": modules, "pack": pack}:
                _preload(modules, pack)
        for file in files:
            os.close(file)
        return True

    def _kill(self, child: int) -> None:
        if start := self._starts.pop(child, None):
            _close_all(start.files)
            self._tell(Died(child, -signal.SIGKILL))
        elif child in self._children:
            # One that has ended by itself is asked for too, when its line is found closed.
            if not _has_ended(self._children[child]):
                self._condemned.add(child)
                self._killed.setdefault(child, self._patience_s)
            kill_group(self._children[child])

    def _begin(self, child: int, start: _Start) -> None:
        """Fork a child; where the system has no room for it, later."""
        files = start.files
        try:
            self._fork(child, lambda: _load(start.entry)(files[1:], _told(files[0])))
        except OSError as error:
            if error.errno in NO_ROOM and start.tries < len(FORK_PAUSES_S):
                start.left_s = FORK_PAUSES_S[start.tries]
                start.tries += 1
                self._starts[child] = start
                return
            seconds = sum(FORK_PAUSES_S[: start.tries])
            self._tell(Died(child, 1, f"no process could be started for {seconds:.1f} s: {error.strerror}"))
        self._starts.pop(child, None)
        _close_all(files)

    def _keep_time(self, seconds: float) -> None:
        """See to what there was no room for, and to what should have ended by now."""
        for child, start in list(self._starts.items()):
            start.left_s -= seconds
            if start.left_s <= 0:
                self._begin(child, start)
        for child in list(self._killed):
            self._killed[child] -= seconds
            if self._killed[child] <= 0:
                del self._killed[child]
                if not _has_ended(self._children[child]):
                    self._give_up(child, [self._children.pop(child)])
        for leaving in self._leaving.values():
            leaving.left_s -= seconds
        overdue = [child for child, leaving in self._leaving.items() if leaving.left_s <= 0]
        if overdue:
            if stay := end_descendants(self._known(), within_s=0.0):
                del self._leaving[overdue[0]]
                self._give_up(overdue[0], stay)
            # The others waited for the same.
            self._tell_who_left()

    def _give_up(self, child: int, processes: list[int]) -> None:
        self._stuck.update(processes)
        self._condemned.discard(child)
        self._tell(Stays(child, processes[0]))

    def _tell(self, notice: Notice) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.send(json.dumps(asdict(notice)).encode())

    def _fork(self, child: int, run: Callable[[], object]) -> None:
        server = os.getpid()
        process = os.fork()
        if process == 0:
            signal.set_wakeup_fd(-1)
            for number in SENT_TO_EVERYBODY:
                signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
            for number in (signal.SIGCHLD, RANK_DIED):
                signal.signal(number, signal.SIG_DFL)
            self._control.close()
            for other, start in self._starts.items():
                if other != child:
                    _close_all(start.files)
            os.setpgid(0, 0)
            _child_main(run, parent=server)
        # Both set it, so that it holds whoever runs first.
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(process, process)
        self._children[child] = process

    def _reap(self) -> None:
        for child, process in list(self._children.items()):
            if not _has_ended(process):
                continue
            # While the leader is not reaped its number cannot be taken by another group.
            kill_group(process)
            _, status = os.waitpid(process, 0)
            del self._children[child]
            self._killed.pop(child, None)
            self._leaving[child] = _Leaving(os.waitstatus_to_exitcode(status), self._patience_s)
        for process in [process for process in self._stuck if _has_ended(process)]:
            kill_group(process)
            os.waitpid(process, 0)
            self._stuck.discard(process)
        self._tell_who_left()

    def _known(self) -> set[int]:
        """Child processes that nobody is to end."""
        return {*self._children.values(), *self._stuck}

    def _tell_who_left(self) -> None:
        if self._leaving and not end_descendants(self._known(), within_s=_AT_ONCE_S):
            for child, leaving in self._leaving.items():
                self._tell_died(child, leaving.status)
            self._leaving.clear()

    def _tell_died(self, child: int, status: int) -> None:
        """A child has ended, and nothing of it is left."""
        if -status in (*SENT_TO_EVERYBODY, signal.SIGKILL) and child not in self._condemned:
            # That this process is reached, or its rank ended, a little later must not be the trial's fault.
            within_s = delivery_s()
            self._signals.await_any(time.monotonic_ns() - int(within_s * 1e9), within_s)
        self._condemned.discard(child)
        self._tell(Died(child, status))


def _child_main(run: Callable[[], object], parent: int, death_signal: int = signal.SIGKILL) -> NoReturn:
    """Everything that a forked child does, from its first instruction to its last."""
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
        # Not sys.exit: the handlers that the parent has registered are the parent's.
        os._exit(status)


def _has_ended(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _preload(modules: Sequence[str], pack: str) -> None:
    with contextlib.ExitStack() as staged:
        if pack:
            try:
                staged.enter_context(imported_from(Path(pack)))
            except PackError as error:
                print(f"mpisweep: {error}; imported from where it is installed", file=sys.stderr)
        for module in modules:
            # What cannot be imported here fails again, and is reported, where it is used.
            with contextlib.suppress(Exception):
                importlib.import_module(module)


def _close_all(files: Sequence[int]) -> None:
    for file in files:
        os.close(file)


def _told(file: int) -> dict[str, Any]:
    """What a child is told; the position in the file is shared with who has written it."""
    with open(file, "rb") as told:
        told.seek(0)
        arguments: dict[str, Any] = json.load(told)
        return arguments


def _load(entry: str) -> Callable[[list[int], dict[str, Any]], object]:
    module, _, function = entry.partition(":")
    made: Callable[[list[int], dict[str, Any]], object] = getattr(importlib.import_module(module), function)
    return made
