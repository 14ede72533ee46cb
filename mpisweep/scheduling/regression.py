"""Ridge regression of the logarithm of durations, with trials that still run.

At first only the shortest of the running trials have ended, and they alone would say that all trials are as
short.  So a trial that still runs counts as one that takes longer than it has run so far: regression with
censored observations (J. Tobin, Econometrica 26, 1958), by Newton's method for the weights and expectation
maximisation for the spread (A. Dempster et al., J. R. Stat. Soc. B 39, 1977).

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisweep.records import Value

__all__ = ["FeatureMap", "Observations", "Regression", "fit_best", "is_positive", "log_work"]

#: Weight of the ridge penalty on standardised features, in units of one measurement.
_RIDGE = 0.1
#: Maximum number of distinct values for which a parameter that is not a number gets a feature per value.
_MAX_LEVELS = 16
#: Pseudo-measurements at the prior of the residuals' standard deviation, and that prior: few measurements
#: underestimate their spread.
_PRIOR_COUNT = 2
_PRIOR_SPREAD = 0.3
#: Steps of the fit; the order of the trials changes little after the first ones.
_STEPS = 12
#: The fit ends earlier when a step changes predictions and spread by less than this times the spread.
_TOLERANCE = 1e-3


class Observations(NamedTuple):
    """What is known of some trials.

    Attributes:
        features: shape (trials, features); column 0 is constant.
        logs: logarithm of their durations, or of how long they have run so far; shape (trials,).
        running: whether they still run; shape (trials,).
    """

    features: NDArray[np.float64]
    logs: NDArray[np.float64]
    running: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Regression:
    """A fitted regression.

    Attributes:
        weights: shape (features,).
        inverse: of the penalised Gram matrix, shape (features, features).
        spread: standard deviation of the residuals.
        likelihood: logarithm of the likelihood of the observations.
        freedom: degrees of freedom of the residuals, with those of the prior.
        unbiased: standard deviation of the residuals, corrected for the weights fitted to them.
    """

    weights: NDArray[np.float64]
    inverse: NDArray[np.float64]
    spread: float
    likelihood: float
    freedom: float
    unbiased: float

    def mean(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predictions of rows of features, shape (trials,)."""
        predicted: NDArray[np.float64] = features @ self.weights
        return predicted

    def variance(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Variance of the predicted distributions of rows of features, shape (trials,)."""
        leverage: NDArray[np.float64] = np.einsum("ij,jk,ik->i", features, self.inverse, features)
        return self.spread**2 * (1 + np.maximum(leverage, 0.0))


def fit_best(observed: Observations) -> Regression:
    """The regression on all features, or on the constant if they explain too little.

    The criterion is Schwarz's (Ann. Stat. 6, 1978).
    """
    features = observed.features
    constant = _fit(observed._replace(features=features[:, :1]))
    count = features.shape[1]
    padded = np.zeros(count), np.zeros((count, count))
    padded[0][0], padded[1][0, 0] = constant.weights[0], constant.inverse[0, 0]
    constant = replace(constant, weights=padded[0], inverse=padded[1])
    if count == 1:
        return constant
    everything = _fit(observed)
    measured = int((~observed.running).sum())
    gain = everything.likelihood - constant.likelihood
    return everything if gain > (count - 1) / 2 * math.log(max(measured, 2)) else constant


def _fit(observed: Observations) -> Regression:
    features, logs, running = observed
    penalty = _RIDGE * np.eye(features.shape[1])
    # The constant is not penalised.
    penalty[0, 0] = 0.0
    weights: NDArray[np.float64] = np.zeros(features.shape[1])
    weights[0], spread = logs.mean(), _PRIOR_SPREAD
    for _ in range(_STEPS if running.any() else 1):
        z = (logs - features @ weights) / spread
        mills = _inverse_mills(z[running])
        # The first and second derivatives of the likelihood of each observation.
        slope = np.where(running, 0.0, z)
        slope[running] = mills
        information = np.ones(len(logs))
        information[running] = mills * (mills - z[running])
        curvature = (features.T * information) @ features + penalty
        gradient = spread * (features.T @ slope) - penalty @ weights
        inverse = np.asarray(np.linalg.pinv(curvature, hermitian=True), dtype=np.float64)
        step = inverse @ gradient
        weights = weights + step
        z = (logs - features @ weights) / spread
        mills = _inverse_mills(z[running])
        squares = spread**2 * float((z[~running] ** 2).sum() + (1 + z[running] * mills).sum())
        before, spread = spread, _spread(squares, len(logs))
        if max(float(np.abs(features @ step).max()), abs(spread - before)) < _TOLERANCE * spread:
            break
    z = (logs - features @ weights) / spread
    likelihood = float(_log_density(z[~running], spread).sum() + _log_tail(z[running]).sum())
    # The penalty leaves less than one weight per feature.
    fitted = features.shape[1] - _RIDGE * float(np.trace(inverse[1:, 1:]))
    freedom = max(1.0, len(logs) + _PRIOR_COUNT - fitted)
    unbiased = spread * math.sqrt((len(logs) + _PRIOR_COUNT) / freedom)
    return Regression(weights, inverse, spread, likelihood, freedom, unbiased)


def _spread(squares: float, count: int) -> float:
    return math.sqrt((squares + _PRIOR_COUNT * _PRIOR_SPREAD**2) / (count + _PRIOR_COUNT))


def _log_density(z: NDArray[np.float64], spread: float) -> NDArray[np.float64]:
    found: NDArray[np.float64] = -(z**2) / 2 - math.log(spread * math.sqrt(2 * math.pi))
    return found


def _log_tail(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of the probability that a standard normal variable exceeds z."""
    far = np.maximum(z, 5.0)
    # Asymptotic where erfc underflows.
    tail = -(far**2) / 2 - np.log(far * math.sqrt(2 * math.pi)) - 1 / far**2
    near = np.array([math.erfc(min(one, 5.0) / math.sqrt(2)) / 2 for one in z.tolist()])
    return np.where(z > 5, tail, np.log(near))


def _inverse_mills(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Expectation of a standard normal variable, given that it exceeds z."""
    found: NDArray[np.float64] = np.exp(_log_density(z, 1.0) - _log_tail(z))
    return found


def log_work(work: Sequence[float]) -> NDArray[np.float64]:
    """Logarithms of works, shape (trials,)."""
    logs: NDArray[np.float64] = np.log(np.maximum(np.nan_to_num(np.asarray(work, dtype=float)), 1e-300))
    return logs


def is_positive(column: Sequence[Value | None]) -> bool:
    """Whether all values are numbers above 0."""
    return all(isinstance(value, (int, float)) and value is not True and value > 0 for value in column)


class FeatureMap:
    """The map from parameters to features: a constant, then standardised features.

    Args:
        columns: the parameters of the trials that fix scales and levels.
        work: their relative work; None if unknown.
    """

    def __init__(self, columns: Mapping[str, Sequence[Value | None]], work: Sequence[float] | None) -> None:
        #: Parameter -> its levels, or None for a number; and whether its logarithm is a feature too.
        self._levels = {name: _levels(column) for name, column in columns.items()}
        self._has_log = {
            name: self._levels[name] is None and is_positive(column) for name, column in columns.items()
        }
        #: Parameters that some trials lack -> their mean, which stands in for a missing value.
        self._means = {
            name: _mean(column)
            for name, column in columns.items()
            if self._levels[name] is None and None in column
        }
        #: Scale, mean and spread of each feature.
        self._scales = [_scale(feature) for feature in self._raw(columns, work)]

    def rows(
        self, columns: Mapping[str, Sequence[Value | None]], work: Sequence[float] | None, count: int
    ) -> NDArray[np.float64]:  # (trials, features)
        """Features of `count` trials, one row each."""
        standardised = [
            (feature / scale - mean) / spread
            for feature, (scale, mean, spread) in zip(self._raw(columns, work), self._scales, strict=True)
        ]
        return np.column_stack([np.ones(count), *standardised])

    def _raw(
        self, columns: Mapping[str, Sequence[Value | None]], work: Sequence[float] | None
    ) -> list[NDArray[np.float64]]:
        raw: list[NDArray[np.float64]] = []
        if work is not None:
            logs = log_work(work)
            raw += [logs, logs**2]
        for name, column in columns.items():
            levels = self._levels[name]
            if levels is not None:
                raw += [np.array([str(v) == level for v in column], dtype=float) for level in levels[1:]]
                continue
            values = np.array([math.nan if value is None else value for value in column], dtype=float)
            has = ~np.isnan(values)
            if name in self._means:
                raw += [has.astype(float), np.where(has, values, self._means[name])]
                continue
            # A later trial may lack what all had before.
            values = np.where(has, values, 1.0)
            # A later value may be outside the domain of the logarithm.
            raw += [values, np.log(np.maximum(values, 1e-300))] if self._has_log[name] else [values]
        return raw


def _levels(column: Sequence[Value | None]) -> list[str] | None:
    """The levels of a parameter that is not a number, empty if there are too many; None for a number."""
    if not any(isinstance(value, (bool, str)) for value in column):
        return None
    levels = sorted({str(value) for value in column})
    return levels if len(levels) <= _MAX_LEVELS else []


def _mean(column: Sequence[Value | None]) -> float:
    values = [float(value) for value in column if value is not None]
    return sum(values) / len(values) if values else 0.0


def _scale(feature: NDArray[np.float64]) -> tuple[float, float, float]:
    # Scaled first: the squares of values near the maximum of a float overflow.
    scale = float(np.abs(feature).max(initial=0.0)) or 1.0
    spread = float((feature / scale).std())
    return scale, float((feature / scale).mean()), spread if spread > 0 else 1.0
