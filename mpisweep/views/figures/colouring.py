"""Colour by a parameter: few categories by colour and marker, numbers by a colour bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mpisweep.results.load import Sweep
from mpisweep.statistics.trend import is_logarithmic
from mpisweep.views.figures.series import searched_or_all
from mpisweep.views.figures.style import (
    BLACK,
    BLUE,
    BROWN,
    GREY,
    SKY,
    Floats,
    SweepFigure,
    dense,
    label,
    positions,
    words,
)
from mpisweep.views.figures.ticks import scale_of, tick_text, ticks_on
from mpisweep.views.wording import units

__all__ = ["GROUPS", "Colours", "colours_of", "draw_coloured", "other_parameter"]

#: Shades of a colour bar in a picture of many points, and turns in which each is drawn.
_SHADES, _TURNS = 24, 6

#: Colour and marker of each of a few categories; those of marks and states are others.
GROUPS: tuple[tuple[str, str], ...] = ((BLUE, "o"), (SKY, "D"), (BLACK, "^"), (BROWN, "s"))


@dataclass(frozen=True, slots=True)
class Colours:
    """The colours of all trials of a sweep, by the values of one parameter."""

    parameter: str
    #: Value, or index of a category, per trial; NaN if it has none.
    where: Floats
    categories: tuple[str, ...]
    #: From a value to its colour.
    mapped: Any

    @property
    def is_grouped(self) -> bool:
        """Whether there are so few categories that each has its own marker and entry in the legend."""
        return 0 < len(self.categories) <= len(GROUPS)

    def name(self, group: int) -> str:
        """A category in words."""
        return f"{words(self.parameter)} {self.categories[group]}"

    def rgba(self, rows: Any) -> Any:
        """The colours of some trials, shape (trials, 4); grey without a value."""
        colours = self.mapped.to_rgba(self.where[rows])
        colours[~np.isfinite(self.where[rows])] = mpl.colors.to_rgba(GREY)
        return colours

    def add_bar(self, figure: SweepFigure, axes: Sequence[Axes], sweep: Sweep) -> None:
        """Add a colour bar beside the axes that share it."""
        bar = figure.colorbar(self.mapped, ax=list(axes), pad=0.02, aspect=30)
        bar.set_label(label(self.parameter, units(sweep, self.parameter)))
        if self.categories:
            bar.set_ticks(range(len(self.categories)), labels=list(self.categories))
        else:
            known = self.where[np.isfinite(self.where)]
            is_ratio = isinstance(self.mapped.norm, mpl.colors.LogNorm)
            ticks_on(bar.ax, "y", scale_of(known, is_ratio=is_ratio))


def other_parameter(sweep: Sweep, parameter: str) -> str | None:
    """The first other parameter that varies; None if there is none."""
    for name in searched_or_all(sweep):
        column = sweep.trials[sweep.column(name)]
        if name != parameter and len(column) and (column != column[0]).any():
            return name
    return None


def colours_of(sweep: Sweep, parameter: str) -> Colours | None:
    """Colours by a parameter; None if all trials have the same value.

    Raises:
        KeyError: if there is no such parameter.
    """
    where, categories = positions(sweep.trials[sweep.column(parameter)])
    known = np.unique(where[np.isfinite(where)])
    if len(known) < 2:
        return None
    if not categories and len(known) <= len(GROUPS):
        # A few numbers are told apart more easily by markers than by shades.
        categories = tuple(tick_text(float(f"{value:.3g}")) for value in known)
        where = np.where(np.isfinite(where), np.searchsorted(known, where), np.nan)
        known = np.arange(float(len(known)))
    is_ratio = not categories and is_logarithmic(known)
    norm_type = mpl.colors.LogNorm if is_ratio else mpl.colors.Normalize
    norm = norm_type(float(known.min()), float(known.max()))
    return Colours(parameter, where, categories, mpl.cm.ScalarMappable(norm, "viridis"))


def draw_coloured(
    axes: Axes, x: Floats, y: Floats, colours: Colours, rows: NDArray[np.int64], *, size: float, alpha: float
) -> None:
    """Draw points in the colours of some trials."""
    if not dense(len(x)):
        axes.scatter(x, y, s=size**2, c=colours.rgba(rows), linewidths=0, alpha=alpha, zorder=3)
        return
    # One marker for many points is ten times as fast as one per point; the shades take turns, so that none
    # hides the others.
    level = np.nan_to_num(np.asarray(colours.mapped.norm(colours.where[rows]), dtype=float), nan=-1.0)
    group = np.round(level * (_SHADES - 1)).astype(int) + _SHADES * (np.arange(len(x)) % _TURNS)
    for own in np.split(np.argsort(group, kind="stable"), np.flatnonzero(np.diff(np.sort(group))) + 1):
        colour = colours.rgba(rows[own[:1]])[0]
        axes.plot(
            x[own], y[own], "o", color=colour, markersize=size, markeredgewidth=0, alpha=alpha, zorder=3,
            rasterized=True,
        )  # fmt: skip
