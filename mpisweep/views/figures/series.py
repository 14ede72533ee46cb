"""The data of figure 1: a metric and a parameter of every trial that has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpisweep.records import FailureCause, TrialState
from mpisweep.results.load import Sweep
from mpisweep.results.trial_table import TrialTable, needs_too_much
from mpisweep.views.figures.states import of_state
from mpisweep.views.figures.style import FigureError, Floats, positions, words

__all__ = [
    "Series",
    "first_parameter",
    "metric_series",
    "numeric_metric",
    "objective_values",
    "searched_or_all",
]


@dataclass(frozen=True, slots=True)
class Series:
    """One metric vs. one parameter; arrays have one entry per trial."""

    parameter: str
    metric: str
    #: Position on the axis: the value, or the index of a category.
    x: Floats
    y: Floats
    #: Names of the categories; empty for a numeric parameter.
    categories: tuple[str, ...]
    #: Entry of the best trial: by the metric if it is an objective, else by the first objective.
    best: int | None
    baseline: int | None
    failed_x: Floats
    failed_causes: tuple[str, ...]
    #: Positions of complete trials without a finite value of the metric.
    without_x: Floats
    numbers: NDArray[np.int64]
    times_s: Floats
    #: Ranges of the axis in which no trial fits in memory, and the number of trials not run because of them.
    too_large: tuple[tuple[float, float], ...]
    infeasible: int
    #: Why trials have no finite value, as a label.
    without: str
    #: Pruned trials, with the last value that each reported.
    pruned_x: Floats
    pruned_y: Floats
    #: Positions of pruned trials without a finite value.
    pruned_without_x: Floats
    pruned_numbers: NDArray[np.int64]
    pruned_without_numbers: NDArray[np.int64]
    failed_numbers: NDArray[np.int64]
    without_numbers: NDArray[np.int64]

    @property
    def all_x(self) -> Floats:
        """Positions of all trials, whatever their ends."""
        return np.concatenate([
            self.x, self.failed_x, self.without_x, self.pruned_x, self.pruned_without_x,
        ])  # fmt: skip


def metric_series(sweep: Sweep, parameter: str, metric: str) -> Series:
    """Compute the final values of a metric, ordered by a parameter.

    Raises:
        KeyError: if the sweep has no such parameter or metric.
        FigureError: if no trial has ended, or the metric is not numeric.
    """
    trials = sweep.trials
    where, categories = positions(trials[sweep.column(parameter)])
    # Trials that do not have the parameter have no place on its axis.
    has_place = np.isfinite(where)
    complete, failed, pruned = (
        of_state(trials, state) & has_place
        for state in (TrialState.COMPLETE, TrialState.FAILED, TrialState.PRUNED)
    )
    if not (complete | failed | pruned).any():
        raise FigureError(f"{sweep.path}: no trial has ended yet, there is nothing to draw")
    values = (
        numeric_metric(sweep, metric) if (complete | pruned).any() else np.full(len(trials), np.nan)
    )  # fmt: skip
    is_finite = np.isfinite(values)
    shown = complete & is_finite
    order = np.flatnonzero(shown)[np.argsort(where[shown], kind="stable")]
    best = sweep.best(1, metric if metric in {one.name for one in sweep.objectives} else None)
    numbers = trials["number"][order]
    too_large, infeasible = _too_large(trials, where, categories)
    with_last, without_last = pruned & is_finite, pruned & ~is_finite
    return Series(
        parameter=parameter,
        metric=metric,
        x=where[order],
        y=values[order],
        categories=categories,
        best=_entry_of(next(iter(best), None), numbers),
        baseline=_entry_of(sweep.baseline, numbers),
        failed_x=where[failed],
        failed_causes=tuple(trials["cause"][failed].tolist()),
        without_x=where[complete & ~is_finite],
        numbers=numbers,
        times_s=trials["wall_time"][order],
        too_large=too_large,
        infeasible=infeasible,
        without=f"no finite {words(metric)}" + (f" or less than {sweep.budget}" if sweep.unreached else ""),
        pruned_x=where[with_last],
        pruned_y=values[with_last],
        pruned_without_x=where[without_last],
        pruned_numbers=trials["number"][with_last],
        pruned_without_numbers=trials["number"][without_last],
        failed_numbers=trials["number"][failed],
        without_numbers=trials["number"][complete & ~is_finite],
    )


def numeric_metric(sweep: Sweep, metric: str) -> Floats:
    """The values of a metric of all trials, as numbers.

    Raises:
        KeyError: if the sweep has no such metric.
        FigureError: if it is not numeric.
    """
    values = sweep.trials[sweep.metric_column(metric)]
    if values.dtype.kind not in "iufb":
        raise FigureError(f"{sweep.path}: {metric} is text; only numeric metrics can be drawn")
    found: Floats = values.astype(float)
    return found


def objective_values(sweep: Sweep, metric: str | None) -> tuple[str, Floats]:
    """The name and values of a metric, or else of the objective, which need not be reported yet.

    Raises:
        KeyError: if the sweep has no such metric.
        FigureError: if it is not numeric.
    """
    name = metric or sweep.objective
    if metric is None and name not in sweep.metrics:
        return name, np.full(len(sweep.trials), np.nan)
    return name, numeric_metric(sweep, name)


def _too_large(
    trials: TrialTable, where: Floats, categories: tuple[str, ...]
) -> tuple[tuple[tuple[float, float], ...], int]:
    """Ranges of the axis in which no trial fits in memory, and the number of infeasible trials.

    A range extends halfway to the neighbouring values that fit.
    """
    infeasible = needs_too_much(trials)
    out = infeasible | (trials["cause"] == FailureCause.OUT_OF_MEMORY.label)
    values = np.unique(where)
    fits = np.isin(values, where[~out])
    inferred = np.isin(values, where[infeasible])
    spans: list[tuple[float, float]] = []
    for run in np.split(np.arange(len(values)), np.flatnonzero(np.diff(fits)) + 1):
        if len(run) and not fits[run[0]] and inferred[run].any() and not categories:
            first, last = int(run[0]), int(run[-1])
            low = values[first] if first == 0 else (values[first - 1] + values[first]) / 2
            high = values[last] if last + 1 == len(values) else (values[last] + values[last + 1]) / 2
            spans.append((float(low), float(high)))
    return tuple(spans), int(infeasible.sum())


def _entry_of(trial: Any, numbers: NDArray[np.int64]) -> int | None:
    if trial is None:
        return None
    found = np.flatnonzero(numbers == trial["number"])
    return int(found[0]) if len(found) else None


def searched_or_all(sweep: Sweep) -> tuple[str, ...]:
    """The searched parameters; all of them if none is searched.

    Raises:
        FigureError: if the sweep has no parameters.
    """
    names = sweep.spec.space.names or sweep.parameters
    if not names:
        raise FigureError(f"{sweep.path}: the sweep has no parameter for the axis")
    return tuple(names)


def first_parameter(sweep: Sweep) -> str:
    """Default parameter of the axis: the first searched one, else the first fixed one.

    Raises:
        FigureError: if the sweep has no parameters.
    """
    return searched_or_all(sweep)[0]
