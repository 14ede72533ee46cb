"""History of the best: how fast one sweep, or each of several, found good configurations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mpisweep.records import Direction, TrialState
from mpisweep.results.load import Sweep
from mpisweep.results.occupancy import time_in_runs
from mpisweep.spec.units import number_text
from mpisweep.views.figures.series import numeric_metric
from mpisweep.views.figures.states import draw_lanes, lanes_of, of_state
from mpisweep.views.figures.style import (
    BLACK,
    BLUE,
    BROWN,
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
    marker_size,
    plain,
    style_of,
    time_unit,
    title,
    words,
)
from mpisweep.views.figures.ticks import count_axis, finish, metric_axis, ticks_on

__all__ = ["History", "draw_history", "history"]

Over = Literal["trials", "time"]

#: Colour and dashes of the lines of several sweeps.
_LINES: tuple[tuple[str, Any], ...] = (
    (BLUE, "-"), (ORANGE, (0, (5, 2))), (GREEN, (0, (2, 1))), (PURPLE, (0, (5, 1, 1, 1))),
    (BLACK, (0, (1, 1))), (BROWN, (0, (8, 2))),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class History:
    """The ended trials of a sweep in the order of their ends; arrays of shape (ended,)."""

    numbers: NDArray[np.int64]
    states: NDArray[Any]
    causes: NDArray[Any]
    #: The objective; NaN without a finite value.
    values: Floats
    #: Time of the runs at each end, in seconds.
    times_s: Floats
    #: The best of the complete trials so far; NaN before the first.
    best: Floats
    #: Entries of the best trials, the best first.
    top: NDArray[np.int64]


def history(sweep: Sweep, metric: str | None = None, *, k: int = 5) -> History:
    """Compute the history of the best.

    Args:
        sweep: from :func:`mpisweep.load`.
        metric: one of the objectives; the first one unless given.
        k: number of best trials.

    Raises:
        FigureError: if no trial has ended.
        KeyError: if the sweep has no such objective.
    """
    name = metric or sweep.objective
    known = {one.name: one.direction for one in sweep.objectives}
    if name not in known:
        raise KeyError(f"no objective {name!r}; the sweep has {', '.join(known)}")
    trials = sweep.trials
    ended = np.isfinite(trials["ended_at"])
    for state in (TrialState.WAITING, TrialState.RUNNING, TrialState.INFEASIBLE):
        ended &= ~of_state(trials, state)
    rows = np.flatnonzero(ended)
    if not len(rows):
        raise FigureError(f"{sweep.path}: no trial has ended yet, there is nothing to draw")
    # Files of earlier versions do not say in which order the ends were recorded.
    order = np.lexsort((trials["end_order"][rows], trials["ended_at"][rows]))
    rows = rows[order]
    values = numeric_metric(sweep, name)[rows] if name in sweep.metrics else np.full(len(rows), np.nan)
    values = np.where(np.isfinite(values), values, np.nan)
    sign = 1.0 if known[name] is Direction.MINIMIZE else -1.0
    costs = np.where(of_state(trials, TrialState.COMPLETE)[rows], sign * values, np.nan)
    so_far = np.fmin.accumulate(costs)
    ranked = np.argsort(costs, kind="stable")[: min(k, int(np.isfinite(costs).sum()))]
    return History(
        numbers=trials["number"][rows],
        states=trials["state"][rows],
        causes=trials["cause"][rows],
        values=values,
        times_s=time_in_runs(sweep.spans, trials["ended_at"][rows]),
        best=sign * so_far,
        top=ranked,
    )


def draw_history(
    sweeps: Sequence[Sweep],
    metric: str | None = None,
    *,
    over: Over = "trials",
    k: int = 5,
    width: Width = "page",
) -> SweepFigure:
    """Draw the best so far over the trials that have ended, or over the time of the runs.

    Args:
        sweeps: one, of which all trials are drawn too, or several.
        metric: one of the objectives; the first one unless given.
        over: the axis.
        k: number of best trials that are marked.
        width: ``column`` or ``page``.

    Raises:
        FigureError: if no trial has ended.
        KeyError: if a sweep has no such objective.
    """
    found = [history(sweep, metric, k=k) for sweep in sweeps]
    name = metric or sweeps[0].objective
    longest = max(float(one.times_s.max()) for one in found)
    scale, unit = time_unit(longest)
    places = [one.times_s / scale if over == "time" else np.arange(1.0, len(one.values) + 1) for one in found]
    with mpl.rc_context(style_of(width)):
        figure = SweepFigure(width)
        axes = figure.add_subplot()
        for index, (sweep, one, x) in enumerate(zip(sweeps, found, places, strict=True)):
            if len(found) == 1:
                _all_trials(figure, axes, one, x)
            _staircase(figure, axes, sweep, one, x, index, len(found))
            _note(figure, sweep, one, name, len(found))
        values = np.concatenate([one.values if len(found) == 1 else one.best for one in found])
        metric_axis(axes, "y", sweeps[0], name, values)
        if over == "time":
            axes.set_xlabel(f"time of the runs [{unit}]")
            ticks_on(axes, "x", "linear")
        else:
            count_axis(axes, "x", "ended trials")
        if len(found) == 1:
            _mark_best(figure, axes, found[0], places[0])
            _without_values(figure, axes, found[0], places[0], name)
        if not np.isfinite(values).any():
            axes.set_yticks([])
        legend(figure, axes)
        text = f"{plain(sweeps[0].name)}: " if len(sweeps) == 1 else ""
        title(figure, f"{text}best {words(name)} so far")
        finish(figure)
    return figure


def _all_trials(figure: SweepFigure, axes: Axes, one: History, x: Floats) -> None:
    """Draw the trials with a value behind the line of the best."""
    complete = one.states == TrialState.COMPLETE.label
    size = marker_size(figure, len(x))
    for mask, colour, marker, fill, text in (
        (complete, GREY, "o", "full", "complete"),
        (one.states == TrialState.PRUNED.label, PURPLE, "v", "none", "pruned, last report"),
    ):
        own = mask & np.isfinite(one.values)
        if own.any():
            count = int(own.sum())
            axes.plot(
                x[own], one.values[own], marker, color=colour, zorder=2, fillstyle=fill,
                markersize=size if fill == "full" else max(1.3 * size, 1.6),
                markeredgewidth=0 if fill == "full" else 0.6, rasterized=dense(count),
                alpha=float(np.clip(3000 / count, 0.3, 1.0)), label=f"{text}: {count:,}",
            )  # fmt: skip


def _staircase(
    figure: SweepFigure, axes: Axes, sweep: Sweep, one: History, x: Floats, index: int, count: int
) -> None:
    """Draw the best so far, with corners only where it changes."""
    known = np.flatnonzero(np.isfinite(one.best))
    if not len(known):
        return
    corner = np.unique([*known[np.flatnonzero(np.diff(one.best[known], prepend=np.nan))], known[-1]])
    colour, dashes = _LINES[index % len(_LINES)] if count > 1 else (GREEN, "-")
    text = f"{plain(sweep.name)}, {plain(sweep.path.name)}" if count > 1 else "best so far"
    text += f": {number_text(float(one.best[-1]))}" if count > 1 else ""
    axes.plot(
        x[corner], one.best[corner], color=colour, linestyle=dashes, zorder=4, label=text,
        linewidth=1.1 if figure.is_narrow else 1.5, drawstyle="steps-post",
    )  # fmt: skip


def _mark_best(figure: SweepFigure, axes: Axes, one: History, x: Floats) -> None:
    """Mark the best trial with a star and the next ones with rings."""
    big = 9 if figure.is_narrow else 13
    if len(others := one.top[1:]):
        axes.plot(
            x[others], one.values[others], "o", color=GREEN, fillstyle="none", markersize=0.5 * big, zorder=5,
            markeredgewidth=1.0, label=f"next {len(others)} best",
        )  # fmt: skip
    if len(one.top):
        best = int(one.top[0])
        axes.plot(
            [x[best]], [one.values[best]], "*", color=GREEN, markersize=big, markeredgecolor="white",
            markeredgewidth=0.8, zorder=6,
            label=f"best: trial {one.numbers[best]}, {number_text(float(one.values[best]))}",
        )  # fmt: skip


def _without_values(figure: SweepFigure, axes: Axes, one: History, x: Floats, name: str) -> None:
    failed = one.states == TrialState.FAILED.label
    without = ~np.isfinite(one.values)
    draw_lanes(
        axes,
        lanes_of(
            x[failed],
            one.causes[failed].tolist(),
            x[without & (one.states == TrialState.COMPLETE.label)],
            f"no finite {words(name)}",
            x[without & (one.states == TrialState.PRUNED.label)],
        ),
        size=4.0 if figure.is_narrow else 5.0,
    )


def _note(figure: SweepFigure, sweep: Sweep, one: History, name: str, count: int) -> None:
    figure.add_layer(
        "history" if count == 1 else f"history of {sweep.path}",
        {
            "number": one.numbers,
            "ended": np.arange(1, len(one.numbers) + 1),
            "time_s": one.times_s,
            "state": one.states,
            name: one.values,
            "best": one.best,
        },
    )
