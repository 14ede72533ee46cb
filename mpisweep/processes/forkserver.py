"""A small process that forks trial processes, itself forked before MPI and CUDA exist.

Why: a process that holds MPI or CUDA state must not fork, and a fresh interpreter that imports torch takes
seconds.  The fork server has imported what the workload needs, and nothing else has happened in it; a child
of it is there in some 30 milliseconds.

Who dies with whom (Linux: PR_SET_PDEATHSIG)::

    rank --> fork server --> trial process and its process group

The kernel tells the fork server when its rank has died, however that happened, and kills the trial processes
when the fork server dies.  A rank that hangs without dying the fork server kills itself, once it is asked to watch it:
on a node where no other rank is nobody else could.  A trial process leads a process group of its own, and the fork server kills what
is left of that group when the leader has ended; what has left the group as well becomes the fork server's
child when its parent ends (a subreaper, as the kernel calls it), and is killed as such.

Signals: batch systems send some to every process of a job, and the fork server with them, to which nobody else sends
any.  It is not ended by them and writes down when they came (:class:`mpisweep.processes.line.SignalPage`), so that a
trial that ends by the same signal is not blamed for it.  Its children are started with them ignored.

Requests go over a SEQPACKET socket pair, one JSON text each, descriptors beside it; notices come back.  What a child is
told is in a file without a name, for a sweep file may be larger than any packet.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import math
import os
import selectors
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from mpisweep.processes.kernel import SENT_TO_EVERYBODY, adopt_orphans, end_descendants
from mpisweep.processes.line import SignalPage, page_file
from mpisweep.processes.staging import PackError, imported_from

__all__ = ["Died", "ForkServer", "ForkServerLostError"]

_PACKET_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1
#: What the fork server gets when its rank has died: not SIGKILL, for it has processes to end.
_RANK_DIED = signal.SIGRTMIN
#: A batch system signals all processes of a job within milliseconds.  That a trial process has died of it must not
#: become the trial's fault because this process is reached, or its rank ended, a little later; so long it is waited.
_EVERYBODY_S = 0.25
#: How long it may take to leave, in seconds; one that loads a large library hears nothing until that is loaded.
_CLOSE_S = 2.0
#: How often a rank is looked at that is watched, in seconds.
_WATCH_S = 1.0


class ForkServerLostError(RuntimeError):
    """The fork server was killed; nothing can be started or ended without it."""


@dataclass(frozen=True, slots=True)
class Died:
    """A child has ended; `status` is the exit code, or the negative number of the signal."""

    child: int
    status: int


class ForkServer:
    """The rank's handle on its fork server.

    Args:
        process: its process id.
        control: this end of the socket pair.
        signals_file: descriptor of the page on which it writes down when signals came.
    """

    def __init__(self, process: int, control: socket.socket, signals_file: int) -> None:
        self._process = process
        self._control = control
        #: For children, which see by it what their fork server has received.
        self.signals_file = signals_file
        self.signals = SignalPage(signals_file)
        self._children = 0
        #: The loop of a rank and the thread that opens a sweep may both ask for something.
        self._asking = threading.RLock()

    @classmethod
    def start(cls) -> ForkServer:
        """Fork the server off this process, which must not have initialised MPI nor started threads."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PACKET_BYTES)
        sys.stdout.flush()
        sys.stderr.flush()
        rank = os.getpid()
        signals_file = page_file("mpisweep-signals")
        process = os.fork()
        if process == 0:
            ours.close()
            _child_main(lambda: _Server(theirs, SignalPage(signals_file)).run(), parent=rank, death_signal=_RANK_DIED)
        theirs.close()
        return cls(process, ours, signals_file)

    def fileno(self) -> int:
        """For select(); readable when there are notices."""
        return self._control.fileno()

    def preload(self, modules: Sequence[str], pack: str = "") -> None:
        """Import these in the server, so that its children find them imported.

        Args:
            modules: their names.
            pack: a file that their code is taken from, see :mod:`mpisweep.processes.staging`; empty for none.
        """
        self._request([], preload=list(modules), pack=pack)

    def spawn(self, entry: str, files: Sequence[int], arguments: dict[str, Any]) -> int:
        """Fork a child that calls ``entry`` (``package.module:function``) with `files` and `arguments`.

        Args:
            entry: function of two arguments; when it returns, the child exits.
            files: open descriptors to hand over; the caller closes its own.
            arguments: anything that JSON can hold.

        Returns:
            The child's number, which :class:`Died` will name.
        """
        with self._asking, _nameless_file() as told:
            self._children += 1
            told.write(json.dumps(arguments).encode())
            told.flush()
            self._request([told.fileno(), *files], spawn=entry, child=self._children)
            return self._children

    def watch(self, silence_s: float) -> None:
        """Have this process killed when it has not called :meth:`beat` for so many seconds; 0 calls that off."""
        self._request([], watch=silence_s)

    def beat(self) -> None:
        """Give a sign of life."""
        self._request([], beat=True)

    def kill(self, child: int) -> None:
        """Kill the child and its process group; nothing when it has ended already."""
        self._request([], kill=child)

    def notices(self) -> list[Died]:
        """The children that have ended since the last call.

        Raises:
            ForkServerLostError: when the server itself has ended.
        """
        died: list[Died] = []
        try:
            while packet := self._control.recv(_PACKET_BYTES, socket.MSG_DONTWAIT):
                died.append(Died(**json.loads(packet)))
        except BlockingIOError:
            return died
        except ConnectionResetError:
            pass
        raise ForkServerLostError

    def close(self) -> None:
        """End the server, and with it every child that is left; returns when the server is gone."""
        self._control.close()
        self.signals.close()
        os.close(self.signals_file)
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            # While it imports it reads no request, and the other ranks may wait for this one to leave.
            os.kill(self._process, _RANK_DIED)
            until = time.monotonic() + _CLOSE_S
            while time.monotonic() < until:
                if os.waitpid(self._process, os.WNOHANG)[0]:
                    return
                time.sleep(2e-3)
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)

    def _request(self, files: Sequence[int], **request: Any) -> None:
        # The server reads at once except while it imports; the socket holds hundreds of requests till then.
        packet = json.dumps(request).encode()
        try:
            with self._asking:
                socket.send_fds(self._control, [packet], list(files))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ForkServerLostError from error


