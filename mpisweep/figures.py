"""The figures of a sweep: series as data, and one way of drawing them.  The only importer of matplotlib.

Each figure is a function of a :class:`~mpisweep.results.load.Sweep` that returns a matplotlib Figure.  What
is drawn is computed first, as plain arrays, by a function beside it; take that one for a drawing of your own.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mpisweep.records import FailureCause, TrialState
from mpisweep.results import ResultsError
from mpisweep.results.load import Sweep, TrialTable
from mpisweep.scaling import default_metric, scaling
from mpisweep.tables import counted, units

__all__ = [
    "FigureError",
    "Series",
    "Spans",
    "TotalTime",
    "draw_learning_curves",
    "draw_metric",
    "draw_scaling",
    "draw_timeline",
    "draw_total_time",
    "first_parameter",
    "metric_series",
    "save",
    "spans",
    "total_time",
]

Floats = NDArray[np.float64]

#: Okabe and Ito's palette, which the colour-blind can tell apart.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"

#: Sizes are those of a column in a two-column paper, doubled, with type to match.
_STYLE: Any = {
    "figure.figsize": (6.8, 4.2),
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "savefig.dpi": 200,
    # Text stays text, and the same data gives the same bytes.
    "svg.fonttype": "none",
    "svg.hashsalt": "mpisweep",
    "pdf.fonttype": 42,
}

#: Trials up to which points are joined by a line.
_POINTS_JOINED = 1500
#: Letters that fit below an axis, beside it, and into a legend's line inside it.
_LETTERS_IN_A_ROW = 70
_LETTERS_IN_A_COLUMN = 36
_LETTERS_IN_A_LEGEND = 60
#: Workers up to which each row of a timeline has its label.
_ROWS_LABELLED = 40


class FigureError(ResultsError):
    """There is nothing to draw; the message is one sentence."""


# ------------------------------------------------------------------------------------- a metric over a parameter


@dataclass(frozen=True, slots=True)
class Series:
    """One metric over one parameter; arrays have one entry a trial."""

    parameter: str
    metric: str
    #: Position on the axis: the value, or the index of a category.
    x: Floats
    y: Floats
    #: Names of the categories; empty for a number.
    categories: tuple[str, ...]
    #: Entry of the best trial, by the sweep's objective whatever metric this is.
    best: int | None
    baseline: int | None
    failed_x: Floats
    failed_causes: tuple[str, ...]
    #: Complete trials of which the metric is missing, NaN or infinite.
    without_x: Floats
    numbers: NDArray[np.int64]
    times_s: Floats
    #: From where to where on the axis nothing fits into the memory, and how many trials were therefore not run.
    too_large: tuple[tuple[float, float], ...] = ()
    infeasible: int = 0


def metric_series(sweep: Sweep, parameter: str, metric: str) -> Series:
    """Final values of a metric, by parameter.

    Raises:
        KeyError: when the sweep has no such parameter or metric.
        FigureError: when no trial has ended, or the metric is no number.
    """
    trials = sweep.trials
    complete = trials["state"] == TrialState.COMPLETE.label
    failed = trials["state"] == TrialState.FAILED.label
    if not complete.any() and not failed.any():
        raise FigureError(f"{sweep.path}: no trial has ended yet, there is nothing to draw")
    where, categories = _positions(trials[sweep.column(parameter)])
    values = trials[sweep.column(metric)] if complete.any() else np.full(len(trials), np.nan)
    if values.dtype.kind not in "iufb":
        raise FigureError(f"{sweep.path}: {metric} is a text, and no number that could be drawn")
    shown = complete & np.isfinite(values)
    order = np.argsort(where[shown], kind="stable")
    numbers = trials["number"][shown][order]
    y = values[shown][order]
    return Series(
        parameter, metric, where[shown][order], y, categories,
        _entry_of(next(iter(sweep.best(1)), None), numbers), _entry_of(sweep.baseline, numbers),
        where[failed], tuple(str(c) for c in trials["cause"][failed]), where[complete & ~shown], numbers,
        trials["wall_time"][shown][order], *_too_large(trials, where, categories),
    )  # fmt: skip


def _too_large(
    trials: TrialTable, where: Floats, categories: tuple[str, ...]
) -> tuple[tuple[tuple[float, float], ...], int]:
    """Stretches of the axis in which no trial fits into the memory, and how many trials were therefore not run.

    A stretch reaches half the way to the values beside it that do fit.
    """
    infeasible = trials["state"] == TrialState.INFEASIBLE.label
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
    """The parameter to draw over where none is named: the first one searched, else the first fixed one.

    Raises:
        FigureError: when the sweep has no parameters.
    """
    names = sweep.spec.space.names or sweep.parameters
    if not names:
        raise FigureError(f"{sweep.path}: the sweep has no parameters, there is nothing to draw over")
    return names[0]


def draw_metric(sweep: Sweep, parameter: str, metric: str) -> Figure:
    """A metric over a parameter, the best trial and the baseline marked, failed trials shown as such."""
    series = metric_series(sweep, parameter, metric)
    with mpl.rc_context(_STYLE):
        figure = Figure()
        axes = figure.add_subplot()
        count = len(series.x)
        if not series.categories and len(set(series.x)) == count <= _POINTS_JOINED:
            axes.plot(series.x, series.y, color=BLUE, linewidth=0.8, alpha=0.45, zorder=2)
        size = 4.5 if count <= 150 else 2.5 if count <= _POINTS_JOINED else 1.2
        if count:
            axes.plot(series.x, series.y, "o", color=BLUE, markersize=size, zorder=3, label="trials")
        else:
            axes.set_yticks([])
        _shade(axes, series)
        _mark(axes, series, series.baseline, ORANGE, "s", "baseline")
        _mark(axes, series, series.best, GREEN, "*", "best")
        _mark_failed(axes, series)
        _parameter_axis(axes, series, units(sweep, parameter))
        axes.set_ylabel(_label(metric, units(sweep, metric)))
        if _spans_decades(series.y):
            axes.set_yscale("log")
        _legend(figure, axes, covers=count > 150 or bool(series.categories))
        axes.set_title(f"{sweep.name}: {_words(metric)} by {_words(parameter)}", loc="left", fontsize=11)
    return figure


def _positions(column: NDArray[Any]) -> tuple[Floats, tuple[str, ...]]:
    if column.dtype.kind in "iuf":
        return column.astype(float), ()
    names = tuple(dict.fromkeys(str(value) for value in column))
    place = {name: float(index) for index, name in enumerate(names)}
    return np.array([place[str(value)] for value in column]), tuple(_plain(name) for name in names)


def _mark(axes: Axes, series: Series, index: int | None, colour: str, marker: str, what: str) -> None:
    if index is None:
        return
    x, y = series.x[index], series.y[index]
    where = series.categories[int(x)] if series.categories else f"{x:g}"
    axes.plot(
        [x], [y], marker, color=colour, markersize=13 if marker == "*" else 8, zorder=5,
        markeredgecolor="white", markeredgewidth=0.8,
        label=f"{what}: {_words(series.parameter)} {where}, {_words(series.metric)} {y:.4g}",
    )  # fmt: skip


def _shade(axes: Axes, series: Series) -> None:
    """The stretches in which nothing fits."""
    for index, (low, high) in enumerate(series.too_large):
        label = f"too large for the memory: {series.infeasible:,} not run" if index == 0 else None
        axes.axvspan(low, high, color=GREY, alpha=0.22, linewidth=0, zorder=1, label=label)


def _mark_failed(axes: Axes, series: Series) -> None:
    causes = ", ".join(
        f"{series.failed_causes.count(cause)} {_words(cause)}" for cause in sorted(set(series.failed_causes))
    )
    metric = _words(series.metric)
    for where, colour, what in (
        (series.failed_x, RED, f"failed: {causes}"),
        (series.without_x, GREY, f"{metric} missing, NaN or infinite: {len(series.without_x)}"),
    ):
        if len(where):
            axes.plot(
                where, np.full(len(where), 0.015), "x", color=colour, markersize=6,
                transform=axes.get_xaxis_transform(), clip_on=False, zorder=4, label=what,
            )  # fmt: skip


def _parameter_axis(axes: Axes, series: Series, unit: str) -> None:
    axes.set_xlabel(_label(series.parameter, unit))
    where = np.concatenate([series.x, series.failed_x, series.without_x])
    if series.categories:
        # What would run into its neighbour is turned.
        turned = len(series.categories) * max(map(len, series.categories)) > _LETTERS_IN_A_ROW
        rotation: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if turned else {}
        axes.set_xticks(range(len(series.categories)), series.categories, **rotation)
        axes.set_xlim(-0.5, len(series.categories) - 0.5)
    elif _is_logarithmic(where):
        axes.set_xscale("log")
    elif np.all(where == np.round(where)):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


# ------------------------------------------------------------------------------------- total time


@dataclass(frozen=True, slots=True)
class TotalTime:
    """What the trials took, and what the allocation took, in seconds."""

    trials_s: float
    #: The same, each trial counted as often as it has ranks.
    busy_s: float
    wall_s: float
    workers: int
    trials: int

    @property
    def speedup(self) -> float:
        """How many times faster than one trial after another."""
        return self.trials_s / self.wall_s

    @property
    def utilisation(self) -> float:
        """Share of the workers' time in which trials ran."""
        return self.busy_s / self.wall_s / self.workers


