"""A line search for the best of ordered points, from a good start and with few evaluations.

It brackets: the start and a point on each side, then outwards in doubling steps until the best has a worse
point on each side, or is an end of the line.  Then it halves the larger gap beside the best until both gaps
are small enough.  What failed counts as worse than anything.

The next points follow from the values alone, so a search that is rebuilt from them goes on alike.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, log

from mpisweep.spec.domains import FloatRange

__all__ = ["Line", "best_of", "line_over", "place_of", "values_of"]

#: Ratio of neighbouring values of a range without a grid, of the first step, and at the end.
_RATIO, _FIRST_RATIO, _LAST_RATIO = 1.25, 4.0, 1.6
#: Values of a range on a linear scale without a grid.
_LINEAR_VALUES = 33


@dataclass(frozen=True, slots=True)
class Line:
    """Ordered points, by index.

    Attributes:
        count: number of points.
        stride: distance of the first points on both sides of the start.
        near: gap at which the search ends.
    """

    count: int
    stride: int
    near: int

    def first(self, start: int) -> list[int]:
        """The points to evaluate first."""
        around = (start - self.stride, start, start + self.stride)
        return sorted({min(max(point, 0), self.count - 1) for point in around})

    def next(self, values: Mapping[int, float]) -> int | None:
        """The next point; None if the best is known.

        Args:
            values: by point, at least one; smaller is better, infinite for a failure.
        """
        best = min(values, key=lambda point: (values[point], point))
        low = max((point for point in values if point < best), default=None)
        high = min((point for point in values if point > best), default=None)
        if values[best] == inf:
            # Everything failed; a lower rate may not.
            return max(0, best - 2 * self.stride) if best > 0 else None
        if low is None and best > 0:
            return max(0, best - self._step(best, high))
        if high is None and best < self.count - 1:
            return min(self.count - 1, best + self._step(best, low))
        below = 0 if low is None else best - low
        above = 0 if high is None else high - best
        if max(below, above) <= self.near:
            return None
        return best - below // 2 if below >= above else best + above // 2

    def _step(self, best: int, other: int | None) -> int:
        """The step outwards: twice the one before."""
        return self.stride if other is None else max(self.stride, 2 * abs(best - other))


def best_of(values: Mapping[int, float]) -> int | None:
    """The point with the smallest value, the first of equals; None if all are infinite."""
    best = min(values, key=lambda point: (values[point], point))
    return best if values[best] < inf else None


def values_of(parameter: FloatRange) -> tuple[float, ...]:
    """The values of a range: its grid, or a fine one."""
    if parameter.count is not None:
        return tuple(parameter.at(index) for index in range(parameter.count))
    points = _LINEAR_VALUES
    if parameter.log:
        points = 1 + ceil(log(parameter.high / parameter.low) / log(_RATIO))
    return values_of(FloatRange(parameter.name, parameter.low, parameter.high, None, parameter.log, points))


def place_of(value: object, values: Sequence[float]) -> int | None:
    """Where a value is, up to its last digits; None if it is none of these."""
    if not isinstance(value, (int, float)):
        return None
    near = min(range(len(values)), key=lambda place: abs(values[place] - value))
    return near if abs(values[near] - value) <= 1e-9 * abs(value) else None


def line_over(parameter: FloatRange, values: Sequence[float]) -> Line:
    """The line search over the values of a range."""
    count = len(values)
    if parameter.log and count > 1:
        gap = log(values[-1] / values[0]) / (count - 1)
        return Line(count, max(1, round(log(_FIRST_RATIO) / gap)), max(1, floor(log(_LAST_RATIO) / gap)))
    return Line(count, max(1, count // 5), max(1, count // 16))
