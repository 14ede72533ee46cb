"""How trials scale with their ranks: speedup and efficiency, as arrays.

For each configuration of the other parameters, the fewest ranks that it was run on are the reference:
``speedup(n)`` is how many times faster *n* ranks are than those, ``efficiency(n)`` the speedup over how many
times more ranks that is.  What is faster depends on the metric: a rate (``images_per_second``) or a duration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpisweep.records import TrialState
from mpisweep.results import ResultsError
from mpisweep.results.load import Sweep
from mpisweep.spec import RANKS
from mpisweep.spec.units import configuration_text
from mpisweep.views.wording import units

__all__ = ["ScalingCurve", "default_metric", "is_rate", "scaling"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScalingCurve:
    """One configuration on different numbers of ranks; arrays have one entry a trial, fewest ranks first."""

    #: The other searched parameters, e.g. ``batch_size=256``; empty where there are none.
    label: str
    ranks: NDArray[np.int64]
    values: Floats
    speedup: Floats
    numbers: NDArray[np.int64]

    @property
    def efficiency(self) -> Floats:
        """Speedup over how many times more ranks there are."""
        return np.asarray(self.speedup * self.ranks[0] / self.ranks, dtype=np.float64)


def default_metric(sweep: Sweep) -> str:
    """``images_per_second`` where trials report it, else their duration."""
    return "images_per_second" if "images_per_second" in sweep.metrics else "wall_time"


def is_rate(sweep: Sweep, metric: str) -> bool:
    """Whether more of a metric is faster: by its units, else by its name."""
    unit = units(sweep, metric)
    return unit.endswith("/s") if unit else metric.endswith(("per_second", "per_s", "rate", "throughput"))


def scaling(sweep: Sweep, metric: str) -> list[ScalingCurve]:
    """Curves, one for each configuration of the other searched parameters that ran on several numbers of
    ranks.

    Raises:
        KeyError: when there is no such metric.
        ResultsError: when there is nothing to compare.
    """
    if RANKS not in sweep.parameters:
        raise ResultsError(
            f"{sweep.path}: all trials have one rank; scaling is seen with {RANKS} = [1, 2, 4] under "
            "[parameters]"
        )
    trials = sweep.trials.array
    values = trials[sweep.metric_column(metric)].astype(float)
    shown = (trials["state"] == TrialState.COMPLETE.label) & np.isfinite(values) & (values > 0)
    searched = [name for name in sweep.spec.space.names if name != RANKS]
    # A baseline may differ in what is fixed for all others.
    others = [*searched, *(name for name in sweep.parameters if name not in (*searched, RANKS))]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number in np.flatnonzero(shown):
        key = tuple(trials[sweep.column(name)][number] for name in others)
        groups.setdefault(key, []).append(int(number))
    curves: list[ScalingCurve] = []
    for key, numbers in groups.items():
        ranks = trials[sweep.column(RANKS)][numbers]
        if len(set(ranks.tolist())) < 2:
            continue
        order = np.argsort(ranks, kind="stable")
        own = values[numbers][order]
        speedup = own / own[0] if is_rate(sweep, metric) else own[0] / own
        label = configuration_text(dict(zip(searched, key, strict=False)))
        curves.append(
            ScalingCurve(label, ranks[order].astype(np.int64), own, speedup, np.array(numbers)[order])
        )
    if not curves:
        raise ResultsError(
            f"{sweep.path}: no configuration has completed on two different numbers of ranks yet"
        )
    return curves
