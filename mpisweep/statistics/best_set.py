"""Which configurations cannot be told apart from the best.

Gupta's subset selection (1965), the set that Hsu's multiple comparisons with the best (1984) build on: a
configuration is in the set unless some other is better by more than chance explains.  The truly best one is
in it with 95% if all configurations are equally good, which is the hardest case, and more often if not.  The
correction for the number of configurations is Dunnett's: the probability that, of all the others, the one
that looks best looks as good as it does although none is better.  What differs from the textbook:

* Each configuration has a variance of its own (:mod:`mpisweep.statistics.noise`), with Student's
  distribution for each mean (Behrens and Fisher) instead of a pooled one.  If the variances do not differ,
  this is Dunnett's test with a pooled variance; for two configurations the paired t test.
* Those that are clearly worse than a configuration do not compete with it (moment selection; Romano, Shaikh
  and Wolf, "A practical two-step method for testing moment inequalities", 2014).  What counts as clearly
  takes :data:`SELECTION` of the 5%.

Symbols: ``c`` the largest studentized lead of another configuration, ``u`` the error of the configuration
itself in standard errors, ``s`` the relative error of the common variance.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy
from numpy.typing import NDArray

from mpisweep.statistics.means import CONFIDENCE
from mpisweep.statistics.noise import Noise, noise_of

__all__ = ["SELECTION", "BestSet", "best_set", "is_worse"]

Floats = NDArray[np.float64]

#: Share of the 5% spent on leaving out configurations that are clearly worse.
SELECTION = 0.005
#: Points of the integrals over ``u`` and ``s``.
_OWN_POINTS, _SHARED_POINTS = 40, 12
#: Standard errors of different configurations count as equal within this ratio.
_RATIO = 1.04
#: Where distribution functions are tabulated; between, they are interpolated.
_GRID = np.concatenate([-np.logspace(4, -3, 1500), [0.0], np.logspace(-3, 4, 1500)])


@dataclass(frozen=True, slots=True)
class BestSet:
    """Arrays of shape (configurations,).

    Attributes:
        mean: of each configuration, without the luck of the seeds that it has and others lack; NaN without a
            finite run.
        is_in: whether it cannot be told apart from the best; False without a finite run.
        best: row of the best mean.
        noise: standard deviation of a single run over all configurations, without what runs with one seed
            have in common; None if no configuration has two runs, in which case nothing can be told apart.
    """

    mean: Floats
    is_in: NDArray[np.bool_]
    best: int
    noise: float | None


def best_set(values: Floats, *, minimize: bool = True, common: bool = True) -> BestSet | None:
    """Compare all configurations with the best.

    Args:
        values: shape (configurations, repeats); what is not finite is a run without result.
        minimize: whether a smaller value is better.
        common: whether a column has the same seed in all rows.

    Returns:
        None if there is no finite value.
    """
    rows = np.flatnonzero(np.isfinite(values).any(axis=1))
    if not len(rows):
        return None
    sign = 1.0 if minimize else -1.0
    found = noise_of(sign * values[rows], common=common)
    mean, is_in = np.full(len(values), np.nan), np.zeros(len(values), dtype=bool)
    if found is None:
        # Single runs: each may be its configuration's luck.
        known = np.isfinite(values[rows])
        own = np.where(known, values[rows], 0.0).sum(axis=1) / known.sum(axis=1)
        mean[rows], is_in[rows] = own, True
        return BestSet(mean, is_in, int(rows[np.argmin(sign * own)]), None)
    mean[rows], is_in[rows] = sign * found.mean, _cannot_be_told_apart(found, 1 - CONFIDENCE)
    return BestSet(mean, is_in, int(rows[np.argmin(found.mean)]), found.pooled)


def is_worse(values: Floats, other: Floats, *, minimize: bool = True, common: bool = True) -> bool:
    """Whether one configuration is worse than another one, two-sided at 95%.

    Args:
        values: its runs.
        other: those of the other one, chosen beforehand; with `common` in the order of the same seeds.
        minimize: whether a smaller value is better.
        common: whether they share seeds.
    """
    sign = 1.0 if minimize else -1.0
    pair = np.full((2, max(len(values), len(other))), np.nan)
    pair[0, : len(values)], pair[1, : len(other)] = sign * values, sign * other
    if not np.isfinite(pair).any(axis=1).all():
        return False
    found = noise_of(pair, common=common)
    return found is not None and not _cannot_be_told_apart(found, (1 - CONFIDENCE) / 2)[0]


def _cannot_be_told_apart(noise: Noise, level: float) -> NDArray[np.bool_]:
    """For each configuration whether none is better at this level, each mean smaller if better."""
    count = len(noise.mean)
    is_in = np.ones(count, dtype=bool)
    if count == 1:
        return is_in
    selection = SELECTION if count > 2 else 0.0
    clearly = _clear_lead(noise, count, selection) if selection else np.inf
    kinds = _Kinds(noise)

    def is_told_apart(row: int) -> bool:
        lead = noise.mean[row] - noise.mean
        with np.errstate(divide="ignore", invalid="ignore"):
            score = np.where(lead == 0, 0.0, lead / np.hypot(noise.error[row], noise.error))
        score[row] = -np.inf
        largest = float(score.max())
        # A normal distribution has the thinnest tails of those that apply.
        if scipy.special.ndtr(-largest) > level:
            return False
        return kinds.chance(row, score > -clearly, largest) <= level - selection

    for rows in kinds.rows():
        # Of configurations with like errors a better one is in the set if a worse one is.
        by_mean = rows[np.argsort(noise.mean[rows], kind="stable")]
        first = bisect_left(by_mean, True, key=is_told_apart)
        is_in[by_mean[first:]] = False
    return is_in


def _clear_lead(noise: Noise, count: int, selection: float) -> float:
    """Standard errors beyond which no configuration of all is better than it looks."""
    freedom = min(float(noise.freedom.min()), noise.shared_freedom)
    return float(scipy.special.stdtrit(freedom, 1 - selection / count))


class _Kinds:
    """Configurations sorted by standard error and degrees of freedom, so that like ones are computed once."""

    def __init__(self, noise: Noise) -> None:
        self._noise = noise
        with np.errstate(divide="ignore"):
            size = np.where(noise.error > 0, np.round(np.log(noise.error) / np.log(_RATIO)), -np.inf)
        freedom = np.array([_rounded(value) for value in noise.freedom])
        pairs, self._kind = np.unique(np.stack([size, freedom]), axis=1, return_inverse=True)
        self._error: Floats = np.exp(pairs[0] * np.log(_RATIO))
        self._freedom: Floats = pairs[1]
        self._shared = _shared_points(_rounded(noise.shared_freedom))

    def rows(self) -> list[NDArray[np.intp]]:
        """The rows of each kind."""
        order = np.argsort(self._kind, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(self._kind[order])) + 1)

    def chance(self, row: int, competes: NDArray[np.bool_], lead: float) -> float:
        """Probability that another leads by as many standard errors although none is better."""
        own = float(self._noise.error[row])
        rivals = np.bincount(self._kind[competes], minlength=len(self._error)).astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            if not np.isfinite(lead):
                return 0.0
            use = rivals > 0
            error, freedom, rivals = self._error[use], self._freedom[use], rivals[use]
            u, weight = _own_points(_rounded(self._noise.freedom[row]))
            chance = 0.0
            for s, of_s in zip(*self._shared, strict=True):
                beyond = (lead * s * np.hypot(own, error) - own * u[:, None]) / error
                none = np.zeros(len(u))
                for value in np.unique(freedom):
                    same = freedom == value
                    none += np.log(_distribution(value, beyond[:, same])) @ rivals[same]
                chance += of_s * (1.0 - float(weight @ np.exp(none)))
        return chance


def _rounded(freedom: float) -> float:
    """Degrees of freedom to about 2%, so that few tables are needed."""
    if freedom > 1e4:
        return float("inf")
    return float(np.exp(np.round(np.log(max(freedom, 0.1)) * 40) / 40))


@cache
def _table(freedom: float) -> Floats:
    values: Floats = scipy.special.ndtr(_GRID) if np.isinf(freedom) else scipy.special.stdtr(freedom, _GRID)
    return np.maximum(values, 1e-300)


def _distribution(freedom: float, x: Floats) -> Floats:
    return np.asarray(np.interp(np.nan_to_num(x, nan=1e4, posinf=1e4, neginf=-1e4), _GRID, _table(freedom)))


@cache
def _own_points(freedom: float) -> tuple[Floats, Floats]:
    """Points and weights of the integral over Student's distribution, closer together in its tails."""
    share, weight = _legendre(_OWN_POINTS)
    at = share**3 * (share * (6 * share - 15) + 10)
    weight = weight * 30 * share**2 * (1 - share) ** 2
    at = np.clip(at, 1e-15, 1 - 1e-15)
    return (
        scipy.special.ndtri(at) if np.isinf(freedom) else scipy.special.stdtrit(freedom, at)
    ), weight / weight.sum()


@cache
def _shared_points(freedom: float) -> tuple[Floats, Floats]:
    """Points and weights of the integral over the relative error of a common standard deviation."""
    if freedom > 300:
        return np.ones(1), np.ones(1)
    share, weight = _legendre(2 * _SHARED_POINTS if freedom < 5 else _SHARED_POINTS)
    weight = weight * 6 * share * (1 - share)
    return np.sqrt(
        2 * scipy.special.gammaincinv(freedom / 2, share**2 * (3 - 2 * share)) / freedom
    ), weight / weight.sum()


def _legendre(points: int) -> tuple[Floats, Floats]:
    x, weight = np.polynomial.legendre.leggauss(points)
    return (x + 1) / 2, weight / 2
