"""Scaling of trials with their number of ranks: speedup and efficiency, as arrays.

The reference of each configuration of the other parameters is its run on the fewest ranks, *m*:
``speedup(n)`` is how many times faster *n* ranks are, and ``efficiency(n)`` is ``speedup(n) * m / n``.  The
metric is a rate (``images_per_second``), of which more is faster, or a duration.
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
    """One configuration on several numbers of ranks; arrays have one entry per trial, by ranks."""

    #: The other searched parameters, e.g. ``batch_size=256``; empty if there are none.
    label: str
    ranks: NDArray[np.int64]
    values: Floats
    speedup: Floats
    numbers: NDArray[np.int64]

    @property
    def efficiency(self) -> Floats:
        """Speedup divided by the ratio of ranks."""
        return np.asarray(self.speedup * self.ranks[0] / self.ranks, dtype=np.float64)


def default_metric(sweep: Sweep) -> str:
    """``images_per_second`` if trials report it, else their duration."""
    return "images_per_second" if "images_per_second" in sweep.metrics else "wall_time"


def is_rate(sweep: Sweep, metric: str) -> bool:
    """Whether a metric is a rate: by its units, else by its name."""
    unit = units(sweep, metric)
    return unit.endswith("/s") if unit else metric.endswith(("per_second", "per_s", "rate", "throughput"))


def scaling(sweep: Sweep, metric: str) -> list[ScalingCurve]:
    """Compute one curve per configuration that ran on several numbers of ranks.

    Raises:
        KeyError: if there is no such metric.
        ResultsError: if there is nothing to compare.
    """
    if RANKS not in sweep.parameters:
        raise ResultsError(
            f"{sweep.path}: all trials have one rank; to measure scaling, set {RANKS} = [1, 2, 4] under "
            "[parameters]"
        )
    trials = sweep.trials.array
    values = trials[sweep.metric_column(metric)].astype(float)
    shown = (trials["state"] == TrialState.COMPLETE.label) & np.isfinite(values) & (values > 0)
    searched = [name for name in sweep.spec.space.names if name != RANKS]
    # The baseline may differ from the others in fixed parameters.
    others = [*searched, *(name for name in sweep.parameters if name not in (*searched, RANKS))]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number in np.flatnonzero(shown):
        values_here = sweep.configuration(int(number))
        key = tuple(map(values_here.get, others))
        groups.setdefault(key, []).append(int(number))
    curves: list[ScalingCurve] = []
    for key, numbers in groups.items():
        ranks = trials[sweep.column(RANKS)][numbers]
        if len(set(ranks.tolist())) < 2:
            continue
        order = np.argsort(ranks, kind="stable")
        own = values[numbers][order]
        speedup = own / own[0] if is_rate(sweep, metric) else own[0] / own
        of_key = zip(searched, key, strict=False)
        label = configuration_text({name: value for name, value in of_key if value is not None})
        curves.append(
            ScalingCurve(label, ranks[order].astype(np.int64), own, speedup, np.array(numbers)[order])
        )
    if not curves:
        raise ResultsError(f"{sweep.path}: no configuration has completed on two different numbers of ranks")
    return curves
