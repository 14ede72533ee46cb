"""A sweep as a dataset of xarray: trials along one dimension, variables with their units.

Imports xarray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from mpisweep.results.columns import columns_of
from mpisweep.results.trial_table import TrialTable
from mpisweep.spec.catalogue import units_of

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


def dataset(
    trials: TrialTable,
    parameters: Mapping[str, str],
    metrics: Mapping[str, str],
    *,
    workload: str,
    about: Mapping[str, str],
    curves: Mapping[str, Sequence[Any]],
) -> Any:
    """The dataset; see :meth:`mpisweep.results.load.Sweep.to_xarray`.

    Args:
        trials: of the sweep.
        parameters: parameter -> its column.
        metrics: metric -> its column.
        workload: name of a workload that states units; empty for others.
        about: attributes.
        curves: metric -> its curve in each trial, with ``step``, ``value`` and ``time``.
    """

    def variable(column: str, units: str) -> Any:
        return ("trial", trials[column], {"units": units} if units else {})

    made = xr.Dataset(
        {
            column: variable(column, units_of(workload, name, is_metric=True))
            for name, column in metrics.items()
        }
        | {one.name: variable(one.name, one.units) for one in columns_of("trials") if one.name in _FIELDS},
        coords={"trial": trials["number"]}
        | {column: variable(column, units_of(workload, name)) for name, column in parameters.items()},
        attrs=dict(about),
    )
    for metric, found in curves.items():
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
