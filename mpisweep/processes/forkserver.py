"""The rank's handle on its fork server: a small process, forked before MPI and CUDA start.

Why: a process with MPI or CUDA state must not fork, and a new interpreter that imports torch takes seconds.
The fork server has imported the workload's modules and has done nothing else; it forks a child in about 30
milliseconds.  :mod:`mpisweep.processes.fork_loop` is the code that runs in it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO, Any

from mpisweep.processes.fork_loop import PACKET_BYTES, RANK_DIED, Died, Notice, Stays, run_fork_server
from mpisweep.processes.kernel import start_with_retries
from mpisweep.processes.shared_page import SignalPage, page_file

__all__ = ["Died", "ForkServer", "ForkServerLostError", "Notice", "Stays"]

#: How long it may take to exit, in seconds; it reads no requests while it imports a large library.
_CLOSE_S = 2.0


class ForkServerLostError(RuntimeError):
    """The fork server was killed; without it no process can be started or killed."""


class ForkServer:
    """The rank's handle on its fork server.

    Args:
        process: its process id.
        control: this end of the socket pair.
        signals_file: descriptor of the page that records the time of signals.
        patience_s: time limit for the end of a killed process, in seconds.
    """

    def __init__(self, process: int, control: socket.socket, signals_file: int, patience_s: float) -> None:
        self.patience_s = patience_s
        self._process = process
        self._control = control
        #: For children, which read from it the signals that the fork server received.
        self.signals_file = signals_file
        self.signals = SignalPage(signals_file)
        self._children = 0
        #: The rank's loop and the thread that opens a sweep may send requests at the same time.
        self._asking = threading.RLock()

    @classmethod
    def start(cls, patience_s: float = 30.0) -> ForkServer:
        """Fork the server; this process must not have initialised MPI or started threads.

        Args:
            patience_s: time limit for the end of a killed process, in seconds.

        Raises:
            OSError: when the fork fails repeatedly, for some seconds.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PACKET_BYTES)
        sys.stdout.flush()
        sys.stderr.flush()
        rank = os.getpid()
        signals_file = page_file("mpisweep-signals")
        # The collector writes into every object that it looks at, and a page that is written is copied.
        gc.freeze()
        process = start_with_retries(os.fork)
        if process == 0:
            ours.close()
            run_fork_server(theirs, signals_file, patience_s, rank)
        theirs.close()
        return cls(process, ours, signals_file, patience_s)

    def fileno(self) -> int:
        """File descriptor for select(); readable when there are notices."""
        return self._control.fileno()

    def preload(self, modules: Sequence[str], pack: str = "") -> None:
        """Import modules in the server, so that its children need not.

        Args:
            modules: their names.
            pack: a file with their code, see :mod:`mpisweep.processes.staging`; empty for none.
        """
        self._request([], preload=list(modules), pack=pack)

    def spawn(self, entry: str, files: Sequence[int], arguments: dict[str, Any]) -> int:
        """Fork a child that calls `entry` with `files` and `arguments`.

        Args:
            entry: a function as ``package.module:function``; when it returns, the child exits.
            files: open descriptors for the child; the caller closes its own.
            arguments: any JSON value.

        Returns:
            The child's number, as in :class:`Died`.
        """
        with self._asking, _nameless_file() as told:
            self._children += 1
            told.write(json.dumps(arguments).encode())
            told.flush()
            self._request([told.fileno(), *files], spawn=entry, child=self._children)
            return self._children

    def watch(self, silence_s: float) -> None:
        """Have this process killed if it does not call :meth:`beat` for that long; 0 ends the watch."""
        self._request([], watch=silence_s)

    def beat(self) -> None:
        """Send a heartbeat."""
        self._request([], beat=True)

    def remove_if_terminated(self, folder: str) -> None:
        """Have a copy of data, if any, removed when :meth:`terminate` or SIGTERM ends the server."""
        self._request([], copy=folder)

    def terminate(self) -> None:
        """Say that this process is about to die of SIGTERM: no message would be read in time."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGTERM)

    def kill(self, child: int) -> None:
        """Kill the child and its process group; does nothing if it has ended."""
        self._request([], kill=child)

    def notices(self) -> list[Notice]:
        """The children that have ended, or failed to end, since the last call.

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
        """End the server and its children, and wait for the server's exit."""
        self._control.close()
        self.signals.close()
        os.close(self.signals_file)
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            # The server reads no requests while it imports, and other ranks may wait for this one to exit.
            os.kill(self._process, RANK_DIED)
            until = time.monotonic() + _CLOSE_S
            while time.monotonic() < until:
                if os.waitpid(self._process, os.WNOHANG)[0]:
                    return
                time.sleep(2e-3)
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)

    def _request(self, files: Sequence[int], **request: Any) -> None:
        # The server reads at once except during imports; the socket buffers hundreds of requests until then.
        packet = json.dumps(request).encode()
        try:
            with self._asking:
                socket.send_fds(self._control, [packet], list(files))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ForkServerLostError from error


def _nameless_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("mpisweep-arguments"), "w+b")
    import tempfile

    return tempfile.TemporaryFile()
