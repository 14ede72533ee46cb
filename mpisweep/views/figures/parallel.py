"""Parallel coordinates: one line per trial, across its parameters to its objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from mpisweep.records import Direction, TrialState
from mpisweep.results.load import Sweep
from mpisweep.spec.units import number_text
from mpisweep.views.figures.maps import varied_parameters
from mpisweep.views.figures.series import objective_values
from mpisweep.views.figures.states import causes_text, of_state
from mpisweep.views.figures.style import (
    BLACK,
    GREEN,
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
    plain,
    positions,
    spans_decades,
    style_of,
    title,
    words,
    wrapped,
)
from mpisweep.views.figures.ticks import finish, round_ticks, tick_text
from mpisweep.views.scales import acts_by_ratios, direction_of, evenly
from mpisweep.views.wording import at_budget, units

__all__ = ["draw_parallel"]

#: Lines that are drawn of each kind of end; of more, so many that lie evenly among them.
_LINES = 3000
#: Most values of a parameter that have a tick each.
_VALUES = 8


@dataclass(frozen=True, slots=True)
class _Rail:
    """One vertical axis: places from 0 to 1."""

    name: str
    text: str
    place: Floats
    values: NDArray[Any]
    #: Places and texts of its ticks.
    ticks: list[tuple[float, str]]


def draw_parallel(
    sweep: Sweep,
    parameters: Sequence[str] = (),
    metric: str | None = None,
    *,
    width: Width = "page",
) -> SweepFigure:
    """Draw one line per trial across its parameters to the metric.

    Lines of failed and pruned trials end before the metric.

    Args:
        sweep: from :func:`mpisweep.load`.
        parameters: from left to right; those that vary unless given.
        metric: the last axis; the first objective unless given.
        width: ``column`` or ``page``.

    Raises:
        KeyError: if the sweep has no such parameter or metric.
        FigureError: if no parameter varies, no trial has ended, or the metric is not numeric.
    """
    name, values = objective_values(sweep, metric)
    names = list(parameters) or varied_parameters(sweep)
    if not names:
        raise FigureError(f"{sweep.path}: no parameter is varied; there are no axes to draw")
    trials = sweep.trials
    shown = of_state(trials, TrialState.COMPLETE) & np.isfinite(values)
    if not shown.any() and not any(mask.any() for mask, *_ in _ends(sweep, values, name)):
        raise FigureError(f"{sweep.path}: no trial has ended yet, there is nothing to draw")
    rails = [*(_parameter_rail(sweep, one) for one in names), _metric_rail(sweep, name, values, shown)]
    places = np.stack([rail.place for rail in rails], axis=1)
    with mpl.rc_context(style_of(width)):
        figure = SweepFigure(width, 62 if width == "column" else 96)
        axes = figure.add_subplot()
        drawn: dict[str, NDArray[np.intp]] = {}
        handles: list[Any] = []
        for mask, colour, text in _ends(sweep, values, name):
            rows = _some(np.flatnonzero(mask))
            if len(rows):
                drawn[text.partition(":")[0]] = rows
                handles.append(_lines(axes, places[rows][:, :-1], [colour] * len(rows), text, 1.0))
        best = next(iter(sweep.best(1, name if name in {o.name for o in sweep.objectives} else None)), None)
        rows = _ranked(sweep, name, values, np.flatnonzero(shown))
        if len(rows):
            drawn["complete"] = rows
            colours = _colours(sweep, name, values[rows], figure, axes)
            handles.insert(0, _lines(axes, places[rows], colours, f"complete: {int(shown.sum()):,}", 2.0))
        for trial, colour, text in ((sweep.baseline, ORANGE, "baseline"), (best, GREEN, "best")):
            if trial is not None and shown[trial["number"]]:
                handles.append(_thick(figure, axes, places[trial["number"]], colour, text, values, trial))
        _rails(figure, axes, rails)
        if dense(sum(map(len, drawn.values()))):
            # One image below the thick lines, instead of one per collection.
            axes.set_rasterization_zorder(3)
        _note(figure, rails, drawn)
        some = ", a part of the trials" if any(len(rows) == _LINES for rows in drawn.values()) else ""
        legend(figure, axes, handles=handles)
        title(figure, f"{plain(sweep.name)}: {words(name)} by parameters{at_budget(sweep)}{some}")
        finish(figure)
    return figure


def _note(figure: SweepFigure, rails: Sequence[_Rail], drawn: dict[str, NDArray[np.intp]]) -> None:
    for text, rows in drawn.items():
        figure.add_layer(text, {"number": rows, **{rail.name: rail.values[rows] for rail in rails}})


def _ends(sweep: Sweep, values: Floats, name: str) -> list[tuple[NDArray[np.bool_], str, str]]:
    """The trials whose lines end before the metric: a mask, a colour and a text."""
    complete, pruned, failed = (
        of_state(sweep.trials, state) for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)
    )
    without = complete & ~np.isfinite(values)
    return [
        (pruned, PURPLE, f"pruned: {int(pruned.sum()):,}"),
        (without, BLACK, f"no finite {words(name)}: {int(without.sum()):,}"),
        (failed, RED, f"failed: {causes_text(sweep.trials['cause'][failed].tolist())}"),
    ]


def _some(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Of many rows some that lie evenly among them."""
    some: NDArray[np.intp] = rows[evenly(len(rows), _LINES)]
    return some


