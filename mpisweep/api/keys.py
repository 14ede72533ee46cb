"""The keys of a sweep as keyword arguments, for type checkers and editors.

:mod:`mpisweep.spec.keys` has their meaning, defaults and checks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

__all__ = ["Source", "SweepKeys", "Table", "Workload"]

#: A table of a sweep file.
Table: TypeAlias = Mapping[str, Any]
#: A built-in workload, ``module:function``, a function, the arguments of a command line, or a table.
Workload: TypeAlias = str | Callable[..., Any] | Sequence[str] | Table
#: A sweep file, a sweep as a dict, or a workload.
Source: TypeAlias = str | os.PathLike[str] | Callable[..., Any] | Sequence[str] | Table

_Direction: TypeAlias = Literal["minimize", "maximize"]


class SweepKeys(TypedDict, total=False):
    """The top-level keys of a sweep file; ``import_`` stands for ``import``."""

    name: str
    workload: Workload
    objective: str | Sequence[str]
    direction: _Direction | Sequence[_Direction]
    search: str | Table
    prune: str | Table
    trials: int
    repeats: int | Table
    seed: int
    order: Literal["longest", "spread"]
    where: str | Sequence[str]
    zip: Sequence[Sequence[str]]
    points: str | os.PathLike[str] | Sequence[Table] | Table
    max_points: int
    devices_per_trial: float | Literal["auto"]
    ranks_per_trial: int
    fresh_process: bool
    stage_data: str
    parameters: Table
    fixed: Table
    baseline: Table
    metrics: Table
    import_: str | Table | Sequence[str | Table]
    after: str | os.PathLike[str] | Table
    limits: Table
    stop: Table
    hooks: Table
