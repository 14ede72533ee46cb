"""Figures over the batch size: the objective at each budget, and steps to a target."""

from __future__ import annotations

import math
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from mpisweep.records import TrialState
from mpisweep.results.batch_sizes import BestSize
from mpisweep.results.load import Sweep
from mpisweep.views.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    FigureError,
    SweepFigure,
    Width,
    dense,
    legend,
    plain,
    style_of,
    title,
    words,
)
from mpisweep.views.figures.ticks import finish, ticks_on

__all__ = ["draw_batch_sizes", "draw_critical_batch"]

_SIZE = "batch_size"
_COLOURS = (BLUE, ORANGE, GREEN)


def draw_batch_sizes(sweep: Sweep, *, width: Width = "page") -> SweepFigure:
    """Draw the objective vs. the batch size at each budget, with its trend and the best size.

    Raises:
        KeyError: if the sweep has no batch_size.
        FigureError: if fewer than four sizes have a value.
    """
    found = sweep.best_batch_sizes()
    if not found:
        raise FigureError(
            f"{sweep.path}: fewer than four batch sizes have a value; there is no trend to draw"
        )
    with mpl.rc_context(style_of(width)):
        figure = SweepFigure(width)
        axes = figure.add_subplot()
        for place, (best, colour) in enumerate(zip(found, _COLOURS, strict=False)):
            _draw_trend(figure, axes, best, colour, place)
        lowest = min(float(best.values.min()) for best in found)
        is_wide = lowest > 0 and max(float(best.values.max()) for best in found) > 4 * lowest
        ticks_on(axes, "y", "log" if is_wide else "linear")
        _size_axis(axes)
        axes.set_ylabel(words(sweep.objective))
        legend(figure, axes)
        title(figure, f"{plain(sweep.name)}: {words(sweep.objective)} vs. batch size")
        finish(figure)
    return figure


def _draw_trend(figure: SweepFigure, axes: Axes, best: BestSize, colour: str, place: int) -> None:
    """Draw one budget; the intervals of the best sizes lie above each other at the bottom."""
    _, _, axis = best.metric.partition("_at_")
    budget = f"equal {axis}" if axis else "as trained"
    label = f"{budget}: best at {best.size:.0f} (95%: {best.low:.0f} to {best.high:.0f})"
    few = len(best.sizes) <= 100
    axes.plot(
        best.sizes, best.values, "o", color=colour, markersize=4 if few else 2, alpha=0.8 if few else 0.4,
        rasterized=dense(len(best.sizes)),
    )  # fmt: skip
    axes.fill_between(best.places, *best.band, color=colour, alpha=0.18, linewidth=0)
    axes.plot(best.places, best.trend, color=colour, linewidth=1.4, label=label)
    axes.axvspan(
        best.low, best.high, 0.02 * place, 0.02 * place + 0.015, color=colour, alpha=0.7, linewidth=0
    )
    figure.add_layer(f"sizes, {budget}", {_SIZE: best.sizes, best.metric: best.values})
    low, high = best.band
    trend = {_SIZE: best.places, "trend": best.trend, "low": low, "high": high}
    figure.add_layer(f"trend, {budget}", trend)


def draw_critical_batch(sweep: Sweep, *, width: Width = "page") -> SweepFigure:
    """Draw steps and samples to the target vs. the batch size, with the fit and its band.

    Raises:
        KeyError: if the sweep has no batch_size or no steps_to_target.
        ResultsError: if too few trials have reached the target.
    """
    fit = sweep.critical_batch_size()
    trials = sweep.trials[sweep.trials["state"] == TrialState.COMPLETE.label]
    sizes = trials[sweep.column(_SIZE)].astype(float)
    steps = trials[sweep.metric_column("steps_to_target")].astype(float)
    reached = np.isfinite(steps)
    has_taken = "steps" in sweep.metrics and not reached.all()
    taken = trials[sweep.metric_column("steps")].astype(float) if has_taken else np.full(len(steps), np.nan)
    at = np.geomspace(sizes.min(), sizes.max(), 200)
    low, high = fit.band(at)
    interval = f"{fit.low:.3g} to {'infinity' if math.isinf(fit.high) else f'{fit.high:.3g}'}"
    with mpl.rc_context(style_of(width)):
        figure = SweepFigure(width, 60 if width == "column" else 88)
        panels = figure.subplots(1, 2)
        for axes, factor, name in zip(panels, (0.0, 1.0), ("steps", "samples"), strict=True):
            size: Any = (4 if len(sizes) <= 100 else 2) * (0.75 if figure.is_narrow else 1)
            axes.plot(
                sizes[reached], steps[reached] * sizes[reached] ** factor, "o", color=BLUE, markersize=size,
                alpha=0.7, label="trials", rasterized=dense(len(sizes)),
            )  # fmt: skip
            if has_taken:
                axes.plot(
                    sizes[~reached], (taken * sizes**factor)[~reached], "^", color=GREY, markersize=size + 1,
                    label="target not reached by then", rasterized=dense(len(sizes)),
                )  # fmt: skip
            axes.fill_between(at, low * at**factor, high * at**factor, color=ORANGE, alpha=0.25, linewidth=0)
            axes.plot(at, fit.steps(at) * at**factor, color=ORANGE, linewidth=1.4, label="fit, 95% band")
            axes.axvline(fit.size, color=GREEN, linestyle="--", linewidth=1, label="critical batch size")
            ticks_on(axes, "y", "log")
            _size_axis(axes)
            axes.set_ylabel(f"{name} to the target")
        legend(figure, panels[0])
        title(figure, f"{plain(sweep.name)}: critical batch size {fit.size:.3g} (95%: {interval})")
        figure.add_layer(
            "trials", {"number": trials["number"], _SIZE: sizes, "steps_to_target": steps, "steps": taken}
        )
        figure.add_layer("fit", {_SIZE: at, "steps": fit.steps(at), "low": low, "high": high})
        finish(figure)
    return figure


def _size_axis(axes: Axes) -> None:
    ticks_on(axes, "x", "log2")
    axes.set_xlabel("batch size")
