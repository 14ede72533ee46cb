"""The best batch size at each budget, and the critical batch size.

Of several configurations with one size (a learning rate that was tuned within it) the best one speaks for it,
by the mean over its repeats: the luck of one run does not make it the best.

Pure: tables in, numbers out.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpisweep.records import Direction, TrialState
from mpisweep.results import ResultsError
from mpisweep.results.configurations import runs_of
from mpisweep.results.criticality import CriticalBatch, fit_critical_batch
from mpisweep.results.trial_table import TrialTable
from mpisweep.spec import Spec
from mpisweep.trend import fit_trend

__all__ = ["BestSize", "SizeReadings", "best_size", "critical_batch"]

Floats = NDArray[np.float64]

#: Places at which the trend is drawn, and trends that are drawn for an interval.
_PLACES, _DRAWS = 160, 2000


@dataclass(frozen=True, slots=True)
class BestSize:
    """The size at which the trend of a metric over the batch size is best.

    Attributes:
        metric: its column.
        size: the best size.
        low: lower end of its 95% interval.
        high: upper end.
        value: the trend there.
        noise: standard deviation of a trial around the trend, as a share of it if all values are positive.
        sizes: sizes with a value, shape (sizes,).
        values: the value of each, the mean over the repeats of its best configuration, shape (sizes,).
        runs: number of runs of which each is the mean, shape (sizes,).
        half_widths: half the 95% interval of each mean; NaN below two runs, shape (sizes,).
        places: sizes at which the trend is given, shape (places,).
        trend: the trend there, shape (places,).
        band: lower and upper end of its 95% interval at each place, shape (2, places).
    """

    metric: str
    size: float
    low: float
    high: float
    value: float
    noise: float
    sizes: Floats
    values: Floats
    runs: NDArray[np.int64]
    half_widths: Floats
    places: Floats
    trend: Floats
    band: Floats


def best_size(trials: TrialTable, size: str, metric: str, *, larger_is_better: bool) -> BestSize:
    """Find the best size by a smooth trend over the logarithm of the size.

    Args:
        trials: of the sweep.
        size: the column of the batch size.
        metric: the column to compare.
        larger_is_better: whether larger values are better.

    Raises:
        ValueError: if fewer than four sizes have a value; the message is the end of a sentence.
    """
    # It imports SciPy.
    from mpisweep.statistics.means import means_of

    sign = -1.0 if larger_is_better else 1.0
    runs = runs_of(trials, metric)
    means = means_of(runs.values)
    at = trials[size][runs.first].astype(float)
    is_known = np.isfinite(means.mean) & (at > 0)
    sizes = np.unique(at[is_known])
    if len(sizes) < 4:
        raise ValueError(f"{len(sizes)} batch sizes have a value of {metric}; a trend needs 4")
    # With the mean of a single run beside means of several, the luck of that run would win.
    most = [int(means.count[is_known & (at == each)].max()) for each in sizes]
    chosen = np.array([
        min(
            np.flatnonzero(is_known & (at == each) & (means.count == count)),
            key=lambda place: float(sign * means.mean[place]),
        )
        for each, count in zip(sizes, most, strict=True)
    ])  # fmt: skip
    best = means.mean[chosen]
    is_positive = bool((best > 0).all())
    scale, back = (np.log, np.exp) if is_positive else (np.asarray, np.asarray)
    fitted = fit_trend(np.log2(sizes), scale(best))
    octaves = np.linspace(np.log2(sizes[0]), np.log2(sizes[-1]), _PLACES)
    # The same file gives the same interval.
    lowest = np.argmin(sign * fitted.draws(octaves, _DRAWS, seed=0), axis=1)
    low, high = np.quantile(octaves[lowest], [0.025, 0.975])
    mean, deviation = fitted.mean(octaves), fitted.deviation(octaves)
    place = int(np.argmin(sign * mean))
    return BestSize(
        metric=metric,
        size=float(2.0 ** octaves[place]),
        low=float(2.0**low),
        high=float(2.0**high),
        value=float(back(mean[place])),
        noise=float(np.expm1(fitted.noise)) if is_positive else fitted.noise,
        sizes=sizes,
        values=best,
        runs=means.count[chosen],
        half_widths=means.half_width[chosen],
        places=2.0**octaves,
        trend=back(mean),
        band=back(np.stack([mean - 1.96 * deviation, mean + 1.96 * deviation])),
    )


def critical_batch(
    trials: TrialTable, size: str, steps: str, taken: str | None, others: Sequence[str]
) -> CriticalBatch:
    """Fit the critical batch size to the steps to a target.

    Args:
        trials: of the sweep.
        size: the column of the batch size.
        steps: the column of the steps to the target, NaN where it was not reached.
        taken: the column of the steps taken; None if there is none, then trials that did not reach the target
            are left out.
        others: the columns of the other searched parameters.

    Raises:
        ValueError: if too few trials have reached the target; the message is the end of a sentence.
    """
    complete = trials[trials["state"] == TrialState.COMPLETE.label]
    sizes, needed = complete[size].astype(float), complete[steps].astype(float)
    reached = np.isfinite(needed) & (needed > 0)
    bound = complete[taken].astype(float) if taken else np.full(len(sizes), np.nan)
    used = np.where(reached, needed, bound)
    is_known = np.isfinite(used) & (used > 0) & (sizes > 0)
    chosen = np.zeros(len(sizes), dtype=bool)
    keys = np.array([str(tuple(row[name] for name in others)) for row in complete], dtype=str)
    for each in np.unique(sizes[is_known]):
        here = is_known & (sizes == each)
        chosen |= here & (keys == _fastest(keys[here], used[here], reached[here]))
    return fit_critical_batch(sizes[chosen], used[chosen], reached[chosen])


def _fastest(keys: NDArray[np.str_], used: Floats, reached: NDArray[np.bool_]) -> str:
    """The configuration that reaches the target most often, then in the fewest steps."""
    return str(
        min(np.unique(keys), key=lambda key: (-reached[keys == key].mean(), np.log(used[keys == key]).mean()))
    )


class SizeReadings(ABC):
    """The methods of a loaded sweep that answer questions about the batch size."""

    path: Path
    spec: Spec
    trials: TrialTable

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that have final values."""

    @abstractmethod
    def column(self, name: str) -> str:
        """The column of a parameter or a metric."""

    @abstractmethod
    def metric_column(self, name: str) -> str:
        """The column of a metric."""

    def critical_batch_size(self, size: str = "batch_size", steps: str = "steps_to_target") -> CriticalBatch:
        """Fit the critical batch size; see :mod:`mpisweep.results.criticality`.

        Args:
            size: the parameter that is the batch size.
            steps: the metric that counts the steps to a target.

        Raises:
            KeyError: when there is no such parameter or metric.
            ResultsError: when too few trials have reached the target.
        """
        taken = self.metric_column("steps") if "steps" in self.metrics else None
        others = [self.column(name) for name in self.spec.space.names if name != size]
        try:
            return critical_batch(self.trials, self.column(size), self.metric_column(steps), taken, others)
        except ValueError as error:
            raise ResultsError(f"{self.path}: {error}") from None

    def best_batch_sizes(self, size: str = "batch_size") -> list[BestSize]:
        """The best size at each budget for which trials have a metric ``OBJECTIVE_at_...``.

        Without such metrics it is the best size by the objective; empty if too few sizes have one.

        Raises:
            KeyError: when there is no such parameter.
        """
        budgets = [f"{self.spec.objective}_at_{axis}" for axis in ("steps", "samples", "seconds")]
        names = [name for name in budgets if name in self.metrics] or [self.spec.objective]
        found: list[BestSize] = []
        for name in names if names[0] in self.metrics else ():
            with contextlib.suppress(ValueError):
                found.append(best_size(
                    self.trials, self.column(size), self.metric_column(name),
                    larger_is_better=self.spec.direction is Direction.MAXIMIZE,
                ))  # fmt: skip
        return found
