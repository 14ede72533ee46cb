"""The figures of the page that are not among mpisweep's own."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import poster
from comparing import Comparison, Runs, budget_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mpisweep.views.figures.style import BLUE, GREEN, GREY, ORANGE, STYLE

__all__ = ["draw_budgets", "draw_figure_1"]


def draw_figure_1(runs: Runs, found: Comparison, losses: np.ndarray, baseline: int) -> Figure:
    """Loss vs. batch size with every run, and beside it what the poster's Table 1 has of its Figure 1."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.0))
        ours, theirs = figure.subplots(1, 2, width_ratios=(2.1, 1))
        ours.plot(runs.size, losses, "o", color=GREY, markersize=3.5, label="single runs", zorder=2)
        drawn = _sizes(ours, found, baseline)
        ours.set_xlabel("batch size [images]")
        ours.set_ylabel("mean loss")
        _log_if_wide(ours, np.concatenate([losses, drawn]))
        ours.set_title(f"this sweep, {budget_text(found.budget)}", loc="left", fontsize=11)
        ours.legend(loc="best", fontsize=8)
        rows = poster.TABLE_1
        theirs.plot(
            [row.batch_size for row in rows], [row.loss for row in rows], "o", color=BLUE, label="best five"
        )
        theirs.plot(
            poster.BEST.batch_size, poster.BEST.loss, "*", color=GREEN, markersize=13,
            label=f"best: {poster.BEST.batch_size}",
        )  # fmt: skip
        theirs.plot(
            poster.DEFAULT.batch_size, poster.DEFAULT.loss, "s", color=ORANGE, markersize=8,
            label=f"default: {poster.DEFAULT.batch_size}",
        )  # fmt: skip
        theirs.set_xlabel("batch size [images]")
        theirs.set_ylabel("loss")
        theirs.set_title("the poster's Table 1", loc="left", fontsize=11)
        theirs.legend(loc="upper left", fontsize=8)
    return figure


def draw_budgets(compared: list[Comparison], baseline: int) -> Figure:
    """Loss vs. batch size, one panel per budget."""
    with mpl.rc_context(STYLE):
        columns = min(3, len(compared))
        rows = -(-len(compared) // columns)
        figure = Figure(figsize=(3.3 * columns, 2.9 * rows + 0.4))
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
        for axes, found in zip(panels, compared, strict=False):
            axes.tick_params(labelbottom=True)
            _log_if_wide(axes, _sizes(axes, found, baseline))
            axes.set_title(f"after {budget_text(found.budget)}", loc="left", fontsize=10)
            axes.set_xlabel("batch size [images]")
            axes.set_ylabel("mean loss")
        handles, labels = panels[0].get_legend_handles_labels()
        # "best: 32" holds for one panel only.
        names = [label.partition(":")[0] for label in labels]
        for axes in panels[len(compared) :]:
            axes.set_axis_off()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=9)
    return figure


def _sizes(axes: Axes, found: Comparison, baseline: int) -> np.ndarray:
    """Draw means and intervals; returns all heights."""
    # Below two runs there is no interval.
    half = np.nan_to_num(found.half_width)
    # The interval is symmetric in the logarithm.
    below, above = found.mean * (1 - np.exp(-half)), found.mean * (np.exp(half) - 1)
    for alike, colour, name in ((False, GREY, "told apart from the best"), (True, BLUE, "not told apart")):
        own = found.alike == alike
        if own.any():
            axes.errorbar(
                found.size[own], found.mean[own], [below[own], above[own]], fmt="o", color=colour,
                markersize=4.5, linewidth=1, capsize=2, label=name, zorder=3,
            )  # fmt: skip
    axes.plot(
        found.size[found.best], found.mean[found.best], "*", color=GREEN, markersize=13, zorder=5,
        markeredgecolor="white", label=f"best: {found.size[found.best]}",
    )  # fmt: skip
    entry = found.entry(baseline)
    if entry is not None:
        axes.plot(
            baseline, found.mean[entry], "s", color=ORANGE, markersize=7, zorder=4,
            markeredgecolor="white", label=f"default: {baseline}",
        )  # fmt: skip
    return np.concatenate([found.mean - below, found.mean + above])


def _log_if_wide(axes: Axes, values: np.ndarray) -> None:
    """A logarithmic axis with plain numbers, if the values span a factor of 3 or more."""
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0 and finite.max() / finite.min() > 3:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