def total_time(sweep: Sweep) -> TotalTime:
    """Sum of all trials' wall times, against the wall time in the allocations.

    Raises:
        FigureError: when no trial has ended.
    """
    wall = sweep.trials["wall_time"]
    ended = np.isfinite(wall)
    if not ended.any():
        raise FigureError(f"{sweep.path}: no trial has ended yet, there is nothing to draw")
    wall_s, workers = 0.0, 0
    ends = sweep.trials["ended_at"]
    rows_of = sweep.workers["allocation"] if len(sweep.workers) else np.empty(0, int)
    for index, allocation in enumerate(sweep.allocations):
        own = ended & np.isin(sweep.trials["worker"], np.flatnonzero(rows_of == index))
        # A run that was killed has no end of its own: the last trial that it ended is the best there is.
        end = allocation["ended_at"] if np.isfinite(allocation["ended_at"]) else None
        if end is None and own.any():
            end = float(ends[own].max())
        if end is not None:
            wall_s += float(end - allocation["started_at"])
        workers = max(workers, int((rows_of == index).sum()))
    widths = np.ones(len(wall), dtype=int)
    last = sweep.ranks["attempt"] == sweep.trials["attempt"][sweep.ranks["trial"]]
    np.add.at(widths, sweep.ranks["trial"][last], 1)
    return TotalTime(float(wall[ended].sum()), float((wall * widths)[ended].sum()), max(wall_s, 1e-9), max(workers, 1), int(ended.sum()))


