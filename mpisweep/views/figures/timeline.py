"""Timeline of the trials on each worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from mpisweep.records import TrialState
from mpisweep.results.load import Sweep
from mpisweep.views.figures.states import STATE_COLOURS
from mpisweep.views.figures.style import (
    GREY,
    RED,
    FigureError,
    Floats,
    SweepFigure,
    Width,
    dense,
    legend,
    plain,
    style_of,
    time_unit,
    title,
)
from mpisweep.views.figures.ticks import count_axis, finish, ticks_on

__all__ = ["Spans", "draw_timeline", "spans"]

#: Maximum number of workers whose rows have labels.
ROWS_LABELLED = 40
#: Parts of the time axis in which a picture of many trials has its own mixture of colours.
_PARTS = 1200


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of trials on workers, one array entry per rank of each trial.

    Times are in seconds since the first start.
    """

    #: Number of the trial.
    number: NDArray[np.int64]
    #: Index into `labels`, which are ordered by allocation and rank.
    worker: NDArray[np.int64]
    start_s: Floats
    end_s: Floats
    state: NDArray[Any]
    labels: tuple[str, ...]
    #: Worker -> share of its allocation's time spent on trials.
    utilisation: Floats
    #: Start of each allocation.
    allocations_s: Floats
    total_s: float


def spans(sweep: Sweep) -> Spans:
    """Compute the spans of all ended trials.

    Raises:
        FigureError: if no trial has ended.
    """
    trials = sweep.trials
    timed = np.isfinite(trials["ended_at"]) & (trials["worker"] >= 0)
    if not timed.any():
        raise FigureError(f"{sweep.path}: no trial has ended yet, there is nothing to draw")
    others = sweep.last_ranks
    others = others[timed[others["trial"]] & (others["worker"] >= 0)]
    drawn = np.concatenate([np.flatnonzero(timed), others["trial"]])
    worker = np.concatenate([trials["worker"][timed], others["worker"]])
    workers = sweep.workers
    order = np.lexsort((workers["rank"], workers["allocation"]))
    row_of = np.argsort(order)
    started, closed = sweep.spans.T
    origin = float(np.nanmin(np.append(started, trials["started_at"][timed])))
    end = trials["ended_at"][drawn] - origin
    lasted = (closed - started)[workers["allocation"]]
    return Spans(
        number=trials["number"][drawn],
        worker=row_of[worker],
        start_s=trials["started_at"][drawn] - origin,
        end_s=end,
        state=trials["state"][drawn],
        labels=tuple(f"rank {w['rank']}, {w['device']}" for w in workers[order]),
        utilisation=np.nan_to_num(workers["busy_time"] / np.maximum(lasted, 1e-9))[order],
        allocations_s=np.sort(started[np.isfinite(started)]) - origin,
        total_s=float(np.nanmax(np.append(end, closed - origin))),
    )


def draw_timeline(sweep: Sweep, *, width: Width = "page") -> SweepFigure:
    """Draw one row per worker and one box per trial; gaps are idle time.

    Args:
        sweep: from :func:`mpisweep.load`.
        width: ``column`` or ``page``.

    Raises:
        FigureError: if no trial has ended.
    """
    drawn = spans(sweep)
    rows = len(drawn.labels)
    scale, unit = time_unit(drawn.total_s)
    states = [s.label for s in TrialState if s.label in set(drawn.state.tolist())]
    with mpl.rc_context(style_of(width)):
        small = float(mpl.rcParams["legend.fontsize"])
        row_mm = 0.6 * small if rows <= ROWS_LABELLED else 24 * small / rows
        figure = SweepFigure(width, 30 + max(row_mm * rows, 12))
        axes = figure.add_subplot()
        figure.add_layer(
            "trials",
            {
                "number": drawn.number,
                "worker": np.array(drawn.labels)[drawn.worker],
                "start_s": drawn.start_s,
                "end_s": drawn.end_s,
                "state": drawn.state,
            },
        )
        handles: list[Any] = [Patch(color=STATE_COLOURS.get(s, GREY), label=s) for s in states]
        if len(drawn.number) > 1500:
            _picture(axes, drawn, states, scale)
        else:
            for state in states:
                own = drawn.state == state
                axes.add_collection(_boxes(drawn, own, scale, STATE_COLOURS.get(state, GREY)))
        handles += _short_failures(axes, drawn, scale)
        for start in drawn.allocations_s[1:]:
            axes.axvline(start / scale, color="black", linewidth=0.8, linestyle=":")
        if len(drawn.allocations_s) > 1:
            handles.append(
                Line2D([], [], color="black", linewidth=0.8, linestyle=":", label="new allocation")
            )
        axes.set_xlim(0, drawn.total_s / scale)
        ticks_on(axes, "x", "linear")
        axes.set_xlabel(f"time since the start [{unit}]")
        _rows(axes, drawn, small)
        mean = 100 * float(np.mean(np.minimum(drawn.utilisation, 1.0)))
        share = f"{mean:.0f}%" if mean >= 1 else "below 1%"
        title(figure, f"{plain(sweep.name)}: workers busy {share} of the time")
        legend(figure, axes, handles=handles)
        finish(figure)
    return figure


