"""The best configuration of a sweep, by the means of repeats."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mpisweep.records import Value
from mpisweep.results.configurations import runs_of
from mpisweep.results.load import Sweep

__all__ = ["Best", "BestMean", "best_means", "best_of"]


class BestMean(NamedTuple):
    """The best configuration by one objective.

    Attributes:
        row: of its first trial in the table of trials.
        value: mean of the objective over its own runs.
        runs: number of these.
    """

    row: int
    value: float
    runs: int


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


def best_means(sweep: Sweep) -> tuple[list[BestMean], bool]:
    """The best configuration by each objective, and whether any one has two complete runs.

    With one objective they are ranked without the luck of seeds that only some have run.  The list is empty
    if no complete trial has finite objectives.
    """
    names = [one.name for one in sweep.objectives]
    if not all(name in sweep.metrics for name in names):
        return [], False
    if len(names) == 1:
        runs = runs_of(sweep.trials, sweep.metric_column(names[0]))
        row = runs.best_mean(minimize=sweep.objectives[0].sign > 0)
        if row is None:
            return [], False
        return [BestMean(int(runs.first[row]), runs.mean(row), int(runs.counts[row]))], runs.is_repeated
    front = sweep.tradeoff()
    if not len(front.rows):
        return [], False
    entries = np.argmin(front.values * [one.sign for one in sweep.objectives], axis=0).tolist()
    means = [
        BestMean(int(front.rows[entry]), float(front.values[entry, place]), int(front.count[entry]))
        for place, entry in enumerate(entries)
    ]
    return means, front.is_repeated


def best_of(sweep: Sweep) -> Best | None:
    """Find the best configuration; None if no complete trial has finite objectives."""
    means, _ = best_means(sweep)
    if not means:
        return None
    number = int(sweep.trials["number"][means[0].row])
    return Best(number, means[0].value, means[0].runs, sweep.configuration(number))
