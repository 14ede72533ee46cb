"""Expected durations of trials, and hence which trial to start next.

The longest expected trial goes first: a long trial that starts late keeps a whole allocation waiting.  A
sweep may ask for another order (``order``), and then each trial has a fixed *place*.  Before
the first measurement, the expectation comes from the parameters: a built-in workload states the work of a
configuration; for other workloads the model multiplies the parameters with well-known names
(:data:`WORK_NAMES`).  From the third measured trial on, it fits the logarithm of the duration to the
parameters (:mod:`mpisweep.scheduling.regression`), and fits again each time the number of measurements has
grown by a quarter, later each time it has doubled, so the cost stays small with any number of trials.

Parameters that explain nothing would put the trials into a random order.  So they count only if they explain
the durations significantly; until then durations are proportional to the known work, or all equal, and
trials start in the order of their numbers.  Of equally long trials the one goes first about which less is
known: the keys are the means of the predicted distributions, the expected durations their medians.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from mpisweep.records import Value
from mpisweep.scheduling.regression import (
    FeatureMap,
    Observations,
    Regression,
    fit_best,
    is_positive,
    log_work,
)

__all__ = ["WORK_NAMES", "DurationModel", "Predictive", "work_from_names"]

#: Parameters that multiply the work of a trial in nearly every program that has them.
WORK_NAMES = frozenset({
    "batch_size", "depth", "epochs", "image_size", "iterations", "max_iter", "n_estimators", "n_samples",
    "num_epochs", "num_iter", "num_layers", "num_steps", "samples", "size", "steps", "width",
})  # fmt: skip

#: Measurements per fit; more would not change it.
_MAX_FIT = 2000
#: From this many measurements on, a fit waits until their number has doubled.
_MANY = 500
#: Running trials per fit.
_MAX_RUNNING = 500
#: Predictions are clipped to the measured durations times this factor: a fit extrapolates badly.
_BEYOND_MEASURED = 10.0
#: Distance of the upper bound from the expected duration, in standard deviations of the logarithm.
_SIGMAS = 2.0


def work_from_names(columns: Mapping[str, Sequence[Value | None]]) -> list[float] | None:
    """Guess each trial's relative work from its parameters' names; None if no name is known."""
    known = [column for name, column in columns.items() if name in WORK_NAMES and is_positive(column)]
    if not known:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        product = np.prod([np.asarray(column, dtype=float) for column in known], axis=0)
    return [float(work) for work in np.nan_to_num(product)]


class Predictive(NamedTuple):
    """A joint distribution of durations: what the fit does not know is common to all trials.

    Attributes:
        logs: expected logarithm of each duration, shape (trials,).
        factors: how each depends on the uncertain weights, in units of the spread; shape (trials, features).
        spread: standard deviation of the residuals.
        freedom: its degrees of freedom.
        bounds: of the logarithms.
    """

    logs: NDArray[np.float64]
    factors: NDArray[np.float64]
    spread: float
    freedom: float
    bounds: tuple[float, float]


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
        self._map: FeatureMap | None = None
        #: Logarithm of each trial's work; 0 if unknown.
        self._offset: NDArray[np.float64] = np.zeros(0)
        self._regression: Regression | None = None
        #: Bounds of the logarithm of a prediction.
        self._bounds: tuple[float, float] = (-math.inf, math.inf)
        #: Whether the columns are this model's own lists, which may grow.
        self._owns_columns = False
        self._usual_s: float | None = None
        self._numbers: list[int] = []
        self._durations_s: list[float] = []
        self._expected_s: list[float] | None = None
        #: Logarithm of the mean of each trial's predicted distribution; the expected duration is its median.
        self._log_means: list[float] | None = None
        self._next_fit: float = 3
        self._uncertainty = 1.0

    @classmethod
    def stated(
        cls, expected_s: Sequence[float], uncertainty: float, places: Sequence[int] | None = None
    ) -> DurationModel:
        """A model that states these durations and never learns.

        Args:
            expected_s: expected duration of each trial in seconds.
            uncertainty: ratio of the upper bounds to them.
            places: place of each trial in the order in which they start; None for the longest first.
        """
        model = cls({}, None, len(expected_s), places)
        model._expected_s = list(expected_s)
        model._log_means = [math.log(max(seconds, 1e-7)) for seconds in expected_s]
        model._uncertainty, model._next_fit = uncertainty, math.inf
        return model

    def observe(self, numbers: Sequence[int], durations_s: Sequence[float]) -> None:
        """Add the measured durations of trials that ran to their end."""
        self._numbers.extend(numbers)
        self._durations_s.extend(durations_s)

    @property
    def is_due(self) -> bool:
        """Whether there are enough new measurements for another fit."""
        return len(self._numbers) + len(self._elsewhere) >= self._next_fit

    def fit(self, running_s: Mapping[int, float] | None = None) -> None:
        """Fit the model to all observations.

        Args:
            running_s: running trials, and seconds that they have run at least.
        """
        count = len(self._numbers) + len(self._elsewhere)
        self._next_fit = count + (max(2, count // 3) if count < _MANY else count)
        features, offset, others = self._all_features()
        stride = max(1, len(self._numbers) // _MAX_FIT)
        measured, running = self._numbers[::stride], _every(running_s or {}, _MAX_RUNNING)
        rows = np.array([*measured, *running], dtype=int)
        ended_s = [*(seconds for _, seconds in self._elsewhere), *self._durations_s[::stride]]
        durations = np.maximum(np.array([*ended_s, *running.values()]), 1e-7)
        logs, is_running = np.log(durations), np.arange(len(durations)) >= len(ended_s)
        # Until the parameters say more, durations are proportional to the known work.
        targets = logs - np.concatenate([np.zeros(len(others)), offset[rows]])
        observed = Observations(np.vstack([others, features[rows]]), targets, is_running)
        self._regression = fit_best(observed)
        shortest, longest = durations[: len(ended_s)].min(), durations.max()
        self._bounds = math.log(shortest / _BEYOND_MEASURED), math.log(longest * _BEYOND_MEASURED)
        self._expected_s, self._log_means = self._predicted_s(features, offset)
        self._usual_s = float(np.exp(logs[: len(ended_s)].mean()))
        self._uncertainty = math.exp(_SIGMAS * self._regression.spread)

    def _all_features(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Features and logarithms of work of this sweep's trials, and features of those elsewhere."""
        if self._features is None or self._elsewhere_features is None:
            others = {name: [one.get(name) for one, _ in self._elsewhere] for name in self._columns}
            both = {name: [*others[name], *column] for name, column in self._columns.items()}
            self._map = FeatureMap(both, self._work)
            self._features = self._map.rows(self._columns, self._work, self._count)
            work: list[float] | None = None if self._work is None else []
            self._elsewhere_features = self._map.rows(others, work, len(self._elsewhere))
            self._offset = np.zeros(self._count) if self._work is None else log_work(self._work)
        return self._features, self._offset, self._elsewhere_features

    def _predicted_s(
        self, features: NDArray[np.float64], offset: NDArray[np.float64]
    ) -> tuple[list[float], list[float]]:
        """Predicted durations in seconds of rows of features, and sort keys."""
        assert self._regression is not None
        logs = offset + self._regression.mean(features)
        # Extrapolated durations are clipped, but still say which trial is longer.
        keys = logs + self._regression.variance(features) / 2
        return np.exp(np.clip(logs, *self._bounds)).tolist(), keys.tolist()

    def predictive(self, numbers: Sequence[int]) -> Predictive | None:
        """The predicted distribution of these trials together; None before the first fit."""
        regression = self._regression
        if regression is None:
            return None
        features, offset, _ = self._all_features()
        rows = np.asarray(numbers, dtype=int)
        return Predictive(
            offset[rows] + regression.mean(features[rows]),
            features[rows] @ _root(regression.inverse),
            regression.unbiased,
            regression.freedom,
            self._bounds,
        )

    def usual(self) -> Predictive | None:
        """The distribution of a trial about which nothing is known; None before the first fit."""
        if self._regression is None:
            return None
        logs = np.log(np.maximum([*(s for _, s in self._elsewhere), *self._durations_s], 1e-7))
        spread = max(float(logs.std(ddof=1)), self._regression.unbiased) if len(logs) > 1 else 1.0
        return Predictive(
            logs.mean(keepdims=True),
            np.full((1, 1), 1 / math.sqrt(len(logs))),
            spread,
            max(1.0, len(logs) - 1.0),
            self._bounds,
        )

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
            self._work = self._expected_s = self._log_means = None
            if len(self._numbers) >= 3:
                self.fit()
        elif self._expected_s is not None:
            assert self._map is not None
            assert self._log_means is not None
            rows = self._map.rows(new, None, len(configurations))
            medians, log_means = self._predicted_s(rows, np.zeros(len(configurations)))
            self._expected_s += medians
            self._log_means += log_means

    def repeat(self, numbers: Sequence[int]) -> None:
        """Add trials with the parameters of these, and so with their expected durations."""
        lists = self._work, self._expected_s, self._log_means
        self._work = self._expected_s = self._log_means = None
        rows = [{name: column[number] for name, column in self._columns.items()} for number in numbers]
        self.grow([{name: value for name, value in row.items() if value is not None} for row in rows])
        self._work, self._expected_s, self._log_means = (
            None if one is None else [*one, *(one[number] for number in numbers)] for one in lists
        )

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
        return self._fixed_keys or self._log_means or self._work

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


def _every(running_s: Mapping[int, float], limit: int) -> dict[int, float]:
    """Up to `limit` of these trials, evenly chosen."""
    stride = -(-len(running_s) // limit) or 1
    return dict(islice(running_s.items(), 0, None, stride))


def _root(inverse: NDArray[np.float64]) -> NDArray[np.float64]:
    """A matrix that times its transpose is the inverse."""
    # Rounding may leave a tiny negative eigenvalue.
    values, vectors = np.linalg.eigh(inverse)
    root: NDArray[np.float64] = vectors * np.sqrt(np.maximum(values, 0.0))
    return root
