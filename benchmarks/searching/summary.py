"""What a sweep has found over device time, and what is said of many of them.

The *chosen* configuration is the one with the smallest loss so far, as a user would choose it.  What counts
is how good it truly is, by the mean of all recorded runs: its *regret* is how far its loss is above the
smallest one, its *rank* the share of configurations that are better.  Device time is elapsed time times
workers, in mean trial times of the table; *early* is a quarter of the time that the trials take by that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import comb, inf, nan
from statistics import fmean, median, stdev

from scipy.stats import t

from searching.simulator import Ended
from searching.tables import Table

__all__ = ["BEST_SHARE", "Run", "difference", "follow", "median_interval"]

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


def follow(table: Table, ends: Sequence[Ended], workers: int) -> Run:
    """Follow the chosen configuration of a sweep."""
    run = Run(trials=len(ends))
    best = inf
    for count, end in enumerate(ends, 1):
        run.device_time = end.when * workers / table.usual_s
        if end.loss is None or end.loss >= best:
            continue
        best, row = end.loss, table.index(end.configuration)
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


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median with the interval between two ordered values that covers it in at least 95% of samples."""
    ordered = sorted(values)
    count = len(ordered)
    below, missed = 0, 2 * 0.5**count
    while missed + 2 * comb(count, below + 1) * 0.5**count <= 0.05:
        below += 1
        missed += 2 * comb(count, below) * 0.5**count
    return median(ordered), ordered[below], ordered[count - 1 - below]
