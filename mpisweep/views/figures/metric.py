"""Figure 1: a metric vs. a parameter, with best, baseline and failed trials marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mpisweep.records import FailureCause, TrialState
from mpisweep.results.load import Sweep
from mpisweep.results.trial_table import TrialTable, needs_too_much
from mpisweep.spec.units import number_text
from mpisweep.statistics.trend import is_logarithmic
from mpisweep.views.figures.certainty import draw_means, draw_trend
from mpisweep.views.figures.style import (
    BLUE,
    GREEN,
    GREY,
    LETTERS_IN_A_ROW,
    ORANGE,
    RED,
    STYLE,
    FigureError,
    Floats,
    label,
    legend,
    positions,
    spans_decades,
    words,
)
from mpisweep.views.findings import findings_of
from mpisweep.views.wording import at_budget, units

__all__ = ["Series", "draw_metric", "first_parameter", "metric_series"]

#: Maximum number of points that are joined by a line.
POINTS_JOINED = 1500


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
    too_large: tuple[tuple[float, float], ...] = ()
    infeasible: int = 0
    #: Why trials have no finite value, as a label.
    without: str = ""


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
    complete = (trials["state"] == TrialState.COMPLETE.label) & has_place
    failed = (trials["state"] == TrialState.FAILED.label) & has_place
    if not complete.any() and not failed.any():
        raise FigureError(f"{sweep.path}: no trial has ended yet, there is nothing to draw")
    values = trials[sweep.metric_column(metric)] if complete.any() else np.full(len(trials), np.nan)
    if values.dtype.kind not in "iufb":
        raise FigureError(f"{sweep.path}: {metric} is text; only numeric metrics can be drawn")
    shown = complete & np.isfinite(values)
    order = np.argsort(where[shown], kind="stable")
    best = sweep.best(1, metric if metric in {one.name for one in sweep.objectives} else None)
    numbers = trials["number"][shown][order]
    y = values[shown][order]
    return Series(
        parameter, metric, where[shown][order], y, categories,
        _entry_of(next(iter(best), None), numbers), _entry_of(sweep.baseline, numbers),
        where[failed], tuple(str(c) for c in trials["cause"][failed]), where[complete & ~shown], numbers,
        trials["wall_time"][shown][order], *_too_large(trials, where, categories),
        f"no finite {words(metric)}" + (f" or less than {sweep.budget}" if sweep.unreached else ""),
    )  # fmt: skip


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
    if trial is None or trial["number"] not in numbers:
        return None
    return int(np.flatnonzero(numbers == trial["number"])[0])


def first_parameter(sweep: Sweep) -> str:
    """Default parameter of the axis: the first searched one, else the first fixed one.

    Raises:
        FigureError: if the sweep has no parameters.
    """
    names = sweep.spec.space.names or sweep.parameters
    if not names:
        raise FigureError(f"{sweep.path}: the sweep has no parameter for the axis")
    return names[0]


def draw_metric(sweep: Sweep, parameter: str, metric: str) -> Figure:
    """Draw a metric vs. a parameter, with best, baseline and failed trials marked."""
    series = metric_series(sweep, parameter, metric)
    found = findings_of(sweep, metric) if len(series.x) else None
    is_repeated = found is not None and found.is_repeated
    with mpl.rc_context(STYLE):
        figure = Figure()
        axes = figure.add_subplot()
        count = len(series.x)
        has_trend = found is not None and found.trend is not None and found.parameter == parameter
        if not series.categories and not has_trend and len(set(series.x)) == count <= POINTS_JOINED:
            axes.plot(series.x, series.y, color=BLUE, linewidth=0.8, alpha=0.45, zorder=2)
        size = 4.5 if count <= 150 else 2.5 if count <= POINTS_JOINED else 1.2
        if not count:
            axes.set_yticks([])
        elif is_repeated:
            axes.plot(series.x, series.y, "o", color=GREY, markersize=size / 2, zorder=3, label="single runs")
        else:
            axes.plot(series.x, series.y, "o", color=BLUE, markersize=size, zorder=3, label="trials")
        _shade(axes, series)
        if found is not None and is_repeated:
            where = positions(sweep.trials[sweep.column(parameter)])[0]
            draw_means(axes, sweep, found, where, marks=parameter if metric == sweep.objective else "")
        else:
            _mark(axes, series, series.baseline, ORANGE, "s", "baseline")
            _mark(axes, series, series.best, GREEN, "*", "best")
        if found is not None and has_trend:
            draw_trend(axes, found)
        _mark_failed(axes, series)
        _parameter_axis(axes, series, units(sweep, parameter))
        axes.set_ylabel(label(metric, units(sweep, metric)))
        if spans_decades(series.y):
            axes.set_yscale("log")
        legend(figure, axes, covers=count > 150 or is_repeated or has_trend or bool(series.categories))
        title = f"{sweep.name}: {words(metric)} vs. {words(parameter)}{at_budget(sweep)}"
        axes.set_title(title, loc="left", fontsize=11)
    return figure


def _mark(axes: Axes, series: Series, index: int | None, colour: str, marker: str, text: str) -> None:
    if index is None:
        return
    x, y = series.x[index], series.y[index]
    where = series.categories[int(x)] if series.categories else number_text(x)
    axes.plot(
        [x], [y], marker, color=colour, markersize=13 if marker == "*" else 8, zorder=5,
        markeredgecolor="white", markeredgewidth=0.8,
        label=f"{text}: {words(series.parameter)} {where}, {words(series.metric)} {number_text(y)}",
    )  # fmt: skip


def _shade(axes: Axes, series: Series) -> None:
    """Shade the ranges in which no trial fits in memory."""
    for index, (low, high) in enumerate(series.too_large):
        label = f"too large for memory: {series.infeasible:,} not run" if index == 0 else None
        axes.axvspan(low, high, color=GREY, alpha=0.22, linewidth=0, zorder=1, label=label)


def _mark_failed(axes: Axes, series: Series) -> None:
    causes = ", ".join(
        f"{series.failed_causes.count(cause)} {words(cause)}" for cause in sorted(set(series.failed_causes))
    )
    for where, colour, text in (
        (series.failed_x, RED, f"failed: {causes}"),
        (series.without_x, GREY, f"{series.without}: {len(series.without_x)}"),
    ):
        if len(where):
            axes.plot(
                where, np.full(len(where), 0.015), "x", color=colour, markersize=6,
                transform=axes.get_xaxis_transform(), clip_on=False, zorder=4, label=text,
            )  # fmt: skip


def _parameter_axis(axes: Axes, series: Series, unit: str) -> None:
    axes.set_xlabel(label(series.parameter, unit))
    where = np.concatenate([series.x, series.failed_x, series.without_x])
    if series.categories:
        # Labels that would overlap are rotated.
        turned = len(series.categories) * max(map(len, series.categories)) > LETTERS_IN_A_ROW
        rotation: dict[str, Any] = (
            {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if turned else {}
        )
        axes.set_xticks(range(len(series.categories)), series.categories, **rotation)
        axes.set_xlim(-0.5, len(series.categories) - 0.5)
    elif is_logarithmic(where):
        axes.set_xscale("log")
    elif np.all(where == np.round(where)):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
