"""The master's handle on the process that makes snapshots."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from pathlib import Path

from mpisweep.forkserver import ForkServer

__all__ = ["Recorder", "Snapshot"]

#: The answer of a process that can give none.
_KILLED = b'{"seconds": 0.0, "error": "the process that makes snapshots was killed"}\n'

log = logging.getLogger(__name__)


class Snapshot:
    """A snapshot that was made, or tried: `seconds` it took, and what went wrong or ''."""

    __slots__ = ("error", "seconds")

    def __init__(self, seconds: float, error: str) -> None:
        self.seconds = seconds
        self.error = error


class Recorder:
    """Asks for snapshots and never waits for one.  A process that is killed is replaced.

    Args:
        server: forks the process.
        path: of the HDF5 file.
    """

    def __init__(self, server: ForkServer, path: Path) -> None:
        self._server = server
        self._path = path
        self._aside = ""
        self._unread = b""
        self.busy = False
        self._complained = False
        self._start()

    def _start(self) -> None:
        self._line, theirs = socket.socketpair()
        self._server.spawn(
            "mpisweep.results.snapshot:serve", [theirs.fileno()], {"path": os.fspath(self._path)}
        )
        theirs.close()
        self._line.setblocking(False)

    def fileno(self) -> int:
        """For select()."""
        return self._line.fileno()

    def write_in(self, aside: Path) -> None:
        """Name the folder in which this master's files are written before they take their place."""
        self._aside = os.fspath(aside)

    def close(self) -> None:
        """Let the process go; it ends by itself when it has done what it was asked for."""
        self._line.close()

    def fold(self, keep: str) -> None:
        """Ask for a snapshot; segments before `keep` that it covers are deleted."""
        self._ask({"last": False, "keep": keep, "aside": self._aside})

    def finish(self, closing_since: float) -> None:
        """Ask for the last snapshot, which says how long closing took since then; no segment stays."""
        self._ask({"last": True, "aside": self._aside, "since": closing_since})

    def listen(self) -> None:
        """Read what the process has said; to be called when :meth:`fileno` is readable."""
        try:
            received = self._line.recv(4096)
        except BlockingIOError:
            return
        except ConnectionResetError:
            received = b""
        self._unread += received
        if not received:
            self._line.close()
            # Whatever it was doing, the file is whole: it is replaced by one rename or not at all.
            self._unread = _KILLED if self.busy else b""
            self._start()

    def poll(self) -> Snapshot | None:
        """The snapshot that was asked for, once it is there."""
        if b"\n" not in self._unread:
            return None
        text, _, self._unread = self._unread.partition(b"\n")
        self.busy = False
        answer = json.loads(text)
        made = Snapshot(answer["seconds"], answer["error"])
        if made.error and not self._complained:
            log.error("%s cannot be replaced (%s); the journal keeps everything until it can", self._path, made.error)
        self._complained = bool(made.error)
        return made

    def _ask(self, request: dict[str, object]) -> None:
        self.busy = True
        # One that has just died is replaced when its line is seen to be closed.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._line.send(json.dumps(request).encode() + b"\n")
