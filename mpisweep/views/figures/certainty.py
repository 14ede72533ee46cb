"""The certainty of figure 1: means with intervals, or a trend with its band."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from mpisweep.results.load import Sweep
from mpisweep.spec.units import number_text
from mpisweep.statistics.trend import Trend
from mpisweep.views.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    Floats,
    SweepFigure,
    dense,
    marker_size,
    words,
)
from mpisweep.views.findings import Findings

__all__ = ["draw_curve", "draw_means", "draw_trend"]

#: Configurations above which intervals would hide each other.
_INTERVALS = 60


def draw_means(
    figure: SweepFigure, axes: Axes, sweep: Sweep, found: Findings, where: Floats, *, marks: bool
) -> None:
    """Draw the mean of each configuration with its interval; mark the set of the best.

    Args:
        figure: takes the layer of the means.
        axes: to draw on, with the single runs.
        sweep: that was found in.
        found: its statistics.
        where: position of each trial of the sweep on the axis.
        marks: whether the best is marked; not for a metric that is not the objective.
    """
    x, y = where[found.runs.first], found.means.mean
    shown = np.isfinite(x) & np.isfinite(y)
    few = int(shown.sum()) <= _INTERVALS
    # Intervals of two runs can be many times as long as all runs are apart, which would press these flat.
    bottom, top = axes.get_ylim()
    room = 0.75 * (top - bottom) if few else 0.0
    low, high = found.means.low[shown], found.means.high[shown]
    bottom = max(bottom - room, float(np.nanmin([bottom, *low])))
    top = min(top + room, float(np.nanmax([top, *high])))
    groups = [(shown & ~found.in_best_set, GREY, "told apart from the best")] if marks else []
    own = shown & found.in_best_set if marks else shown
    groups.append((own, BLUE, "not told apart from the best" if marks else "means"))
    size = marker_size(figure, int(shown.sum()))
    for rows, colour, text in groups:
        if not rows.any():
            continue
        if few:
            half = np.nan_to_num(found.half_width[rows])
            axes.errorbar(
                x[rows], y[rows], half, fmt="o", color=colour, markersize=size, linewidth=1, capsize=2,
                zorder=4, label=f"{text}, mean ± 95%",
            )  # fmt: skip
        else:
            axes.plot(
                *(x[rows], y[rows]), "o", color=colour, markersize=size, zorder=4, label=f"{text}, mean",
                rasterized=dense(int(shown.sum())),
            )  # fmt: skip
    figure.add_layer(
        "means",
        {
            "configuration": found.runs.number[shown],
            "position": x[shown],
            "mean": y[shown],
            "low": found.means.low[shown],
            "high": found.means.high[shown],
            "in_best_set": found.in_best_set[shown],
        },
    )
    if axes.get_yscale() != "log" or bottom > 0:
        axes.set_ylim(bottom, top)
    if marks and len(order := found.order()):
        _mark(axes, found, x, int(order[0]), GREEN, "*", "best mean")
    if sweep.baseline is not None:
        for row in np.flatnonzero(found.runs.number == sweep.baseline["configuration"]).tolist():
            _mark(axes, found, x, row, ORANGE, "s", "baseline")


def _mark(axes: Axes, found: Findings, x: Floats, row: int, colour: str, marker: str, text: str) -> None:
    mean = float(found.means.mean[row])
    if not np.isfinite([x[row], mean]).all():
        return
    axes.plot(
        [x[row]], [mean], marker, color=colour, markersize=13 if marker == "*" else 8, zorder=5,
        markeredgecolor="white", markeredgewidth=0.8, linestyle="",
        label=f"{text}: {words(found.metric)} {number_text(mean)}",
    )  # fmt: skip


def draw_trend(figure: SweepFigure, axes: Axes, found: Findings) -> None:
    """Draw the trend of single runs, its band, and the region of its best."""
    assert found.trend is not None, "the caller has asked"
    draw_curve(figure, axes, found.trend, found.parameter)


def draw_curve(figure: SweepFigure, axes: Axes, trend: Trend, parameter: str) -> None:
    """Draw a trend over a parameter, its band, and the region of its best."""
    figure.add_layer(
        "trend",
        {
            parameter: trend.x,
            "mean": trend.mean,
            "low": trend.low,
            "high": trend.high,
            "noise": trend.noise,
            "in_best_region": trend.in_best_region,
        },
    )
    thick = 1.2 if figure.is_narrow else 1.6
    axes.plot(trend.x, trend.mean, color=GREEN, linewidth=thick, zorder=4, label="trend")
    axes.fill_between(
        trend.x, trend.low, trend.high, color=GREEN, alpha=0.25, linewidth=0, zorder=3, label="95% band",
        rasterized=dense(len(trend.x)),
    )  # fmt: skip
    if trend.in_best_region.all():
        return
    low, high = trend.region
    axes.axvspan(
        low, high, color=GREEN, alpha=0.10, linewidth=0, zorder=1,
        label=f"trend's best: {number_text(low)} to {number_text(high)} (95%)",
    )  # fmt: skip
