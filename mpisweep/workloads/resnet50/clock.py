"""Durations of steps, and how far the device may be behind.

A step on a CPU ends when the call returns.  A GPU computes asynchronously: events in its queue time each
step.  :meth:`GpuClock.pace` keeps at most :data:`QUEUED` steps queued behind the running one, so that a stop
takes effect soon, however long a step takes.
"""

from __future__ import annotations

import time
from typing import Protocol

import torch

__all__ = ["QUEUED", "Clock", "CpuClock", "GpuClock", "make_clock"]

#: Number of steps queued behind the running one: enough to hide Python, few enough to end soon.
QUEUED = 2


class Clock(Protocol):
    """Measures one step after the other."""

    def start(self) -> None:
        """Begin a new series of steps; time until now belongs to none."""

    def mark(self) -> None:
        """Note the launch of a step."""

    def pace(self) -> None:
        """Wait until at most :data:`QUEUED` steps are queued behind the running one."""

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
        """See :class:`Clock`; a CPU has no queue."""

    def read(self) -> list[float]:
        """See :class:`Clock`."""
        seconds, self._seconds = self._seconds, []
        # No step includes the time of the read.
        self._last = time.perf_counter()
        return seconds


class GpuClock:
    """A step takes from the end of the step before to its own, on the device."""

    def start(self) -> None:
        """See :class:`Clock`."""
        torch.cuda.synchronize()  # so that the first step does not include the setup
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
        # The next step begins here.
        self._ended = self._ended[-1:]
        return seconds

    @staticmethod
    def _event() -> torch.cuda.Event:
        # Blocking: waiting for a step leaves the core to the data loaders.
        event = torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        return event
