"""A smooth trend through noisy values.

A Gaussian process with a Matern 5/2 kernel and a constant mean (Rasmussen and Williams, "Gaussian processes
for machine learning", 2006, chapters 2 and 5).  Its length and the share of noise are those on a grid with
the largest restricted likelihood times a weak prior; the variance and the mean follow in closed form.

This trend serves a search, which is a part of the master's loop: it needs NumPy alone and a fifth of the time
of :mod:`mpisweep.statistics.trend`, works from two values on, and says how certain it will be once running
trials have ended (:meth:`Trend.with_values_to_come`).  The other one makes the statements of tables and
figures: it averages over lengths and shares of noise, so that its band holds 95% (``docs/statistics.md``),
pulls back outliers, and lets the noise differ along the parameter.  Both have the same kernel.

Pure, and the same for the same values in any process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["Trend", "fit_trend", "matern"]

Floats = NDArray[np.float64]

#: Lengths that are tried, in units of x.
_LENGTHS = 2.0 ** np.arange(-0.5, 3.6, 0.5)
#: Variances of the noise that are tried, as shares of the variance of the trend.
_NOISES = 10.0 ** np.arange(-3.0, 1.1, 0.5)
#: Most values that a trend is fitted to; of more, neighbouring ones are averaged.
_MOST = 100
#: The prior of the length's binary logarithm: mean and standard deviation.
_USUAL_LENGTH, _LENGTH_SPREAD = 1.5, 1.0


@dataclass(frozen=True)
class Trend:
    """A fitted trend.

    Attributes:
        x: places of the values, shape (values,), and of values to come.
        counts: number of values of which each is the mean, shape (values,).
        residual: the values less `centre`, shape (values,).
        centre: mean of the trend far from all values.
        variance: of the trend far from all values.
        length: distance over which the trend changes.
        noise_share: variance of a value around the trend, as a share of `variance`.
    """

    x: Floats
    counts: Floats
    residual: Floats
    centre: float
    variance: float
    length: float
    noise_share: float

    @property
    def noise(self) -> float:
        """Standard deviation of a value around the trend."""
        return float(np.sqrt(self.noise_share * self.variance))

    def mean(self, at: Floats) -> Floats:
        """The trend at these places, shape (places,)."""
        found: Floats = self.centre + matern(at, self.x[: len(self._pull)], self.length) @ self._pull
        return found

    def with_values_to_come(self, x: Floats) -> Trend:
        """The trend as certain as it will be once there are values at these places too."""
        return replace(
            self, x=np.concatenate([self.x, x]), counts=np.concatenate([self.counts, np.ones(len(x))])
        )

    def deviation(self, at: Floats) -> Floats:
        """Standard deviation of the trend at these places, shape (places,)."""
        across = matern(at, self.x, self.length)  # (places, values)
        left = 1.0 - ((across @ self._weights) * across).sum(1)
        left = np.maximum(left + self._short(across) ** 2 / self._weights.sum(), 0.0)
        found: Floats = np.sqrt(left * self.variance)
        return found

    def draws(self, at: Floats, count: int, seed: int) -> Floats:
        """Trends that are as likely as this one, shape (count, places)."""
        across = matern(at, self.x, self.length)
        short = self._short(across)
        joint = matern(at, at, self.length) - across @ self._weights @ across.T
        joint += np.outer(short, short) / self._weights.sum()
        values, vectors = np.linalg.eigh(joint * self.variance)
        normal = np.random.default_rng(seed).standard_normal((count, len(at)))
        found: Floats = self.mean(at) + normal @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
        return found

    @cached_property
    def _pull(self) -> Floats:
        """How much each value pulls the mean."""
        count = len(self.residual)
        noise = self.noise_share / self.counts[:count]
        found: Floats = _inverse(self.x[:count], self.length, noise) @ self.residual
        return found

    @cached_property
    def _weights(self) -> Floats:
        return _inverse(self.x, self.length, self.noise_share / self.counts)

    def _short(self, across: Floats) -> Floats:
        """How much the constant mean counts at each place; it is estimated too."""
        found: Floats = 1.0 - across @ self._weights.sum(1)
        return found


def fit_trend(x: Floats, y: Floats) -> Trend:
    """Fit a trend.

    Args:
        x: places of the values, shape (values,); one to three units should matter.
        y: the values, shape (values,); at least two, all finite.
    """
    x, y, counts = _averaged(x, y)
    spread = float(np.std(y)) or 1.0
    scaled = (y - np.mean(y)) / spread
    length, noise = _likeliest(x, scaled, counts)
    inverse = _inverse(x, length, noise / counts)
    centre = float(inverse.sum(0) @ scaled / inverse.sum())
    residual = scaled - centre
    variance = float(residual @ inverse @ residual / max(1, len(x) - 1))
    middle = centre * spread + float(np.mean(y))
    return Trend(x, counts, residual * spread, middle, variance * spread**2, length, noise)


def matern(first: Floats, second: Floats, length: float) -> Floats:
    """The Matern 5/2 kernel between places, shape (first, second)."""
    distance = np.sqrt(5.0) * np.abs(first[:, None] - second[None, :]) / length
    found: Floats = (1.0 + distance + distance**2 / 3.0) * np.exp(-distance)
    return found


def _averaged(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Means over neighbouring values, if there are many, and how many values each is the mean of."""
    if len(x) <= _MOST:
        return x, y, np.ones(len(x))
    # Groups of equal width: where values are rare each keeps its place.
    edges = np.linspace(x.min(), x.max(), _MOST + 1)[1:-1]
    group = np.searchsorted(edges, x)
    counts = np.bincount(group, minlength=_MOST).astype(float)
    filled = counts > 0
    means = [np.bincount(group, weights=each, minlength=_MOST)[filled] / counts[filled] for each in (x, y)]
    return means[0], means[1], counts[filled]


def _inverse(x: Floats, length: float, noise: Floats) -> Floats:
    """Inverse of the covariance of values with these variances of the noise, shape (values, values)."""
    covariance = matern(x, x, length) + np.diag(noise)
    return np.asarray(np.linalg.inv(covariance), dtype=np.float64)


def _likeliest(x: Floats, y: Floats, counts: Floats) -> tuple[float, float]:
    """Length and share of noise of the largest restricted likelihood times the prior."""
    count = len(x)
    kernels = np.stack([matern(x, x, float(length)) for length in _LENGTHS])
    noise = _NOISES[:, None, None] * np.diag(1.0 / counts)  # (noises, count, count)
    covariances = kernels[:, None] + noise  # (lengths, noises, count, count)
    # Not eigh: its threads cost a hundred times as much on a busy machine.
    roots = np.diagonal(np.linalg.cholesky(covariances), axis1=2, axis2=3)
    solved = np.linalg.solve(covariances, np.stack([np.ones(count), y], axis=1))  # (..., count, 2)
    precision = solved[..., 0].sum(-1)
    residual = solved[..., 1] @ y - solved[..., 1].sum(-1) ** 2 / precision
    variance = np.maximum(residual, 1e-12) / max(1, count - 1)
    likelihood = -np.log(roots).sum(-1) - 0.5 * (np.log(precision) + (count - 1) * np.log(variance))
    prior = -0.5 * ((np.log2(_LENGTHS) - _USUAL_LENGTH) / _LENGTH_SPREAD) ** 2
    best = np.unravel_index(int(np.argmax(likelihood + prior[:, None])), likelihood.shape)
    return float(_LENGTHS[best[0]]), float(_NOISES[best[1]])
