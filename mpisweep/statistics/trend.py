"""A smooth curve with its noise through single runs over one ordered parameter.

Without repeats nothing says how far a run's value is its luck, but neighbouring values of the parameter do:
what changes smoothly is the trend, and what does not is noise.  The trend is a Gaussian process with a
constant mean and the Matern 5/2 kernel, plus noise (Rasmussen and Williams, "Gaussian Processes for Machine
Learning", 2006).  Length scale and signal-to-noise ratio are not optimised but averaged over a grid, weighted
by their likelihood, so that the band includes their uncertainty.  Mean and noise level are integrated in
closed form.  This takes one eigendecomposition per length scale.  A search has a faster trend, which takes
the likeliest values instead (:mod:`mpisweep.trend`).

Two passes: the residuals of the first say where noise is larger, and which runs lie far outside of it and
are pulled back to its edge.  More than :data:`_POINTS` runs are averaged in groups of neighbours first.

The best region has the values of the parameter at which the trend's best may be: those whose trend is behind
another value's by no more than curves drawn from the posterior distribution are in 95% of cases by chance.

Symbols: ``t`` the parameter from 0 to 1 on its axis, ``r`` the variance of the trend relative to that of the
noise, ``V`` eigenvalues of the data's covariance.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from mpisweep.statistics.best_set import SELECTION
from mpisweep.statistics.means import CONFIDENCE
from mpisweep.trend import matern

__all__ = ["FEWEST", "Trend", "is_logarithmic", "trend_of"]

Floats = NDArray[np.float64]

#: Distinct values of the parameter below which there is no trend.
FEWEST = 8
#: Most points that are fitted, and most at which the curve is computed; between, it is interpolated.
_POINTS, _GRID = 240, 160
#: Curves drawn from the posterior distribution, and the seed of the draw.
_DRAWS, _SEED = 1000, 1
#: Points that each is compared with.
_OTHERS = 40
_LENGTHS = np.geomspace(0.06, 2.5, 7)
_RATIOS = np.geomspace(1e-2, 1e5, 15)
#: Least share of the likelihood that a pair of length scale and ratio has to have.
_LEAST = 0.01
#: Standard deviations of the noise beyond which a run is pulled back.
_OUTLIER = 4.0
#: Runs of a running median, and the distance from it that is a gross error.
_MEDIAN, _GROSS = 7, 10.0
#: Degrees of freedom that mean and curve take of the noise's; with less the bands held short ones too rarely.
_TAKEN = 4
#: Degrees of freedom from which a series has Student's interval to nine digits.
_MANY = 60.0
#: Divisor and polynomial in z**2 of each of its terms.
_SERIES = [(4, (1, 1)), (96, (5, 16, 3)), (384, (3, 19, 17, -15)), (92160, (79, 776, 1482, -1920, -945))]
#: Width of the neighbourhood in which noise is alike, and the weight of its overall size, in runs.
_NEIGHBOURS, _OVERALL = 0.15, 12.0
#: Cells of the parameter's range in which that is computed.
_CELLS = 200


@dataclass(frozen=True, slots=True)
class Trend:
    """Arrays of shape (values,): one entry per distinct value of the parameter, ascending.

    Attributes:
        x: the values.
        mean: of the trend.
        low: lower end of the 95% band of the trend, point by point.
        high: its upper end.
        noise: standard deviation of a single run around the trend.
        in_best_region: whether the trend's best may be there.
        best: entry of the trend's best.
    """

    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    noise: Floats
    in_best_region: NDArray[np.bool_]
    best: int

    @property
    def region(self) -> tuple[float, float]:
        """The least and the largest value of the best region."""
        inside = self.x[self.in_best_region]
        return float(inside[0]), float(inside[-1])


def trend_of(x: Floats, y: Floats, *, minimize: bool = True, logarithmic: bool = False) -> Trend | None:
    """Fit a trend.

    Args:
        x: values of the parameter, one per run; above 0 if `logarithmic`.
        y: values of the metric; runs with one that is not finite do not count.
        minimize: whether a smaller value is better.
        logarithmic: whether the trend is smooth over the logarithm of the parameter.

    Returns:
        None with fewer than :data:`FEWEST` distinct values of `x` that have a finite `y`.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    values = np.unique(x)
    if len(values) < FEWEST:
        return None
    axis = np.log(values) if logarithmic else values
    t = (np.interp(x, values, axis) - axis[0]) / (axis[-1] - axis[0])
    at = (axis - axis[0]) / (axis[-1] - axis[0])
    y = _without_gross_errors(t, y)
    centre, scale = float(np.mean(y)), float(np.std(y))
    if scale <= 1e-12 * abs(centre):
        flat = np.full(len(values), centre)
        return Trend(values, flat, flat, flat, np.zeros(len(values)), np.ones(len(values), dtype=bool), 0)
    sign = 1.0 if minimize else -1.0
    found = _fit(t, sign * (y - centre) / scale, at)
    half = _half_interval(found.freedom) * found.error * scale
    mean = centre + sign * scale * found.mean
    best = int(np.argmin(found.mean))
    inside = found.in_best_region.copy()
    inside[best] = True
    return Trend(values, mean, mean - half, mean + half, scale * found.noise, inside, best)


