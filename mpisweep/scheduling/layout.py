"""Many sweeps laid out at once, as the scheduler would run them with these workers.

Each trial goes to the worker that is free first, the longest expected one first; one of several ranks waits
until enough workers are free.  That is what the scheduler does once durations are known
(:mod:`mpisweep.scheduling.rules.handout`); :mod:`mpisweep.scheduling.plan` measures what the layout leaves
out with the real scheduler.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisweep.scheduling.drawing import Drawn

__all__ = ["Laid", "lay_out"]

#: From this many trials on, single trials no longer matter and are not laid out one by one.
_MANY = 20_000


class Laid(NamedTuple):
    """Sweeps that were laid out; arrays have one entry per draw.

    Attributes:
        makespan_s: from the first start to the last end.
        latest_s: when the last trial's upper bound is over that the scheduler starts: it starts all of them
            before a deadline from here on.
        last: position of the trial that ends last.
        alone_s: how long no other trial runs at the end.
    """

    makespan_s: NDArray[np.float64]
    latest_s: NDArray[np.float64]
    last: NDArray[np.int64]
    alone_s: NDArray[np.float64]


def lay_out(drawn: Drawn, workers: int, latency_s: float = 0.0, single_up_to: int = _MANY) -> Laid:
    """Lay out every draw.

    Args:
        drawn: durations, in the order in which the trials start.
        workers: number of workers; at least the widest trial's.
        latency_s: between the end of a trial and the next one's start on the same worker.
        single_up_to: number of trials from which on they are not laid out one by one.
    """
    draws, count = drawn.durations_s.shape
    if count > single_up_to:
        return _laid_in_bulk(drawn, workers, latency_s)
    free, rows = np.zeros((draws, workers)), np.arange(draws)
    makespan, latest = np.zeros(draws), np.zeros(draws)
    last = np.zeros(draws, dtype=np.int64)
    for trial in range(count):
        width = int(drawn.widths[trial])
        if width == 1:
            taken = free.argmin(axis=1)
            start = free[rows, taken] + latency_s
        else:
            several = np.argpartition(free, width - 1, axis=1)[:, :width]
            start = np.take_along_axis(free, several, axis=1).max(axis=1) + latency_s
        end = start + drawn.durations_s[:, trial]
        if width == 1:
            free[rows, taken] = end
        else:
            np.put_along_axis(free, several, end[:, None], axis=1)
        np.maximum(latest, start + drawn.upper_s[:, trial], out=latest)
        last[end >= makespan] = trial
        np.maximum(makespan, end, out=makespan)
    free.sort(axis=1)
    before = workers - 1 - drawn.widths[last]
    others = np.where(before >= 0, free[rows, np.maximum(before, 0)], 0.0)
    return Laid(makespan, latest, last, makespan - others)


def _laid_in_bulk(drawn: Drawn, workers: int, latency_s: float) -> Laid:
    """Lay out a sweep whose workers end together, but for one trial each."""
    work = (drawn.durations_s + latency_s) @ drawn.widths / workers
    makespan = np.maximum(work + drawn.durations_s[:, -1], drawn.durations_s.max(axis=1))
    latest = np.maximum(work + drawn.upper_s[:, -1], drawn.upper_s.max(axis=1))
    last = np.full(len(work), drawn.durations_s.shape[1] - 1)
    return Laid(makespan, latest, last, np.zeros(len(work)))
