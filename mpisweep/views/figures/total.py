"""Figure 2: the time of all trials one by one, as single jobs, and as allocations.

How long a single job would wait in the queue is what the user states, or else what this sweep's own jobs have
waited, which each run records (``/allocations/queue_wait``).
"""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from mpisweep.progress import counted
from mpisweep.results.load import Sweep
from mpisweep.results.occupancy import job_waits, time_in_runs
from mpisweep.spec.units import duration_text
from mpisweep.views.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    FigureError,
    SweepFigure,
    Width,
    legend,
    plain,
    style_of,
    time_unit,
    title,
)
from mpisweep.views.figures.ticks import finish, ticks_on

__all__ = ["Bar", "TotalTime", "bars", "draw_total_time", "total_time"]


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
    #: Ranks of all trials; of trials with one rank each, their number.
    ranks: int
    #: Mean wait of this sweep's own jobs in the queue; None if it is unknown.
    own_wait_s: float | None = None
    #: Time in which one of them waited while no run was active.
    waited_s: float = 0.0
    #: Number of jobs whose wait is known.
    measured_jobs: int = 0

    @property
    def speedup(self) -> float:
        """Ratio of the trials' total time to the wall time."""
        return self.trials_s / self.wall_s

    @property
    def utilisation(self) -> float:
        """Share of the workers' time spent on trials."""
        return self.busy_s / self.available_s

    @property
    def wait_sentence(self) -> str:
        """What is known of the wait of the sweep's own jobs, as a sentence; empty for nothing."""
        if self.own_wait_s is None:
            return ""
        jobs, mean = ("job", "") if self.measured_jobs == 1 else (f"{self.measured_jobs} jobs", " on average")
        return (
            f"Measured: this sweep's own {jobs} waited {duration_text(self.own_wait_s)} in the queue{mean}."
        )


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
    waits = job_waits(sweep.allocations, spans)
    measured = waits[np.isfinite(waits[:, 0]), 0]
    wall_s = float(time_in_runs(spans, np.array([np.inf]))[0])
    own_wait_s = float(measured.mean()) if len(measured) else None
    return TotalTime(
        trials_s=float(wall[ended].sum()),
        busy_s=float((wall * widths)[ended].sum()),
        wall_s=max(wall_s, 1e-9),
        available_s=max(float(lasted[sweep.workers["allocation"]].sum()), 1e-9),
        workers=max(sweep.most_workers, 1),
        # Runs of one job, e.g. after the loss of a node, share its allocation.
        allocations=len(waits) + int((sweep.allocations["job_id"] == "").sum()),
        trials=int(ended.sum()),
        ranks=int(widths[ended].sum()),
        own_wait_s=own_wait_s,
        waited_s=0.0 if own_wait_s is None else _waited(spans, waits, own_wait_s) - wall_s,
        measured_jobs=len(measured),
    )


def _waited(spans: NDArray[np.float64], waits: NDArray[np.float64], usual_s: float) -> float:
    """Time in which a job waited or a run was active, in seconds; jobs of unknown wait waited as usual."""
    length, start = waits.T
    before = np.stack([start - np.where(np.isfinite(length), length, usual_s), start], axis=1)
    return float(time_in_runs(np.concatenate([spans, before]), np.array([np.inf]))[0])


@dataclass(frozen=True, slots=True)
class Bar:
    """One way to run the trials: its name, and seconds of waiting in the queue and of running."""

    name: str
    waiting_s: float
    running_s: float

    @property
    def total_s(self) -> float:
        """From submission to the last result."""
        return self.waiting_s + self.running_s