def is_logarithmic(values: Floats) -> bool:
    """Whether a logarithmic axis suits a parameter's values: they grow by ratios."""
    distinct = np.unique(values[np.isfinite(values)])
    if len(distinct) < 3 or distinct[0] <= 0 or distinct[-1] / distinct[0] < 30:
        return False
    gaps = np.diff(distinct)
    return bool(gaps.max() > 5 * gaps.min()) and bool(np.median(distinct) < 0.25 * distinct[-1])


class _Fitted(NamedTuple):
    """A trend on the standardised axes, at the points asked for; smaller is better."""

    mean: Floats
    error: Floats
    noise: Floats
    in_best_region: NDArray[np.bool_]
    freedom: float


class _Points(NamedTuple):
    """The data of a fit: places, values, and the variance of each relative to the noise's."""

    t: Floats
    y: Floats
    variance: Floats


def _half_interval(freedom: float) -> float:
    """Half the interval of Student's distribution, in standard errors.

    For many degrees of freedom by the series around the normal distribution (Abramowitz and Stegun,
    "Handbook of Mathematical Functions", 1964, 26.7.5): a page of many trials need not load scipy.special.
    """
    probability = 0.5 + CONFIDENCE / 2
    if freedom < _MANY:
        return float(scipy.special.stdtrit(freedom, probability))
    z = NormalDist().inv_cdf(probability)
    return z + sum(
        z * float(np.polyval(powers, z * z)) / (divisor * freedom**order)
        for order, (divisor, powers) in enumerate(_SERIES, 1)
    )


