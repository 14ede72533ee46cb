"""Durations of steps, and how far the device may be behind.

A CPU computes while it is asked to.  A GPU computes later: events in its queue say when each step ended, and
nothing waits for them but :meth:`GpuClock.pace`, so that no more than :data:`QUEUED` steps are ever queued
behind the one that runs: a stop is seen at once, however long a step takes.
"""

from __future__ import annotations

import time
from typing import Protocol

import torch

__all__ = ["QUEUED", "Clock", "CpuClock", "GpuClock", "make_clock"]

#: Steps that a GPU may have queued: enough that it never waits for Python, few enough to end soon.
QUEUED = 2


class Clock(Protocol):
    """Measures one step after the other."""

    def start(self) -> None:
        """Begin with the next step; what came before belongs to none."""

    def mark(self) -> None:
        """A step has been launched."""

    def pace(self) -> None:
        """Wait until the device is not far behind."""

    def read(self) -> list[float]:
        """Seconds of each step since the last call; waits for all of them."""


def make_clock(device: torch.device) -> Clock:
    """The clock for a device."""
    return GpuClock() if device.type == "cuda" else CpuClock()


class CpuClock:
    """A step ends when its call returns."""

    def start(self) -> None:
        """See :class:`Clock`."""
        self._last = time.perf_counter()
        self._seconds: list[float] = []

    def mark(self) -> None:
        """See :class:`Clock`."""
        now = time.perf_counter()
        self._seconds.append(now - self._last)
        self._last = now

    def pace(self) -> None:
        """See :class:`Clock`: there is no queue."""

    def read(self) -> list[float]:
        """See :class:`Clock`."""
        seconds, self._seconds = self._seconds, []
        # Reading, which takes the ranks' time together, is no step's.
        self._last = time.perf_counter()
        return seconds


class GpuClock:
    """A step takes from the end of the step before to its own, on the device."""

    def start(self) -> None:
        """See :class:`Clock`."""
        torch.cuda.synchronize()  # nothing of the setup may count for the first step
        self._ended = [self._event()]

    def mark(self) -> None:
        """See :class:`Clock`."""
        self._ended.append(self._event())

    def pace(self) -> None:
        """See :class:`Clock`."""
        if len(self._ended) > QUEUED:
            self._ended[-1 - QUEUED].synchronize()

    def read(self) -> list[float]:
        """See :class:`Clock`."""
        self._ended[-1].synchronize()
        seconds = [
            before.elapsed_time(event) / 1000
            for before, event in zip(self._ended, self._ended[1:], strict=False)
        ]
        # Where the next step begins: the device has gone on meanwhile.
        self._ended = self._ended[-1:]
        return seconds

    @staticmethod
    def _event() -> torch.cuda.Event:
        # Blocking: who waits for a step leaves the core to the loaders.
        event = torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        return event
