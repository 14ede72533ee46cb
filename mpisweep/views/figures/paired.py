"""The figure of two sweeps: the difference of a metric for each configuration, and its mean."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np

from mpisweep.results.load import Sweep
from mpisweep.results.pairing import PairedSweeps
from mpisweep.views.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    FigureError,
    SweepFigure,
    Width,
    dense,
    label,
    legend,
    marker_size,
    plain,
    positions,
    spans_decades,
    style_of,
    title,
    words,
)
from mpisweep.views.figures.ticks import finish
from mpisweep.views.wording import units

__all__ = ["draw_paired"]


def draw_paired(pairs: PairedSweeps, a: Sweep, b: Sweep, *, width: Width = "page") -> SweepFigure:
    """Draw the differences of two sweeps over their one ordered parameter, else sorted by size.

    Args:
        pairs: their configurations, see :func:`mpisweep.results.pairing.paired`.
        a: the first sweep.
        b: the second one.
        width: of a column or a page.

    Raises:
        FigureError: if no configuration has a value in both.
    """
    known = np.flatnonzero(np.isfinite(pairs.difference))
    if not len(known):
        raise FigureError(f"{a.path} and {b.path}: no configuration has a finite {pairs.metric} in both")
    column = np.array([next(iter(pairs.configurations[row].values()), "") for row in known])
    is_ordered = len(pairs.parameters) == 1 and column.dtype.kind in "if"
    order = np.argsort(column if is_ordered else pairs.difference[known], kind="stable")
    rows = known[order]
    x = positions(column)[0][order] if is_ordered else np.arange(len(rows), dtype=float)
    half_width = np.nan_to_num(pairs.half_width[rows])
    with mpl.rc_context(style_of(width)):
        figure = SweepFigure(width)
        axes = figure.add_subplot()
        axes.axhline(0.0, color=GREY, linewidth=1)
        axes.errorbar(
            x, pairs.difference[rows], yerr=half_width, fmt="o", color=BLUE, elinewidth=0.8,
            markersize=marker_size(figure, len(rows)), rasterized=dense(len(rows)),
            label="B - A of a configuration",
        )  # fmt: skip
        axes.axhline(pairs.change.mean, color=ORANGE, label="mean")
        if np.isfinite(pairs.change.low):
            axes.axhspan(pairs.change.low, pairs.change.high, color=ORANGE, alpha=0.25, label="95% interval")
        if is_ordered and spans_decades(x):
            axes.set_xscale("log")
        name = pairs.parameters[0] if is_ordered else ""
        axes.set_xlabel(label(name, units(a, name)) if is_ordered else "configurations by difference")
        axes.set_ylabel(label(pairs.metric, units(a, pairs.metric)) + ", B - A")
        figure.add_layer(
            "configurations", {"x": x, "difference": pairs.difference[rows], "half_width": half_width}
        )
        title(figure, f"{plain(b.path.name)} (B) minus {plain(a.path.name)} (A): {words(pairs.metric)}")
        legend(figure, axes, covers=bool(half_width.any()))
        finish(figure)
    return figure