def bars(total: TotalTime, queue_wait_s: float | None = None) -> list[Bar]:
    """The ways to run the trials.

    Args:
        total: of :func:`total_time`.
        queue_wait_s: how long each job waits in the queue; None for the measured wait of this sweep's own
            jobs.  If that is unknown, too, the single jobs are left out.
    """
    several = counted(total.allocations, "allocation")
    wait_s = total.own_wait_s if queue_wait_s is None else queue_wait_s
    waited_s = total.waited_s if queue_wait_s is None else total.allocations * queue_wait_s
    found = [Bar(f"{counted(total.trials, 'trial')} one by one", 0.0, total.trials_s)]
    if wait_s is not None:
        jobs = counted(total.trials, "single job")
        found.append(Bar(f"{jobs}, one after another", total.trials * wait_s, total.trials_s))
        if total.workers > 1:
            # The shortest time in which so many devices run them, each job waiting before it starts.
            found.append(
                Bar(
                    f"{jobs}, {total.workers} at a time",
                    total.ranks * wait_s / total.workers,
                    total.busy_s / total.workers,
                )
            )
    found.append(Bar(f"{several}, {counted(total.workers, 'worker')}", waited_s, total.wall_s))
    return found


def draw_total_time(sweep: Sweep, *, queue_wait_s: float | None = None, width: Width = "page") -> SweepFigure:
    """Draw the trials one by one, as single jobs if a wait is known, and as allocations.

    Args:
        sweep: from :func:`mpisweep.load`.
        queue_wait_s: how long each job waits in the queue, in seconds; None for the measured wait of this
            sweep's own jobs.
        width: ``column`` or ``page``.

    Raises:
        FigureError: if no trial has ended.
    """
    total = total_time(sweep)
    drawn = bars(total, queue_wait_s)
    wait_s, source = (total.own_wait_s, " (measured)") if queue_wait_s is None else (queue_wait_s, "")
    longest = max(bar.total_s for bar in drawn)
    scale, unit = time_unit(longest)
    with mpl.rc_context(style_of(width)):
        figure = SweepFigure(width, 32 + 11 * len(drawn))
        axes = figure.add_subplot()
        places = np.arange(len(drawn))
        running = np.array([bar.running_s for bar in drawn]) / scale
        waiting = np.array([bar.waiting_s for bar in drawn]) / scale
        colours = [*[GREY] * (len(drawn) - 1), BLUE]
        axes.barh(places, running, left=waiting, color=colours, height=0.62)
        if wait_s is not None:
            axes.barh(
                places, waiting, color="white", edgecolor=ORANGE, hatch="////", height=0.62, linewidth=0.8,
                label=f"in the queue, {duration_text(wait_s)} per job{source}",
            )  # fmt: skip
        for place, bar in enumerate(drawn):
            axes.annotate(
                f" {duration_text(bar.total_s)}", (bar.total_s / scale, place), va="center",
                fontsize=mpl.rcParams["legend.fontsize"],
            )  # fmt: skip
        axes.set_yticks(
            places, [bar.name.replace(", ", ",\n").replace(" one by", "\none by") for bar in drawn]
        )
        axes.set_xlim(0, 1.2 * longest / scale)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        ticks_on(axes, "x", "linear")
        axes.set_xlabel(f"total time [{unit}]")
        legend(figure, axes)
        title(figure, f"{plain(sweep.name)}: {_said(total)}")
        figure.note = total.wait_sentence
        figure.add_layer(
            "bars",
            {
                "name": [bar.name for bar in drawn],
                "waiting_s": [bar.waiting_s for bar in drawn],
                "running_s": [bar.running_s for bar in drawn],
            },
        )
        finish(figure)
    return figure


def _said(total: TotalTime) -> str:
    """The comparison in words; starting and ending cost more than very short trials take."""
    share = 100 * min(total.utilisation, 1.0)
    busy = f"workers busy {share:.0f}%" if share >= 1 else "workers busy below 1%"
    if total.speedup >= 1:
        return f"{total.speedup:.3g}x faster than one by one, {busy}"
    allocations = "allocation" if total.allocations == 1 else "allocations"
    return (
        f"the trials took {duration_text(total.trials_s)} in all, the {allocations} "
        f"{duration_text(total.wall_s)}, {busy}"
    )