def draw_total_time(sweep: Sweep) -> Figure:
    """Two bars: the trials one after another, and the same in the allocation."""
    total = total_time(sweep)
    scale, unit = (60.0, "min") if total.trials_s >= 60 else (1.0, "s")
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.8, 2.6))
        axes = figure.add_subplot()
        labels = (
            f"{counted(total.trials, 'trial')}\none after another",
            f"one allocation,\n{counted(total.workers, 'worker')}",
        )
        bars = axes.barh(labels, [total.trials_s / scale, total.wall_s / scale], color=[GREY, BLUE], height=0.6)
        axes.bar_label(bars, fmt=lambda value: f" {value:.3g} {unit}", padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.14)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"total execution time [{unit}]")
        axes.set_title(
            f"{sweep.name}: {total.speedup:.3g} times as fast, workers busy {100 * total.utilisation:.0f}%",
            loc="left", fontsize=11,
        )  # fmt: skip
    return figure


# ------------------------------------------------------------------------------------- learning curves


def draw_learning_curves(
    sweep: Sweep, metric: str, *, parameter: str | None = None, over_time: bool = False, smooth: int = 1
) -> Figure:
    """The curves of all trials, coloured by a parameter; best, median and baseline on top.

    Args:
        sweep: from :func:`mpisweep.load`.
        metric: one that has curves.
        parameter: colours the curves; the first searched one unless given.
        over_time: seconds since the trial's start on the axis instead of steps.
        smooth: running mean over so many reports.

    Raises:
        KeyError: when there is no such curve or parameter.
        FigureError: when no trial has reported it.
    """
    names = sweep.spec.space.names or sweep.parameters
    colour_by = parameter or (names[0] if names else None)
    drawn = {}
    for number in range(len(sweep.trials)):
        curve = sweep.curve(number, metric)
        if len(curve.value):
            drawn[number] = (curve.time if over_time else curve.step, _smoothed(curve.value, smooth))
    if not drawn:
        raise FigureError(f"{sweep.path}: no trial has reported {metric!r}")
    with mpl.rc_context(_STYLE):
        figure = Figure()
        axes = figure.add_subplot()
        colours = _colours(figure, axes, sweep, colour_by, list(drawn))
        for number, (x, y) in drawn.items():
            axes.plot(x, y, color=colours[number], linewidth=0.7, alpha=0.55, zorder=2)
        for number, colour, what in _highlights(sweep, list(drawn)):
            x, y = drawn[number]
            axes.plot(x, y, color="white", linewidth=3.4, zorder=4)
            axes.plot(x, y, color=colour, linewidth=1.8, zorder=5, label=what)
        axes.set_xlabel("time since the trial's start [s]" if over_time else "step")
        smoothed = f", mean of {smooth} reports" if smooth > 1 else ""
        axes.set_ylabel(_label(metric, units(sweep, metric)) + smoothed)
        if _spans_decades(np.concatenate([y for _, y in drawn.values()])):
            axes.set_yscale("log")
        if not over_time:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(figure, axes)
        axes.set_title(f"{sweep.name}: {_words(metric)} while training", loc="left", fontsize=11)
    return figure


