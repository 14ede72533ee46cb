"""The statistics behind tables, figures and the report, and what they say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from mpisweep.progress import counted
from mpisweep.records import Direction
from mpisweep.results.configurations import Runs, runs_of
from mpisweep.results.load import Sweep
from mpisweep.spec.units import configuration_text, number_text
from mpisweep.statistics.best_set import BestSet
from mpisweep.statistics.means import Means, means_of
from mpisweep.statistics.trend import Trend, trend_of
from mpisweep.views.scales import direction_of, has_smooth_ratios

__all__ = ["Findings", "findings_of"]

#: Sweep -> metric and direction -> its statistics, which sentence, table and figure of one page share.
_KNOWN: WeakKeyDictionary[Sweep, dict[tuple[str, Direction], Findings]] = WeakKeyDictionary()

#: Configurations of the best set that a sentence names.
_NAMED = 6


@dataclass(frozen=True, slots=True)
class Findings:
    """The statistics of one metric; arrays have one entry per configuration.

    Attributes:
        metric: its name.
        minimize: whether a smaller value is better.
        runs: the values by configuration and repeat.
        means: of each configuration.
        compared: each configuration with the best; None without a finite value.
        parameter: the one ordered parameter that is searched; empty if there is another number of them.
        trend: of the metric over `parameter`, if every configuration has one run.
    """

    metric: str
    minimize: bool
    runs: Runs
    means: Means
    compared: BestSet | None
    parameter: str
    trend: Trend | None

    @property
    def is_repeated(self) -> bool:
        """Whether any configuration has two runs, so that the noise is known."""
        return bool((self.means.count > 1).any())

    @property
    def half_width(self) -> NDArray[np.float64]:
        """Half the 95% interval of each mean; NaN below two runs."""
        return self.means.half_width

    @property
    def in_best_set(self) -> NDArray[np.bool_]:
        """Whether each cannot be told apart from the best."""
        return np.zeros(len(self.runs.number), bool) if self.compared is None else self.compared.is_in

    def order(self) -> NDArray[np.intp]:
        """The configurations with a finite mean, the best first."""
        if self.compared is None:
            return np.empty(0, dtype=np.intp)
        # Without the luck of seeds that others lack, as they are compared.
        keys = self.compared.mean if self.minimize else -self.compared.mean
        order = np.argsort(keys, kind="stable")
        return order[np.isfinite(keys[order])]

    def sentence(self, sweep: Sweep) -> str:
        """Say what was found and how sure it is; empty if nothing was."""
        order = self.order()
        if not len(order) or self.compared is None or len(self.runs.number) < 2:
            return ""
        if not self.is_repeated:
            return self._of_single_runs(sweep)
        best = int(order[0])
        mean, half = float(self.means.mean[best]), float(self.half_width[best])
        interval = f" ± {half:.2g}" if math.isfinite(half) else ""
        said = (
            f"best mean {self.metric} {number_text(mean)}{interval} "
            f"({counted(int(self.means.count[best]), 'run')}), {self._named(sweep, [best])}; "
        )
        alike = [int(row) for row in order if self.compared.is_in[row] and row != best]
        if not alike:
            others = f"the other {counted(len(order) - 1, 'configuration')}"
            return f"{said}it is told apart from {others} (95%){self._on_shared_seeds(order)}"
        if len(alike) == len(order) - 1:
            others = f"none of the other {counted(len(alike), 'configuration')}"
            return f"{said}{others} can be told apart from it (95%){self._on_shared_seeds(order)}"
        named = f": {self._named(sweep, alike)}" if len(alike) <= _NAMED else ""
        others = f"{len(alike)} of the other {len(order) - 1}"
        return f"{said}{others} cannot be told apart from it (95%){named}{self._on_shared_seeds(order)}"

    def _on_shared_seeds(self, order: NDArray[np.intp]) -> str:
        """Why a mean over more runs may be ranked before a better one over fewer."""
        counts = self.means.count[order]
        return (
            "; different numbers of runs are compared on the seeds that they share" if np.ptp(counts) else ""
        )

    def _of_single_runs(self, sweep: Sweep) -> str:
        only = "one run each: nothing says how far luck goes"
        if self.trend is None:
            hint = "; with `repeats = 3` each configuration would have an interval"
            return only if sweep.spec.is_defined_by_run else f"{only}{hint}"
        low, high = self.trend.region
        noise = f"{float(np.median(self.trend.noise)):.2g}"
        best = number_text(float(self.trend.x[self.trend.best]))
        where = (
            f"near {best}, and anything from {number_text(low)} to {number_text(high)} may be"
            if high > low
            else f"at {best}"
        )
        if bool(self.trend.in_best_region.all()):
            return (
                f"{only}; a single run varies by {noise} around the trend over {self.parameter}, which shows "
                "no value to be better than another (95%)"
            )
        return (
            f"{only}; by the trend over {self.parameter}, around which a single run varies by {noise}, the "
            f"best is {where} (95%)"
        )

    def _named(self, sweep: Sweep, rows: list[int]) -> str:
        """Configurations in words."""
        texts = [configuration_text(sweep.searched(int(self.runs.first[row]))) for row in rows]
        return "; ".join(
            text or f"configuration {self.runs.number[row]}" for row, text in zip(rows, texts, strict=True)
        )


def findings_of(sweep: Sweep, metric: str | None = None, direction: str | None = None) -> Findings:
    """Compute the statistics of a metric, the objective unless given.

    Args:
        sweep: from :func:`mpisweep.load`.
        metric: of the trials; the first objective unless given.
        direction: ``minimize`` or ``maximize``; unless given that of the metric if it is an objective, else
            the sweep's.

    Raises:
        KeyError: when no trial has that metric.
    """
    name = metric or sweep.objective
    better = Direction(direction or direction_of(sweep, name, sweep.direction))
    # An objective without a value is not an error.
    column = sweep.metric_column(name) if metric is not None or name in sweep.metrics else None
    known = _KNOWN.setdefault(sweep, {})
    if (name, better) not in known:
        known[name, better] = _computed(sweep, name, column, better)
    return known[name, better]


def _computed(sweep: Sweep, name: str, column: str | None, better: Direction) -> Findings:
    minimize = better is Direction.MINIMIZE
    # At a budget, the time until there.
    time_column = "at_seconds" if sweep.budget else "wall_time"
    runs = runs_of(sweep.trials, column, time_column)
    means, parameter = means_of(runs.values), ordered_parameter(sweep)
    trend = None
    if parameter and not (means.count > 1).any():
        x = sweep.trials[sweep.column(parameter)][runs.first].astype(float)
        trend = trend_of(
            x, means.mean, minimize=minimize, logarithmic=has_smooth_ratios(sweep, parameter, x)
        )  # fmt: skip
    return Findings(name, minimize, runs, means, runs.compared(minimize=minimize), parameter, trend)


def ordered_parameter(sweep: Sweep) -> str:
    """The searched parameter, if it is the only one and numeric; else empty."""
    names = sweep.spec.space.names
    if len(names) != 1 or sweep.trials[sweep.column(names[0])].dtype.kind not in "iuf":
        return ""
    return names[0]
