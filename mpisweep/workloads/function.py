"""Finding the function that a sweep names, and making metrics of what it returns."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from mpisweep.catalogue import BUILTIN
from mpisweep.spec import BuiltinWorkload, Spec
from mpisweep.workloads.trial import Trial

__all__ = ["WorkloadError", "load_function", "to_metrics"]

Run = Callable[[Trial], Any]


class WorkloadError(Exception):
    """The workload is not what a workload must be; the message is for the user."""


def load_function(spec: Spec) -> Run:
    """The function that runs a trial of this sweep.

    A user's module is looked for beside the sweep file first.

    Raises:
        WorkloadError: when the module has no such function.
        Exception: whatever importing the user's module raises.
    """
    if isinstance(spec.workload, BuiltinWorkload):
        built_in: Run = importlib.import_module(BUILTIN[spec.workload.name].module).run
        return built_in
    folder = os.fspath(spec.folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = importlib.import_module(spec.workload.module)
    found: object = module
    for name in spec.workload.function.split("."):
        found = getattr(found, name, None)
    if not callable(found):
        raise WorkloadError(
            f"{module.__file__} has no function {spec.workload.function!r}, "
            f"which the sweep names as its workload"
        )
    return found


def to_metrics(returned: object, objective: str) -> dict[str, float]:
    """Metrics by name from what a workload returned: a mapping, one number (the objective), or None.

    Raises:
        WorkloadError: when it is something else.
    """
    if returned is None:
        return {}
    if isinstance(returned, Mapping):
        return {str(name): _to_float(name, value) for name, value in returned.items()}
    return {objective: _to_float(objective, returned)}


def _to_float(name: object, value: object) -> float:
    if isinstance(value, (Real, float)) or (hasattr(value, "__float__") and not isinstance(value, str)):
        return float(value)
    raise WorkloadError(
        f"the workload returned {value!r} ({type(value).__name__}) for {name!r}; metrics are numbers"
    )
