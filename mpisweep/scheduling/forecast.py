"""Forecast for ``mpisweep check``: a sweep's duration, and the trials that fit the walltime.

The durations are the expectations of the duration model; without measurements they are the timeout, and the
forecast is an upper bound.  The layout follows the scheduler: each worker takes the longest trial that is
left, and near the walltime the longest one whose upper bound still fits; trials of several ranks start with
the widest.  The forecast ignores the start of ranks and of torch: seconds in a job of hours.

Pure: no clock, no file.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from mpisweep.progress import counted
from mpisweep.scheduling.durations import DurationModel
from mpisweep.spec.units import duration_text

__all__ = ["Forecast", "forecast", "forecast_lines"]


@dataclass(frozen=True, slots=True)
class Forecast:
    """Expected time for the remaining trials."""

    trials: int
    workers: int
    #: Sum over the trials' ranks.
    trial_time_s: float
    #: From the first trial's start to the last one's end, without a walltime.
    wall_time_s: float
    #: Trials that are expected to end within the walltime; all of them without a walltime.
    fitting: int
    #: Whether the durations are timeouts because nothing was measured.
    is_bound: bool


def forecast(
    model: DurationModel,
    numbers: Sequence[int],
    *,
    workers: int,
    timeout_s: float | None,
    walltime_s: float | None,
    widths: Sequence[int] | None = None,
    to_come: int = 0,
) -> Forecast | None:
    """Lay out trials that have not ended and those that a search is still to propose.

    Args:
        model: fitted to the measurements so far.
        numbers: trial numbers.
        workers: number of workers.
        timeout_s: time limit of a trial; None for none.
        walltime_s: time limit of the allocation; None for none.
        widths: number of ranks of each trial, by its number; None if all have one.
        to_come: number of trials without a configuration yet; each takes the usual time on one rank.

    Returns:
        None if the durations have no bound, or if the workers are too few for a trial.
    """
    usual_s = timeout_s if model.usual_s is None else model.usual_s
    if to_come and usual_s is None:
        return None
    expected = [usual_s or 0.0] * to_come
    upper = list(expected)
    ordered = model.next_last(numbers)
    for number in ordered:
        likely, bound = model.expected_s(number), model.upper_s(number)
        if likely is None or bound is None:
            if timeout_s is None:
                return None
            likely = bound = timeout_s
        expected.append(likely if timeout_s is None else min(likely, timeout_s))
        upper.append(bound if timeout_s is None else min(bound, timeout_s))
    own_widths = [1] * to_come + [1 if widths is None else widths[number] for number in ordered]
    if to_come:
        rows = sorted(zip(expected, upper, own_widths, strict=True))
        expected, upper = [row[0] for row in rows], [row[1] for row in rows]
        own_widths = [row[2] for row in rows]
    if max(own_widths, default=1) > workers:
        return None

    return Forecast(
        trials=len(expected),
        workers=workers,
        trial_time_s=sum(width * seconds for width, seconds in zip(own_widths, expected, strict=True)),
        wall_time_s=_laid_out(own_widths, expected, expected, workers, None)[1],
        fitting=_laid_out(own_widths, expected, upper, workers, walltime_s)[0],
        is_bound=bool(expected) and not model.is_known,
    )


def _laid_out(
    widths: Sequence[int],
    expected: Sequence[float],
    upper: Sequence[float],
    workers: int,
    walltime_s: float | None,
) -> tuple[int, float]:
    """Number of trials that start, and the end of the last; arguments are sorted shortest first."""
    free_at = [0.0] * workers
    started, last_end_s = 0, 0.0
    for width in sorted(set(widths), reverse=True):
        own = [index for index, other in enumerate(widths) if other == width]
        bounds = [upper[index] for index in own]
        while own:
            taken = [heapq.heappop(free_at) for _ in range(width)]
            at = len(own) - 1 if walltime_s is None else bisect_right(bounds, walltime_s - taken[-1]) - 1
            if at >= 0:
                taken = [taken[-1] + expected[own[at]]] * width
                started, last_end_s = started + 1, max(last_end_s, taken[-1])
                del own[at], bounds[at]
            for until in taken:
                heapq.heappush(free_at, until)
            if at < 0:
                # Later even less fits, but perhaps a trial that needs fewer workers.
                break
    return started, last_end_s


def forecast_lines(prediction: Forecast, walltime_s: float | None) -> list[str]:
    """Describe a forecast to the user."""
    about = "up to" if prediction.is_bound else "about"
    lines = [
        f"{about} {duration_text(prediction.trial_time_s)} of trials; "
        f"with {counted(prediction.workers, 'worker')} {about} {duration_text(prediction.wall_time_s)}"
    ]
    if walltime_s is not None:
        fitting = (
            "all"
            if prediction.fitting == prediction.trials
            else f"{prediction.fitting:,} of {prediction.trials:,} trials"
        )
        sure = (
            ", if every trial takes its timeout"
            if prediction.is_bound and prediction.fitting < prediction.trials
            else ""
        )
        lines.append(f"{fitting} fit into {duration_text(walltime_s)}{sure}")
    return lines
