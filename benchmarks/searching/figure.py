"""Regret over device time: a row of panels per table, a column per number of workers.

Lines are medians over the sweeps, or means of sweeps with repeats; bands are their 95% intervals.  Optuna by
itself is dashed.  A line ends where half of the sweeps have ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mpisweep.views.figures.style import BLUE, GREEN, GREY, ORANGE, RED, STYLE, save

__all__ = ["draw"]

Cell = dict[str, Any]

SKY, PURPLE, BLACK = "#56B4E9", "#CC79A7", "#000000"
DASHED = (0, (3, 1.5))
#: Search -> its colour; also the order in the legend.
COLOURS = {
    "exhaustive": GREY, "random": BLACK, "sobol": SKY,
    "tpe": BLUE, "cmaes": ORANGE, "nsga2": GREEN, "gp": RED,
    "grid x 1": GREY, "grid x 3": BLACK, "grid x 10": SKY, "race 2:10": RED,
    "tpe x 1": BLUE, "tpe x 3": ORANGE,
    "random + asha": GREY, "tpe + median": ORANGE, "tpe + asha": GREEN, "tpe + hyperband": RED,
}  # fmt: skip
#: Group of searches -> its title, and searches of other groups to compare it with.
GROUPS = {"samplers": ("", ()), "pruning": (", pruned", ("random", "tpe")), "repeats": (", repeats", ())}


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Draw all panels into a file."""
    rows = list(dict.fromkeys((one["table"], one["group"]) for one in cells))
    columns = sorted({one["workers"] for one in cells})
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(0.6 + 2.5 * len(columns), 0.9 + 2.0 * len(rows)))
        panels = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey="row")
        shown: set[str] = set()
        for (table, group), line in zip(rows, panels, strict=True):
            title, references = GROUPS[group]
            for workers, axes in zip(columns, line, strict=True):
                own = [
                    one
                    for one in cells
                    if (one["table"], one["workers"]) == (table, workers)
                    and (one["group"] == group or one["search"] in references)
                ]
                shown |= draw_panel(axes, own)
                axes.set_title(f"{table}{title}, {workers} worker{'s' * (workers > 1)}", fontsize=9)
            unit = next(one["unit"] for one in cells if one["table"] == table)
            line[0].set_ylabel(f"regret [{unit}]")
        for axes in panels[-1]:
            axes.set_xlabel("device time [mean trials]")
        handles = [Line2D([], [], color=COLOURS[name], label=name) for name in COLOURS if name in shown]
        if any(one["side"] == "optuna" for one in cells):
            handles.append(Line2D([], [], color=GREY, linestyle=DASHED, label="the same by Optuna alone"))
        figure.legend(
            handles=handles, loc="outside lower center", ncols=4, fontsize=9,
        )  # fmt: skip
        save(figure, path)


def draw_panel(axes: Axes, cells: Sequence[Cell]) -> set[str]:
    """Draw the searches of one panel; returns their names."""
    floor = min((middle for one in cells for _, middle, _, _ in one["curve"] if middle), default=1.0)
    for one in cells:
        # Not drawn before half of the sweeps have a result; an exact hit is drawn at the floor.
        points = [
            [point[0], *(max(value, floor) for value in point[1:])]
            for point in one["curve"]
            if None not in point
        ]
        if not points:
            continue
        times, middle, low, high = zip(*points, strict=True)
        colour, is_twin = COLOURS[one["search"]], one["side"] == "optuna"
        style = DASHED if is_twin else "-"
        axes.plot(times, middle, color=colour, linestyle=style, linewidth=1.0 if is_twin else 1.4)
        if not is_twin:
            axes.fill_between(times, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    return {one["search"] for one in cells}
