"""The rank's handle on a small process that forks trial processes, itself forked before MPI and CUDA exist.

Why: a process that holds MPI or CUDA state must not fork, and a fresh interpreter that imports torch takes
seconds.  The fork server has imported what the workload needs, and nothing else has happened in it; a child
of it is there in some 30 milliseconds.  What runs in there is :mod:`mpisweep.processes.fork_loop`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO, Any

from mpisweep.processes.fork_loop import PACKET_BYTES, RANK_DIED, Died, Notice, Stays, run_fork_server
from mpisweep.processes.kernel import started_patiently
from mpisweep.processes.shared_page import SignalPage, page_file

__all__ = ["Died", "ForkServer", "ForkServerLostError", "Notice", "Stays"]

#: How long it may take to leave, in seconds; one that loads a large library hears nothing until that is
#: loaded.
_CLOSE_S = 2.0


class ForkServerLostError(RuntimeError):
    """The fork server was killed; nothing can be started or ended without it."""


class ForkServer:
    """The rank's handle on its fork server.

    Args:
        process: its process id.
        control: this end of the socket pair.
        signals_file: descriptor of the page on which it writes down when signals came.
        patience_s: within how many seconds a process that was killed must have ended.
    """

    def __init__(self, process: int, control: socket.socket, signals_file: int, patience_s: float) -> None:
        self.patience_s = patience_s
        self._process = process
        self._control = control
        #: For children, which see by it what their fork server has received.
        self.signals_file = signals_file
        self.signals = SignalPage(signals_file)
        self._children = 0
        #: The loop of a rank and the thread that opens a sweep may both ask for something.
        self._asking = threading.RLock()

    @classmethod
    def start(cls, patience_s: float = 30.0) -> ForkServer:
        """Fork the server off this process, which must not have initialised MPI nor started threads.

        Args:
            patience_s: within how many seconds a process that was killed must have ended.

        Raises:
            OSError: when the system has no process to give, also after some seconds.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PACKET_BYTES)
        sys.stdout.flush()
        sys.stderr.flush()
        rank = os.getpid()
        signals_file = page_file("mpisweep-signals")
        process = started_patiently(os.fork)
        if process == 0:
            ours.close()
            run_fork_server(theirs, signals_file, patience_s, rank)
        theirs.close()
        return cls(process, ours, signals_file, patience_s)

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
        """Have this process killed when it has not called :meth:`beat` for so long; 0 calls that off."""
        self._request([], watch=silence_s)

    def beat(self) -> None:
        """Give a sign of life."""
        self._request([], beat=True)

    def kill(self, child: int) -> None:
        """Kill the child and its process group; nothing when it has ended already."""
        self._request([], kill=child)

    def notices(self) -> list[Notice]:
        """The children that have ended since the last call, or should have.

        Raises:
            ForkServerLostError: when the server itself has ended.
        """
        found: list[Notice] = []
        try:
            while packet := self._control.recv(PACKET_BYTES, socket.MSG_DONTWAIT):
                told = json.loads(packet)
                found.append(Stays(**told) if "process" in told else Died(**told))
        except BlockingIOError:
            return found
        except ConnectionResetError:
            pass
        raise ForkServerLostError

    def close(self) -> None:
        """End the server, and with it every child that can be ended; returns when the server is gone."""
        self._control.close()
        self.signals.close()
        os.close(self.signals_file)
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            # While it imports it reads no request, and the other ranks may wait for this one to leave.
            os.kill(self._process, RANK_DIED)
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


def _nameless_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("mpisweep-arguments"), "w+b")
    return tempfile.TemporaryFile()
