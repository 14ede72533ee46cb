"""Figures of several objectives: the Pareto front, and the hypervolume over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mpisweep.progress import counted
from mpisweep.records import TrialState
from mpisweep.results.load import Sweep
from mpisweep.spec import nearest
from mpisweep.spec.units import number_text
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
    spans_decades,
    words,
)
from mpisweep.views.wording import at_budget, units

__all__ = ["Front", "draw_front", "draw_hypervolume", "front"]


@dataclass(frozen=True, slots=True)
class Front:
    """Two objectives of all complete trials with finite ones; arrays have one entry per trial."""

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
    trials = sweep.trials[(sweep.trials["state"] == TrialState.COMPLETE.label) & ~sweep.trials["diverged"]]
    if not len(trials):
        raise FigureError(
            f"{sweep.path}: no completed trial has finite objectives yet, there is nothing to draw"
        )
    numbers = trials["number"]
    values = {name: trials[sweep.metric_column(name)].astype(float) for name in (x, y)}
    entries = np.flatnonzero(np.isin(numbers, sweep.pareto()["number"]))
    signs = {objective.name: objective.sign for objective in sweep.objectives}
    costs = [signs[name] * values[name][entries] for name in (y, x)]
    baseline = None if sweep.baseline is None else np.flatnonzero(numbers == sweep.baseline["number"])
    return Front(
        x, y, values[x], values[y], numbers, entries[np.lexsort(costs)],
        int(baseline[0]) if baseline is not None and len(baseline) else None, len(names) == 2,
    )  # fmt: skip


def draw_front(sweep: Sweep, y: str | None = None, x: str | None = None) -> Figure:
    """Draw one objective over another, with the front and the trials behind it."""
    drawn = front(sweep, y, x)
    with mpl.rc_context(STYLE):
        figure = Figure()
        axes = figure.add_subplot()
        is_behind = np.ones(len(drawn.x), dtype=bool)
        is_behind[drawn.front] = False
        size = 4.5 if len(drawn.x) <= 150 else 2.5 if len(drawn.x) <= 1500 else 1.2
        if is_behind.any():
            axes.plot(
                drawn.x[is_behind], drawn.y[is_behind], "o", color=GREY, markersize=size, zorder=2,
                label=f"{counted(int(is_behind.sum()), 'trial')} behind it",
            )  # fmt: skip
        # In the order of the horizontal axis the front is a staircase, whatever the directions.
        line = "-" if drawn.is_whole else ""
        axes.plot(
            drawn.x[drawn.front], drawn.y[drawn.front], color=BLUE, marker="o", markersize=max(size, 3.5),
            linewidth=1.2, zorder=3, drawstyle="steps-post", linestyle=line,
            label=f"front: {counted(len(drawn.front), 'trial')}",
        )  # fmt: skip
        if drawn.baseline is not None:
            axes.plot(
                drawn.x[drawn.baseline], drawn.y[drawn.baseline], "s", color=ORANGE, markersize=8, zorder=4,
                markeredgecolor="white", markeredgewidth=0.8, label="baseline", linestyle="",
            )  # fmt: skip
        _axis(axes, "x", sweep, drawn)
        _axis(axes, "y", sweep, drawn)
        legend(figure, axes, covers=len(drawn.x) > 150)
        title = f"{sweep.name}: {words(drawn.y_name)} vs. {words(drawn.x_name)}{at_budget(sweep)}"
        if not drawn.is_whole:
            title += f", front of {len(sweep.objectives)} objectives"
        axes.set_title(title, loc="left", fontsize=11)
    return figure


def _axis(axes: Axes, which: str, sweep: Sweep, drawn: Front) -> None:
    name, values = (drawn.x_name, drawn.x) if which == "x" else (drawn.y_name, drawn.y)
    better = next(one.direction for one in sweep.objectives if one.name == name)
    text = f"{label(name, units(sweep, name))}, {better.value}"
    axes.set(**{f"{which}label": text})
    if spans_decades(values[drawn.front]) and values.min() > 0:
        axes.set(**{f"{which}scale": "log"})


def draw_hypervolume(sweep: Sweep, reference: Mapping[str, float] | None = None) -> Figure:
    """Draw the hypervolume over the time of the runs.

    Args:
        sweep: with several objectives.
        reference: as in :meth:`~mpisweep.results.load.Sweep.hypervolume`.

    Raises:
        FigureError: if no completed trial has finite objectives.
        ResultsError: as in :meth:`~mpisweep.results.load.Sweep.hypervolume`.
    """
    history = sweep.hypervolume(reference)
    if not len(history.time):
        raise FigureError(
            f"{sweep.path}: no completed trial has finite objectives yet, there is nothing to draw"
        )
    longest = float(history.time[-1])
    scale, unit = (3600.0, "h") if longest >= 7200 else (60.0, "min") if longest >= 300 else (1.0, "s")
    with mpl.rc_context(STYLE):
        figure = Figure()
        axes = figure.add_subplot()
        # Nothing is dominated before the first trial.
        time = np.concatenate([[0.0], history.time]) / scale
        volume = np.concatenate([[0.0], history.hypervolume])
        axes.plot(time, volume, color=GREEN, drawstyle="steps-post", linewidth=1.4)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"time of the runs [{unit}]")
        bounds = ", ".join(f"{plain(name)} {number_text(value)}" for name, value in history.reference.items())
        axes.set_ylabel("hypervolume")
        axes.set_title(f"{sweep.name}: hypervolume up to {bounds}", loc="left", fontsize=11)
    return figure
