"""Which trials to measure first, so that the durations of all others are predicted best.

Each pilot trial is the one whose prediction is the most uncertain given those chosen before it: the greedy
form of a D-optimal design (V. Fedorov, Theory of Optimal Experiments, 1972).  The features are those of the
duration model and their squares, so that a pilot has ends and middles of the space and not only its corners.

The choice depends on the parameters alone, not on what has ended: the same command chooses the same trials
after a crash, and a larger pilot contains the smaller one.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mpisweep.records import Value
from mpisweep.scheduling.regression import FeatureMap

__all__ = ["pilot_trials"]

#: Information about each feature before the first trial, in units of one trial.
_RIDGE = 1e-3


def pilot_trials(
    columns: Mapping[str, Sequence[Value | None]],
    work: Sequence[float] | None,
    candidates: Sequence[int],
    count: int,
) -> list[int]:
    """Choose pilot trials.

    Args:
        columns: the searched parameters, one entry per trial.
        work: relative work of each trial; None if unknown.
        candidates: trials to choose from.
        count: how many to choose.

    Returns:
        Their numbers in the order in which they were chosen; fewer if there are fewer candidates.
    """
    rows = np.asarray(candidates, dtype=int)
    total = len(work) if work is not None else max((len(column) for column in columns.values()), default=0)
    features = (
        FeatureMap(columns, work).rows(columns, work, total)[rows] if total else np.ones((len(rows), 1))
    )
    x = _with_squares(features)
    inverse = np.eye(x.shape[1]) / _RIDGE
    chosen: list[int] = []
    is_left = np.ones(len(rows), bool)
    for _ in range(min(count, len(rows))):
        gain = np.where(is_left, np.einsum("ij,jk,ik->i", x, inverse, x), -np.inf)
        best = int(gain.argmax())
        is_left[best] = False
        chosen.append(int(rows[best]))
        direction = inverse @ x[best]
        inverse -= np.outer(direction, direction) / (1 + float(x[best] @ direction))
    return chosen


def _with_squares(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """The features and those of their squares that are not constant, standardised."""
    squares = features[:, 1:] ** 2
    spread = squares.std(axis=0)
    varies = spread > 1e-9
    return np.hstack([features, (squares[:, varies] - squares[:, varies].mean(axis=0)) / spread[varies]])
