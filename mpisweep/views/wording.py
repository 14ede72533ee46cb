"""Words and units that several views share."""

from __future__ import annotations

from mpisweep.progress import counted
from mpisweep.results.columns import columns_of
from mpisweep.results.load import Sweep
from mpisweep.spec import BuiltinWorkload
from mpisweep.spec.catalogue import units_of

__all__ = ["units", "without_finite"]


def units(sweep: Sweep, name: str) -> str:
    """Units of a parameter, metric or column; empty if none are stated."""
    workload = sweep.spec.workload
    if name in sweep.parameters or name in sweep.metrics:
        return units_of(workload.name, name) if isinstance(workload, BuiltinWorkload) else ""
    return next((column.units for column in columns_of("trials") if column.name == name), "")


def without_finite(count: int, metric: str) -> str:
    """Say how many completed trials have no finite value of a metric."""
    return f"{counted(count, 'completed trial')} {'has' if count == 1 else 'have'} no finite {metric}"
