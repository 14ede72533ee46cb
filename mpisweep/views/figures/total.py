"""Figure 2: the time of all trials one by one, against the wall time of the allocations."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from mpisweep.progress import counted
from mpisweep.results.load import Sweep
from mpisweep.views.figures.style import BLUE, GREY, STYLE, FigureError, Floats

__all__ = ["TotalTime", "draw_total_time", "total_time"]


@dataclass(frozen=True, slots=True)
class TotalTime:
    """Time of the trials and of the allocations, in seconds."""

    #: Sum of the trials' wall times.
    trials_s: float
    #: The same, each trial multiplied by its number of ranks.
    busy_s: float
    #: Time in which at least one run was active.
    wall_s: float
    #: Sum over all workers of their runs' wall times.
    available_s: float
    workers: int
    allocations: int
    trials: int

    @property
    def speedup(self) -> float:
        """Ratio of the trials' total time to the wall time."""
        return self.trials_s / self.wall_s

    @property
    def utilisation(self) -> float:
        """Share of the workers' time spent on trials."""
        return self.busy_s / self.available_s


def total_time(sweep: Sweep) -> TotalTime:
    """Compute the time of all trials, of the allocations, and of their workers.

    Raises:
        FigureError: if no trial has ended.
    """
    wall = sweep.trials["wall_time"]
    ended = np.isfinite(wall)
    if not ended.any():
        raise FigureError(f"{sweep.path}: no trial has ended yet, there is nothing to draw")
    spans = sweep.spans
    known = np.isfinite(spans).all(axis=1)
    lasted = np.where(known, spans[:, 1] - spans[:, 0], 0.0)
    widths = np.ones(len(wall), dtype=int)
    np.add.at(widths, sweep.last_ranks["trial"], 1)
    return TotalTime(
        trials_s=float(wall[ended].sum()),
        busy_s=float((wall * widths)[ended].sum()),
        wall_s=max(_covered(spans[known]), 1e-9),
        available_s=max(float(lasted[sweep.workers["allocation"]].sum()), 1e-9),
        workers=max(sweep.most_workers, 1),
        allocations=len(spans),
        trials=int(ended.sum()),
    )


def _covered(spans: Floats) -> float:
    """Length of the union of some spans of time."""
    total, until = 0.0, -np.inf
    for start, end in sorted(spans.tolist()):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def draw_total_time(sweep: Sweep) -> Figure:
    """Draw two bars: the trials one by one, and the wall time of the allocations."""
    total = total_time(sweep)
    scale, unit = (60.0, "min") if total.trials_s >= 60 else (1.0, "s")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.8, 2.6))
        axes = figure.add_subplot()
        labels = (
            f"{counted(total.trials, 'trial')}\none by one",
            f"{counted(total.allocations, 'allocation')},\n{counted(total.workers, 'worker')}",
        )
        bars = axes.barh(
            labels, [total.trials_s / scale, total.wall_s / scale], color=[GREY, BLUE], height=0.6
        )
        axes.bar_label(bars, fmt=lambda value: f" {value:.3g} {unit}", padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.18)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"total execution time [{unit}]")
        axes.set_title(
            f"{sweep.name}: {total.speedup:.3g}x faster than one by one, workers busy "
            f"{100 * total.utilisation:.0f}%",
            loc="left",
            fontsize=11,
        )
    return figure
