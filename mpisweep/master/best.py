"""The best so far: of each objective, and with several objectives the front.

Without repeats these are trials.  With repeats, once any configuration has two complete runs, they are
configurations, by the means over their runs, as in the tables of results: of many single runs the best one is
the luckiest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpisweep.pareto import is_on_front
from mpisweep.records import Objective, Value
from mpisweep.search.numbering import Trials
from mpisweep.statistics.common_seeds import fit_means

__all__ = ["BestMeans", "BestSoFar", "follow_best"]

#: Runs, and repeats, up to which configurations are ranked without the luck of seeds that others lack: that
#: takes up to 7 ms, in which the loop serves no rank.  In larger sweeps they are ranked by their plain means.
_MOST_RUNS, _MOST_REPEATS = 100_000, 200
#: Number of blocks that may wait to be looked at.
_MOST_WAITING = 1000


class BestSoFar:
    """Follows the best trials of a sweep.

    A trial counts if all its objectives are finite.

    Args:
        objectives: of the sweep.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._objectives = objectives
        #: Per objective, its best value and the trial that has it.
        self._found: list[tuple[float, int]] = []
        self._front: NDArray[np.float64] = np.empty((0, len(objectives)))
        self._asked_for: dict[str, Value] = {}

    @property
    def number(self) -> int | None:
        """The best trial by the first objective, or a trial of the best configuration.

        None if no trial has finite objectives.
        """
        return self._found[0][1] if self._found else None

    @property
    def value(self) -> float | None:
        """The first objective of that trial, or the mean of that configuration."""
        return self._found[0][0] if self._found else None

    @property
    def runs(self) -> int:
        """Number of runs of which it is the mean; 0 if it is that of a single trial."""
        return 0

    @property
    def others(self) -> dict[str, float]:
        """The best values of the objectives after the first one."""
        return {one.name: best[0] for one, best in zip(self._objectives[1:], self._found[1:], strict=False)}

    @property
    def front(self) -> int:
        """Number of trials, or of configurations, on the front; 0 with one objective."""
        return len(self._front)

    @property
    def asked_for(self) -> Mapping[str, Value]:
        """Parameters of the best trial, if an objective of Optuna names them; else empty."""
        return self._asked_for

    def note(
        self,
        numbers: Sequence[int],
        columns: Sequence[Sequence[float | None]],
        suggested: Sequence[Mapping[str, Any] | None] = (),
    ) -> None:
        """Note completed trials.

        Args:
            numbers: of the trials.
            columns: the values of each objective.
            suggested: what each of them has asked for, if an objective of Optuna names the parameters; empty
                otherwise.
        """
        if len(columns) == 1:
            values = columns[0]
            self._note_best(0, numbers, values, [v for v in values if v is not None and math.isfinite(v)])
        else:
            self._note_several(numbers, columns)
        if suggested and self._found and self._found[0][1] in numbers:
            asked = suggested[numbers.index(self._found[0][1])]
            self._asked_for = {} if asked is None else dict(asked["params"])

    def _note_several(self, numbers: Sequence[int], columns: Sequence[Sequence[float | None]]) -> None:
        # Shape (trials, objectives); a missing value is NaN.
        table = np.array(columns, dtype=float).T
        rows = np.isfinite(table).all(axis=1)
        if not rows.any():
            return
        kept = table[rows]
        for place, column in enumerate(kept.T.tolist()):
            self._note_best(place, [n for n, fits in zip(numbers, rows, strict=True) if fits], column, column)
        costs = np.vstack([self._front, kept * [one.sign for one in self._objectives]])
        self._front = costs[is_on_front(costs)]

    def _note_best(
        self,
        place: int,
        numbers: Sequence[int],
        values: Sequence[float | None],
        finite: Sequence[float],
    ) -> None:
        if not finite:
            return
        sign = self._objectives[place].sign
        value = min(finite) if sign > 0 else max(finite)
        if place == len(self._found):
            self._found.append((value, numbers[values.index(value)]))
        elif sign * value < sign * self._found[place][0]:
            self._found[place] = value, numbers[values.index(value)]


