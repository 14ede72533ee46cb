"""Figure of speedup and efficiency vs. the number of ranks."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import FixedFormatter, FixedLocator

from mpisweep.results.load import Sweep
from mpisweep.views.figures.style import (
    BLACK,
    BLUE,
    BROWN,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SweepFigure,
    Width,
    legend,
    plain,
    style_of,
    title,
    words,
)
from mpisweep.views.figures.ticks import finish, ticks_on
from mpisweep.views.scaling import ScalingCurve, default_metric, scaling

__all__ = ["draw_scaling"]

#: Colour, marker and dashes of configurations with labels of their own: lines on top of each other differ.
_STYLES: tuple[tuple[str, str, Any], ...] = (
    (BLUE, "o", "-"), (ORANGE, "s", (0, (5, 2))), (GREEN, "^", (0, (2, 1))), (PURPLE, "D", (0, (5, 1, 1, 1))),
    (BLACK, "v", (0, (1, 1))), (BROWN, "P", (0, (8, 2))),
)  # fmt: skip


def draw_scaling(sweep: Sweep, metric: str | None = None, *, width: Width = "page") -> SweepFigure:
    """Draw speedup (left) and efficiency (right) vs. ranks per trial, with the ideal dashed.

    Args:
        sweep: from :func:`mpisweep.load`.
        metric: a rate or a duration; default :func:`mpisweep.views.scaling.default_metric`.
        width: ``column`` or ``page``.

    Raises:
        KeyError: if there is no such metric.
        ResultsError: if there is nothing to compare.
    """
    metric = metric or default_metric(sweep)
    curves = scaling(sweep, metric)
    ticks = sorted({int(ranks) for curve in curves for ranks in curve.ranks})
    with mpl.rc_context(style_of(width)):
        figure = SweepFigure(width, 62 if width == "column" else 86)
        left, right = figure.subplots(1, 2)
        for index, curve in enumerate(curves):
            style = _style_of(index, len(curves), curve)
            style["markersize"] = 3.0 if figure.is_narrow else 4.5
            left.plot(curve.ranks, curve.speedup, **style)
            right.plot(curve.ranks, 100 * curve.efficiency, **style)
        fewest = min(int(curve.ranks[0]) for curve in curves)
        left.plot(
            ticks, [ranks / fewest for ranks in ticks], "--", color=GREY, linewidth=1, label="ideal", zorder=1
        )
        right.axhline(100, linestyle="--", color=GREY, linewidth=1, zorder=1)
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_locator(FixedLocator(ticks))
            axes.xaxis.set_major_formatter(FixedFormatter([str(tick) for tick in ticks]))
            axes.minorticks_off()
            axes.set_xlabel("ranks per trial")
        ticks_on(left, "y", "log2")
        left.set_ylabel(f"speedup ({words(metric)})")
        right.set_ylabel("efficiency [%]")
        right.set_ylim(0, max(105, 105 * max(float(curve.efficiency.max()) for curve in curves)))
        ticks_on(right, "y", "linear")
        legend(figure, left)
        title(figure, f"{plain(sweep.name)}: scaling with ranks per trial")
        figure.add_layer(
            "scaling",
            {
                "configuration": np.repeat([curve.label for curve in curves], [len(c.ranks) for c in curves]),
                "number": np.concatenate([curve.numbers for curve in curves]),
                "ranks_per_trial": np.concatenate([curve.ranks for curve in curves]),
                metric: np.concatenate([curve.values for curve in curves]),
                "speedup": np.concatenate([curve.speedup for curve in curves]),
                "efficiency": np.concatenate([curve.efficiency for curve in curves]),
            },
        )
        finish(figure)
    return figure


def _style_of(index: int, count: int, curve: ScalingCurve) -> dict[str, Any]:
    if count > len(_STYLES):
        label = f"{count} configurations" if index == 0 else None
        return {"color": BLUE, "marker": "o", "linewidth": 0.8, "alpha": 0.4, "label": label}
    colour, marker, dashes = _STYLES[index]
    label = plain(curve.label).replace("_", " ").replace("=", " ") or "trials"
    return {"color": colour, "marker": marker, "linestyle": dashes, "linewidth": 1.2, "label": label}
