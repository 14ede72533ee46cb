"""When the runs of the program were active, their workers, and the waits of their jobs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpisweep.records import AttemptEnd
from mpisweep.results.trial_table import Rows

__all__ = ["job_waits", "most_workers", "run_spans", "time_in_runs"]


def run_spans(allocations: Rows, workers: Rows, trials: Any) -> NDArray[np.float64]:
    """Start and end of each run, shape (runs, 2); see :attr:`mpisweep.results.load.Sweep.spans`."""
    found = np.stack([allocations["started_at"], allocations["ended_at"]], axis=1)
    owner = np.append(workers["allocation"], -1)[trials["worker"]]
    for run, end in np.argwhere(~np.isfinite(found)):
        own = trials["ended_at" if end else "started_at"][owner == run]
        own = own[np.isfinite(own)]
        if len(own):
            found[run, end] = own.max() if end else own.min()
    return found


def time_in_runs(spans: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each moment, how long a run had been active until then, in seconds."""
    total, until = np.zeros(len(moments)), -np.inf
    for start, end in sorted(spans[np.isfinite(spans).all(axis=1)].tolist()):
        # Runs of a split sweep overlap.
        start, until = max(start, until), max(end, until)
        total += np.clip(moments, start, max(end, start)) - start
    return total


def job_waits(allocations: Rows, spans: NDArray[np.float64]) -> NDArray[np.float64]:
    """Wait of each job in the queue, and the start of its first run, shape (jobs, 2).

    A wait is NaN if it is unknown.  Several runs of one job waited once; runs outside of jobs are left out.
    """
    first: dict[tuple[str, str], int] = {}
    for run, (system, job) in enumerate(zip(allocations["batch_system"], allocations["job_id"], strict=True)):
        if job:
            first.setdefault((str(system), str(job)), run)
    rows = list(first.values())
    return np.stack([allocations["queue_wait"][rows], spans[rows, 0]], axis=1)


def most_workers(allocations: Rows, workers: Rows, attempts: Rows, spans: NDArray[np.float64]) -> int:
    """The largest number of workers at one time, over all runs."""
    started, ended = spans[workers["allocation"]].T if len(workers) else (np.empty(0), np.empty(0))
    # A run without an end may still be running if its trials are.
    at_work = np.isin(
        np.arange(len(workers)), attempts["worker"][attempts["end"] == AttemptEnd.RUNNING.label]
    )
    at_work = np.isin(workers["allocation"], workers["allocation"][at_work])
    ended = np.where(at_work & np.isnan(allocations["ended_at"][workers["allocation"]]), np.inf, ended)
    joined = np.fmax(workers["joined_at"], started)
    left = np.fmax(np.where(np.isfinite(workers["left_at"]), workers["left_at"], ended), joined)
    steps = np.concatenate([np.ones(len(workers), int), -np.ones(len(workers), int)])
    order = np.lexsort((-steps, np.concatenate([joined, left])))
    return int(steps[order].cumsum().max(initial=0))
