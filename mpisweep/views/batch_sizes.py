"""Lines about the batch size: the best one at each budget, and the critical one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from mpisweep.records import TrialState
from mpisweep.results import ResultsError
from mpisweep.results.batch_sizes import BestSize
from mpisweep.results.criticality import CriticalBatch
from mpisweep.results.load import Sweep
from mpisweep.spec.units import number_text
from mpisweep.views.wording import finite_or_none

__all__ = ["batch_size_fields", "batch_size_lines"]

_SIZE = "batch_size"


def batch_size_lines(sweep: Sweep) -> list[str]:
    """The lines; none unless `batch_size` is searched and there are metrics that answer."""
    best, critical = _answers(sweep)
    found = [_best_text(sweep, one) for one in best]
    if isinstance(critical, ResultsError):
        found.append(f"no critical batch size: {str(critical).removeprefix(f'{sweep.path}: ')}")
    elif critical is not None:
        found += _critical_lines(sweep, critical)
    return found


def batch_size_fields(sweep: Sweep) -> dict[str, Any]:
    """The same for :func:`json.dumps`; an end of an interval that is open is None."""
    best, critical = _answers(sweep)
    fit = None
    if isinstance(critical, CriticalBatch):
        fit = {
            "size": critical.size,
            "low": critical.low or None,
            "high": finite_or_none(critical.high),
            "least_steps": critical.least_steps,
            "least_samples": critical.least_samples,
            "reached": critical.reached,
            "bounds": critical.bounds,
        }
    sizes = [
        {
            "metric": _metric(one),
            "size": one.size,
            "low": one.low,
            "high": one.high,
            "value": one.value,
            "runs": int(one.runs.max()),
        }
        for one in best
    ]
    return {"batch_sizes": sizes, "critical_batch_size": fit}


def _answers(sweep: Sweep) -> tuple[list[BestSize], CriticalBatch | ResultsError | None]:
    """The best sizes, and the critical one or why there is none."""
    if _SIZE not in sweep.spec.space.names or sweep.budget is not None:
        return [], None
    best = sweep.best_batch_sizes() if sweep.spec.search == _SIZE else []
    if "steps_to_target" not in sweep.metrics:
        return best, None
    try:
        return best, sweep.critical_batch_size()
    except ResultsError as error:
        return best, error


def _metric(best: BestSize) -> str:
    return best.metric.removeprefix("metric_")


def _best_text(sweep: Sweep, best: BestSize) -> str:
    metric, _, axis = _metric(best).partition("_at_")
    better = "smallest" if sweep.direction == "minimize" else "largest"
    where = f" at equal {axis}" if axis else ""
    return (
        f"{better} {metric}{where}: batch_size {best.size:.0f} "
        f"(95%: {best.low:.0f} to {best.high:.0f}), {number_text(best.value)} by the trend"
        f"{f' through means of up to {best.runs.max()} runs' if best.runs.max() > 1 else ''}"
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
