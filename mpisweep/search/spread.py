"""Orders of a grid in which every beginning covers it evenly (``order = "spread"``).

The order follows a low-discrepancy sequence: point *t* of the unit cube is the fractional part of *t*
(1/g, 1/g^2, ..., 1/g^d), where *g* is the root above 1 of x^(d+1) = x + 1, the golden ratio for *d* = 1
(M. Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018).  For *d* = 1 no gap is ever
longer than 1.9 times the mean (V. T. Sos, "On the theory of diophantine approximations", 1957).  Each point
is rounded to a grid point; what was taken before is skipped.

The few grid points that the sequence has not met after :data:`DRAWS` draws per point follow in bit-reversed
order, which halves the gaps between them in each pass.  So do all points of a list, which is no grid.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mpisweep.records import Value
from mpisweep.search.numbering import Trials
from mpisweep.spec import Spec
from mpisweep.spec.expression import ExpressionError
from mpisweep.spec.space import SearchSpace

__all__ = ["DRAWS", "places", "spread"]

#: Points of the sequence per grid point.
DRAWS = 8
#: Points of the sequence per step.
_BLOCK = 1 << 16

Integers = NDArray[np.int64]


def places(spec: Spec, trials: Trials) -> list[int] | None:
    """Place of each trial in the order of handing out; None for the longest first.

    The trials of a search that samples have an even order already: that of their numbers.  A baseline
    outside of the grid comes first.
    """
    if spec.order != "spread":
        return None
    if spec.search not in ("grid", "points"):
        return list(range(trials.count))
    space = spec.space
    found = _indices(space, trials)
    # Each repeat is spread like the first one, and after it.
    inside = sorted({index for index in found if index is not None})
    # A list of points is no grid.
    shape = [axis.count or 0 for axis in space.axes] if space.points is None else []
    place_of = {inside[position]: place for place, position in enumerate(spread(shape, inside))}
    return [
        repeat * len(inside) + (-1 if index is None else place_of[index])
        for index, repeat in zip(found, trials.repeat_of, strict=True)
    ]


def _indices(space: SearchSpace, trials: Trials) -> list[int | None]:
    """Index of each trial's grid point; None if it is none, because the space is another one now."""
    if space.conditions:
        return [_index(space, trials.configuration(number)) for number in range(trials.count)]
    # A look-up per axis, which is eight times as fast.
    found: list[int | None] = [0] * trials.count
    for axis in space.axes:
        count = axis.count or 0
        step_of: dict[tuple[Value | None, ...], int | None] = {axis.at(step): step for step in range(count)}
        values = zip(*(trials.parameters[name] for name in axis.names), strict=True)
        for number, own in enumerate(values):
            before = found[number]
            if own not in step_of:
                # A float may differ in its last digit.
                step_of[own] = axis.index([value for value in own if value is not None])
            step = step_of[own]
            found[number] = None if before is None or step is None else before * count + step
    return found


def _index(space: SearchSpace, configuration: Mapping[str, Value]) -> int | None:
    try:
        return space.index(configuration)
    except (KeyError, ExpressionError):
        return None


def spread(shape: Sequence[int], indices: Sequence[int]) -> list[int]:
    """Order the points of a grid, or of a part of it.

    Args:
        shape: number of values on each axis; the last axis varies fastest.
        indices: the points, by their index in the grid, ascending.

    Returns:
        Positions in `indices`, in the order in which they cover the grid.
    """
    members = np.asarray(indices, dtype=np.int64)
    taken = np.zeros(len(members), dtype=bool)
    order: list[Integers] = []
    ratios = _ratios(len(shape))
    draws = DRAWS * len(members) if len(shape) else 0
    for first in range(0, draws, _BLOCK):
        steps = np.arange(first, min(first + _BLOCK, draws), dtype=np.float64)
        # 0.5 puts the first point into the middle.
        units = np.modf(0.5 + np.outer(steps, ratios))[0]  # (steps, axes)
        places = (units * np.asarray(shape)).astype(np.int64)
        points = _flat(places, shape)
        found = np.searchsorted(members, points)
        found = found[(found < len(members)) & (members[np.minimum(found, len(members) - 1)] == points)]
        found = found[~taken[found]]
        _, at = np.unique(found, return_index=True)
        new = found[np.sort(at)]
        taken[new] = True
        order.append(new)
        if taken.all():
            break
    rest = np.flatnonzero(~taken)
    order.append(rest[_bit_reversed(len(rest))])
    return [int(position) for position in np.concatenate(order)]


def _ratios(axes: int) -> NDArray[np.float64]:
    """The steps of the sequence along each axis, shape (axes,)."""
    root = 2.0
    for _ in range(64):
        root = (1.0 + root) ** (1.0 / (axes + 1))
    return root ** -np.arange(1.0, axes + 1)


def _flat(places: Integers, shape: Sequence[int]) -> Integers:
    """Indices in the grid of points (points, axes)."""
    flat = np.zeros(len(places), dtype=np.int64)
    for axis, count in enumerate(shape):
        flat = flat * count + places[:, axis]
    return flat


def _bit_reversed(count: int) -> Integers:
    """0, 1, ..., count - 1 in the order of their reversed bits."""
    numbers = np.arange(count, dtype=np.int64)
    mirrored = np.zeros(count, dtype=np.int64)
    for bit in range(max(1, (count - 1).bit_length())):
        mirrored = mirrored << 1 | numbers >> bit & 1
    return np.argsort(mirrored, kind="stable")
