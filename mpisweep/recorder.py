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

log = logging.getLogger(__name__)


class Snapshot:
    """A snapshot that was made, or tried: `seconds` it took, and what went wrong or ''."""

    __slots__ = ("error", "seconds")

    def __init__(self, seconds: float, error: str) -> None:
        self.seconds = seconds
        self.error = error


class Recorder:
    """Asks for snapshots and never waits for one.

    Args:
        server: forks the process.
        path: of the HDF5 file.
    """

    def __init__(self, server: ForkServer, path: Path) -> None:
        self._path = path
        self._aside = ""
        self._line, theirs = socket.socketpair()
        server.spawn("mpisweep.results.snapshot:serve", [theirs.fileno()], {"path": os.fspath(path)})
        theirs.close()
        self._line.setblocking(False)
        self._unread = b""
        self.busy = False
        self._complained = False

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

    def finish(self) -> None:
        """Ask for the last snapshot; no segment stays."""
        self._ask({"last": True, "aside": self._aside})

    def listen(self) -> None:
        """Read what the process has said; to be called when :meth:`fileno` is readable."""
        with contextlib.suppress(BlockingIOError):
            received = self._line.recv(4096)
            if not received:
                raise RuntimeError("the process that makes snapshots has ended by itself")
            self._unread += received

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
        self._line.send(json.dumps(request).encode() + b"\n")
        self.busy = True
