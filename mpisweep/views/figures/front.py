"""Figures of several objectives: the Pareto front, and the hypervolume over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mpisweep.progress import counted
from mpisweep.results.load import Sweep
from mpisweep.spec import nearest
from mpisweep.spec.units import number_text
from mpisweep.views.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    FigureError,
    Floats,
    SweepFigure,
    Width,
    dense,
    legend,
    marker_size,
    plain,
    spans_decades,
    style_of,
    time_unit,
    title,
    words,
)
from mpisweep.views.figures.ticks import finish, metric_axis, ticks_on
from mpisweep.views.wording import at_budget

__all__ = ["Front", "draw_front", "draw_hypervolume", "front"]


@dataclass(frozen=True, slots=True)
class Front:
    """Two objectives of all complete trials with finite ones.

    Arrays have one entry per trial; with repeats one per configuration, with the means over its runs.
    """

    #: Names of the objectives on the axes.
    x_name: str
    y_name: str
    x: Floats
    y: Floats
    numbers: NDArray[np.int64]
    #: Entries of the trials on the front of all objectives, by the first cost of `x`, ascending.
    front: NDArray[np.int64]
    #: Entry of the baseline.
    baseline: int | None
    #: Whether the sweep has no other objectives, so that the front is a staircase.
    is_whole: bool
    #: Whether the entries are configurations.
    is_repeated: bool = False

    @property
    def what(self) -> str:
        """What an entry is."""
        return "configuration" if self.is_repeated else "trial"


def front(sweep: Sweep, y: str | None = None, x: str | None = None) -> Front:
    """Compute the front of a sweep with several objectives.

    Args:
        sweep: from :func:`mpisweep.load`.
        y: objective of the vertical axis; the first one unless given.
        x: objective of the horizontal axis; the next one unless given.

    Raises:
        FigureError: if the sweep has one objective, or no complete trial with finite ones.
        KeyError: if the sweep has no such objective.
    """
    names = [objective.name for objective in sweep.objectives]
    if len(names) == 1:
        raise FigureError(f"{sweep.path}: the sweep has one objective, {names[0]!r}; a front needs several")
    y = y or next(name for name in names if name != x)
    x = x or next(name for name in names if name != y)
    for name in (x, y):
        if name not in names:
            raise KeyError(f"no objective {name!r}; {nearest(name, names)}")
    found = sweep.tradeoff()
    if not len(found.number):
        raise FigureError(
            f"{sweep.path}: no completed trial has finite objectives yet, there is nothing to draw"
        )
    values = {name: found.values[:, names.index(name)] for name in (x, y)}
    entries = np.sort(found.on_front)
    signs = {objective.name: objective.sign for objective in sweep.objectives}
    costs = [signs[name] * values[name][entries] for name in (y, x)]
    own = "configuration" if found.is_repeated else "number"
    baseline = None if sweep.baseline is None else np.flatnonzero(found.number == sweep.baseline[own])
    return Front(
        x, y, values[x], values[y], found.number, entries[np.lexsort(costs)],
        int(baseline[0]) if baseline is not None and len(baseline) else None, len(names) == 2,
        found.is_repeated,
    )  # fmt: skip


def draw_front(
    sweep: Sweep, y: str | None = None, x: str | None = None, *, width: Width = "page"
) -> SweepFigure:
    """Draw one objective over another, with the front and the trials behind it.

    Raises:
        FigureError: if the sweep has one objective, or no complete trial with finite ones.
        KeyError: if the sweep has no such objective.
    """
    drawn = front(sweep, y, x)
    with mpl.rc_context(style_of(width)):
        figure = SweepFigure(width)
        axes = figure.add_subplot()
        is_behind = np.ones(len(drawn.x), dtype=bool)
        is_behind[drawn.front] = False
        size, behind = marker_size(figure, len(drawn.x)), int(is_behind.sum())
        if is_behind.any():
            axes.plot(
                drawn.x[is_behind], drawn.y[is_behind], "o", color=GREY, markersize=size, zorder=2,
                markeredgewidth=0, alpha=0.4 if dense(behind) else 1.0, rasterized=dense(behind),
                label=f"{counted(behind, drawn.what)} behind it",
            )  # fmt: skip
        # In the order of the horizontal axis the front is a staircase, whatever the directions.
        line = "-" if drawn.is_whole else ""
        axes.plot(
            drawn.x[drawn.front], drawn.y[drawn.front], color=BLUE, marker="o", markersize=max(size, 3.0),
            linewidth=1.2, zorder=3, drawstyle="steps-post", linestyle=line,
            label=f"front: {counted(len(drawn.front), drawn.what)}", rasterized=dense(len(drawn.front)),
        )  # fmt: skip
        if drawn.baseline is not None:
            axes.plot(
                drawn.x[drawn.baseline], drawn.y[drawn.baseline], "s", color=ORANGE, zorder=4,
                markersize=6 if figure.is_narrow else 8, markeredgecolor="white", markeredgewidth=0.8,
                label="baseline", linestyle="",
            )  # fmt: skip
        figure.add_layer(
            "trials",
            {
                "number": drawn.numbers,
                sweep.metric_column(drawn.x_name): drawn.x,
                sweep.metric_column(drawn.y_name): drawn.y,
                "on_front": ~is_behind,
            },
        )
        _axis(axes, "x", sweep, drawn)
        _axis(axes, "y", sweep, drawn)
        legend(figure, axes, covers=len(drawn.x) > 20)
        text = f"{plain(sweep.name)}: {words(drawn.y_name)} vs. {words(drawn.x_name)}{at_budget(sweep)}"
        if not drawn.is_whole:
            text += f", front of {len(sweep.objectives)} objectives"
        title(figure, text)
        finish(figure)
    return figure


def _axis(axes: Axes, which: Literal["x", "y"], sweep: Sweep, drawn: Front) -> None:
    name, values = (drawn.x_name, drawn.x) if which == "x" else (drawn.y_name, drawn.y)
    better = next(one.direction for one in sweep.objectives if one.name == name)
    metric_axis(axes, which, sweep, name, values)
    if axes.get_xscale() != "log" and spans_decades(values[drawn.front]) and values.min() > 0:
        ticks_on(axes, which, "log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_label_text(f"{axis.get_label_text()}, {better.value}")


def draw_hypervolume(
    sweep: Sweep, reference: Mapping[str, float] | None = None, *, width: Width = "page"
) -> SweepFigure:
    """Draw the hypervolume over the time of the runs.

    Args:
        sweep: with several objectives.
        reference: as in :meth:`~mpisweep.results.load.Sweep.hypervolume`.
        width: ``column`` or ``page``.

    Raises:
        FigureError: if no completed trial has finite objectives.
        ResultsError: as in :meth:`~mpisweep.results.load.Sweep.hypervolume`.
    """
    history = sweep.hypervolume(reference)
    if not len(history.time):
        raise FigureError(
            f"{sweep.path}: no completed trial has finite objectives yet, there is nothing to draw"
        )
    scale, unit = time_unit(float(history.time[-1]))
    with mpl.rc_context(style_of(width)):
        figure = SweepFigure(width)
        axes = figure.add_subplot()
        # Nothing is dominated before the first trial; a step that changes nothing needs no corner.
        time = np.concatenate([[0.0], history.time])
        volume = np.concatenate([[0.0], history.hypervolume])
        corner = np.append(np.flatnonzero(np.diff(volume, prepend=-1.0)), len(volume) - 1)
        corner = np.unique(corner)
        axes.plot(time[corner] / scale, volume[corner], color=GREEN, drawstyle="steps-post", linewidth=1.4)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        ticks_on(axes, "x", "linear")
        ticks_on(axes, "y", "linear")
        axes.set_xlabel(f"time of the runs [{unit}]")
        bounds = ", ".join(f"{plain(name)} {number_text(value)}" for name, value in history.reference.items())
        axes.set_ylabel("hypervolume")
        title(figure, f"{plain(sweep.name)}: hypervolume up to {bounds}")
        figure.add_layer("hypervolume", {"time_s": time[corner], "hypervolume": volume[corner]})
        finish(figure)
    return figure
