"""Which values of a metric are better, and which parameters act by ratios."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpisweep.records import Direction
from mpisweep.results.load import Sweep
from mpisweep.statistics.trend import is_logarithmic

__all__ = ["acts_by_ratios", "direction_of", "evenly", "has_smooth_ratios"]

Floats = NDArray[np.float64]
#: Largest value by smallest, from which on a parameter is smooth over ratios, however it is sampled.
_DECADES = 30


def direction_of(sweep: Sweep, metric: str, otherwise: Direction = Direction.MINIMIZE) -> Direction:
    """Which values of a metric are better: as it says if it is one of the objectives."""
    return next((one.direction for one in sweep.objectives if one.name == metric), otherwise)


def acts_by_ratios(sweep: Sweep, parameter: str, values: Floats) -> bool:
    """Whether a logarithmic axis suits a parameter: declared so, or sampled so."""
    known = values[np.isfinite(values)]
    if not len(known) or known.min() <= 0:
        return False
    return _is_declared(sweep, parameter) or is_logarithmic(known)


def has_smooth_ratios(sweep: Sweep, parameter: str, values: Floats) -> bool:
    """Whether trends are smooth over a parameter's logarithm: declared so, or over decades."""
    known = values[np.isfinite(values)]
    if not len(known) or known.min() <= 0:
        return False
    return _is_declared(sweep, parameter) or bool(known.max() / known.min() >= _DECADES)


def _is_declared(sweep: Sweep, parameter: str) -> bool:
    return any(one.name == parameter and getattr(one, "log", False) for one in sweep.spec.space.parameters)


def evenly(count: int, most: int) -> NDArray[np.intp]:
    """Indices of up to `most` of `count` rows, which lie evenly among them."""
    chosen: NDArray[np.intp] = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.intp))
    return chosen
