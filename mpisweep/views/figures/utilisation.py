"""Utilisation over time: what the workers were busy with, and why the others were idle."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np

from mpisweep.records import TrialState
from mpisweep.results.load import Sweep
from mpisweep.views.device_hours import slot_times
from mpisweep.views.figures.states import STATE_COLOURS
from mpisweep.views.figures.style import (
    GREY,
    ORANGE,
    SKY,
    FigureError,
    Floats,
    SweepFigure,
    Width,
    legend,
    plain,
    style_of,
    time_unit,
    title,
)
from mpisweep.views.figures.ticks import count_axis, finish, ticks_on

__all__ = ["PARTS", "Utilisation", "draw_utilisation", "utilisation"]

#: Parts into which the time is divided; each shows its mean.
PARTS = 400
#: Reason -> its colour; those of states are theirs.
_COLOURS = {
    "complete": STATE_COLOURS[TrialState.COMPLETE.label],
    "pruned": STATE_COLOURS[TrialState.PRUNED.label],
    "failed": STATE_COLOURS[TrialState.FAILED.label],
    "lost or interrupted": ORANGE,
    "idle: start-up": SKY,
    "idle: between trials": "#dddddd",
    "idle: no trial left": GREY,
}


@dataclass(frozen=True, slots=True)
class Utilisation:
    """Slots of workers by what they did, in parts of the time; a slot runs a trial at a time."""

    #: Start of each part in seconds since the first run began, and the end of the last; shape (parts + 1,).
    edges_s: Floats
    #: Reason -> mean number of slots in each part, shape (parts,).
    slots: dict[str, Floats]

    def share(self, reason: str) -> float:
        """Share of all time of all slots."""
        total = sum(float(counts.sum()) for counts in self.slots.values())
        return float(self.slots[reason].sum()) / total if total else 0.0


def utilisation(sweep: Sweep, parts: int = PARTS) -> Utilisation:
    """Compute what the workers did.

    A slot is in *start-up* from its run's start to its first trial, *between trials* after that, and has
    *no trial left* from the end of its last one until its run has ended.

    Raises:
        FigureError: if no attempt has ended.
    """
    start, end, slot, reason, joined, left, _ = slot_times(sweep)
    if not len(start):
        raise FigureError(f"{sweep.path}: no trial has ended yet, there is nothing to draw")
    origin = float(min(np.nanmin(sweep.spans[:, 0], initial=np.inf), start.min(), joined.min()))
    last = float(max(np.nanmax(sweep.spans[:, 1], initial=-np.inf), end.max()))
    edges = np.linspace(0.0, max(last - origin, 1e-9), parts + 1)
    found: dict[str, Floats] = {}
    for name in ("complete", "pruned", "failed", "lost or interrupted"):
        own = reason == name
        found[name] = _mean_count(start[own] - origin, end[own] - origin, edges)
    count = len(joined)
    first, final = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(first, slot, start)
    np.maximum.at(final, slot, end)
    used = np.isfinite(first)
    # A slot that never ran a trial waited for one all the time.
    found["idle: start-up"] = _mean_count(joined[used] - origin, first[used] - origin, edges)
    tail = _mean_count(final[used] - origin, left[used] - origin, edges)
    never = _mean_count(joined[~used] - origin, left[~used] - origin, edges)
    found["idle: no trial left"] = tail + never
    present = _mean_count(np.minimum(joined, first) - origin, np.maximum(left, final) - origin, edges)
    rest = present - sum(found.values(), np.zeros(parts))
    found["idle: between trials"] = np.maximum(rest, 0.0)
    return Utilisation(edges, {name: found[name] for name in _COLOURS})


def _mean_count(start: Floats, end: Floats, edges: Floats) -> Floats:
    """Mean number of spans in each part of the time."""
    start, end = np.minimum(start, end), end
    moments = np.concatenate([start, end])
    steps = np.concatenate([np.ones(len(start)), -np.ones(len(end))])
    order = np.argsort(moments, kind="stable")
    moments, counts = moments[order], np.cumsum(steps[order])
    # The area below the number of spans until each moment, at the edges.
    area = np.concatenate([[0.0], np.cumsum(np.diff(moments) * counts[:-1])]) if len(moments) else np.zeros(1)
    until = np.interp(edges, moments, area) if len(moments) else np.zeros(len(edges))
    mean: Floats = np.diff(until) / np.diff(edges)
    return mean


def draw_utilisation(sweep: Sweep, *, width: Width = "page") -> SweepFigure:
    """Draw the busy workers over time, with failures, and why the others were idle.

    Args:
        sweep: from :func:`mpisweep.load`.
        width: ``column`` or ``page``.

    Raises:
        FigureError: if no attempt has ended.
    """
    found = utilisation(sweep)
    scale, unit = time_unit(float(found.edges_s[-1]))
    shown = [name for name, counts in found.slots.items() if counts.max() > 1e-9]
    with mpl.rc_context(style_of(width)):
        figure = SweepFigure(width, 54 if width == "column" else 86)
        axes = figure.add_subplot()
        edges = found.edges_s / scale
        below = np.zeros(len(edges) - 1)
        for name in shown:
            above = below + found.slots[name]
            share = 100 * found.share(name)
            axes.stairs(
                above, edges, baseline=below, fill=True, color=_COLOURS[name], linewidth=0,
                label=f"{name}: {share:.0f}%" if share >= 0.95 else f"{name}: below 1%",
            )  # fmt: skip
            below = above
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0, 1.05 * max(float(below.max()), 1.0))
        ticks_on(axes, "x", "linear")
        axes.set_xlabel(f"time since the start [{unit}]")
        count_axis(axes, "y", "trials at a time")
        legend(figure, axes)
        busy = 100 * sum(found.share(name) for name in ("complete", "pruned", "failed"))
        text = f"busy {busy:.0f}% of the time" if busy >= 1 else "busy below 1% of the time"
        title(figure, f"{plain(sweep.name)}: workers {text}")
        figure.add_layer(
            "utilisation", {"from_s": found.edges_s[:-1], "to_s": found.edges_s[1:], **found.slots}
        )
        finish(figure)
    return figure
