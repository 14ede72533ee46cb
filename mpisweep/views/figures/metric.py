"""Figure 1: a metric vs. a parameter, with the best trial, the baseline and all ends marked."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from mpisweep.results.load import Sweep
from mpisweep.spec.units import number_text, value_text
from mpisweep.views.figures.certainty import draw_means, draw_trend
from mpisweep.views.figures.colouring import (
    GROUPS,
    Colours,
    colours_of,
    draw_coloured,
    other_parameter,
)
from mpisweep.views.figures.series import Series, metric_series
from mpisweep.views.figures.states import draw_lanes, lanes_of, spread
from mpisweep.views.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SweepFigure,
    Width,
    dense,
    legend,
    marker_size,
    plain,
    positions,
    style_of,
    title,
    words,
)
from mpisweep.views.figures.ticks import finish, metric_axis, parameter_axis
from mpisweep.views.findings import findings_of
from mpisweep.views.wording import at_budget

__all__ = ["draw_metric", "draw_panel"]

#: Maximum number of points that are joined by a line.
_JOINED = 1500
#: Searched parameters that the legend names.
_NAMED = 3


def draw_metric(
    sweep: Sweep, parameter: str, metric: str, *, colour: str | None = None, width: Width = "page"
) -> SweepFigure:
    """Draw a metric vs. a parameter, with the best trial, the baseline and all ends marked.

    Args:
        sweep: from :func:`mpisweep.load`.
        parameter: on the horizontal axis.
        metric: on the vertical axis.
        colour: another parameter, which colours the trials; default the next one that varies.
        width: ``column`` or ``page``.

    Raises:
        KeyError: if the sweep has no such parameter or metric.
        FigureError: if no trial has ended, or the metric is not numeric.
    """
    with mpl.rc_context(style_of(width)):
        figure = SweepFigure(width)
        axes = figure.add_subplot()
        colours = draw_panel(figure, axes, sweep, parameter, metric, colour)
        if colours is not None and not colours.is_grouped:
            colours.add_bar(figure, [axes], sweep)
        legend(figure, axes)
        title(figure, f"{plain(sweep.name)}: {words(metric)} vs. {words(parameter)}{at_budget(sweep)}")
        finish(figure)
    return figure


def draw_panel(
    figure: SweepFigure, axes: Axes, sweep: Sweep, parameter: str, metric: str, colour: str | None = None
) -> Colours | None:
    """Draw the axes of figure 1, without legend, colour bar and title.

    Arguments are those of :func:`draw_metric`.

    Returns:
        The colours of the trials; None if all have the same.
    """
    series = metric_series(sweep, parameter, metric)
    found = findings_of(sweep, metric) if len(series.x) else None
    is_repeated = found is not None and found.is_repeated
    by = colour or (None if is_repeated else other_parameter(sweep, parameter))
    colours = None if by is None else colours_of(sweep, by)
    has_trend = found is not None and found.trend is not None and found.parameter == parameter
    if colours is None and not has_trend:
        _join(axes, series)
    _trials(figure, axes, sweep, series, colours, is_repeated=is_repeated)
    metric_axis(axes, "y", sweep, metric, np.concatenate([series.y, series.pruned_y]))
    parameter_axis(axes, "x", sweep, parameter, series.all_x, series.categories)
    _shade(figure, axes, series)
    if found is not None and is_repeated:
        where = positions(sweep.trials[sweep.column(parameter)])[0]
        draw_means(figure, axes, sweep, found, where, marks=metric == sweep.objective)
    else:
        _mark(figure, axes, sweep, series, series.baseline, ORANGE, "s", "baseline")
        _mark(figure, axes, sweep, series, series.best, GREEN, "*", "best")
    if found is not None and has_trend:
        draw_trend(figure, axes, found)
    if not len(series.y) + len(series.pruned_y):
        axes.set_yticks([])
    _ends(figure, axes, sweep, series)
    return colours


def _join(axes: Axes, series: Series) -> None:
    """Join the trials of an ordered parameter with a thin line."""
    if not series.categories and 1 < len(series.x) <= _JOINED and np.all(np.diff(series.x) > 0):
        axes.plot(series.x, series.y, color=BLUE, linewidth=0.8, alpha=0.45, zorder=2)


def _trials(
    figure: SweepFigure,
    axes: Axes,
    sweep: Sweep,
    series: Series,
    colours: Colours | None,
    *,
    is_repeated: bool,
) -> None:
    """Draw the complete and the pruned trials that have a value."""
    columns = {"number": series.numbers, **_values(sweep, series.numbers, series.parameter)}
    if colours is not None:
        columns |= _values(sweep, series.numbers, colours.parameter)
    figure.add_layer("single runs" if is_repeated else "trials", columns | {_name(sweep, series): series.y})
    count = len(series.x)
    size, x = marker_size(figure, count), spread(series.x, series.categories)
    faint = 0.35 if count > 20_000 else 0.8 if colours is not None else 1.0
    if is_repeated:
        axes.plot(
            x, series.y, "o", color=GREY, markersize=0.6 * size, zorder=3, label="single runs",
            rasterized=dense(count),
        )  # fmt: skip
    elif colours is None:
        axes.plot(
            *(x, series.y), "o", color=BLUE, markersize=size, alpha=faint, markeredgewidth=0, zorder=3,
            label=f"complete: {count:,}" if count else None, rasterized=dense(count),
        )  # fmt: skip
    elif colours.is_grouped:
        group = colours.where[series.numbers]
        for place, (shade, marker) in zip(range(len(colours.categories)), GROUPS, strict=False):
            own = group == place
            if own.any():
                axes.plot(
                    x[own], series.y[own], marker, color=shade, markersize=size, alpha=faint, zorder=3,
                    markeredgewidth=0, linestyle="", label=f"{colours.name(place)}: {int(own.sum()):,}",
                    rasterized=dense(count),
                )  # fmt: skip
    elif count:
        draw_coloured(axes, x, series.y, colours, series.numbers, size=size, alpha=faint)
    if len(series.pruned_x):
        axes.plot(
            spread(series.pruned_x, series.categories), series.pruned_y, "v", color=PURPLE, fillstyle="none",
            markersize=max(1.3 * size, 1.6), markeredgewidth=0.6, zorder=2.5,
            rasterized=dense(len(series.pruned_x)), alpha=float(np.clip(400 / len(series.pruned_x), 0.3, 1)),
            label=f"pruned, last report: {len(series.pruned_x):,}",
        )  # fmt: skip


def _name(sweep: Sweep, series: Series) -> str:
    return sweep.metric_column(series.metric) if len(series.y) + len(series.pruned_y) else series.metric


def _values(sweep: Sweep, numbers: np.ndarray, parameter: str) -> dict[str, np.ndarray]:
    """The column of a parameter, of some trials."""
    column = sweep.column(parameter)
    return {column: sweep.trials[column][numbers]}


def _mark(
    figure: SweepFigure,
    axes: Axes,
    sweep: Sweep,
    series: Series,
    entry: int | None,
    colour: str,
    marker: str,
    text: str,
) -> None:
    if entry is None:
        return
    names = dict.fromkeys([series.parameter, *sweep.spec.space.names])
    known = sweep.configuration(int(series.numbers[entry]))
    values = [f"{words(name)} {plain(value_text(known[name]))}" for name in names if name in known][:_NAMED]
    values.append(f"{words(series.metric)} {number_text(series.y[entry])}")
    axes.plot(
        [series.x[entry]], [series.y[entry]], marker, color=colour, zorder=5,
        markersize=(13 if marker == "*" else 8) * (0.7 if figure.is_narrow else 1),
        markeredgecolor="white", markeredgewidth=0.8, linestyle="",
        label=f"{text}: {', '.join(values)}",
    )  # fmt: skip


def _shade(figure: SweepFigure, axes: Axes, series: Series) -> None:
    """Shade the ranges in which no trial fits in memory."""
    for index, (low, high) in enumerate(series.too_large):
        label = f"too large for memory: {series.infeasible} not run" if index == 0 else None
        axes.axvspan(low, high, color=GREY, alpha=0.22, linewidth=0, zorder=1, label=label)
    if series.too_large:
        low, high = np.array(series.too_large).T
        figure.add_layer("too large for memory", {"from": low, "to": high})


def _ends(figure: SweepFigure, axes: Axes, sweep: Sweep, series: Series) -> None:
    """Draw the trials without a value in lanes below the others, and note all ends."""
    draw_lanes(
        axes,
        lanes_of(
            *(spread(series.failed_x, series.categories), series.failed_causes),
            *(spread(series.without_x, series.categories), series.without),
            spread(series.pruned_without_x, series.categories),
        ),
        size=4.0 if figure.is_narrow else 5.0,
    )
    for name, numbers, more in (
        ("pruned", series.pruned_numbers, {_name(sweep, series): series.pruned_y}),
        ("pruned without a value", series.pruned_without_numbers, {}),
        ("failed", series.failed_numbers, {"cause": series.failed_causes}),
        ("without a finite value", series.without_numbers, {}),
    ):
        if len(numbers):
            values = _values(sweep, numbers, series.parameter)
            figure.add_layer(name, {"number": numbers, **values, **more})
