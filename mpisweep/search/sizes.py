"""Sizes in ascending order: which to survey, and which to try next for the lowest loss.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from math import inf, log

import numpy as np
from numpy.typing import NDArray

from mpisweep.trend import Trend, fit_trend

__all__ = ["ALIKE", "Sizes", "place_to_try", "trend_of"]

Octaves = NDArray[np.float64]

#: Ratio within which two sizes have the same expected loss.
ALIKE = 1.05
#: Sizes of the survey, and how many of them have a twin.
_SURVEY, _TWINS = 10, 3
#: Sizes that are considered at a time.
_CANDIDATES = 512
#: Standard deviations of the trend by which a size may be better than expected.
_OPTIMISM = 2.0
#: Enough is known when this share of the noise, or of the trend's range, is all that there is to gain.
_OF_NOISE, _OF_RANGE = 0.25, 0.002


class Sizes:
    """Sizes in ascending order; a size is known by its place.

    Args:
        sizes: distinct integers above 0, ascending.
    """

    def __init__(self, sizes: Iterable[int]) -> None:
        self._sizes = list(sizes)
        #: Binary logarithm of each size.
        self.octaves: Octaves = np.log2(np.array(self._sizes, dtype=np.float64))

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, place: int) -> int:
        return self._sizes[place]

    def place(self, size: int) -> int | None:
        """Where a size is; None if it is none of these."""
        place = bisect_left(self._sizes, size)
        return place if place < len(self._sizes) and self._sizes[place] == size else None

    def nearest(self, size: float) -> int:
        """The place of the size with the ratio to `size` that is closest to 1."""
        after = bisect_left(self._sizes, size)
        near = [place for place in (after - 1, after) if 0 <= place < len(self._sizes)]
        return min(near, key=lambda place: abs(log(self._sizes[place] / size)))

    def survey(self, *, is_stepwise: bool) -> list[list[int]]:
        """Places at equal ratios, and the twins of some.

        Returns:
            Groups that run one after another; one, unless each is to learn from those before (`is_stepwise`).
        """
        if not self._sizes:
            return []
        low, high = self._sizes[0], self._sizes[-1]
        wanted = (low * (high / low) ** (step / (_SURVEY - 1)) for step in range(_SURVEY))
        main = list(dict.fromkeys(map(self.nearest, wanted)))
        found = [twin for place in reversed(main) if (twin := self._twin(place)) is not None]
        twins = [twin for twin in found[::2][:_TWINS] if twin not in main]
        if is_stepwise:
            return [*([main[place] for place in group] for group in _halving(len(main))), twins]
        return [sorted([*main, *twins])]

    def _twin(self, place: int) -> int | None:
        """The next smaller size, if it has the same expected loss."""
        is_alike = place > 0 and self._sizes[place] / self._sizes[place - 1] <= ALIKE
        return place - 1 if is_alike else None

    def spread(self, end: int) -> list[int]:
        """Places before `end`; of many, some at equal ratios."""
        if end <= _CANDIDATES:
            return list(range(end))
        low, high = self._sizes[0], self._sizes[end - 1]
        ratio = (high / low) ** (1 / (_CANDIDATES - 1))
        return sorted({min(self.nearest(low * ratio**step), end - 1) for step in range(_CANDIDATES)})


def trend_of(best: Mapping[int, float], octaves: Octaves) -> Trend | None:
    """The trend through the values at some places; None if too few are known.

    Args:
        best: place -> value there, infinite if all trials failed; smaller is better.
        octaves: binary logarithm of the size at each place.
    """
    finite = [value for value in best.values() if value < inf]
    if len(finite) < 2:
        return None
    # Where all trials have failed it is as bad as at the worst.
    values = np.minimum(np.array(list(best.values())), max(finite))
    # A loss varies by factors.
    return fit_trend(octaves[list(best)], np.log(values) if values.min() > 0 else values)


def place_to_try(
    trend: Trend, pending: Sequence[int], candidates: Sequence[int], octaves: Octaves
) -> int | None:
    """The candidate that may be lowest; None if none can be much lower than the best.

    Args:
        trend: from :func:`trend_of`.
        pending: places without a value yet.
        candidates: places to choose from.
        octaves: binary logarithm of the size at each place.
    """
    if not candidates:
        return None
    untried = octaves[list(candidates)]
    known, expected = trend.mean(trend.x), trend.mean(untried)
    later = trend.with_values_to_come(octaves[np.array(pending, dtype=int)])
    reach = expected - _OPTIMISM * later.deviation(untried)
    gain = float(min(known.min(), expected.min()) - reach.min())
    if gain < max(_OF_NOISE * trend.noise, _OF_RANGE * float(np.ptp(known))):
        return None
    return candidates[int(np.argmin(reach))]


def _halving(count: int) -> list[list[int]]:
    """Positions of a row in groups: the middle, the middles of both halves, and so on."""
    groups: list[list[int]] = []
    spans = [(0, count)] if count else []
    while spans:
        middles = [(low + high) // 2 for low, high in spans]
        groups.append(middles)
        halves = [(low, at, high) for (low, high), at in zip(spans, middles, strict=True)]
        both = [span for low, at, high in halves for span in ((low, at), (at + 1, high))]
        spans = [(low, high) for low, high in both if low < high]
    return groups
