"""Learning curves: the metrics that trials report while they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mpisweep.results.load import Sweep
from mpisweep.spec.units import value_text
from mpisweep.statistics.trend import is_logarithmic
from mpisweep.views.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    STYLE,
    FigureError,
    Floats,
    label,
    legend,
    plain,
    positions,
    spans_decades,
    words,
)
from mpisweep.views.wording import units

__all__ = ["Axis", "draw_learning_curves"]

Axis = Literal["step", "samples", "time"]


def draw_learning_curves(
    sweep: Sweep, metric: str, *, parameter: str | None = None, over: Axis = "step", smooth: int = 1
) -> Figure:
    """Draw the curves of all trials, coloured by a parameter; best, median and baseline on top.

    Args:
        sweep: from :func:`mpisweep.load`.
        metric: a metric with curves.
        parameter: colours the curves; default the first searched one.
        over: the axis: the step, the samples so far, or the time since the trial's start.
        smooth: number of reports in the running mean.

    Raises:
        KeyError: if there is no such curve or parameter.
        FigureError: if no trial has reported the metric, or said how many samples it has used.
    """
    names = sweep.spec.space.names or sweep.parameters
    colour_by = parameter or (names[0] if names else None)
    drawn = {}
    for number in range(len(sweep.trials)):
        curve = sweep.curve(number, metric)
        if len(curve.value):
            x = sweep.progress(number, metric).samples if over == "samples" else getattr(curve, over)
            drawn[number] = (x, _smoothed(curve.value, smooth))
    if not drawn:
        raise FigureError(f"{sweep.path}: no trial has reported {metric!r}")
    if not any(np.isfinite(x).any() for x, _ in drawn.values()):
        raise FigureError(f"{sweep.path}: the trials do not say how many samples they have used")
    with mpl.rc_context(STYLE):
        figure = Figure()
        axes = figure.add_subplot()
        colours = _colours(figure, axes, sweep, colour_by, list(drawn))
        for number, (x, y) in drawn.items():
            axes.plot(x, y, _point(y), color=colours[number], linewidth=0.7, alpha=0.55, zorder=2)
        for number, colour, text in _highlights(sweep, list(drawn)):
            x, y = drawn[number]
            axes.plot(x, y, color="white", linewidth=3.4, zorder=4)
            axes.plot(x, y, _point(y), color=colour, linewidth=1.8, zorder=5, label=text)
        axes.set_xlabel("time since the trial's start [s]" if over == "time" else over)
        smoothed = f", mean of {smooth} reports" if smooth > 1 else ""
        axes.set_ylabel(label(metric, units(sweep, metric)) + smoothed)
        if spans_decades(np.concatenate([y for _, y in drawn.values()])):
            axes.set_yscale("log")
        if over != "time":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend(figure, axes)
        axes.set_title(f"{sweep.name}: {words(metric)} vs. {over}", loc="left", fontsize=11)
    return figure


def _point(values: Floats) -> str:
    """Format of a curve: a line, or a point for a single value, of which a line shows nothing."""
    return "." if np.isfinite(values).sum() == 1 else "-"


def _highlights(sweep: Sweep, numbers: Sequence[int]) -> list[tuple[int, str, str]]:
    """Trials with a thick line: best, median and baseline."""
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
    values = sweep.searched(number).items()
    shown = [f"{words(name)} {plain(value_text(value))}" for name, value in values]
    return f": {', '.join(shown)}" if shown else ""


def _colours(
    figure: Figure, axes: Axes, sweep: Sweep, parameter: str | None, numbers: list[int]
) -> dict[int, Any]:
    if parameter is None:
        return dict.fromkeys(numbers, GREY)
    where, categories = positions(sweep.trials[sweep.column(parameter)])
    values = where[numbers]
    values = values[np.isfinite(values)]
    if not len(values):
        return dict.fromkeys(numbers, GREY)
    logarithmic = not categories and is_logarithmic(values)
    norm_type = mpl.colors.LogNorm if logarithmic else mpl.colors.Normalize
    low, high = float(values.min()), float(values.max())
    mapped = mpl.cm.ScalarMappable(norm_type(low, high if high > low else low + 1), "viridis")
    if high > low:
        bar = figure.colorbar(mapped, ax=axes, pad=0.02)
        bar.set_label(label(parameter, units(sweep, parameter)))
        if categories:
            bar.set_ticks(range(len(categories)), labels=list(categories))
    return {
        number: mapped.to_rgba(where[number]) if np.isfinite(where[number]) else GREY for number in numbers
    }


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