def _without_gross_errors(t: Floats, y: Floats) -> Floats:
    """Pull back what lies so far from its neighbours' median that it would hide the rest of the curve."""
    order = np.argsort(t, kind="stable")
    # Mirrored through the end points, a slope goes on beyond them.
    padded = np.pad(y[order], _MEDIAN // 2, mode="reflect", reflect_type="odd")
    middle = np.median(np.lib.stride_tricks.sliding_window_view(padded, _MEDIAN), axis=1)
    apart = y[order] - middle
    usual = 1.4826 * float(np.median(np.abs(apart)))
    found = y.copy()
    if usual > 0:
        found[order] = middle + np.clip(apart, -_GROSS * usual, _GROSS * usual)
    return found


def _fit(t: Floats, y: Floats, at: Floats) -> _Fitted:
    grid = at if len(at) <= _GRID else np.interp(np.linspace(0, 1, _GRID), np.linspace(0, 1, len(at)), at)
    first = _posterior(_grouped(t, y, np.ones(len(t))), grid)
    trend = np.interp(t, grid, first.mean)
    apart = y - trend
    usual = 1.4826 * float(np.median(np.abs(apart)))
    edge = _OUTLIER * usual * np.sqrt(_local(t, np.minimum(np.abs(apart), _OUTLIER * usual) ** 2, t))
    pulled = trend + np.clip(apart, -edge, edge) if usual > 0 else y
    square = (pulled - trend) ** 2
    relative = _local(t, square, t) if usual > 0 else np.ones(len(t))
    second = _posterior(_grouped(t, pulled, relative), grid)
    generator = np.random.default_rng(_SEED)
    inside = _may_be_best(second, generator)
    # A value between two points of the grid is inside if either is.
    nearest = np.searchsorted(grid, at).clip(1, len(grid) - 1)
    in_region = np.where(
        at == grid[nearest - 1], inside[nearest - 1],
        np.where(at == grid[nearest], inside[nearest], inside[nearest - 1] | inside[nearest]),
    )  # fmt: skip
    noise = second.noise * np.sqrt(_local(t, square, at) if usual > 0 else np.ones(len(at)))
    return _Fitted(
        np.interp(at, grid, second.mean), np.interp(at, grid, second.error), noise, in_region, second.freedom
    )


def _grouped(t: Floats, y: Floats, variance: Floats) -> _Points:
    """Average neighbours in groups of equal size until few enough points are left."""
    order = np.argsort(t, kind="stable")
    size = -(-len(t) // _POINTS)
    starts = np.arange(0, len(t), size)
    count = np.diff([*starts, len(t)])
    means = [np.add.reduceat(values[order], starts) / count for values in (t, y, variance)]
    return _Points(means[0], means[1], means[2] / count)


def _local(t: Floats, square: Floats, at: Floats) -> Floats:
    """Mean squares around each point, relative to the overall mean."""
    overall = float(square.mean())
    if overall == 0:
        return np.ones(len(at))
    # In cells, so that ten thousand runs take no longer than a hundred.
    cell = np.minimum((t * _CELLS).astype(int), _CELLS - 1)
    count = np.bincount(cell, minlength=_CELLS).astype(float)
    total = np.bincount(cell, weights=square, minlength=_CELLS)
    middle = (np.arange(_CELLS) + 0.5) / _CELLS
    place = np.linspace(0, 1, _CELLS + 1)
    weight = np.exp(-0.5 * ((place[:, None] - middle) / _NEIGHBOURS) ** 2)
    found: Floats = (weight @ total / overall + _OVERALL) / (weight @ count + _OVERALL)
    return np.interp(at, place, found)


class _Posterior(NamedTuple):
    """The trend at the points of a grid: its mixture over length scales and ratios."""

    mean: Floats
    error: Floats
    noise: float
    freedom: float
    weights: Floats
    means: tuple[Floats, ...]
    covariances: tuple[Floats, ...]


def _posterior(points: _Points, grid: Floats) -> _Posterior:
    count = len(points.t)
    white = 1 / np.sqrt(points.variance)
    logs: list[Floats] = []
    spectra = []
    for length in _LENGTHS:
        kernel = matern(points.t, points.t, float(length))
        values, vectors = np.linalg.eigh(white[:, None] * kernel * white)
        y, one = vectors.T @ (white * points.y), vectors.T @ white
        v = _RATIOS[:, None] * np.maximum(values, 0.0) + 1.0
        precision = (one**2 / v).sum(axis=1)
        constant = (one * y / v).sum(axis=1) / precision
        square = ((y - constant[:, None] * one) ** 2 / v).sum(axis=1)
        logs.append(-0.5 * (np.log(v).sum(axis=1) + np.log(precision) + (count - 1) * np.log(square + 1e-12)))
        spectra.append((vectors, v, y, one, precision, constant, square))
    weights = np.exp(np.array(logs) - np.max(logs))
    weights /= weights.sum()
    kept, means, covariances, noises = [], [], [], []
    for (which, ratio), weight in np.ndenumerate(weights):
        if weight < _LEAST:
            continue
        vectors, v, y, one, precision, constant, square = spectra[which]
        r, of_noise = float(_RATIOS[ratio]), float(square[ratio]) / (count - _TAKEN)
        to_grid = r * (matern(grid, points.t, float(_LENGTHS[which])) * white) @ vectors / v[ratio]
        # The error of the constant, as far as the data do not make up for it.
        rest = 1 - to_grid @ one
        covariance = r * matern(grid, grid, float(_LENGTHS[which])) - (to_grid * v[ratio]) @ to_grid.T
        kept.append(weight)
        means.append(constant[ratio] + to_grid @ (y - constant[ratio] * one))
        covariances.append(of_noise * (covariance + np.outer(rest, rest) / precision[ratio]))
        noises.append(of_noise)
    share = np.array(kept) / np.sum(kept)
    mean = share @ np.array(means)
    spread = share @ np.array([
        np.maximum(np.diag(covariance), 0.0) + (own - mean) ** 2
        for own, covariance in zip(means, covariances, strict=True)
    ])  # fmt: skip
    return _Posterior(
        mean, np.sqrt(spread), float(share @ np.array(noises)) ** 0.5, float(count - _TAKEN), share,
        tuple(means), tuple(covariances),
    )  # fmt: skip


def _drawn(posterior: _Posterior, generator: np.random.Generator) -> Floats:
    """Curves from the posterior distribution, shape (draws, grid)."""
    counts = generator.multinomial(_DRAWS, posterior.weights)
    drawn = []
    for count, mean, covariance in zip(counts, posterior.means, posterior.covariances, strict=True):
        if count:
            values, vectors = np.linalg.eigh(covariance)
            normal = generator.standard_normal((count, len(mean)))
            size = np.sqrt(posterior.freedom / generator.chisquare(posterior.freedom, (count, 1)))
            drawn.append(mean + size * (normal * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)
    return np.concatenate(drawn)


def _may_be_best(posterior: _Posterior, generator: np.random.Generator) -> NDArray[np.bool_]:
    """At which points of the grid the trend's least value may be."""
    error = _drawn(posterior, generator) - posterior.mean
    # A few other points stand for all: the curves are smooth.
    other = np.unique(np.linspace(0, len(posterior.mean) - 1, _OTHERS).round().astype(int))
    found = np.ones(len(posterior.mean), dtype=bool)
    for point, mean in enumerate(posterior.mean):
        rivals = other[other != point]
        apart = error[:, point, None] - error[:, rivals]
        scale = np.maximum(apart.std(axis=0), 1e-12)
        lead = (mean - posterior.mean[rivals]) / scale
        chance = apart / scale
        # As in the comparison of configurations, those that are clearly worse do not compete.
        competes = lead > -np.quantile(chance.max(axis=1), 1 - SELECTION)
        if competes.any():
            most = np.quantile(chance[:, competes].max(axis=1), CONFIDENCE + SELECTION)
            found[point] = lead.max() <= most
    return found
