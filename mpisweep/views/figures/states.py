"""Marks of how trials ended: failed, pruned, or complete without a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from mpisweep.records import TrialState
from mpisweep.results.trial_table import TrialTable
from mpisweep.views.figures.style import BLACK, BLUE, GREY, PURPLE, RED, Floats, dense, words
from mpisweep.views.figures.ticks import keep_above

__all__ = ["STATE_COLOURS", "Lane", "causes_text", "draw_lanes", "lanes_of", "of_state", "spread"]

#: State -> its colour in all figures; others are grey.
STATE_COLOURS = {
    TrialState.COMPLETE.label: BLUE,
    TrialState.PRUNED.label: PURPLE,
    TrialState.FAILED.label: RED,
}
#: Height of a lane as a share of the axes.
_LANE = 0.055
#: Marks in a lane above which they are thin lines.
_MANY = 150


class Lane(NamedTuple):
    """Trials without a value, by their places on the horizontal axis."""

    x: Floats
    colour: str
    marker: str
    text: str


def of_state(trials: TrialTable, state: TrialState) -> NDArray[np.bool_]:
    """Mask of the trials in a state."""
    found: NDArray[np.bool_] = trials["state"] == state.label
    return found


def causes_text(causes: Sequence[str]) -> str:
    """Causes of failures with their counts, in words."""
    names, counts = np.unique(np.asarray(causes, dtype=str), return_counts=True)
    return ", ".join(f"{count:,} {words(str(name))}" for name, count in zip(names, counts, strict=True))


def lanes_of(
    failed_x: Floats, causes: Sequence[str], without_x: Floats, without: str, pruned_x: Floats
) -> list[Lane]:
    """The lanes of failed trials, of those without a finite value, and of pruned ones."""
    lanes = [
        Lane(failed_x, RED, "x", f"failed: {causes_text(causes)}" if len(causes) else ""),
        Lane(without_x, BLACK, "+", f"{without}: {len(without_x):,}"),
        Lane(pruned_x, PURPLE, "v", f"pruned without a value: {len(pruned_x):,}"),
    ]
    return [lane for lane in lanes if len(lane.x)]


def draw_lanes(axes: Axes, lanes: Sequence[Lane], *, size: float = 5.0) -> None:
    """Draw the lanes at the bottom of the axes, below all data; the last step of an axes.

    Each lane has its own height, so that none hides another.
    """
    if not lanes:
        return
    share = _LANE * len(lanes) + 0.02
    _make_room(axes, share)
    axes.add_patch(
        Rectangle((0, 0), 1, share - 0.01, color=GREY, alpha=0.14, linewidth=0, transform=axes.transAxes)
    )
    for place, lane in enumerate(lanes):
        # Where there are many a thin line shows more places than a cross.
        marker: Any = "|" if len(lane.x) > _MANY else lane.marker
        axes.plot(
            lane.x, np.full(len(lane.x), _LANE * (place + 0.5) + 0.005), marker, color=lane.colour,
            markersize=size, markeredgewidth=0.9, fillstyle="none", zorder=4, label=lane.text,
            alpha=float(np.clip(400 / len(lane.x), 0.1, 1.0)), transform=axes.get_xaxis_transform(),
            rasterized=dense(len(lane.x)),
        )  # fmt: skip


def _make_room(axes: Axes, share: float) -> None:
    """Extend the vertical axis downwards, so that its lowest share is free and has no ticks."""
    low, high = axes.get_ylim()
    keep_above(axes, low)
    if axes.get_yscale() == "log":
        low, high = np.log([low, high])
        axes.set_ylim(np.exp(low - (high - low) * share / (1 - share)), np.exp(high))
    else:
        axes.set_ylim(low - (high - low) * share / (1 - share), high)


def spread(x: Floats, categories: Sequence[str]) -> Floats:
    """Places at which trials of one category lie side by side if there are more than a dozen."""
    if not categories or len(x) <= 12 * len(categories):
        return x
    # The golden ratio fills the width evenly, whatever the number.
    side: Floats = x + 0.7 * ((np.arange(len(x)) * 0.6180339887498949) % 1 - 0.5)
    return side
