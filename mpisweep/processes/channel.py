"""The connection between a worker and its trial process: framed bytes over a socket pair.

State that must be visible at any moment, without a message, is on a page of shared memory instead
(:mod:`mpisweep.processes.shared_page`).

To the trial process::

    GIVEN                                    an AssignedBlock
    TEAM                                     the rank in the next block's trial, if it has several ranks
    RENDEZVOUS        number, attempt, body  the address at which the ranks of this trial meet

From the trial process::

    READY                                    the workload is loaded
    CHECKED           body                   a CheckedRecord of its device, before READY
    ENDED             count, body            an EndedBlock of `count` trials
    REPORTS           number, attempt, body  a ReportBlock of this trial
    SKIPPED           index, count           `count` trials from `index` on were reclaimed and skipped
    RENDEZVOUS_READY  number, attempt, body  the address at which they meet, from rank 0
    INTERRUPTED       index                  the running trial stopped on request; it has no result

A trial's index is its position among the trials given to this process.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import NamedTuple

__all__ = [
    "CHECKED",
    "ENDED",
    "GIVEN",
    "INTERRUPTED",
    "READY",
    "RENDEZVOUS",
    "RENDEZVOUS_READY",
    "REPORTS",
    "SKIPPED",
    "TEAM",
    "Frame",
    "Line",
    "LineClosedError",
]  # fmt: skip

READY = 1
ENDED = 2
REPORTS = 3
SKIPPED = 4
INTERRUPTED = 5
GIVEN = 6
TEAM = 7
RENDEZVOUS = 8
RENDEZVOUS_READY = 9
CHECKED = 10

_HEADER = struct.Struct("<IBqq")
_READ_BYTES = 1 << 18


class LineClosedError(EOFError):
    """The other end is closed."""


class Frame(NamedTuple):
    """One message; its kind defines `first` and `second`, else they are 0."""

    kind: int
    first: int
    second: int
    body: bytes


class Line:
    """One end of the socket pair.

    Args:
        end: this end; non-blocking for the worker, blocking for the trial process.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._unread = bytearray()
        self._unsent: deque[memoryview] = deque()

    def fileno(self) -> int:
        """File descriptor for select()."""
        return self._end.fileno()

    def send(self, kind: int, body: bytes = b"", first: int = 0, second: int = 0) -> None:
        """Send one frame; a non-blocking line keeps the unsent rest for :meth:`flush`.

        Raises:
            LineClosedError: when the other end is closed.
        """
        self._unsent.append(memoryview(_HEADER.pack(len(body), kind, first, second) + body))
        self.flush()

    @property
    def has_unsent(self) -> bool:
        """Whether :meth:`flush` has bytes to send."""
        return bool(self._unsent)

    def flush(self) -> bool:
        """Send the unsent rest; True if nothing remains.

        Raises:
            LineClosedError: when the other end is closed.
        """
        while self._unsent:
            data = self._unsent[0]
            try:
                sent = self._end.send(data)
            except BlockingIOError:
                return False
            except (BrokenPipeError, ConnectionResetError) as error:
                raise LineClosedError from error
            if sent == len(data):
                self._unsent.popleft()
            else:
                self._unsent[0] = data[sent:]
        return True

    def receive(self) -> list[Frame]:
        """Receive all complete frames; a blocking line waits for at least one.

        Raises:
            LineClosedError: when the other end is closed and all its frames have been returned.
        """
        frames = self._frames()
        while not frames:
            try:
                data = self._end.recv(_READ_BYTES)
            except BlockingIOError:
                return frames
            except ConnectionResetError as error:
                raise LineClosedError from error
            if not data:
                raise LineClosedError
            self._unread += data
            frames = self._frames()
        return frames

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def _frames(self) -> list[Frame]:
        frames: list[Frame] = []
        at = 0
        while len(self._unread) >= at + _HEADER.size:
            size, kind, first, second = _HEADER.unpack_from(self._unread, at)
            end = at + _HEADER.size + size
            if len(self._unread) < end:
                break
            frames.append(Frame(kind, first, second, bytes(self._unread[at + _HEADER.size : end])))
            at = end
        del self._unread[:at]
        return frames