def _rows(axes: Axes, drawn: Spans, small: float) -> None:
    """Label the rows, with the share of the time in which each worker was busy."""
    rows = len(drawn.labels)
    axes.grid(axis="y", visible=False)
    if rows > ROWS_LABELLED:
        count_axis(axes, "y", "worker")
        axes.set_ylim(rows - 0.5, -0.5)
        return
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_yticks(range(rows), drawn.labels, fontsize=max(small, 6))
    for row, share in enumerate(drawn.utilisation):
        axes.annotate(
            f"{100 * min(share, 1.0):.0f}%", (1.01, row), xycoords=("axes fraction", "data"), va="center",
            fontsize=max(small, 6),
        )  # fmt: skip


def _boxes(drawn: Spans, own: NDArray[np.bool_], scale: float, colour: str) -> PolyCollection:
    left, right = drawn.start_s[own] / scale, drawn.end_s[own] / scale
    low, high = drawn.worker[own] - 0.36, drawn.worker[own] + 0.36
    corners = np.stack([left, low, left, high, right, high, right, low], axis=1).reshape(-1, 4, 2)
    few = np.median(right - left) > drawn.total_s / scale / 60
    return PolyCollection(
        list(corners), facecolors=colour, edgecolors="white" if few else "none", linewidths=0.4 if few else 0
    )


def _short_failures(axes: Axes, drawn: Spans, scale: float) -> list[Line2D]:
    """Mark failures that are too short for a visible box; a wider one would be untrue."""
    is_short = drawn.end_s - drawn.start_s < drawn.total_s / 400
    own = np.flatnonzero((drawn.state == TrialState.FAILED.label) & is_short)
    if not len(own):
        return []
    # One mark stands for all that it would cover.
    many = len(drawn.labels) > ROWS_LABELLED / 2
    part = (drawn.start_s[own] / drawn.total_s * (60 if many else 120)).astype(int)
    _, first = np.unique(drawn.worker[own] * 1000 + part, return_index=True)
    own = own[first]
    return axes.plot(
        drawn.start_s[own] / scale, drawn.worker[own], "x", color=RED, markersize=2.0 if many else 3.5,
        markeredgewidth=0.5 if many else 0.8, zorder=4, label="failed at once", rasterized=dense(len(own)),
    )  # fmt: skip


def _picture(axes: Axes, drawn: Spans, states: list[str], scale: float) -> None:
    """Draw many trials as an image; its colours are mixed by the shares of time."""
    rows = len(drawn.labels)
    image = np.ones((rows, _PARTS, 3))
    for state in states:
        own = drawn.state == state
        busy = np.zeros((rows, _PARTS))
        _add_shares(
            busy, drawn.worker[own], *(t[own] / drawn.total_s * _PARTS for t in (drawn.start_s, drawn.end_s))
        )
        colour = np.array(mpl.colors.to_rgb(STATE_COLOURS.get(state, GREY)))
        image -= np.minimum(busy, 1.0)[..., None] * (1 - colour)
    tall = np.zeros((5 * rows, _PARTS, 3)) + 1.0
    for line in range(1 if rows <= ROWS_LABELLED else 0, 4 if rows <= ROWS_LABELLED else 5):
        tall[line::5] = image
    axes.imshow(
        np.clip(tall, 0, 1), extent=(0, drawn.total_s / scale, rows - 0.5, -0.5), aspect="auto",
        interpolation="nearest", zorder=2,
    )  # fmt: skip


def _add_shares(busy: Floats, rows: NDArray[np.int64], start: Floats, end: Floats) -> None:
    """Add to each part of each row the share that spans from `start` to `end` take of it."""
    parts = busy.shape[1]
    # The time until a moment is piecewise linear, so its differences are the shares.
    slopes = np.zeros((len(busy), parts + 2))
    for at, sign in ((np.clip(start, 0, parts), 1.0), (np.clip(end, 0, parts), -1.0)):
        whole = np.floor(at).astype(int)
        np.add.at(slopes, (rows, whole), sign * (1 - (at - whole)))
        np.add.at(slopes, (rows, whole + 1), sign * (at - whole))
    busy += np.cumsum(slopes, axis=1)[:, :parts]
