"""A sweep as a dataset of xarray: trials along one dimension, with the units of every variable.

Imports xarray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mpisweep.results.columns import columns_of
from mpisweep.spec import BuiltinWorkload
from mpisweep.spec.catalogue import units_of

if TYPE_CHECKING:
    from mpisweep.results.load import Sweep

__all__ = ["dataset"]

#: Fields of a trial beside its parameters and metrics.
_FIELDS = (
    "state",
    "cause",
    "diverged",
    "configuration",
    "repeat",
    "started_at",
    "wall_time",
    "device_energy",
)


def dataset(sweep: Sweep, *, curves: bool) -> Any:
    """The dataset; see :meth:`mpisweep.results.load.Sweep.to_xarray`."""
    trials = sweep.trials
    parameters = {name: sweep.column(name) for name in sweep.parameters}
    metrics = {name: sweep.metric_column(name) for name in sweep.metrics}
    workload = sweep.spec.workload
    named = workload.name if isinstance(workload, BuiltinWorkload) else ""

    def variable(column: str, units: str) -> Any:
        return ("trial", trials[column], {"units": units} if units else {})

    made = xr.Dataset(
        {column: variable(column, units_of(named, name, is_metric=True)) for name, column in metrics.items()}
        | {one.name: variable(one.name, one.units) for one in columns_of("trials") if one.name in _FIELDS},
        coords={"trial": trials["number"]}
        | {column: variable(column, units_of(named, name)) for name, column in parameters.items()},
        attrs={
            "name": sweep.name,
            "objective": sweep.objective,
            "direction": sweep.direction.value,
            "source": str(sweep.path),
        },
    )
    return _with_curves(made, sweep) if curves else made


def _with_curves(made: Any, sweep: Sweep) -> Any:
    """Add the curves, of shape (trials, reports); NaN, and step -1, behind the end of one."""
    for metric in sweep.curve_names:
        found = [sweep.curve(number, metric) for number in range(len(sweep.trials))]
        reports = max((len(curve.step) for curve in found), default=0)
        shape = (len(found), reports)
        value, time_s, step = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, -1)
        for row, curve in enumerate(found):
            end = len(curve.step)
            value[row, :end], time_s[row, :end], step[row, :end] = curve.value, curve.time, curve.step
        dims, of = ("trial", f"{metric}_report"), made.get(metric)
        made[f"{metric}_curve"] = (dims, value, {} if of is None else of.attrs)
        made = made.assign_coords(
            {f"{metric}_step": (dims, step), f"{metric}_time": (dims, time_s, {"units": "s"})}
        )
    return made