class _Server:
    """What runs in the fork server."""

    def __init__(self, control: socket.socket, signals: SignalPage) -> None:
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
        waker, self._wakeup = socket.socketpair()
        for end in (waker, self._wakeup):
            end.setblocking(False)
        for number in SENT_TO_EVERYBODY:
            signal.signal(number, lambda *_: self._signals.note())
        signal.signal(_RANK_DIED, lambda *_: self._leave())
        adopt_orphans()
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._wakeup, selectors.EVENT_READ)
            while True:
                looked = time.monotonic()
                ready = [key.fileobj for key, _ in selector.select(None if math.isinf(self._silence_s) else _WATCH_S)]
                self._watch_rank(time.monotonic() - looked)
                if self._wakeup in ready:
                    with contextlib.suppress(BlockingIOError):
                        self._wakeup.recv(4096)
                    self._reap()
                if self._control in ready and not self._serve_request():
                    break
        self._leave()

    def _watch_rank(self, seconds: float) -> None:
        """Kill the rank when it has been silent for too long.  Time in which this process did not run does not count."""
        self._silent_s += min(seconds, 2 * _WATCH_S)
        if self._silent_s > self._silence_s:
            self._silence_s = math.inf
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._rank, signal.SIGKILL)

    def _leave(self) -> NoReturn:
        """End every descendant, then this process."""
        signal.signal(_RANK_DIED, signal.SIG_IGN)
        for process in self._children.values():
            _kill_group(process)
        end_descendants()
        os._exit(0)

    def _serve_request(self) -> bool:
        try:
            packet, files, _, _ = socket.recv_fds(self._control, _PACKET_BYTES, 16)
        except ConnectionResetError:
            return False
        if not packet:
            return False
        match json.loads(packet):
            case {"spawn": entry, "child": child}:
                self._fork(child, lambda: _load(entry)(files[1:], _told(files[0])))
            case {"kill": child}:
                if child in self._children:
                    # One that has ended by itself is asked for too, when its line is found closed.
                    if not _has_ended(self._children[child]):
                        self._condemned.add(child)
                    _kill_group(self._children[child])
            case {"beat": _}:
                self._silent_s = 0.0
            case {"watch": silence_s}:
                self._silence_s, self._silent_s = silence_s or math.inf, 0.0
            case {"preload": modules, "pack": pack}:
                _preload(modules, pack)
        for file in files:
            os.close(file)
        return True

    def _fork(self, child: int, run: Callable[[], object]) -> None:
        server = os.getpid()
        process = os.fork()
        if process == 0:
            signal.set_wakeup_fd(-1)
            for number in SENT_TO_EVERYBODY:
                signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
            for number in (signal.SIGCHLD, _RANK_DIED):
                signal.signal(number, signal.SIG_DFL)
            self._control.close()
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
            _kill_group(process)
            _, status = os.waitpid(process, 0)
            del self._children[child]
            notice = {"child": child, "status": os.waitstatus_to_exitcode(status)}
            end_descendants(keep=set(self._children.values()))
            if -notice["status"] in (*SENT_TO_EVERYBODY, signal.SIGKILL) and child not in self._condemned:
                time.sleep(_EVERYBODY_S)
            self._condemned.discard(child)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._control.send(json.dumps(notice).encode())


def _child_main(run: Callable[[], object], parent: int, death_signal: int = signal.SIGKILL) -> NoReturn:
    """Everything that a forked child does, from its first instruction to its last."""
    status = 1
    try:
        _die_with_parent(parent, death_signal)
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


def _die_with_parent(parent: int, death_signal: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


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


def _kill_group(process: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)


def _nameless_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("mpisweep-arguments"), "w+b")
    return tempfile.TemporaryFile()


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
