"""A plot of a metric over a parameter in plain characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mpisweep.spec.units import number_text
from mpisweep.views.screen.facts import Axis

__all__ = ["plot_lines"]

Floats = NDArray[np.float64]

#: Signs of a cell: one trial, a few, many, a marked one, only pruned ones, and those above the axis.
_ONE, _FEW, _MANY, _MARK, _PRUNED, _ABOVE = ".", "o", "#", "*", "x", "^"
_FEW_FROM, _MANY_FROM = 2, 6
#: A linear axis ends this many interquartile ranges above the third quartile: diverged trials would hide all
#: differences between the others.
_FENCE = 6.0


def plot_lines(
    x: Axis, y: Axis, pruned: NDArray[np.bool_], marked: Sequence[int], width: int, height: int
) -> list[str]:
    """Draw trials as characters.

    Args:
        x: horizontal axis.
        y: vertical axis.
        pruned: whether each trial was pruned.
        marked: trials that are marked.
        width: of the plot with its labels, in characters.
        height: in lines, with its axis.
    """
    rows = np.flatnonzero(np.isfinite(x.values) & np.isfinite(y.values))
    if not len(rows):
        return [f"no trial has both {x.name} and {y.name} yet"]
    values = y.values[rows]
    low, high = float(values.min()), _top(values, y.is_ratio)
    above = values > high
    labels = [f"{'>' if above.any() else ''}{number_text(high)}", number_text(low)]
    room = max(map(len, labels))
    columns, lines = width - room - 2, height - 3
    if columns < 8 or lines < 2:
        return ["no room for the plot"]
    across = _places(x.values[rows], float(x.values[rows].min()), float(x.values[rows].max()), x.is_ratio)
    up = _places(np.minimum(values, high), low, high, y.is_ratio)
    cells = np.zeros((lines, columns), dtype=int)
    column = np.rint(across * (columns - 1)).astype(int)
    line = np.rint((1 - up) * (lines - 1)).astype(int)
    np.add.at(cells, (line, column), 1)
    signs = np.full(cells.shape, " ")
    for least, sign in ((1, _ONE), (_FEW_FROM, _FEW), (_MANY_FROM, _MANY)):
        signs[cells >= least] = sign
    only_pruned = cells > 0
    only_pruned[line[~pruned[rows]], column[~pruned[rows]]] = False
    signs[only_pruned] = _PRUNED
    signs[line[above], column[above]] = _ABOVE
    place = {int(row): index for index, row in enumerate(rows)}
    for trial in marked:
        if (index := place.get(trial)) is not None:
            signs[line[index], column[index]] = _MARK
    legend = ". one trial  o a few  # many  * best" + ("  x pruned" if only_pruned.any() else "")
    beside = {0: labels[0], lines - 1: labels[1]}
    drawn = [f"{y.name}{' (logarithmic)' if y.is_ratio else ''}   {legend}"]
    drawn += [
        f"{beside.get(row, ''):>{room}} |{''.join(signs[row].tolist()).rstrip()}" for row in range(lines)
    ]
    drawn.append(f"{'':>{room}} +{'-' * columns}")
    drawn.append(f"{'':>{room}}  {_axis_text(x, x.values[rows], columns)}")
    return drawn


def _top(values: Floats, is_ratio: bool) -> float:
    """The upper end of the vertical axis."""
    highest = float(values.max())
    if is_ratio or len(values) < 8:
        return highest
    first, third = np.quantile(values, [0.25, 0.75])
    fence = float(third + _FENCE * (third - first))
    return float(values[values <= fence].max()) if third > first and highest > fence else highest


def _places(values: Floats, low: float, high: float, is_ratio: bool) -> Floats:
    """Positions from 0 to 1."""
    if high <= low:
        return np.full(len(values), 0.5)
    if is_ratio:
        return (np.log(values) - math.log(low)) / (math.log(high) - math.log(low))
    # Without an overflow where the ends are far apart.
    return (values / 2 - low / 2) / (high / 2 - low / 2)


def _axis_text(axis: Axis, values: Floats, width: int) -> str:
    """The ends of the axis, its middle, and its name between them."""
    if axis.categories:
        names = [axis.categories[int(place)] for place in np.unique(values)]
        ends = names[0], names[-1]
        middle = f"{axis.name}: {len(names)} values"
    else:
        low, high = float(values.min()), float(values.max())
        ends = number_text(low), number_text(high)
        middle = f"{axis.name} (logarithmic)" if axis.is_ratio else axis.name
    left = width - len(ends[0]) - len(ends[1]) - 2
    if left < 1:
        return ends[0][:width]
    return f"{ends[0]} {middle[:left]:^{left}} {ends[1]}"
