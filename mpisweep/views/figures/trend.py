"""The trend of a metric over one numeric parameter, with its band and its best region."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np

from mpisweep.records import Direction, TrialState
from mpisweep.results.load import Sweep
from mpisweep.spec.units import number_text
from mpisweep.statistics.trend import FEWEST, trend_of
from mpisweep.views.figures.certainty import draw_curve
from mpisweep.views.figures.series import numeric_metric
from mpisweep.views.figures.states import of_state
from mpisweep.views.figures.style import (
    GREY,
    FigureError,
    SweepFigure,
    Width,
    dense,
    legend,
    marker_size,
    plain,
    style_of,
    title,
    words,
)
from mpisweep.views.figures.ticks import finish, metric_axis, parameter_axis
from mpisweep.views.scales import direction_of, has_smooth_ratios
from mpisweep.views.wording import at_budget

__all__ = ["draw_trend_of"]


def draw_trend_of(
    sweep: Sweep, parameter: str, metric: str | None = None, *, width: Width = "page"
) -> SweepFigure:
    """Draw the trend of all complete trials; other parameters and seeds count as noise.

    Args:
        sweep: from :func:`mpisweep.load`.
        parameter: a numeric one.
        metric: the first objective unless given.
        width: ``column`` or ``page``.

    Raises:
        KeyError: if the sweep has no such parameter or metric.
        FigureError: if the parameter is not numeric, or too few of its values have a finite metric.
    """
    name = metric or sweep.objective
    column = sweep.trials[sweep.column(parameter)]
    if column.dtype.kind not in "iuf":
        raise FigureError(f"{sweep.path}: {parameter} is text; a trend needs a parameter that is a number")
    y = numeric_metric(sweep, name)
    shown = of_state(sweep.trials, TrialState.COMPLETE) & np.isfinite(y) & np.isfinite(column.astype(float))
    x, y = column[shown].astype(float), y[shown]
    is_minimized = direction_of(sweep, name) is Direction.MINIMIZE
    trend = trend_of(x, y, minimize=is_minimized, logarithmic=has_smooth_ratios(sweep, parameter, x))
    if trend is None:
        raise FigureError(
            f"{sweep.path}: a trend needs a finite {name} at {FEWEST} values of {parameter}; found "
            f"{len(np.unique(x))}"
        )
    with mpl.rc_context(style_of(width)):
        figure = SweepFigure(width)
        axes = figure.add_subplot()
        axes.plot(
            *(x, y), "o", color=GREY, markersize=marker_size(figure, len(x)), markeredgewidth=0,
            alpha=float(np.clip(6000 / len(x), 0.2, 0.8)), zorder=2, rasterized=dense(len(x)),
            label=f"complete: {len(x):,}",
        )  # fmt: skip
        figure.add_layer(
            "trials",
            {
                "number": sweep.trials["number"][shown],
                sweep.column(parameter): column[shown],
                sweep.metric_column(name): y,
            },
        )
        draw_curve(figure, axes, trend, parameter)
        metric_axis(axes, "y", sweep, name, y)
        parameter_axis(axes, "x", sweep, parameter, x)
        legend(figure, axes)
        noise = number_text(float(f"{float(np.median(trend.noise)):.2g}"))
        title(
            figure,
            f"{plain(sweep.name)}: {words(name)} vs. {words(parameter)}{at_budget(sweep)}, a single trial "
            f"varies by {noise} around the trend",
        )
        finish(figure)
    return figure
