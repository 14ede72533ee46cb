"""Bisection: the next position to try between what fits and what is too large.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["aim", "nearest"]


def aim(low: int, high: int, expected: int | None) -> int:
    """Choose the position to try next.

    Args:
        low: the last position that fits, or -1.
        high: the first that is too large, or the end; at least ``low + 2``.
        expected: where the first one that is too large is expected; None without an expectation.
    """
    middle = (low + high) // 2
    if expected is None:
        return middle
    if low < expected - 1 < high:
        return expected - 1
    # The expectation was wrong, or its half that fits is confirmed: move away from it in growing steps.
    if low >= expected - 1:
        return min(low + (low - expected + 2), middle)
    return max(high - (expected - high), middle)


def nearest(positions: Sequence[int], target: int) -> int:
    """The one of these ascending positions that is nearest to the target; of two the smaller."""
    after = bisect_left(positions, target)
    around = positions[max(0, after - 1) : after + 1]
    return min(around, key=lambda position: (abs(position - target), position))
