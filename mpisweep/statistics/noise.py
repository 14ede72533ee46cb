"""The noise of each configuration, with the luck of common seeds taken out.

A run is modelled as in :mod:`mpisweep.statistics.common_seeds`, the noise with a variance of its own per
configuration.

With a few repeats a configuration says little about its own variance.  So each variance is a weighted mean
of its own estimate and of a common one (Smyth, "Linear models and empirical Bayes methods", 2004).  The
weight of the common one, ``prior_freedom`` in degrees of freedom, comes from how much the variances differ
beyond chance.  This estimate is itself uncertain; one standard error of it is given to differing variances,
because simulated sets held the best too rarely without.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from mpisweep.statistics.common_seeds import fit_means

__all__ = ["Noise", "noise_of"]

Floats = NDArray[np.float64]

#: Prior degrees of freedom from which on all variances count as equal.
EQUAL = 1e6


@dataclass(frozen=True, slots=True)
class Noise:
    """Arrays of shape (configurations,).

    Attributes:
        mean: of each configuration, without the effects of its repeats.
        error: standard error of the mean, apart from what all means share.
        freedom: degrees of freedom of that error; infinite if all variances count as equal.
        shared_freedom: degrees of freedom of the residuals of all configurations together.
        pooled: standard deviation of a single run, over all configurations.
    """

    mean: Floats
    error: Floats
    freedom: Floats
    shared_freedom: float
    pooled: float


def noise_of(values: Floats, *, common: bool = True) -> Noise | None:
    """Fit means, effects of repeats and variances.

    Args:
        values: shape (configurations, repeats), each row with at least one finite value.
        common: whether a column has the same seed in all rows.

    Returns:
        None if the values do not show any noise: no configuration has two runs.
    """
    known, fitted = np.isfinite(values), fit_means(values, common=common)
    mean, count, share, inverse = fitted.mean, fitted.count, fitted.share, fitted.inverse
    residual = np.where(known, values - mean[:, None] - fitted.effects, 0.0)
    square = (residual**2).sum(axis=1)
    freedom = _freedom(known, share, inverse, count)
    total = float(freedom.sum())
    if total < 0.5:
        return None
    pooled = float(square.sum()) / total
    prior, prior_freedom = _prior(square, freedom, pooled)
    variance = (prior_freedom * prior + square) / (prior_freedom + freedom)
    # Configurations with other repeats than most also have the error of the effects.
    apart = share - share.mean(axis=0)
    of_effects = pooled * np.einsum("ij,jk,ik->i", apart, inverse, apart)
    rows = len(values)
    error = np.sqrt(variance / count + np.maximum(of_effects, 0.0) * rows / max(rows - 1, 1))
    own = np.full(rows, np.inf) if prior_freedom >= EQUAL else prior_freedom + freedom
    return Noise(mean, error, own, total, pooled**0.5)


def _freedom(known: NDArray[np.bool_], share: Floats, inverse: Floats, count: Floats) -> Floats:
    """Degrees of freedom of each row's residuals: one per run, less what fitting it took."""
    # Leverage of run (i, j): 1 / count_i + (e_j - share_i)' inverse (e_j - share_i).
    through = share @ inverse
    leverage = (
        1 / count[:, None] + np.diag(inverse)[None, :] - 2 * through + (through * share).sum(axis=1)[:, None]
    )
    freedom: Floats = np.where(known, 1.0 - leverage, 0.0).sum(axis=1)
    return np.where(freedom > 1e-6, freedom, 0.0)


def _prior(square: Floats, freedom: Floats, pooled: float) -> tuple[float, float]:
    """The common variance, and its weight in degrees of freedom."""
    use = freedom > 0
    degrees, variance = freedom[use], square[use] / freedom[use]
    some = variance > 1e-12 * pooled
    if len(variance) < 3 or not some.any():
        return pooled, EQUAL
    # No variance at all is that of rounded values; it counts as the smallest one seen.
    variance = np.where(some, variance, variance[some].min())
    centred = np.log(variance) - scipy.special.psi(degrees / 2) + np.log(degrees / 2)
    by_chance = float(scipy.special.polygamma(1, degrees / 2).mean())
    allowance = by_chance * (2 / (len(variance) - 1)) ** 0.5
    beyond = float(centred.var(ddof=1)) - by_chance + allowance
    if beyond <= 2e-6:
        return pooled, EQUAL
    half = _inverse_trigamma(beyond)
    return float(np.exp(centred.mean() + scipy.special.psi(half) - np.log(half))), 2 * half


def _inverse_trigamma(value: float) -> float:
    """The argument at which the trigamma function has this value; Newton's method on its reciprocal."""
    found = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(scipy.special.polygamma(1, found))
        step = trigamma * (1 - trigamma / value) / float(scipy.special.polygamma(2, found))
        found += step
        if abs(step) < 1e-8 * found:
            break
    return found
