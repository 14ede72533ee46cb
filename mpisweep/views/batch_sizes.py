"""Lines about the batch size: the best one at each budget, and the critical one."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from mpisweep.records import TrialState
from mpisweep.results import ResultsError
from mpisweep.results.batch_sizes import BestSize
from mpisweep.results.criticality import CriticalBatch
from mpisweep.results.load import Sweep
from mpisweep.spec.units import number_text

__all__ = ["batch_size_lines"]

_SIZE = "batch_size"


def batch_size_lines(sweep: Sweep) -> list[str]:
    """The lines; none unless `batch_size` is searched and there are metrics that answer."""
    if _SIZE not in sweep.spec.space.names or sweep.budget is not None:
        return []
    found: list[str] = []
    if sweep.spec.search == _SIZE:
        found += [_best_text(sweep, best) for best in sweep.best_batch_sizes()]
    if "steps_to_target" in sweep.metrics:
        try:
            found += _critical_lines(sweep, sweep.critical_batch_size())
        except ResultsError as error:
            found.append(f"no critical batch size: {str(error).removeprefix(f'{sweep.path}: ')}")
    return found


def _best_text(sweep: Sweep, best: BestSize) -> str:
    metric, _, axis = best.metric.removeprefix("metric_").partition("_at_")
    better = "smallest" if sweep.direction == "minimize" else "largest"
    where = f" at equal {axis}" if axis else ""
    return (
        f"{better} {metric}{where}: batch_size {best.size:.0f} "
        f"(95%: {best.low:.0f} to {best.high:.0f}), {number_text(best.value)} by the trend"
    )


def _critical_lines(sweep: Sweep, fit: CriticalBatch) -> Iterator[str]:
    high = "no upper bound" if math.isinf(fit.high) else f"to {fit.high:.3g}"
    low = "no lower bound" if fit.low == 0 else f"{fit.low:.3g}"
    bounds = f", and {fit.bounds} that did not reach it as bounds" if fit.bounds else ""
    yield (
        f"critical batch size: {fit.size:.3g} (95%: {low} {high}), from {fit.reached} trials that "
        f"reached the target{bounds}"
    )
    yield f"  at least {fit.least_steps:,.0f} steps and {fit.least_samples:,.0f} samples to the target"
    if "noise_scale" in sweep.metrics:
        complete = sweep.trials[sweep.trials["state"] == TrialState.COMPLETE.label]
        measured = complete[sweep.metric_column("noise_scale")].astype(float)
        measured = measured[np.isfinite(measured)]
        if len(measured):
            low_, middle, high_ = (number_text(float(q)) for q in np.quantile(measured, [0.1, 0.5, 0.9]))
            yield f"  gradient noise scale: {middle} (median; 80% of the trials: {low_} to {high_})"
