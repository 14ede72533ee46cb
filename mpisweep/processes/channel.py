"""The line between a worker and its trial process: framed bytes, and a page of memory that both see.

Frames go over a socket pair.  Towards the trial process go::

    GIVEN                  an AssignedBlock
    TEAM                   which rank of the next block's trial this is, before a trial of several ranks
    MEET     number, attempt, body   where the ranks of this trial meet

Back come::

    READY                  the workload is loaded
    ENDED    count, body   an EndedBlock of so many trials
    REPORTS  number, attempt, body   a ReportBlock of this trial
    SKIPPED  index, count  so many trials from this one on were void and have not begun
    MEETING  number, attempt, body   where they meet: the address, from rank 0
    INTERRUPTED  index     the running trial has stopped as it was told to; it has no result

Trials are known on the line by their index: the how-manieth trial it is that this process was given.

The page answers at any moment, without a message and however busy or dead the trial process is: which trial
runs, and since when.  The worker needs that to blame the right trial for a crash and to time one out.  In
the other direction it declares trials void.  A trial process first says that it begins a trial and then
looks whether that trial is void; the worker first declares it void and then, a moment later, looks what has
begun.  So one of the two sees the other, and no trial runs that was given to somebody else.

A second page belongs to the fork server, which writes down there when a batch system's signal has reached it.  No
trial sends it any: what it gets was sent to every process of the job.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import tempfile
import time
from collections import deque
from typing import NamedTuple

from mpisweep.processes.unsent import UNSENT_BYTES, Unsent

__all__ = [
    "ENDED", "GIVEN", "INTERRUPTED", "MEET", "MEETING", "READY", "REPORTS", "SKIPPED", "TEAM", "Frame", "Line",
    "LineClosedError", "Page", "SignalPage", "page_file",
]  # fmt: skip

READY = 1
ENDED = 2
REPORTS = 3
SKIPPED = 4
INTERRUPTED = 5
GIVEN = 6
TEAM = 7
MEET = 8
MEETING = 9

_HEADER = struct.Struct("<IBqq")
_PAGE_BYTES = mmap.PAGESIZE + UNSENT_BYTES
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


def page_file(name: str = "mpisweep-page") -> int:
    """An open descriptor of a fresh page of memory, without a name in any folder; `name` is for who looks for it in /proc."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create(name)
    else:
        with tempfile.TemporaryFile() as made:
            file = os.dup(made.fileno())
    os.ftruncate(file, _PAGE_BYTES)
    return file


class _Numbers:
    """A page of memory that several processes see, as 64-bit numbers.

    Args:
        file: descriptor made by :func:`page_file`; it is not needed afterwards.
    """

    def __init__(self, file: int) -> None:
        self._memory = mmap.mmap(file, _PAGE_BYTES)
        self._numbers = memoryview(self._memory)[: mmap.PAGESIZE].cast("q")

    def close(self) -> None:
        """Let the memory go."""
        if not self._memory.closed:
            self._numbers.release()
            self._memory.close()


class SignalPage(_Numbers):
    """When the fork server received a signal that a batch system sends to every process of a job."""

    def note(self) -> None:
        """It has received one just now."""
        self._numbers[0] = time.monotonic_ns()

    def any_since(self, ns: int) -> bool:
        """Whether it has received one since then, by the monotonic clock."""
        return self._numbers[0] >= ns


class Page(_Numbers):
    """The memory that both ends of a line see: five numbers, and the reports that were not sent."""

    _BEGUN, _STARTED_NS, _VOID_BELOW, _STOP, _REPORTED_NS = range(5)

    def __init__(self, file: int) -> None:
        super().__init__(file)
        self.unsent = Unsent(memoryview(self._memory)[mmap.PAGESIZE :])

    def close(self) -> None:
        """Let the memory go."""
        if not self._memory.closed:
            self.unsent.release()
        super().close()

    # Written by the trial process.

    def begin(self, index: int) -> bool:
        """Claim the trial `index`; False when it is void and must be skipped."""
        numbers = self._numbers
        numbers[0] = index + 1
        if index < numbers[2]:
            return False
        numbers[1] = time.monotonic_ns()
        return True

    def note_report(self) -> None:
        """The running trial has reported just now."""
        self._numbers[self._REPORTED_NS] = time.monotonic_ns()

    def rest(self) -> None:
        """No trial runs at the moment."""
        self._numbers[self._STARTED_NS] = 0

    @property
    def stop_asked(self) -> bool:
        """Whether the running trial should return soon."""
        return self._numbers[3] != 0

    # Written by the worker.

    @property
    def begun(self) -> int:
        """How many trials were begun, skipped ones included."""
        return self._numbers[self._BEGUN]

    @property
    def started_ns(self) -> int:
        """When the running trial started, by the monotonic clock; 0 when none runs."""
        return self._numbers[self._STARTED_NS]

    @property
    def reported_ns(self) -> int:
        """When a trial reported last, by the monotonic clock; 0 when none did."""
        return self._numbers[self._REPORTED_NS]

    def void_below(self, index: int) -> None:
        """Declare void whatever has a smaller index and has not begun."""
        self._numbers[self._VOID_BELOW] = max(index, self._numbers[self._VOID_BELOW])

    def ask_to_stop(self) -> None:
        """Ask the running trial to return soon."""
        self._numbers[self._STOP] = 1
