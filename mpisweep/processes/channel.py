"""The line between a worker and its trial process: framed bytes over a socket pair.

What has to be known at any moment, without a message, is on a page of memory instead
(:mod:`mpisweep.processes.shared_page`).

Towards the trial process go::

    GIVEN                                    an AssignedBlock
    TEAM                                     the rank in the next block's trial, if it has several ranks
    RENDEZVOUS        number, attempt, body  the address at which the ranks of this trial meet

Back come::

    READY                                    the workload is loaded
    ENDED             count, body            an EndedBlock of so many trials
    REPORTS           number, attempt, body  a ReportBlock of this trial
    SKIPPED           index, count           so many trials, from this one on, were reclaimed and skipped
    RENDEZVOUS_READY  number, attempt, body  the address at which they meet, from rank 0
    INTERRUPTED       index                  the running trial stopped on request; it has no result

A trial's index on the line is its position among the trials given to this process.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import NamedTuple

__all__ = [
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

_HEADER = struct.Struct("<IBqq")
_READ_BYTES = 1 << 18


class LineClosedError(EOFError):
    """The other end is gone."""


class Frame(NamedTuple):
    """One message; `first` and `second` are what its kind says they are, or 0."""

    kind: int
    first: int
    second: int
    body: bytes


class Line:
    """One end of the socket pair.

    Args:
        end: this end; it must be non-blocking for the worker, and blocking for the trial process.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._unread = bytearray()
        self._unsent: deque[memoryview] = deque()

    def fileno(self) -> int:
        """For select()."""
        return self._end.fileno()

    def send(self, kind: int, body: bytes = b"", first: int = 0, second: int = 0) -> None:
        """Send one frame; on a non-blocking line what does not fit is kept for :meth:`flush`.

        Raises:
            LineClosedError: when the other end is gone.
        """
        self._unsent.append(memoryview(_HEADER.pack(len(body), kind, first, second) + body))
        self.flush()

    @property
    def has_unsent(self) -> bool:
        """Whether :meth:`flush` has something to do."""
        return bool(self._unsent)

    def flush(self) -> bool:
        """Send what is left over; True when nothing is.

        Raises:
            LineClosedError: when the other end is gone.
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
        """All whole frames that are there; on a blocking line at least one.

        Raises:
            LineClosedError: when the other end is gone and everything it sent has been returned.
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
