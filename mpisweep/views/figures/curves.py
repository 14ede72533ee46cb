"""Learning curves: the metrics that trials report while they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.collections import LineCollection

from mpisweep.records import TrialState
from mpisweep.results.load import Sweep
from mpisweep.spec.units import value_text
from mpisweep.views.figures.colouring import colours_of
from mpisweep.views.figures.series import searched_or_all
from mpisweep.views.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    FigureError,
    Floats,
    SweepFigure,
    Width,
    dense,
    legend,
    plain,
    style_of,
    time_unit,
    title,
    words,
)
from mpisweep.views.figures.ticks import count_axis, finish, metric_axis, ticks_on
from mpisweep.views.scales import evenly

__all__ = ["Axis", "draw_learning_curves"]

Axis = Literal["step", "samples", "time"]

#: Curves that are drawn; of more, so many that lie evenly among the trials, and those with a thick line.
_CURVES = 1500
#: Reports of a curve that are drawn; of more, so many that lie evenly, and the last.
_REPORTS = 400


@dataclass(frozen=True, slots=True)
class _Curve:
    """One curve as it is drawn."""

    x: Floats
    y: Floats


def draw_learning_curves(
    sweep: Sweep,
    metric: str,
    *,
    parameter: str | None = None,
    over: Axis = "step",
    smooth: int = 1,
    width: Width = "page",
) -> SweepFigure:
    """Draw the curves of all trials, coloured by a parameter; best, median and baseline on top.

    Args:
        sweep: from :func:`mpisweep.load`.
        metric: a metric with curves.
        parameter: colours the curves; default the first searched one.
        over: the axis: the step, the samples so far, or the time since the trial's start.
        smooth: number of reports in the running mean.
        width: ``column`` or ``page``.

    Raises:
        KeyError: if there is no such curve or parameter.
        FigureError: if no trial has reported the metric, or said how many samples it has used.
    """
    if not sweep.curve_names:
        raise FigureError(
            f"{sweep.path}: no trial has reported a curve; a function does with trial.report(step, loss=...)"
        )
    names = searched_or_all(sweep) if sweep.parameters else ()
    colour_by = parameter or next(iter(names), None)
    highlights = _highlights(sweep, metric)
    drawn, left_out = _curves(sweep, metric, over, smooth, [number for number, *_ in highlights])
    if not drawn:
        raise FigureError(f"{sweep.path}: no trial has reported {metric!r}")
    if not any(np.isfinite(curve.x).any() for curve in drawn.values()):
        raise FigureError(f"{sweep.path}: the trials do not say how many samples they have used")
    with mpl.rc_context(style_of(width)):
        figure = SweepFigure(width)
        axes = figure.add_subplot()
        scale, unit = time_unit(max(float(np.nanmax(c.x, initial=0.0)) for c in drawn.values()))
        scale = scale if over == "time" else 1.0
        lines = {number: np.column_stack([c.x / scale, c.y]) for number, c in drawn.items()}
        _note(figure, sweep, metric, over, drawn)
        values = np.concatenate([curve.y for curve in drawn.values()])
        _all_lines(figure, sweep, colour_by, lines)
        _thick_lines(figure, highlights, lines)
        metric_axis(axes, "y", sweep, metric, values)
        if smooth > 1:
            axes.set_ylabel(f"{axes.get_ylabel()}, mean of {smooth} reports")
        if over == "time":
            axes.set_xlabel(f"time since the trial's start [{unit}]")
            ticks_on(axes, "x", "linear")
        else:
            count_axis(axes, "x", over)
        legend(figure, axes)
        some = f", {len(drawn):,} of {len(drawn) + left_out:,} trials" if left_out else ""
        title(figure, f"{plain(sweep.name)}: {words(metric)} vs. {over}{some}")
        finish(figure)
    return figure


def _curves(
    sweep: Sweep, metric: str, over: Axis, smooth: int, wanted: Sequence[int]
) -> tuple[dict[int, _Curve], int]:
    """The curves that are drawn, by trial, and the number of those left out."""
    if metric not in sweep.curve_names:
        sweep.curve(0, metric)  # refuses the name
    ran = np.flatnonzero(sweep.trials["attempt"] > 0)
    numbers = sorted({*ran[evenly(len(ran), _CURVES)].tolist(), *wanted})
    drawn: dict[int, _Curve] = {}
    for number in numbers:
        curve = sweep.curve(number, metric)
        if not len(curve.value):
            continue
        x = sweep.progress(number, metric).samples if over == "samples" else getattr(curve, over)
        y = _smoothed(curve.value, smooth)
        if len(y) > _REPORTS:
            kept = evenly(len(y), _REPORTS)
            x, y = x[kept], y[kept]
        drawn[number] = _Curve(np.asarray(x, dtype=float), y)
    return drawn, len(ran) - len(numbers) if len(ran) > len(numbers) else 0


def _note(figure: SweepFigure, sweep: Sweep, metric: str, over: Axis, drawn: dict[int, _Curve]) -> None:
    lengths = [len(curve.y) for curve in drawn.values()]
    numbers = np.repeat(list(drawn), lengths)
    figure.add_layer(
        "curves",
        {
            "number": numbers,
            "state": sweep.trials["state"][numbers],
            over: np.concatenate([curve.x for curve in drawn.values()]),
            metric: np.concatenate([curve.y for curve in drawn.values()]),
        },
    )


def _all_lines(
    figure: SweepFigure, sweep: Sweep, parameter: str | None, lines: dict[int, np.ndarray]
) -> None:
    """Draw the thin lines; pruned trials end in a mark, and a single report is a point."""
    [axes] = figure.axes
    numbers = np.array(list(lines))
    colours = None if parameter is None else colours_of(sweep, parameter)
    rgba = [mpl.colors.to_rgba(GREY)] * len(numbers) if colours is None else colours.rgba(numbers)
    count = sum(map(len, lines.values()))
    faint = 0.55 if len(lines) <= 300 else 0.3
    axes.add_collection(
        LineCollection(
            list(lines.values()), colors=rgba, linewidths=0.7, alpha=faint, zorder=2,
            rasterized=dense(count),
        ),
        autolim=True,
    )  # fmt: skip
    for number, colour in zip(numbers.tolist(), rgba, strict=True):
        if np.isfinite(lines[number]).all(axis=1).sum() == 1:
            # A line shows nothing of a single report.
            axes.plot(*lines[number].T, ".", color=colour, zorder=2, rasterized=dense(count))
    axes.autoscale_view()
    if colours is not None:
        colours.add_bar(figure, [axes], sweep)
    pruned = [n for n in lines if sweep.trials["state"][n] == TrialState.PRUNED.label]
    if pruned:
        ends = np.array([lines[number][-1] for number in pruned])
        axes.plot(
            *ends.T, "v", color=PURPLE, fillstyle="none", markersize=3.5, markeredgewidth=0.7, zorder=3,
            label=f"pruned: {len(pruned):,}", rasterized=dense(len(pruned)),
        )  # fmt: skip


def _thick_lines(
    figure: SweepFigure, highlights: Sequence[tuple[int, str, str, str]], lines: dict[int, np.ndarray]
) -> None:
    """Draw the lines of best, median and baseline over all halos, so that none hides another."""
    axes = figure.axes[0]
    shown = [one for one in highlights if one[0] in lines]
    thick = 1.3 if figure.is_narrow else 1.8
    for number, *_ in shown:
        axes.plot(*lines[number].T, color="white", linewidth=thick + 1.4, zorder=4)
    for number, colour, dashes, text in shown:
        point = "." if np.isfinite(lines[number]).all(axis=1).sum() == 1 else ""
        axes.plot(
            *lines[number].T, color=colour, linewidth=thick, linestyle=dashes, marker=point, zorder=5,
            label=text,
        )  # fmt: skip


def _highlights(sweep: Sweep, metric: str) -> list[tuple[int, str, str, str]]:
    """Trials with a thick line: number, colour, dashes and text of best, median and baseline."""
    # A trial that completed without a report has no curve; nor is the median of those without a value.
    best = sweep.best(len(sweep.trials))
    ranked = best["number"][~best["diverged"]].tolist()
    chosen: list[tuple[int, str, str, str]] = []
    if ranked:
        chosen.append((ranked[0], GREEN, "-", f"best{_configuration(sweep, ranked[0])}"))
    if len(ranked) > 4:
        middle = ranked[len(ranked) // 2]
        chosen.append((middle, BLUE, (0, (5, 2)), f"median{_configuration(sweep, middle)}"))  # type: ignore[arg-type]
    if sweep.baseline is not None:
        number = int(sweep.baseline["number"])
        chosen.append((number, ORANGE, (0, (2, 1)), f"baseline{_configuration(sweep, number)}"))  # type: ignore[arg-type]
    return chosen


def _configuration(sweep: Sweep, number: int) -> str:
    values = list(sweep.searched(number).items())
    shown = [f"{words(name)} {plain(value_text(value))}" for name, value in values[:4]]
    return f": {', '.join([*shown, '...'] if len(values) > 4 else shown)}" if shown else ""


def _smoothed(values: Floats, width: int) -> Floats:
    if width <= 1 or len(values) == 0:
        return values
    is_number = np.isfinite(values)
    # A NaN is missing from the means that include it, and from no other.
    sums = np.cumsum(np.insert(np.where(is_number, values, 0.0), 0, 0.0))
    numbers = np.cumsum(np.insert(is_number, 0, False))
    first = np.maximum(np.arange(len(values)) - width + 1, 0)
    counts = np.arange(len(values)) + 1 - first
    return np.where(numbers[1:] - numbers[first] == counts, (sums[1:] - sums[first]) / counts, np.nan)
