"""Timeline of the trials on each worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from mpisweep.results.load import Sweep
from mpisweep.views.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    STYLE,
    FigureError,
    Floats,
)

__all__ = ["Spans", "draw_timeline", "spans"]

#: Maximum number of workers whose rows have labels.
ROWS_LABELLED = 40


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of trials on workers, one array entry per rank of each trial.

    Times are in seconds since the first start.
    """

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
        worker=row_of[worker],
        start_s=trials["started_at"][drawn] - origin,
        end_s=end,
        state=trials["state"][drawn],
        labels=tuple(f"rank {w['rank']}, {w['device']}" for w in workers[order]),
        utilisation=np.nan_to_num(workers["busy_time"] / np.maximum(lasted, 1e-9))[order],
        allocations_s=np.sort(started[np.isfinite(started)]) - origin,
        total_s=float(np.nanmax(np.append(end, closed - origin))),
    )


def draw_timeline(sweep: Sweep) -> Figure:
    """Draw one row per worker and one box per trial; gaps are idle time."""
    drawn = spans(sweep)
    rows = len(drawn.labels)
    scale, unit = (60.0, "min") if drawn.total_s >= 300 else (1.0, "s")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.8, min(9.0, 1.6 + 0.42 * rows)))
        axes = figure.add_subplot()
        colours = {"complete": BLUE, "pruned": ORANGE, "failed": RED}
        for state in sorted(set(drawn.state)):
            own = drawn.state == state
            axes.add_collection(_boxes(drawn, own, scale, colours.get(str(state), GREY)))
        for start in drawn.allocations_s[1:]:
            axes.axvline(start / scale, color="black", linewidth=0.8, linestyle=":")
        axes.set_xlim(0, drawn.total_s / scale)
        axes.set_ylim(rows - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"time since the start [{unit}]")
        if rows <= ROWS_LABELLED:
            axes.set_yticks(range(rows), drawn.labels)
            for row, share in enumerate(drawn.utilisation):
                axes.annotate(
                    f"{100 * min(share, 1.0):.0f}%", (1.01, row), xycoords=("axes fraction", "data"),
                    va="center", fontsize=8,
                )  # fmt: skip
        else:
            axes.set_ylabel("worker")
        mean = 100 * float(np.mean(np.minimum(drawn.utilisation, 1.0)))
        axes.set_title(f"{sweep.name}: workers busy {mean:.0f}% of the time", loc="left", fontsize=11)
        handles: list[Any] = [
            Patch(color=colours.get(str(s), GREY), label=str(s)) for s in sorted(set(drawn.state))
        ]
        if len(drawn.allocations_s) > 1:
            handles.append(
                Line2D([], [], color="black", linewidth=0.8, linestyle=":", label="new allocation")
            )
        figure.legend(handles=handles, loc="outside lower right", ncols=len(handles), fontsize=8)
    return figure


def _boxes(drawn: Spans, own: NDArray[Any], scale: float, colour: str) -> PolyCollection:
    left, right = drawn.start_s[own] / scale, drawn.end_s[own] / scale
    # A box is at least as wide as a line.
    right = np.maximum(right, left + drawn.total_s / scale / 700)
    low, high = drawn.worker[own] - 0.36, drawn.worker[own] + 0.36
    corners = np.stack([left, low, left, high, right, high, right, low], axis=1).reshape(-1, 4, 2)
    few = len(corners) <= 2000 and np.median(right - left) > drawn.total_s / scale / 200
    return PolyCollection(
        list(corners), facecolors=colour, edgecolors="white" if few else "none", linewidths=0.5 if few else 0
    )
