"""All trials one after another, against the allocation: Figure 2."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from mpisweep.figures.style import BLUE, GREY, STYLE, FigureError
from mpisweep.progress import counted
from mpisweep.results.load import Sweep

__all__ = ["TotalTime", "draw_total_time", "total_time"]


@dataclass(frozen=True, slots=True)
class TotalTime:
    """What the trials took, and what the allocation took, in seconds."""

    trials_s: float
    #: The same, each trial counted as often as it has ranks.
    busy_s: float
    wall_s: float
    workers: int
    trials: int

    @property
    def speedup(self) -> float:
        """How many times faster than one trial after another."""
        return self.trials_s / self.wall_s

    @property
    def utilisation(self) -> float:
        """Share of the workers' time in which trials ran."""
        return self.busy_s / self.wall_s / self.workers


def total_time(sweep: Sweep) -> TotalTime:
    """Sum of all trials' wall times, against the wall time in the allocations.

    Raises:
        FigureError: when no trial has ended.
    """
    wall = sweep.trials["wall_time"]
    ended = np.isfinite(wall)
    if not ended.any():
        raise FigureError(f"{sweep.path}: no trial has ended yet, there is nothing to draw")
    wall_s, workers = 0.0, 0
    ends = sweep.trials["ended_at"]
    rows_of = sweep.workers["allocation"] if len(sweep.workers) else np.empty(0, int)
    for index, allocation in enumerate(sweep.allocations):
        own = ended & np.isin(sweep.trials["worker"], np.flatnonzero(rows_of == index))
        # A run that was killed has no end of its own: the last trial that it ended is the best there is.
        end = allocation["ended_at"] if np.isfinite(allocation["ended_at"]) else None
        if end is None and own.any():
            end = float(ends[own].max())
        if end is not None:
            wall_s += float(end - allocation["started_at"])
        workers = max(workers, int((rows_of == index).sum()))
    widths = np.ones(len(wall), dtype=int)
    last = sweep.ranks["attempt"] == sweep.trials["attempt"][sweep.ranks["trial"]]
    np.add.at(widths, sweep.ranks["trial"][last], 1)
    return TotalTime(float(wall[ended].sum()), float((wall * widths)[ended].sum()), max(wall_s, 1e-9), max(workers, 1), int(ended.sum()))


def draw_total_time(sweep: Sweep) -> Figure:
    """Two bars: the trials one after another, and the same in the allocation."""
    total = total_time(sweep)
    scale, unit = (60.0, "min") if total.trials_s >= 60 else (1.0, "s")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.8, 2.6))
        axes = figure.add_subplot()
        labels = (
            f"{counted(total.trials, 'trial')}\none after another",
            f"one allocation,\n{counted(total.workers, 'worker')}",
        )
        bars = axes.barh(labels, [total.trials_s / scale, total.wall_s / scale], color=[GREY, BLUE], height=0.6)
        axes.bar_label(bars, fmt=lambda value: f" {value:.3g} {unit}", padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.14)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"total execution time [{unit}]")
        axes.set_title(
            f"{sweep.name}: {total.speedup:.3g} times as fast, workers busy {100 * total.utilisation:.0f}%",
            loc="left", fontsize=11,
        )  # fmt: skip
    return figure
