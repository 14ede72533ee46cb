"""The best trials so far: of each objective, and with several objectives those on the front."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mpisweep.pareto import is_on_front
from mpisweep.records import Objective

__all__ = ["BestSoFar"]


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

    @property
    def number(self) -> int | None:
        """The best trial by the first objective; None if no trial has finite objectives."""
        return self._found[0][1] if self._found else None

    @property
    def value(self) -> float | None:
        """The first objective of that trial."""
        return self._found[0][0] if self._found else None

    @property
    def others(self) -> dict[str, float]:
        """The best values of the objectives after the first one."""
        return {one.name: best[0] for one, best in zip(self._objectives[1:], self._found[1:], strict=False)}

    @property
    def front(self) -> int:
        """Number of trials on the front; 0 with one objective."""
        return len(self._front)

    def note(self, numbers: Sequence[int], columns: Sequence[Sequence[float | None]]) -> None:
        """Note completed trials.

        Args:
            numbers: of the trials.
            columns: the values of each objective.
        """
        if len(columns) == 1:
            values = columns[0]
            self._note_best(0, numbers, values, [v for v in values if v is not None and math.isfinite(v)])
            return
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
