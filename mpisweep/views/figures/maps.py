"""A map of two parameters: cells of a grid, points, or medians of many trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mpisweep.records import Direction, TrialState
from mpisweep.results.load import Sweep
from mpisweep.spec.units import number_text, value_text
from mpisweep.views.figures.colouring import Colours
from mpisweep.views.figures.series import objective_values, searched_or_all
from mpisweep.views.figures.states import causes_text, of_state
from mpisweep.views.figures.style import (
    BLACK,
    ORANGE,
    PURPLE,
    RED,
    FigureError,
    Floats,
    SweepFigure,
    Width,
    dense,
    label,
    legend,
    marker_size,
    plain,
    positions,
    spans_decades,
    style_of,
    title,
    words,
)
from mpisweep.views.figures.ticks import (
    Which,
    finish,
    name_axis,
    parameter_axis,
    scale_of,
    tick_text,
    ticks_on,
)
from mpisweep.views.scales import direction_of
from mpisweep.views.wording import at_budget, units

__all__ = ["Cells", "draw_map", "varied_parameters"]

#: Most values of a parameter of a grid, and most trials that are drawn as points.
_GRID, _POINTS = 48, 4000
#: Cells of a map of many trials, across and upwards.
_ACROSS, _UP = 60, 40


@dataclass(frozen=True, slots=True)
class Cells:
    """A map of cells; arrays of shape (up, across), NaN where there is no value."""

    x_edges: Floats
    y_edges: Floats
    value: Floats
    #: Number of trials with a value in each.
    count: NDArray[np.int64]
    #: How several trials of a cell became one value: ``mean``, ``best`` or ``median``.
    how: str


def varied_parameters(sweep: Sweep) -> list[str]:
    """The searched parameters, or else all, that have more than one value."""
    columns = {name: sweep.trials[sweep.column(name)] for name in searched_or_all(sweep)}
    return [name for name, column in columns.items() if len(column) and (column != column[0]).any()]


@dataclass(frozen=True, slots=True)
class _Place:
    """One parameter on an axis."""

    name: str
    where: Floats
    categories: tuple[str, ...]
    values: NDArray[Any]


def draw_map(
    sweep: Sweep,
    x: str | None = None,
    y: str | None = None,
    metric: str | None = None,
    *,
    width: Width = "page",
) -> SweepFigure:
    """Draw a metric over two parameters.

    Args:
        sweep: from :func:`mpisweep.load`.
        x: parameter of the horizontal axis; the first that varies unless given.
        y: parameter of the vertical axis; the next one unless given.
        metric: the first objective unless given.
        width: ``column`` or ``page``.

    Raises:
        KeyError: if the sweep has no such parameter or metric.
        FigureError: if fewer than two parameters vary, no trial has ended, or the metric is not numeric.
    """
    name, values = objective_values(sweep, metric)
    places = _two_places(sweep, x, y)
    trials = sweep.trials
    ended = of_state(trials, TrialState.COMPLETE) | of_state(trials, TrialState.PRUNED)
    ended |= of_state(trials, TrialState.FAILED)
    if not ended.any():
        raise FigureError(f"{sweep.path}: no trial has ended yet, there is nothing to draw")
    has_place = np.isfinite(places[0].where) & np.isfinite(places[1].where)
    shown = of_state(trials, TrialState.COMPLETE) & np.isfinite(values) & has_place
    minimize = direction_of(sweep, name) is Direction.MINIMIZE
    cells = _cells(sweep, places, values, shown, minimize) if shown.any() else None
    with mpl.rc_context(style_of(width)):
        figure = SweepFigure(width, 74 if width == "column" else 120)
        axes = figure.add_subplot()
        text = words(name)
        if shown.any():
            colours = _colours(sweep, name, values, shown)
            if cells is None:
                _points(figure, axes, places, values, shown, colours, name)
            else:
                _draw_cells(figure, axes, places, cells, colours, name)
                text = f"{cells.how} {text}" if cells.count.max() > 1 else text
            bar = figure.colorbar(colours.mapped, ax=axes, pad=0.02, aspect=30)
            unit = units(sweep, name)
            bar.set_label(label(name, unit) if cells is None else f"{text}{f' [{unit}]' if unit else ''}")
            is_ratio = isinstance(colours.mapped.norm, mpl.colors.LogNorm)
            ticks_on(bar.ax, "y", scale_of(values[shown], is_ratio=is_ratio))
        is_grid = cells is not None and cells.how != "median"
        _ends(figure, axes, sweep, places, values, has_place, cells=cells, is_grid=is_grid)
        _marks(figure, axes, sweep, places, values, shown, name, is_grid=is_grid)
        _axes_of(axes, sweep, places, ended & has_place, is_grid=is_grid)
        axes.grid(visible=False)
        legend(figure, axes)
        both = " and ".join(words(place.name) for place in places)
        title(figure, f"{plain(sweep.name)}: {text} over {both}{at_budget(sweep)}")
        finish(figure)
    return figure


def _two_places(sweep: Sweep, x: str | None, y: str | None) -> list[_Place]:
    """The parameters of the axes; those that are not given are the first that vary."""
    names = [one for one in varied_parameters(sweep) if one not in (x, y)]
    chosen = [one or (names.pop(0) if names else None) for one in (x, y)]
    if None in chosen:
        raise FigureError(f"{sweep.path}: {_counted(2 - chosen.count(None))} varied; a map needs two")
    return [_place(sweep, str(one)) for one in chosen]


def _counted(varied: int) -> str:
    return "no parameter is" if varied == 0 else f"{varied} parameter is"


def _place(sweep: Sweep, name: str) -> _Place:
    column = sweep.trials[sweep.column(name)]
    where, categories = positions(column)
    return _Place(name, where, categories, column)


def _colours(sweep: Sweep, name: str, values: Floats, shown: NDArray[np.bool_]) -> Colours:
    """Bright is good; a few values far worse than the others do not take all the colours."""
    known = values[shown]
    minimize = direction_of(sweep, name) is Direction.MINIMIZE
    low, high = float(known.min()), float(known.max())
    if len(known) >= 20:
        low, high = (
            (low, float(np.quantile(known, 0.95))) if minimize else (float(np.quantile(known, 0.05)), high)
        )
    high = high if high > low else low + (abs(low) or 1.0) * 1e-6
    norm_type = mpl.colors.LogNorm if spans_decades(np.array([low, high])) else mpl.colors.Normalize
    mapped = mpl.cm.ScalarMappable(norm_type(low, high, clip=True), "viridis_r" if minimize else "viridis")
    return Colours(name, values, (), mapped)


def _cells(
    sweep: Sweep, places: list[_Place], values: Floats, shown: NDArray[np.bool_], minimize: bool
) -> Cells | None:
    """The cells of a grid or of many trials; None if points show more."""
    x, y = (place.where[shown] for place in places)
    x_values, x_cell = np.unique(x, return_inverse=True)
    y_values, y_cell = np.unique(y, return_inverse=True)
    across, up = len(x_values), len(y_values)
    if max(across, up) <= _GRID and min(across, up) >= 2 and across * up <= 2.5 * len(x):
        cell = y_cell * across + x_cell
        configuration = sweep.trials["configuration"][shown]
        pairs = len(np.unique(np.stack([cell, configuration]), axis=1).T)
        how = "mean" if pairs == len(np.unique(cell)) else "best"
        value, count = _gathered(cell, values[shown], across * up, how, minimize)
        x_edges, y_edges = (np.arange(many + 1, dtype=np.float64) - 0.5 for many in (across, up))
        return Cells(x_edges, y_edges, value.reshape(up, across), count.reshape(up, across), how)
    if len(x) <= _POINTS:
        return None
    x_edges, y_edges = (
        _edges(place, own, most) for place, own, most in zip(places, (x, y), (_ACROSS, _UP), strict=True)
    )
    across, up = len(x_edges) - 1, len(y_edges) - 1
    column = np.clip(np.searchsorted(x_edges, x, side="right") - 1, 0, across - 1)
    row = np.clip(np.searchsorted(y_edges, y, side="right") - 1, 0, up - 1)
    value, count = _gathered(row * across + column, values[shown], across * up, "median", minimize)
    return Cells(x_edges, y_edges, value.reshape(up, across), count.reshape(up, across), "median")


def _edges(place: _Place, own: Floats, most: int) -> Floats:
    """Edges of cells: around categories and few values, else evenly on the axis."""
    if place.categories:
        return np.arange(len(place.categories) + 1, dtype=np.float64) - 0.5
    low, high = float(own.min()), float(own.max())
    edges: Floats = (
        np.geomspace(low, high, most + 1)
        if low > 0 and high / low > 100
        else np.linspace(low, high, most + 1)
    )
    return edges


def _gathered(
    cell: NDArray[np.int64], values: Floats, count: int, how: str, minimize: bool
) -> tuple[Floats, NDArray[np.int64]]:
    """One value per cell, and the number of trials in each."""
    numbers = np.bincount(cell, minlength=count)
    found = np.full(count, np.nan)
    order = np.lexsort((values, cell))
    for own in np.split(order, np.cumsum(numbers)[:-1]):
        if len(own):
            ranked = values[own]
            best = ranked[0] if minimize else ranked[-1]
            found[cell[own[0]]] = best if how == "best" else getattr(np, how)(ranked)
    return found, numbers


def _draw_cells(
    figure: SweepFigure, axes: Axes, places: list[_Place], cells: Cells, colours: Colours, name: str
) -> None:
    axes.pcolormesh(
        cells.x_edges, cells.y_edges, cells.value, cmap=colours.mapped.cmap, norm=colours.mapped.norm,
        rasterized=dense(cells.value.size), zorder=1, linewidth=0,
    )  # fmt: skip
    row, column = np.nonzero(cells.count)
    columns: dict[str, Any] = {}
    for place, edges, at in ((places[0], cells.x_edges, column), (places[1], cells.y_edges, row)):
        if cells.how == "median" and not place.categories:
            columns |= {f"{place.name}_from": edges[at], f"{place.name}_to": edges[at + 1]}
        else:
            columns[place.name] = (
                _distinct(place)[at] if cells.how != "median" else np.array(place.categories)[at]
            )
    columns |= {f"{cells.how}_{name}": cells.value[row, column], "trials": cells.count[row, column]}
    figure.add_layer("cells", columns)


def _distinct(place: _Place) -> NDArray[Any]:
    """The distinct values of a parameter, in the order of their cells."""
    if place.categories:
        return np.array(place.categories)
    return np.unique(place.values[np.isfinite(place.where)])


def _points(
    figure: SweepFigure, axes: Axes, places: list[_Place], values: Floats, shown: NDArray[np.bool_],
    colours: Colours, name: str,
) -> None:  # fmt: skip
    rows = np.flatnonzero(shown)
    # The best ones lie on top.
    rows = rows[np.argsort(np.asarray(colours.mapped.norm(values[rows])))]
    rows = rows[::-1] if colours.mapped.cmap.name == "viridis_r" else rows
    size = 1.6 * marker_size(figure, len(rows))
    axes.scatter(
        places[0].where[rows], places[1].where[rows], s=size**2, c=colours.rgba(rows), linewidths=0.3,
        edgecolors="white", zorder=2, rasterized=dense(len(rows)),
    )  # fmt: skip
    columns = {place.name: place.values[rows] for place in places}
    figure.add_layer("trials", {"number": rows, **columns, name: values[rows]})


def _in_cells(place: _Place, where: Floats, *, is_grid: bool) -> Floats:
    """Places on the axis: in a grid the index of the cell."""
    if not is_grid or place.categories:
        return where
    distinct = np.unique(place.where[np.isfinite(place.where)])
    return np.searchsorted(distinct, where).astype(float)


def _ends(
    figure: SweepFigure, axes: Axes, sweep: Sweep, places: list[_Place], values: Floats,
    has_place: NDArray[np.bool_], *, cells: Cells | None, is_grid: bool,
) -> None:  # fmt: skip
    """Draw failed and pruned trials, and those without a finite value, each with its own mark.

    On a map of medians a mark per trial would hide it: cells of which most trials ended so have one.
    """
    trials = sweep.trials
    failed = of_state(trials, TrialState.FAILED) & has_place
    complete, pruned = (of_state(trials, one) & has_place for one in (TrialState.COMPLETE, TrialState.PRUNED))
    without = complete & ~np.isfinite(values)
    is_median = cells is not None and cells.how == "median"
    for mask, colour, marker, layer, text in (
        (pruned, PURPLE, "v", "pruned", f"pruned: {int(pruned.sum()):,}"),
        (without, BLACK, "+", "without a finite value", f"no finite value: {int(without.sum()):,}"),
        (failed, RED, "x", "failed", f"failed: {causes_text(trials['cause'][failed].tolist())}"),
    ):
        if not mask.any():
            continue
        if is_median and cells is not None:
            ended = (complete | pruned | failed) & has_place
            x, y = _mostly(cells, places, mask, ended)
            figure.add_layer(f"cells mostly {layer}", {"x": x, "y": y})
            text += ", marked in cells where most did"
        else:
            x, y = (_in_cells(place, place.where[mask], is_grid=is_grid) for place in places)
            columns = {place.name: place.values[mask] for place in places}
            figure.add_layer(layer, {"number": trials["number"][mask], **columns})
        size = (5.0 if len(x) <= 300 else 2.5) * (0.75 if figure.is_narrow else 1)
        axes.plot(
            x, y, marker, color=colour, fillstyle="none", markersize=size, markeredgewidth=0.8, zorder=3,
            label=text, alpha=float(np.clip(800 / max(len(x), 1), 0.25, 1.0)), rasterized=dense(len(x)),
            linestyle="",
        )  # fmt: skip


def _mostly(
    cells: Cells, places: list[_Place], mask: NDArray[np.bool_], ended: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """The middles of the cells of whose ended trials most are in the mask."""
    edges = [cells.x_edges, cells.y_edges]
    found, all_ended = (
        np.histogram2d(places[0].where[rows], places[1].where[rows], bins=edges)[0] for rows in (mask, ended)
    )
    column, row = np.nonzero(found > all_ended / 2)
    middles = [
        np.sqrt(e[1:] * e[:-1]) if e[0] > 0 and e[-1] / e[0] > 100 else (e[1:] + e[:-1]) / 2 for e in edges
    ]
    return middles[0][column], middles[1][row]


def _marks(
    figure: SweepFigure, axes: Axes, sweep: Sweep, places: list[_Place], values: Floats,
    shown: NDArray[np.bool_], name: str, *, is_grid: bool,
) -> None:  # fmt: skip
    """Mark the best trial and the baseline."""
    is_objective = name in {one.name for one in sweep.objectives}
    best = next(iter(sweep.best(1, name if is_objective else None)), None)
    for trial, marker, colour, text in (
        (sweep.baseline, "s", ORANGE, "baseline"),
        (best, "*", "white", "best"),
    ):
        if trial is None or not shown[trial["number"]]:
            continue
        number = int(trial["number"])
        x, y = (_in_cells(place, place.where[[number]], is_grid=is_grid) for place in places)
        known = ", ".join(
            f"{words(place.name)} {plain(value_text(place.values[number].item()))}" for place in places
        )
        axes.plot(
            x, y, marker, color=colour,
            markersize=(14 if marker == "*" else 8) * (0.7 if figure.is_narrow else 1),
            markeredgecolor=BLACK, markeredgewidth=0.8, zorder=5, linestyle="",
            label=f"{text}: {known}, {words(name)} {number_text(float(values[number]))}",
        )  # fmt: skip


def _axes_of(
    axes: Axes, sweep: Sweep, places: list[_Place], ended: NDArray[np.bool_], *, is_grid: bool
) -> None:
    """Set the axes; those of a grid have a tick per value."""
    sides: tuple[Which, Which] = ("x", "y")
    for which, place in zip(sides, places, strict=True):
        if is_grid and not place.categories:
            names = [
                tick_text(float(f"{float(value):.3g}" if value % 1 else value)) for value in _distinct(place)
            ]
            name_axis(axes, which, label(place.name, units(sweep, place.name)), names, may_turn=False)
        else:
            parameter_axis(axes, which, sweep, place.name, place.where[ended], place.categories)
