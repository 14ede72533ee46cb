"""A sweep as a dataset of xarray: trials along one dimension, variables with their units.

Imports xarray.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mpisweep.results.columns import columns_of
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


def dataset(sweep: Sweep, curves: Sequence[str]) -> Any:
    """The dataset of a sweep, with the curves of these metrics; see :meth:`Sweep.to_xarray`."""
    trials, workload = sweep.trials, getattr(sweep.spec.workload, "name", "")

    def variable(column: str, units: str) -> Any:
        return ("trial", trials[column], {"units": units} if units else {})

    metrics = {sweep.metric_column(name): units_of(workload, name, is_metric=True) for name in sweep.metrics}
    fields = {one.name: one.units for one in columns_of("trials") if one.name in _FIELDS}
    parameters = {sweep.column(name): units_of(workload, name) for name in sweep.parameters}
    made = xr.Dataset(
        {column: variable(column, units) for column, units in (metrics | fields).items()},
        coords={"trial": trials["number"]}
        | {column: variable(column, units) for column, units in parameters.items()},
        attrs={
            "name": sweep.name, "objective": sweep.objective, "direction": sweep.direction.value,
            "source": str(sweep.path),
        },
    )  # fmt: skip
    for metric in curves:
        found = [sweep.curve(number, metric) for number in range(len(trials))]
        made = _with_curves(made, metric, found, units_of(workload, metric, is_metric=True))
    return made


def _with_curves(made: Any, metric: str, found: Sequence[Any], units: str) -> Any:
    """Add curves, shape (trials, reports); behind the end of one is NaN, and step -1."""
    shape = len(found), max((len(curve.step) for curve in found), default=0)
    value, time_s, step = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, -1)
    for row, curve in enumerate(found):
        end = len(curve.step)
        value[row, :end], time_s[row, :end], step[row, :end] = curve.value, curve.time, curve.step
    dims = ("trial", f"{metric}_report")
    made[f"{metric}_curve"] = (dims, value, {"units": units} if units else {})
    return made.assign_coords(
        {f"{metric}_step": (dims, step), f"{metric}_time": (dims, time_s, {"units": "s"})}
    )
