"""The best configuration of a sweep, by the mean of its repeats."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mpisweep.records import Value
from mpisweep.results.configurations import runs_of
from mpisweep.results.load import Sweep

__all__ = ["Best", "best_of"]


class Best(NamedTuple):
    """The best configuration by the first objective.

    Attributes:
        number: of its first trial.
        value: mean of the objective over its complete trials.
        runs: number of these.
        parameters: searched and fixed.
    """

    number: int
    value: float
    runs: int
    parameters: dict[str, Value]


def best_of(sweep: Sweep) -> Best | None:
    """Find the best configuration; None if no complete trial has a finite objective."""
    name = sweep.objective
    if name not in sweep.metrics:
        return None
    runs = runs_of(sweep.trials, sweep.metric_column(name))
    counts = np.isfinite(runs.values).sum(axis=1)
    measured = np.flatnonzero(counts)
    if not len(measured):
        return None
    finite = np.where(np.isfinite(runs.values), runs.values, 0.0)
    means = finite[measured].sum(axis=1) / counts[measured]
    place = int(np.argmin(sweep.objectives[0].sign * means))
    row = measured[place]
    number = int(runs.first[row])
    return Best(number, float(means[place]), int(counts[row]), sweep.configuration(number))
