"""The trade-off between a sweep's objectives: its front, and the hypervolume over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisweep.pareto import Hypervolume, is_on_front
from mpisweep.records import Objective, TrialState
from mpisweep.results import ResultsError
from mpisweep.results.occupancy import time_in_runs
from mpisweep.results.trial_table import TrialTable
from mpisweep.spec import nearest

__all__ = ["HypervolumeHistory", "Tradeoff"]


class HypervolumeHistory(NamedTuple):
    """Hypervolume of the trials that had ended, after each end: arrays of shape (trials,).

    `time` is in seconds of the sweep's runs, without the time between them.  `reference` is the reference
    point, a value per objective.
    """

    time: NDArray[np.float64]
    hypervolume: NDArray[np.float64]
    reference: dict[str, float]


class Tradeoff:
    """The complete trials of a sweep with finite objectives, and the costs of each.

    Args:
        trials: all trials.
        objectives: of the sweep.
        columns: the column of each objective; None if no trial has reported it.
    """

    def __init__(
        self, trials: TrialTable, objectives: Sequence[Objective], columns: Sequence[str | None]
    ) -> None:
        counts = (trials["state"] == TrialState.COMPLETE.label) & ~trials["diverged"] & (None not in columns)
        self._rows = trials.array[counts]
        self._objectives = objectives
        values = [self._rows[column] if column else np.empty(0) for column in columns]
        self._costs = np.stack([one.sign * of for one, of in zip(objectives, values, strict=True)], axis=1)

    def front(self) -> TrialTable:
        """The trials on the front, the best by the first objective first."""
        mask = is_on_front(self._costs)
        rows, costs = self._rows[mask], self._costs[mask]
        return TrialTable(rows[np.lexsort(costs.T[::-1])])

    def history(self, spans: NDArray[np.float64], reference: Mapping[str, float]) -> HypervolumeHistory:
        """The hypervolume over time.

        Args:
            spans: start and end of each run, in seconds since 1970.
            reference: objective -> its value in the reference point; for others the worst of all trials.

        Raises:
            ResultsError: if there is one objective only, or the reference names another metric or is not
                finite.
        """
        names = [one.name for one in self._objectives]
        if len(names) == 1:
            raise ResultsError(f"the sweep has one objective, {names[0]!r}; a hypervolume needs several")
        for name, value in reference.items():
            if name not in names:
                raise ResultsError(f"reference: no objective {name!r}; {nearest(name, names)}")
            if not np.isfinite(value):
                raise ResultsError(f"reference: {name!r} is {value}; expected a finite number")
        ended_at = self._rows["ended_at"]
        order = np.argsort(ended_at, kind="stable")
        worst = self._costs.max(axis=0, initial=-np.inf) if len(order) else np.full(len(names), np.nan)
        point = [
            one.sign * reference[one.name] if one.name in reference else float(cost)
            for one, cost in zip(self._objectives, worst, strict=True)
        ]
        grown = Hypervolume(point)
        volumes = np.empty(len(order))
        for place, costs in enumerate(self._costs[order].tolist()):
            grown.add(costs)
            volumes[place] = grown.volume
        signs = [one.sign for one in self._objectives]
        return HypervolumeHistory(
            time_in_runs(spans, ended_at[order]),
            volumes,
            {name: sign * cost for name, sign, cost in zip(names, signs, point, strict=True)},
        )
