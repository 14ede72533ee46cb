"""The figure of two sweeps: the metric of each configuration in both, and its differences."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from mpisweep.results.load import Sweep
from mpisweep.results.pairing import paired
from mpisweep.views.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    STYLE,
    FigureError,
    label,
    legend,
    plain,
    positions,
    spans_decades,
    words,
)
from mpisweep.views.wording import units

__all__ = ["draw_paired"]


def draw_paired(a: Sweep, b: Sweep, metric: str | None = None) -> Figure:
    """Draw the differences of two sweeps over their one ordered parameter, else sorted by size.

    Args:
        a: the first sweep.
        b: the second one.
        metric: to compare; the objective of `a` unless given.

    Raises:
        FigureError: if no configuration has a value in both.
    """
    pairs = paired(a, b, metric)
    known = np.flatnonzero(np.isfinite(pairs.difference))
    if not len(known):
        raise FigureError(f"{a.path} and {b.path}: no configuration has a finite {pairs.metric} in both")
    names = pairs.parameters
    column = np.array([next(iter(pairs.configurations[row].values()), "") for row in known])
    is_ordered = len(names) == 1 and column.dtype.kind in "if"
    order = np.argsort(column if is_ordered else pairs.difference[known], kind="stable")
    rows = known[order]
    x = positions(column)[0][order] if is_ordered else np.arange(len(rows), dtype=float)
    with mpl.rc_context(STYLE):
        figure = Figure()
        axes = figure.add_subplot()
        axes.axhline(0.0, color=GREY, linewidth=1)
        axes.errorbar(
            x, pairs.difference[rows], yerr=np.nan_to_num(pairs.half_width[rows]), fmt="o", color=BLUE,
            markersize=3.5 if len(rows) <= 150 else 1.5, elinewidth=0.8, label="B - A of a configuration",
        )  # fmt: skip
        axes.axhline(pairs.change.mean, color=ORANGE, label="mean")
        if np.isfinite(pairs.change.low):
            axes.axhspan(pairs.change.low, pairs.change.high, color=ORANGE, alpha=0.25, label="95% interval")
        if is_ordered and spans_decades(x):
            axes.set_xscale("log")
        axes.set_xlabel(label(names[0], units(a, names[0])) if is_ordered else "configurations by difference")
        axes.set_ylabel(label(pairs.metric, units(a, pairs.metric)) + ", B - A")
        axes.set_title(
            f"{plain(b.path.name)} (B) minus {plain(a.path.name)} (A): {words(pairs.metric)}", fontsize=10
        )
        legend(figure, axes, covers=bool(np.isfinite(pairs.half_width[rows]).any()))
    return figure