class BestMeans(BestSoFar):
    """The same of a sweep with repeats.

    What has ended is looked at when the means are asked for and not at each end: they take time in proportion
    to the number of configurations, and an array takes one block at a time no faster than a thousand.

    Args:
        objectives: of the sweep.
        trials: all trials; read, may grow.
    """

    def __init__(self, objectives: Sequence[Objective], trials: Trials) -> None:
        super().__init__(objectives)
        self._trials = trials
        #: Configuration -> its first trial that counts.
        self._trial_of: dict[int, int] = {}
        #: Shape (objectives, configurations, repeats); NaN where no run counts.
        self._values: NDArray[np.float64] = np.full((len(objectives), 0, 0), np.nan)
        #: Noted since the means were asked for: (trials, values of each objective).
        self._waiting: list[tuple[Sequence[int], Sequence[Sequence[float | None]]]] = []
        self._is_repeated = False
        self._is_current = True
        self._runs = 0

    @property
    def number(self) -> int | None:
        """A trial of the best configuration."""
        self._compute()
        return super().number

    @property
    def value(self) -> float | None:
        """The mean of the best configuration."""
        self._compute()
        return super().value

    @property
    def runs(self) -> int:
        """Number of runs of which it is the mean."""
        self._compute()
        return self._runs

    @property
    def others(self) -> dict[str, float]:
        """The best means of the objectives after the first one."""
        self._compute()
        return super().others

    @property
    def front(self) -> int:
        """Number of configurations on the front."""
        self._compute()
        return super().front

    def note(
        self,
        numbers: Sequence[int],
        columns: Sequence[Sequence[float | None]],
        suggested: Sequence[Mapping[str, Any] | None] = (),
    ) -> None:
        """Note completed trials; `suggested` is empty: an objective of Optuna has no repeats."""
        self._waiting.append((numbers, columns))
        if len(self._waiting) == _MOST_WAITING:
            self._take()

    def _take(self) -> None:
        """Put what was noted into the table, all blocks at once."""
        numbers = [number for block, _ in self._waiting for number in block]
        by_objective = zip(*(columns for _, columns in self._waiting), strict=True)
        columns = [list(chain.from_iterable(blocks)) for blocks in by_objective]
        self._waiting.clear()
        if not numbers:
            return
        if not self._is_repeated:
            super().note(numbers, columns)
        table = np.array(columns, dtype=float)  # (objectives, trials)
        counted = np.flatnonzero(np.isfinite(table).all(axis=0)).tolist()
        if not counted:
            return
        trials = [numbers[place] for place in counted]
        rows = [self._trials.configuration_of[number] for number in trials]
        repeats = [self._trials.repeat_of[number] for number in trials]
        self._make_room(max(rows) + 1, max(repeats) + 1)
        self._values[:, rows, repeats] = table[:, counted]
        for row, number in zip(rows, trials, strict=True):
            self._trial_of.setdefault(row, number)
        if not self._is_repeated:
            self._is_repeated = bool((np.isfinite(self._values[0, rows]).sum(axis=1) > 1).any())
        self._is_current = not self._is_repeated

    def _make_room(self, configurations: int, repeats: int) -> None:
        _, rows, columns = self._values.shape
        if configurations <= rows and repeats <= columns:
            return
        # At least twice as many rows, so that a search that proposes one after another copies few of them.
        more = 0 if configurations <= rows else max(configurations, 2 * rows) - rows
        self._values = np.pad(
            self._values, ((0, 0), (0, more), (0, max(0, repeats - columns))), constant_values=np.nan
        )

    def _compute(self) -> None:
        """Compare the means, if any run has ended since."""
        self._take()
        if self._is_current:
            return
        self._is_current = True
        counts = np.isfinite(self._values[0]).sum(axis=1)
        rows = np.flatnonzero(counts)
        means = np.nansum(self._values[:, rows], axis=2) / counts[rows]  # (objectives, configurations)
        signs = [one.sign for one in self._objectives]
        costs = means * np.array(signs)[:, None]
        repeats = self._values.shape[2]
        if len(costs) == 1 and repeats <= _MOST_REPEATS and len(rows) * repeats <= _MOST_RUNS:
            costs = signs[0] * fit_means(self._values[0, rows]).ranked[None]
        best = np.argmin(costs, axis=1).tolist()
        self._found = [
            (float(column[place]), self._trial_of[int(rows[place])])
            for column, place in zip(means, best, strict=True)
        ]
        self._runs = int(counts[rows[best[0]]])
        if len(costs) > 1:
            self._front = costs.T[is_on_front(costs.T)]


def follow_best(objectives: Sequence[Objective], trials: Trials, repeats: int) -> BestSoFar:
    """Follow the best of a sweep.

    Args:
        objectives: of the sweep.
        trials: all trials; read, may grow.
        repeats: how often each configuration is run, at least.
    """
    return BestMeans(objectives, trials) if repeats > 1 else BestSoFar(objectives)
