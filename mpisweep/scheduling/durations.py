"""Expected durations of trials, and hence which trial to start next.

The longest expected trial goes first: a long trial that starts late keeps a whole allocation waiting.  A
sweep may ask for another order (``order``), and then each trial has a fixed *place*.  Before
the first measurement, the expectation comes from the parameters: a built-in workload states the work of a
configuration; for other workloads the model multiplies the parameters with well-known names
(:data:`WORK_NAMES`).  From the third measured trial on, it fits the logarithm of the duration to the
parameters (ridge regression), and fits again each time the number of measurements has doubled, so the cost of
fitting stays small with any number of trials.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from mpisweep.records import Value

__all__ = ["WORK_NAMES", "DurationModel", "work_from_names"]

#: Parameters that multiply the work of a trial in nearly every program that has them.
WORK_NAMES = frozenset({
    "batch_size", "depth", "epochs", "image_size", "iterations", "max_iter", "n_estimators", "n_samples",
    "num_epochs", "num_iter", "num_layers", "num_steps", "samples", "size", "steps", "width",
})  # fmt: skip

#: Measurements per fit; more would not change it.
_MAX_FIT = 2000
#: Weight of the ridge penalty on standardised features, in units of one measurement.
_RIDGE = 0.1
#: Maximum number of distinct values for which a parameter that is not a number gets a feature per value.
_MAX_LEVELS = 16
#: Predictions are clipped to the measured durations times this factor: a fit extrapolates badly.
_BEYOND_MEASURED = 10.0
#: Distance of the upper bound from the expected duration, in standard deviations of the logarithm; and the
#: prior of that deviation.
_SIGMAS = 2.0
_PRIOR_SPREAD = 0.3


def work_from_names(columns: Mapping[str, Sequence[Value | None]]) -> list[float] | None:
    """Guess each trial's relative work from its parameters' names; None if no name is known."""
    known = [column for name, column in columns.items() if name in WORK_NAMES and _is_positive(column)]
    if not known:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        product = np.prod([np.asarray(column, dtype=float) for column in known], axis=0)
    return [float(work) for work in np.nan_to_num(product)]


class DurationModel:
    """Expected duration of every trial of a sweep.

    Args:
        columns: the searched parameters, one entry per trial; row *n* is trial *n*, None where it lacks it.
        work: relative work of each trial in any unit, or None if unknown.
        count: number of trials.
        places: place of each trial in the order in which they start; None for the longest first.
        elsewhere: (parameters, seconds) of trials that were measured in another sweep.
    """

    def __init__(
        self,
        columns: Mapping[str, Sequence[Value | None]],
        work: Sequence[float] | None,
        count: int,
        places: Sequence[int] | None = None,
        elsewhere: Sequence[tuple[Mapping[str, Value], float]] = (),
    ) -> None:
        #: The first one to start has the largest.
        self._fixed_keys = None if places is None else [-float(place) for place in places]
        self._columns = columns
        self._count = count
        # The work of trials elsewhere is unknown.
        self._work = list(work) if work is not None and not elsewhere else None
        self._elsewhere = elsewhere
        self._elsewhere_features: NDArray[np.float64] | None = None
        self._features: NDArray[np.float64] | None = None
        self._map: _FeatureMap | None = None
        self._weights: NDArray[np.float64] | None = None
        #: Bounds of the logarithm of a prediction.
        self._bounds: tuple[float, float] = (-math.inf, math.inf)
        #: Whether the columns are this model's own lists, which may grow.
        self._owns_columns = False
        self._usual_s: float | None = None
        self._numbers: list[int] = []
        self._durations_s: list[float] = []
        self._expected_s: list[float] | None = None
        self._next_fit = 3
        self._uncertainty = 1.0

    def observe(self, numbers: Sequence[int], durations_s: Sequence[float]) -> None:
        """Add the measured durations of trials that ran to their end."""
        self._numbers.extend(numbers)
        self._durations_s.extend(durations_s)

    @property
    def is_due(self) -> bool:
        """Whether there are enough new measurements for another fit."""
        return len(self._numbers) + len(self._elsewhere) >= self._next_fit

    def fit(self) -> None:
        """Fit the model to all observations."""
        self._next_fit = 2 * (len(self._numbers) + len(self._elsewhere))
        if self._features is None or self._elsewhere_features is None:
            others = {name: [one.get(name) for one, _ in self._elsewhere] for name in self._columns}
            both = {name: [*others[name], *column] for name, column in self._columns.items()}
            self._map = _FeatureMap(both, self._work)
            self._features = self._map.rows(self._columns, self._work, self._count)
            work: list[float] | None = None if self._work is None else []
            self._elsewhere_features = self._map.rows(others, work, len(self._elsewhere))
        stride = max(1, len(self._numbers) // _MAX_FIT)
        rows = np.array(self._numbers[::stride], dtype=int)
        measured = [*(seconds for _, seconds in self._elsewhere), *self._durations_s[::stride]]
        durations = np.maximum(np.array(measured), 1e-7)
        features = np.vstack([self._elsewhere_features, self._features[rows]])
        self._weights = _ridge(features, np.log(durations))
        shortest, longest = durations.min() / _BEYOND_MEASURED, durations.max() * _BEYOND_MEASURED
        self._bounds = math.log(shortest), math.log(longest)
        self._expected_s = self._predicted_s(self._features)
        self._usual_s = float(np.exp(np.log(durations).mean()))
        residuals = np.log(durations) - features @ self._weights
        # A few measurements underestimate their spread: add two pseudo-measurements at the prior.
        spread = math.sqrt((float(residuals @ residuals) + 2 * _PRIOR_SPREAD**2) / (len(durations) + 2))
        self._uncertainty = math.exp(_SIGMAS * spread)

    def _predicted_s(self, features: NDArray[np.float64]) -> list[float]:
        """Expected durations in seconds of rows of features, shape (trials, features)."""
        assert self._weights is not None
        predicted: list[float] = np.exp(np.clip(features @ self._weights, *self._bounds)).tolist()
        return predicted

    def grow(self, configurations: Sequence[Mapping[str, Value]]) -> None:
        """Add trials, whose work is unknown beforehand; once fitted, their durations are predicted."""
        if not self._owns_columns:
            # Others may grow the lists that they passed.
            self._columns = {name: list(column) for name, column in self._columns.items()}
            self._owns_columns = True
        new = {name: [one.get(name) for one in configurations] for name in self._columns}
        for name, values in new.items():
            cast(list[Value | None], self._columns[name]).extend(values)
        if self._fixed_keys is not None:
            # After all others; places are below the number of trials.
            self._fixed_keys += [-float(self._count + place) for place in range(len(configurations))]
        self._count += len(configurations)
        # The next fit sees all trials.
        self._features = None
        if self._work is not None:
            self._work = self._expected_s = None
            if len(self._numbers) >= 3:
                self.fit()
        elif self._expected_s is not None:
            assert self._map is not None
            self._expected_s += self._predicted_s(self._map.rows(new, None, len(configurations)))

    @property
    def usual_s(self) -> float | None:
        """Geometric mean of the measured durations in seconds, or None before the first fit."""
        return self._usual_s

    def expected_s(self, number: int) -> float | None:
        """Expected duration in seconds, or None before the first fit."""
        return None if self._expected_s is None else self._expected_s[number]

    def upper_s(self, number: int) -> float | None:
        """Upper bound of the expected duration in seconds, or None before the first fit."""
        return None if self._expected_s is None else self._expected_s[number] * self._uncertainty

    def upper_sum_s(self, numbers: Iterable[int]) -> float:
        """Upper bound, in seconds, of these in sequence; infinite before the first fit."""
        if self._expected_s is None:
            return math.inf
        return sum(map(self._expected_s.__getitem__, numbers)) * self._uncertainty

    @property
    def is_known(self) -> bool:
        """Whether the model was fitted."""
        return self._expected_s is not None

    @property
    def uncertainty(self) -> float:
        """Ratio of the upper bound to the expected duration."""
        return self._uncertainty

    @property
    def keys(self) -> list[float] | None:
        """Sort keys of the trials, a new list after each fit; None if all are equal.

        The trial with the largest starts first.
        """
        return self._fixed_keys or self.weights

    @property
    def has_places(self) -> bool:
        """Whether trials start in a fixed order, and not the longest first."""
        return self._fixed_keys is not None

    @property
    def weights(self) -> list[float] | None:
        """Expected work of the trials relative to each other; None if nothing is known."""
        return self._expected_s or self._work

    def weight(self, number: int) -> float:
        """Expected work of a trial relative to the others; equal for all if unknown."""
        return 1.0 if self.weights is None else self.weights[number]

    @property
    def longest_s(self) -> float | None:
        """Longest expected duration of any trial, or None before the first fit."""
        return None if self._expected_s is None else max(self._expected_s)

    def next_last(self, numbers: Sequence[int]) -> list[int]:
        """Sort `numbers` such that the trial to start next is the last one.

        So a list pops it in constant time.  Among equals the larger number comes first.
        """
        keys = self.keys
        backwards = sorted(numbers, reverse=True)
        return backwards if keys is None else sorted(backwards, key=keys.__getitem__)


def _is_positive(column: Sequence[Value | None]) -> bool:
    return all(isinstance(value, (int, float)) and value is not True and value > 0 for value in column)


class _FeatureMap:
    """The map from parameters to features: a constant, then standardised features.

    Args:
        columns: the parameters of the trials that fix scales and levels.
        work: their relative work; None if unknown.
    """

    def __init__(self, columns: Mapping[str, Sequence[Value | None]], work: Sequence[float] | None) -> None:
        #: Parameter -> its levels, or None for a number; and whether its logarithm is a feature too.
        self._levels = {name: _levels(column) for name, column in columns.items()}
        self._has_log = {
            name: self._levels[name] is None and _is_positive(column) for name, column in columns.items()
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
            log_work = np.log(np.maximum(np.nan_to_num(np.asarray(work, dtype=float)), 1e-300))
            raw += [log_work, log_work**2]
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


def _ridge(features: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (features,) of the ridge regression; the constant, column 0, is not penalised."""
    penalty = _RIDGE * np.eye(features.shape[1])
    penalty[0, 0] = 0.0
    solved = np.linalg.lstsq(features.T @ features + penalty, features.T @ targets, rcond=None)
    return np.asarray(solved[0], dtype=np.float64)