def _ranked(sweep: Sweep, name: str, values: Floats, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Rows in the order in which they are drawn: the best last, so that it lies on top."""
    cost = values[rows] if direction_of(sweep, name) is Direction.MINIMIZE else -values[rows]
    return _some(rows[np.argsort(-cost, kind="stable")])


def _colours(sweep: Sweep, name: str, values: Floats, figure: SweepFigure, axes: Axes) -> Any:
    better = direction_of(sweep, name)
    low, high = np.quantile(values, [0.0, 0.95] if better is Direction.MINIMIZE else [0.05, 1.0])
    high = high if high > low else low + (abs(low) or 1.0) * 1e-6
    map_name = "viridis_r" if better is Direction.MINIMIZE else "viridis"
    return mpl.cm.ScalarMappable(mpl.colors.Normalize(low, high, clip=True), map_name).to_rgba(values)


def _lines(axes: Axes, places: Floats, colours: Any, text: str, zorder: float) -> Line2D:
    """Draw lines, and make the entry of the legend."""
    count = len(places)
    along = np.broadcast_to(np.arange(places.shape[1], dtype=float), places.shape)
    points = np.stack([along, places], axis=2)
    axes.add_collection(
        LineCollection(
            list(points), colors=colours, linewidths=0.7, alpha=float(np.clip(120 / count, 0.12, 0.8)),
            zorder=zorder,
        ),
        autolim=False,
    )  # fmt: skip
    if places.shape[1] == 1:
        # A trial that has one axis has no line.
        axes.plot(*points[:, 0].T, ".", color=colours[0], markersize=3, zorder=zorder)
    return Line2D([], [], color=colours[-1], linewidth=1.2, label=text)


def _thick(
    figure: SweepFigure, axes: Axes, places: Floats, colour: str, text: str, values: Floats, trial: Any
) -> Line2D:
    thick = 1.4 if figure.is_narrow else 2.0
    axes.plot(places, color="white", linewidth=thick + 1.4, zorder=4)
    value = number_text(float(values[trial["number"]]))
    [line] = axes.plot(places, color=colour, linewidth=thick, zorder=5, label=f"{text}: {value}")
    return line


def _parameter_rail(sweep: Sweep, name: str) -> _Rail:
    column = sweep.trials[sweep.column(name)]
    where, categories = positions(column)
    text = label(name, units(sweep, name))
    if categories:
        last = max(len(categories) - 1, 1)
        ticks = [(index / last, one) for index, one in enumerate(categories)]
        return _Rail(name, text, where / last, column, ticks)
    known = where[np.isfinite(where)]
    place, ticks = _scaled(where, known, is_ratio=acts_by_ratios(sweep, name, known))
    return _Rail(name, text, place, column, ticks)


def _metric_rail(sweep: Sweep, name: str, values: Floats, shown: NDArray[np.bool_]) -> _Rail:
    known = values[shown]
    place, ticks = _scaled(np.where(shown, values, np.nan), known, is_ratio=spans_decades(known))
    return _Rail(name, label(name, units(sweep, name)), place, values, ticks)


def _scaled(where: Floats, known: Floats, *, is_ratio: bool) -> tuple[Floats, list[tuple[float, str]]]:
    """Places from 0 to 1, and ticks."""
    if not len(known):
        return np.full(len(where), np.nan), []
    low, high = float(known.min()), float(known.max())
    if low == high:
        return np.where(np.isfinite(where), 0.5, np.nan), [(0.5, tick_text(low))]
    bend = np.log if is_ratio else np.asarray
    first, last = float(bend(low)), float(bend(high))
    with np.errstate(invalid="ignore", divide="ignore"):
        place: Floats = (bend(where) - first) / (last - first)
    distinct = np.unique(known)
    round_ones = (
        # A few values, such as powers of two, are their own ticks.
        [(value, tick_text(float(f"{value:.4g}"))) for value in distinct.tolist()]
        if len(distinct) <= _VALUES
        else round_ticks(low, high, is_ratio=is_ratio)
    )
    ticks = [((float(bend(value)) - first) / (last - first), text) for value, text in round_ones]
    return place, ticks


def _rails(figure: SweepFigure, axes: Axes, rails: Sequence[_Rail]) -> None:
    """Draw the vertical axes with their ticks and names."""
    small = max(6.0, float(mpl.rcParams["legend.fontsize"]) - (0 if len(rails) <= 6 else 1))
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlim(-0.15, len(rails) - 0.4)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    room = 0.9 * figure.width_pt / len(rails)
    for index, rail in enumerate(rails):
        axes.axvline(index, 0.04 / 1.08, 1.04 / 1.08, color=BLACK, linewidth=0.8, zorder=6)
        last = -1.0
        for place, text in sorted(rail.ticks):
            if place - last < 0.07 and last >= 0:
                # Two names that are closer than a line would overlap.
                continue
            last = place
            axes.plot([index, index + 0.03], [place, place], color=BLACK, linewidth=0.8, zorder=6)
            axes.annotate(
                text if len(text) <= 16 or "$" in text else f"{text[:15]}…", (index, place), (4, 0),
                textcoords="offset points", va="center", fontsize=small, zorder=7,
                bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8},
            )  # fmt: skip
    axes.set_xticks(range(len(rails)), [wrapped(rail.text, room, small) for rail in rails], fontsize=small)
    axes.tick_params(axis="x", length=0)