def _highlights(sweep: Sweep, numbers: Sequence[int]) -> list[tuple[int, str, str]]:
    """Trials that deserve a thick line: the best, the one in the middle, the baseline."""
    ranked = [int(n) for n in sweep.best(len(sweep.trials))["number"] if n in numbers]
    chosen: list[tuple[int, str, str]] = []
    if ranked:
        chosen.append((ranked[0], GREEN, f"best{_configuration(sweep, ranked[0])}"))
    if len(ranked) > 4:
        middle = ranked[len(ranked) // 2]
        chosen.append((middle, BLUE, f"median{_configuration(sweep, middle)}"))
    if sweep.baseline is not None and int(sweep.baseline["number"]) in numbers:
        number = int(sweep.baseline["number"])
        chosen.append((number, ORANGE, f"baseline{_configuration(sweep, number)}"))
    return chosen


def _configuration(sweep: Sweep, number: int) -> str:
    row = sweep.trials[number]
    values = ((name, row[sweep.column(name)]) for name in sweep.spec.space.names)
    shown = [f"{_words(name)} {value:.4g}" if isinstance(value, float) else f"{_words(name)} {_plain(str(value))}" for name, value in values]
    return f": {', '.join(shown)}" if shown else ""


def _colours(
    figure: Figure, axes: Axes, sweep: Sweep, parameter: str | None, numbers: list[int]
) -> dict[int, Any]:
    if parameter is None:
        return dict.fromkeys(numbers, GREY)
    where, categories = _positions(sweep.trials[sweep.column(parameter)])
    values = where[numbers]
    logarithmic = not categories and _is_logarithmic(values)
    norm_type = mpl.colors.LogNorm if logarithmic else mpl.colors.Normalize
    low, high = float(values.min()), float(values.max())
    mapped = mpl.cm.ScalarMappable(norm_type(low, high if high > low else low + 1), "viridis")
    if high > low:
        bar = figure.colorbar(mapped, ax=axes, pad=0.02)
        bar.set_label(_label(parameter, units(sweep, parameter)))
        if categories:
            bar.set_ticks(range(len(categories)), labels=list(categories))
    return {number: mapped.to_rgba(where[number]) for number in numbers}


def _smoothed(values: Floats, width: int) -> Floats:
    if width <= 1 or len(values) == 0:
        return values
    sums = np.cumsum(np.insert(values, 0, 0.0))
    first = np.maximum(np.arange(len(values)) - width + 1, 0)
    return (sums[1:] - sums[first]) / (np.arange(len(values)) + 1 - first)


# ------------------------------------------------------------------------------------- timeline


@dataclass(frozen=True, slots=True)
class Spans:
    """Who ran what when; arrays have one entry for each rank of each trial, times are seconds since the first start."""

    #: Entry of `labels`, which are in order of allocation and rank.
    worker: NDArray[np.int64]
    start_s: Floats
    end_s: Floats
    state: NDArray[Any]
    labels: tuple[str, ...]
    #: Worker -> share of its allocation in which it ran trials.
    utilisation: Floats
    #: Start of each allocation.
    allocations_s: Floats
    total_s: float


def spans(sweep: Sweep) -> Spans:
    """The trials as spans of time.

    Raises:
        FigureError: when no trial has ended.
    """
    trials = sweep.trials
    timed = np.isfinite(trials["ended_at"]) & (trials["worker"] >= 0)
    if not timed.any():
        raise FigureError(f"{sweep.path}: no trial has ended yet, there is nothing to draw")
    ranks = sweep.ranks
    last = ranks["attempt"] == trials["attempt"][ranks["trial"]]
    others = ranks[last & timed[ranks["trial"]] & (ranks["worker"] >= 0)]
    drawn = np.concatenate([np.flatnonzero(timed), others["trial"]])
    worker = np.concatenate([trials["worker"][timed], others["worker"]])
    workers, allocations = sweep.workers, sweep.allocations
    order = np.lexsort((workers["rank"], workers["allocation"]))
    row_of = np.argsort(order)
    origin = float(allocations["started_at"].min())
    end = trials["ended_at"][drawn] - origin
    closing = allocations["ended_at"] - origin
    owner = workers["allocation"][worker]
    for index in range(len(allocations)):
        if not np.isfinite(closing[index]):
            closing[index] = end[owner == index].max() if (owner == index).any() else 0.0
    lasted = (closing - (allocations["started_at"] - origin))[workers["allocation"]]
    return Spans(
        worker=row_of[worker],
        start_s=trials["started_at"][drawn] - origin,
        end_s=end,
        state=trials["state"][drawn],
        labels=tuple(f"rank {w['rank']}, {w['device']}" for w in workers[order]),
        utilisation=(workers["busy_time"] / np.maximum(lasted, 1e-9))[order],
        allocations_s=allocations["started_at"] - origin,
        total_s=float(max(end.max(), np.nanmax(closing))),
    )


def draw_timeline(sweep: Sweep) -> Figure:
    """One row a worker, one box a trial; what is blank is idle."""
    found = spans(sweep)
    rows = len(found.labels)
    scale, unit = (60.0, "min") if found.total_s >= 300 else (1.0, "s")
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.8, min(9.0, 1.6 + 0.42 * rows)))
        axes = figure.add_subplot()
        colours = {"complete": BLUE, "pruned": ORANGE, "failed": RED}
        for state in sorted(set(found.state)):
            own = found.state == state
            axes.add_collection(_boxes(found, own, scale, colours.get(str(state), GREY)))
        for start in found.allocations_s[1:]:
            axes.axvline(start / scale, color="black", linewidth=0.8, linestyle=":")
        axes.set_xlim(0, found.total_s / scale)
        axes.set_ylim(rows - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"time since the start [{unit}]")
        if rows <= _ROWS_LABELLED:
            axes.set_yticks(range(rows), found.labels)
            for row, share in enumerate(found.utilisation):
                axes.annotate(
                    f"{100 * min(share, 1.0):.0f}%", (1.01, row), xycoords=("axes fraction", "data"),
                    va="center", fontsize=8,
                )  # fmt: skip
        else:
            axes.set_ylabel("worker")
        mean = 100 * float(np.mean(np.minimum(found.utilisation, 1.0)))
        axes.set_title(f"{sweep.name}: workers busy {mean:.0f}% of the time", loc="left", fontsize=11)
        handles: list[Any] = [Patch(color=colours.get(str(s), GREY), label=str(s)) for s in sorted(set(found.state))]
        if len(found.allocations_s) > 1:
            handles.append(Line2D([], [], color="black", linewidth=0.8, linestyle=":", label="new allocation"))
        figure.legend(handles=handles, loc="outside lower right", ncols=len(handles), fontsize=8)
    return figure


