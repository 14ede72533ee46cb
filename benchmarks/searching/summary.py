"""What a sweep has found over device time, and what is said of many of them.

The *chosen* configuration is the one that the master would name as the best so far: with the smallest loss,
or with repeats with the smallest mean.  What counts is how good it truly is, by the mean of all recorded
runs: its *regret* is how far its loss is above the smallest one, its *rank* the share of configurations that
are better.  Device time is elapsed time times workers, in mean trial times of the table; *early* is a quarter
of the time that the trials take by that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import comb, inf, isfinite, nan
from statistics import fmean, median, stdev

from scipy.stats import t

from mpisweep.master.best import follow_best
from mpisweep.records import Direction, Objective
from mpisweep.search.numbering import Trials
from searching.simulator import Ended
from searching.tables import Table

__all__ = ["BEST_SHARE", "Run", "difference", "follow", "mean_interval", "median_interval"]

#: The share of a table's configurations that are its best.
BEST_SHARE = 0.01


@dataclass(slots=True)
class Run:
    """What one sweep has found.

    Attributes:
        times: device time of each change of the chosen configuration.
        ranks: its rank from then on.
        regrets: its regret from then on.
        trials: number of trials that have ended.
        device_time: when the last one did.
        trials_to_best: number of trials until the chosen configuration is one of the best; None if never.
        time_to_best: device time until then.
    """

    times: list[float] = field(default_factory=list)
    ranks: list[float] = field(default_factory=list)
    regrets: list[float] = field(default_factory=list)
    trials: int = 0
    device_time: float = 0.0
    trials_to_best: int | None = None
    time_to_best: float | None = None

    def regret_at(self, time: float) -> float:
        """Regret at a device time; infinite before the first end."""
        place = bisect_right(self.times, time)
        return self.regrets[place - 1] if place else inf

    def rank_at(self, time: float) -> float:
        """Rank at a device time; 1 before the first end, when nothing is known."""
        place = bisect_right(self.times, time)
        return self.ranks[place - 1] if place else 1.0


def follow(table: Table, ends: Sequence[Ended], workers: int, repeats: int = 1) -> Run:
    """Follow the chosen configuration of a sweep; `repeats` of each configuration, at least."""
    run = Run(trials=len(ends))
    rows = [table.index(end.configuration) for end in ends]
    trials = Trials({}, [], [], rows, [end.repeat for end in ends], None, 0)
    best = follow_best([Objective("loss", Direction.MINIMIZE)], trials, repeats)
    row = None
    for count, end in enumerate(ends, 1):
        run.device_time = end.when * workers / table.usual_s
        if end.loss is None:
            continue
        best.note([count - 1], [[end.loss]])
        if best.number is None or rows[best.number] == row:
            continue
        row = rows[best.number]
        run.times.append(run.device_time)
        run.ranks.append(table.rank(row))
        run.regrets.append(table.regret(row))
        if run.trials_to_best is None and run.ranks[-1] <= BEST_SHARE:
            run.trials_to_best, run.time_to_best = count, run.device_time
    return run


def difference(values: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Mean of the differences and half of its 95% interval (Student's t)."""
    pairs = [a - b for a, b in zip(values, others, strict=True)]
    if len(pairs) < 2:
        return fmean(pairs), nan
    return fmean(pairs), float(t.ppf(0.975, len(pairs) - 1)) * stdev(pairs) / len(pairs) ** 0.5


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean with its 95% interval (Student's t); infinite if a value is."""
    if not all(map(isfinite, values)):
        return inf, inf, inf
    mean, half = difference(values, [0.0] * len(values))
    return mean, mean - half, mean + half


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median with the interval between two ordered values that covers it in at least 95% of samples."""
    ordered = sorted(values)
    count = len(ordered)
    below, missed = 0, 2 * 0.5**count
    while missed + 2 * comb(count, below + 1) * 0.5**count <= 0.05:
        below += 1
        missed += 2 * comb(count, below) * 0.5**count
    return median(ordered), ordered[below], ordered[count - 1 - below]
