"""A sweep at one moment: its progress, and each running trial with its last report; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpisweep.progress import Progress
from mpisweep.records import AttemptEnd, TrialState
from mpisweep.results.load import Sweep
from mpisweep.views.status import GONE, Status, running_attempts, sweep_status

__all__ = ["RunningTrial", "Watched", "look_at"]


@dataclass(frozen=True, slots=True)
class RunningTrial:
    """A running trial and its last report."""

    number: int
    parameters: dict[str, Any]
    #: Row of its worker in ``sweep.workers``, and its slot there.
    worker: int
    slot: int
    #: When it started, in seconds since 1970.
    since: float
    #: Step and value of the last report of the objective; None before the first one.
    last: tuple[int, float] | None
    #: When it last reported any metric, in seconds since 1970; None before the first report.
    reported_at: float | None


@dataclass(frozen=True, slots=True)
class Watched:
    """A sweep at one moment."""

    name: str
    #: The state in :class:`mpisweep.views.status.Status`.
    state: str
    status: Status
    progress: Progress
    #: The longest running one first.
    running: tuple[RunningTrial, ...]


def look_at(sweep: Sweep, now: float) -> Watched:
    """Compute the view of a sweep.

    Args:
        sweep: as just loaded.
        now: seconds since 1970.
    """
    status = sweep_status(sweep)
    trials, last = sweep.trials, len(sweep.allocations) - 1
    ended = status.trials - status.waiting - status.running
    elapsed_s, rate = 0.0, 0.0
    if last >= 0:
        closed = float(sweep.allocations["ended_at"][last])
        began = float(sweep.allocations["started_at"][last])
        elapsed_s = max(
            (now if sweep.state == "running" or not np.isfinite(closed) else closed) - began, 1e-9
        )
        # Trials of all members of a split sweep; infeasible trials have no time.
        since = (trials["ended_at"] >= began) & np.isin(
            trials["state"], [s.label for s in TrialState if s.is_end]
        )
        rate = float(since.sum()) / elapsed_s
    running = () if status.state == GONE else tuple(_running(sweep))
    return Watched(
        sweep.name,
        status.state,
        status,
        Progress(
            total=status.trials,
            ended=ended,
            pruned=status.pruned,
            failed=status.failed,
            infeasible=status.infeasible,
            running=len(running),
            elapsed_s=elapsed_s,
            rate=rate,
            left_s=(status.trials - ended) / rate if rate > 0 else None,
            objective=status.objective,
            best=status.best,
            best_runs=status.best_runs,
            best_number=status.best_trial,
            best_parameters=status.best_parameters,
            others={one.objective: one.value for one in status.others},
            front=status.front,
            skipped=status.skipped,
        ),
        running,
    )


def _running(sweep: Sweep) -> Iterator[RunningTrial]:
    attempts = sweep.attempts
    held = {(int(attempt["worker"]), int(attempt["slot"])): attempt for attempt in running_attempts(sweep)}
    ended = attempts[attempts["end"] != AttemptEnd.RUNNING.label]
    # A trial that waited in its slot has begun when the one before it ended.
    free_at = np.zeros((len(sweep.workers) + 1, int(attempts["slot"].max(initial=0)) + 1))
    np.maximum.at(free_at, (ended["worker"], ended["slot"]), np.nan_to_num(ended["ended_at"]))
    since = {slot: max(float(attempt["assigned_at"]), float(free_at[slot])) for slot, attempt in held.items()}
    for slot in sorted(held, key=since.__getitem__):
        number = int(held[slot]["trial"])
        last, after_s = _last_report(sweep, number)
        reported_at = None if after_s is None else since[slot] + after_s
        yield RunningTrial(number, sweep.searched(number), *slot, since[slot], last, reported_at)


def _last_report(sweep: Sweep, number: int) -> tuple[tuple[int, float] | None, float | None]:
    """Step and value of the last report of the objective, and the time of the last report of any metric."""
    last, times = None, []
    for name in sweep.curve_names:
        curve = sweep.curve(number, name)
        if not len(curve.value):
            continue
        times.append(float(curve.time[-1]))
        if name == sweep.objective:
            last = int(curve.step[-1]), float(curve.value[-1])
    return last, max(times, default=None)
