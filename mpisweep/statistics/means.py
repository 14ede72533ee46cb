"""The mean of each configuration over its repeats, with Student's interval.

The interval of a configuration uses its own runs only, so it needs no assumption about the noise of others
and holds whether or not the repeats share seeds.  It is exact for normal noise and holds for symmetric noise
with heavy tails; strongly skewed noise is covered less often (``docs/statistics.md``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

__all__ = ["CONFIDENCE", "Means", "means_of"]

Floats = NDArray[np.float64]

#: Probability that a stated interval, band or set holds the truth.
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Means:
    """Arrays of shape (configurations,).

    Attributes:
        count: runs with a finite value.
        mean: over them; NaN if there is none.
        spread: standard deviation of a single run; NaN below two runs.
        low: lower end of the 95% interval of the mean; NaN below two runs.
        high: its upper end.
    """

    count: NDArray[np.int64]
    mean: Floats
    spread: Floats
    low: Floats
    high: Floats

    @property
    def half_width(self) -> Floats:
        """Half the 95% interval of each mean; NaN below two runs."""
        return (self.high - self.low) / 2


def means_of(values: Floats) -> Means:
    """Compute the means of `values`, shape (configurations, repeats), without NaN and infinity."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    at_least_1, freedom = np.maximum(count, 1), np.maximum(count - 1, 1)
    mean = np.where(count > 0, np.where(known, values, 0.0).sum(axis=1) / at_least_1, np.nan)
    apart = np.where(known, values - mean[:, None], 0.0)
    spread = np.where(count > 1, np.sqrt((apart**2).sum(axis=1) / freedom), np.nan)
    half = spread
    if (count > 1).any():
        half = scipy.special.stdtrit(freedom, 0.5 + CONFIDENCE / 2) * spread / np.sqrt(at_least_1)
    return Means(count, mean, spread, mean - half, mean + half)
