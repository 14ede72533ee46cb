"""The best configuration of a sweep, by the means of repeats."""

from __future__ import annotations

from typing import NamedTuple

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
    """Find the best configuration; None if no complete trial has a finite objective.

    Ranked as in all views, without the luck of seeds; the value is the mean of its own runs.
    """
    name = sweep.objective
    if name not in sweep.metrics:
        return None
    runs = runs_of(sweep.trials, sweep.metric_column(name))
    row = runs.best_mean(minimize=sweep.objectives[0].sign > 0)
    if row is None:
        return None
    number = int(runs.first[row])
    return Best(number, runs.mean(row), int(runs.counts[row]), sweep.configuration(number))