def _boxes(found: Spans, own: NDArray[Any], scale: float, colour: str) -> PolyCollection:
    left, right = found.start_s[own] / scale, found.end_s[own] / scale
    # What is shorter than a line is wide is drawn as a line.
    right = np.maximum(right, left + found.total_s / scale / 700)
    low, high = found.worker[own] - 0.36, found.worker[own] + 0.36
    corners = np.stack([left, low, left, high, right, high, right, low], axis=1).reshape(-1, 4, 2)
    few = len(corners) <= 2000 and np.median(right - left) > found.total_s / scale / 200
    return PolyCollection(
        list(corners), facecolors=colour, edgecolors="white" if few else "none", linewidths=0.5 if few else 0
    )


# ------------------------------------------------------------------------------------- scaling

#: Configurations up to which each has its own colour and label.
_CURVES_LABELLED = 6


def draw_scaling(sweep: Sweep, metric: str | None = None) -> Figure:
    """Speedup on the left, efficiency on the right, by the number of ranks of a trial; the ideal dashed.

    Args:
        sweep: from :func:`mpisweep.load`.
        metric: a rate or a duration; what :func:`mpisweep.scaling.default_metric` says unless given.

    Raises:
        KeyError: when there is no such metric.
        ResultsError: when there is nothing to compare.
    """
    metric = metric or default_metric(sweep)
    curves = scaling(sweep, metric)
    ticks = sorted({int(ranks) for curve in curves for ranks in curve.ranks})
    few = len(curves) <= _CURVES_LABELLED
    colours = [BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9"]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.8, 3.4))
        left, right = figure.subplots(1, 2)
        for index, curve in enumerate(curves):
            style: Any = {"color": colours[index] if few else BLUE, "marker": "o", "markersize": 4.5, "linewidth": 1.2}
            style |= {"label": _words(curve.label) or "trials"} if few else {"alpha": 0.4}
            left.plot(curve.ranks, curve.speedup, **style)
            right.plot(curve.ranks, 100 * curve.efficiency, **style)
        fewest = min(int(curve.ranks[0]) for curve in curves)
        left.plot(ticks, [ranks / fewest for ranks in ticks], "--", color=GREY, linewidth=1, label="ideal", zorder=1)
        right.axhline(100, linestyle="--", color=GREY, linewidth=1, zorder=1)
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
            axes.set_xlabel("ranks of a trial")
        left.set_yscale("log", base=2)
        left.yaxis.set_major_formatter("{x:g}")
        left.set_ylabel(f"speedup by {_words(metric)}")
        right.set_ylabel("efficiency [%]")
        right.set_ylim(0, max(105, 105 * max(float(curve.efficiency.max()) for curve in curves)))
        left.legend(loc="best", fontsize=8)
        figure.suptitle(f"{sweep.name}: scaling of a trial", x=0.01, ha="left", fontsize=11)
    return figure


# ------------------------------------------------------------------------------------- all of them


def save(figure: Figure, path: Path) -> None:
    """Write PNG, SVG or PDF, as the file's name says; the same data gives the same bytes.

    Raises:
        FigureError: when the name ends otherwise.
    """
    metadata: dict[str, dict[str, Any]] = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    if path.suffix not in metadata:
        raise FigureError(f"{path}: figures end in .png, .svg or .pdf")
    with mpl.rc_context(_STYLE):
        figure.savefig(path, metadata=metadata[path.suffix])


def _label(name: str, unit: str) -> str:
    return textwrap.fill(f"{_words(name)} [{unit}]" if unit else _words(name), _LETTERS_IN_A_COLUMN)


def _words(name: str) -> str:
    return _plain(name).replace("_", " ")


def _plain(text: str) -> str:
    """A user's text, of which nothing is taken for mathematics."""
    return text.replace("$", r"\$")


def _legend(figure: Figure, axes: Axes, *, covers: bool = False) -> None:
    """A legend inside the axes; below them where it is too wide for that, or would cover the data."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    if covers or max(map(len, labels)) > _LETTERS_IN_A_LEGEND:
        figure.legend(handles, labels, loc="outside lower center", ncols=1 + (max(map(len, labels)) < 45), fontsize=9)
    else:
        axes.legend(loc="best")


def _is_logarithmic(values: Floats) -> bool:
    """Whether equal ratios say more about these values than equal differences."""
    distinct = np.unique(values)
    if len(distinct) < 3 or distinct[0] <= 0 or distinct[-1] / distinct[0] < 30:
        return False
    gaps = np.diff(distinct)
    return bool(gaps.max() > 5 * gaps.min()) and bool(np.median(distinct) < 0.25 * distinct[-1])


def _spans_decades(values: Floats) -> bool:
    finite = values[np.isfinite(values)]
    return len(finite) > 0 and finite.min() > 0 and finite.max() / finite.min() > 100
