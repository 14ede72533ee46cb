"""Words and units that several views share."""

from __future__ import annotations

import math
import time
from typing import Any

from mpisweep.progress import counted
from mpisweep.results.budgets import AT_METRICS
from mpisweep.results.columns import columns_of
from mpisweep.results.load import Sweep
from mpisweep.spec import BuiltinWorkload
from mpisweep.spec.catalogue import units_of

__all__ = [
    "at_budget",
    "clock",
    "csv_cell",
    "finite",
    "finite_or_none",
    "not_reached",
    "units",
    "without_finite",
]


def units(sweep: Sweep, name: str) -> str:
    """Units of a parameter, metric or column; empty if none are stated."""
    workload = sweep.spec.workload
    if sweep.budget is not None and name in AT_METRICS:
        return AT_METRICS[name]
    if name in sweep.parameters or name in sweep.metrics:
        is_metric = name in sweep.metrics
        return (
            units_of(workload.name, name, is_metric=is_metric)
            if isinstance(workload, BuiltinWorkload)
            else ""
        )
    return next((column.units for column in columns_of("trials") if column.name == name), "")


def finite_or_none(value: Any) -> Any:
    """A value for JSON, which has neither NaN nor infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def finite(value: Any) -> float | None:
    """A number of a table; None if it is NaN or infinite."""
    return float(value) if math.isfinite(value) else None


def csv_cell(value: Any) -> str:
    """A value in a row of CSV; empty for NaN."""
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    # Python's csv writer does not quote a bare carriage return if lines end in "\n", and cannot read it back.
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def clock(seconds: float) -> str:
    """A moment in seconds since 1970 as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def without_finite(count: int, metric: str, *, how: str = "completed") -> str:
    """Say how many trials that ended in this way have no finite value of a metric."""
    return f"{counted(count, f'{how} trial')} {'has' if count == 1 else 'have'} no finite {metric}"


def at_budget(sweep: Sweep) -> str:
    """The end of a title: the budget at which a sweep is read; empty if it is read as it ended."""
    return "" if sweep.budget is None else f" at {sweep.budget}"


def not_reached(sweep: Sweep) -> str:
    """Say how many completed trials used less than the budget; empty if none did."""
    if not sweep.unreached:
        return ""
    return f"{counted(sweep.unreached, 'completed trial')} used less than {sweep.budget}"
