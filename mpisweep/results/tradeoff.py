"""The trade-off between a sweep's objectives: its front, and the hypervolume over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisweep.pareto import Hypervolume, is_on_front
from mpisweep.records import Objective, TrialState
from mpisweep.results import ResultsError
from mpisweep.results.occupancy import time_in_runs
from mpisweep.results.trial_table import Table, TrialTable, structured
from mpisweep.spec import nearest

__all__ = ["FrontTable", "HypervolumeHistory", "Tradeoff", "front_table"]


class HypervolumeHistory(NamedTuple):
    """Hypervolume of what had ended, after each end: arrays of shape (entries,).

    `time` is in seconds of the sweep's runs, without the time between them.  `reference` is the reference
    point, a value per objective.
    """

    time: NDArray[np.float64]
    hypervolume: NDArray[np.float64]
    reference: dict[str, float]


class Tradeoff:
    """The objectives of a sweep, one entry per trial, or per configuration with repeats.

    Entries are complete trials with finite objectives.  Once any configuration has two of them, the entries
    are configurations, by the means over theirs: of single runs those on the front would be the luckiest.

    Args:
        trials: all trials.
        objectives: of the sweep.
        columns: the column of each objective; None if no trial has reported it.

    Attributes:
        is_repeated: whether the entries are configurations.
        number: of each entry's trial or configuration, ascending.
        values: shape (entries, objectives).
        half_widths: half the 95% interval of each value; NaN below two runs.
        count: number of runs of each entry.
        rows: in the table of trials, the first run of each entry.
        ended_at: when the last run of each entry had ended, in seconds since 1970.
    """

    def __init__(
        self, trials: TrialTable, objectives: Sequence[Objective], columns: Sequence[str | None]
    ) -> None:
        # It imports SciPy.
        from mpisweep.statistics.means import means_of

        self._objectives = objectives
        counts = (trials["state"] == TrialState.COMPLETE.label) & ~trials["diverged"] & (None not in columns)
        counted = np.flatnonzero(counts)
        of, repeat = trials["configuration"][counted], trials["repeat"][counted]
        known = (of >= 0) & (repeat >= 0)
        self.is_repeated = len(np.unique(of[known])) < int(known.sum())
        rows = counted[known] if self.is_repeated else counted
        self.number, first, place = np.unique(
            trials["configuration" if self.is_repeated else "number"][rows],
            return_index=True, return_inverse=True,
        )  # fmt: skip
        run = repeat[known] if self.is_repeated else np.zeros(len(rows), dtype=int)
        self.rows = rows[first]
        self.count = np.bincount(place, minlength=len(self.number))
        self.ended_at = np.full(len(self.number), -np.inf)
        np.maximum.at(self.ended_at, place, trials["ended_at"][rows])
        shape = len(self.number), int(run.max(initial=0)) + 1
        found: list[NDArray[np.float64]] = []
        half_widths: list[NDArray[np.float64]] = []
        for column in columns:
            table = np.full(shape, np.nan)
            if column is not None:
                table[place, run] = trials[column][rows]
            means = means_of(table)
            found.append(means.mean)
            half_widths.append(means.half_width)
        self.values, self.half_widths = np.stack(found, axis=1), np.stack(half_widths, axis=1)
        self._costs = self.values * [one.sign for one in objectives]

    @cached_property
    def on_front(self) -> NDArray[np.intp]:
        """The entries that no other one dominates, the best by the first objective first."""
        entries = np.flatnonzero(is_on_front(self._costs))
        return entries[np.lexsort(self._costs[entries].T[::-1])]

    def history(self, spans: NDArray[np.float64], reference: Mapping[str, float]) -> HypervolumeHistory:
        """The hypervolume over time; a configuration counts from the end of its last run.

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
        ended_at = self.ended_at
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

    @property
    def names(self) -> list[str]:
        """Names of the objectives, one per column of `values`."""
        return [one.name for one in self._objectives]


class FrontTable(Table):
    """Configurations on the front, one row each.

    Columns: ``number`` of the configuration, its searched parameters, ``n`` runs, and of each objective the
    mean over them, by the name of the objective, and half its 95% interval, ``half_NAME`` (NaN below two).
    """

    noun = "configurations"


def front_table(trials: TrialTable, found: Tradeoff, parameters: Mapping[str, str]) -> FrontTable:
    """Make the table of the configurations on the front.

    Args:
        trials: all trials.
        found: of these, by configuration.
        parameters: searched parameter -> its column in `trials`.
    """
    entries = found.on_front
    columns: dict[str, Any] = {"number": found.number[entries]}
    for name, own in parameters.items():
        columns[name if name not in columns else f"parameter_{name}"] = trials[own][found.rows[entries]]
    columns["n" if "n" not in columns else "runs"] = found.count[entries]
    for place, name in enumerate(found.names):
        for key, values in ((name, found.values), (f"half_{name}", found.half_widths)):
            columns[key if key not in columns else f"metric_{key}"] = values[entries, place]
    return FrontTable(structured(columns, len(entries)))
