"""Figure of speedup and efficiency vs. the number of ranks."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from mpisweep.results.load import Sweep
from mpisweep.views.figures.style import BLUE, GREEN, GREY, ORANGE, RED, STYLE, words
from mpisweep.views.scaling import default_metric, scaling

__all__ = ["draw_scaling"]

#: Maximum number of configurations with their own colours and labels.
_CURVES_LABELLED = 6


def draw_scaling(sweep: Sweep, metric: str | None = None) -> Figure:
    """Draw speedup (left) and efficiency (right) vs. ranks per trial, with the ideal dashed.

    Args:
        sweep: from :func:`mpisweep.load`.
        metric: a rate or a duration; default :func:`mpisweep.views.scaling.default_metric`.

    Raises:
        KeyError: if there is no such metric.
        ResultsError: if there is nothing to compare.
    """
    metric = metric or default_metric(sweep)
    curves = scaling(sweep, metric)
    ticks = sorted({int(ranks) for curve in curves for ranks in curve.ranks})
    few = len(curves) <= _CURVES_LABELLED
    colours = [BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.8, 3.4))
        left, right = figure.subplots(1, 2)
        for index, curve in enumerate(curves):
            style: Any = {
                "color": colours[index] if few else BLUE,
                "marker": "o",
                "markersize": 4.5,
                "linewidth": 1.2,
            }
            style |= {"label": words(curve.label) or "trials"} if few else {"alpha": 0.4}
            left.plot(curve.ranks, curve.speedup, **style)
            right.plot(curve.ranks, 100 * curve.efficiency, **style)
        fewest = min(int(curve.ranks[0]) for curve in curves)
        left.plot(
            ticks, [ranks / fewest for ranks in ticks], "--", color=GREY, linewidth=1, label="ideal", zorder=1
        )
        right.axhline(100, linestyle="--", color=GREY, linewidth=1, zorder=1)
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
            axes.set_xlabel("ranks per trial")
        left.set_yscale("log", base=2)
        left.yaxis.set_major_formatter("{x:g}")
        left.set_ylabel(f"speedup ({words(metric)})")
        right.set_ylabel("efficiency [%]")
        right.set_ylim(0, max(105, 105 * max(float(curve.efficiency.max()) for curve in curves)))
        left.legend(loc="best", fontsize=8)
        figure.suptitle(f"{sweep.name}: scaling with ranks per trial", x=0.01, ha="left", fontsize=11)
    return figure
