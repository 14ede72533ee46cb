"""Memory shared by worker and trial process, for its progress without messages.

However busy or dead the trial process is, the page shows which trial runs and since when.  The worker uses it
to blame the right trial for a crash and to time one out.  In the other direction it reclaims trials: the
trial process first records that it begins a trial and then checks whether that trial was reclaimed; the
worker first reclaims it and, a moment later, reads which trials have begun.  So at least one of the two sees
the other, and no trial runs that was given to another process.

A second page belongs to the fork server, which records the time of signals from a batch system.  No trial
signals the fork server: a signal that it receives was sent to every process of the job.
"""

from __future__ import annotations

import mmap
import os
import time

from mpisweep.processes.unsent import UNSENT_BYTES, Unsent

__all__ = ["Page", "SignalPage", "page_file"]

#: Pause between two looks for a signal, in seconds.
_LOOK_S = 0.005
_PAGE_BYTES = mmap.PAGESIZE + UNSENT_BYTES


def page_file(name: str = "mpisweep-page") -> int:
    """Create an unnamed page of memory; return its descriptor.  /proc shows it as `name`."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create(name)
    else:
        import tempfile

        with tempfile.TemporaryFile() as made:
            file = os.dup(made.fileno())
    os.ftruncate(file, _PAGE_BYTES)
    return file


class _Numbers:
    """A page of shared memory, as 64-bit numbers.

    Args:
        file: descriptor made by :func:`page_file`; it is not needed afterwards.
    """

    def __init__(self, file: int) -> None:
        self._memory = mmap.mmap(file, _PAGE_BYTES)
        self._numbers = memoryview(self._memory)[: mmap.PAGESIZE].cast("q")

    def close(self) -> None:
        """Unmap the memory."""
        if not self._memory.closed:
            self._numbers.release()
            self._memory.close()


class SignalPage(_Numbers):
    """The time at which the fork server last received a batch system's signal."""

    def note(self) -> None:
        """Record a signal."""
        self._numbers[0] = time.monotonic_ns()

    def any_since(self, ns: int) -> bool:
        """Whether a signal was received since then, by the monotonic clock."""
        return self._numbers[0] >= ns

    def await_any(self, ns: int, within_s: float) -> bool:
        """Wait for up to so long until it has received one since then; returns whether it has."""
        until = time.monotonic() + within_s
        while not self.any_since(ns):
            if time.monotonic() >= until:
                return False
            time.sleep(_LOOK_S)
        return True


class Page(_Numbers):
    """The memory shared by both ends of a line: six numbers, and the unsent reports."""

    _BEGUN, _STARTED_NS, _RECLAIMED_BELOW, _STOP, _REPORTED_NS, _PRUNED = range(6)

    def __init__(self, file: int) -> None:
        super().__init__(file)
        self.unsent = Unsent(memoryview(self._memory)[mmap.PAGESIZE :])

    def close(self) -> None:
        """Unmap the memory."""
        if not self._memory.closed:
            self.unsent.release()
        super().close()

    # Written by the trial process.

    def begin(self, index: int) -> bool:
        """Claim the trial `index`; False if it was reclaimed and must be skipped."""
        numbers = self._numbers
        numbers[self._BEGUN] = index + 1
        if index < numbers[self._RECLAIMED_BELOW]:
            return False
        numbers[self._STARTED_NS] = time.monotonic_ns()
        return True

    def note_report(self) -> None:
        """Record that the running trial has just reported."""
        self._numbers[self._REPORTED_NS] = time.monotonic_ns()

    def note_idle(self) -> None:
        """Record that no trial is running."""
        self._numbers[self._STARTED_NS] = 0

    @property
    def stop_asked(self) -> bool:
        """Whether the running trial should return soon."""
        return self._numbers[self._STOP] != 0

    def is_pruned(self, index: int) -> bool:
        """Whether the trial `index` should return soon, because it is hopeless."""
        return self._numbers[self._PRUNED] == index + 1

    # Written by the worker.

    @property
    def begun(self) -> int:
        """Number of trials begun, skipped ones included."""
        return self._numbers[self._BEGUN]

    @property
    def started_ns(self) -> int:
        """When the running trial started, by the monotonic clock; 0 if none is running."""
        return self._numbers[self._STARTED_NS]

    @property
    def reported_ns(self) -> int:
        """When a trial last reported, by the monotonic clock; 0 if none has."""
        return self._numbers[self._REPORTED_NS]

    def reclaim_below(self, index: int) -> None:
        """Reclaim the trials below `index` that have not begun."""
        self._numbers[self._RECLAIMED_BELOW] = max(index, self._numbers[self._RECLAIMED_BELOW])

    def ask_to_stop(self) -> None:
        """Ask the running trial to return soon."""
        self._numbers[self._STOP] = 1

    def prune(self, index: int) -> None:
        """Ask the trial `index` to return soon, unless a later one was asked before."""
        self._numbers[self._PRUNED] = max(index + 1, self._numbers[self._PRUNED])
