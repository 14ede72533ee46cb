"""Whether the columns of a results file fit together: it may have been changed by somebody else."""

from __future__ import annotations

from typing import Any

import numpy as np

from mpisweep.results.columns import COLUMNS, TABLES
from mpisweep.results.reports import StoredCurve
from mpisweep.results.state import SweepState

__all__ = ["are_values", "check_consistent", "is_curve", "is_kind"]


def check_consistent(state: SweepState) -> None:
    """Check everything that reading relies on.

    Raises:
        ValueError: naming what does not fit.
    """
    for text in (state.spec, state.source, state.version, state.state):
        _require(isinstance(text, str), "an attribute is no text")
    for group in TABLES:
        table = getattr(state, group)
        rows = len(next(iter(table.values())))
        for column in COLUMNS:
            if column.group == group and column.name in table:
                _require(len(table[column.name]) == rows, f"{group}/{column.name} has another length")
                _require(is_kind(column.kind, table[column.name]), f"{group}/{column.name} has other values")
    count = state.count
    for name, values in (state.parameters | state.metrics).items():
        _require(len(values) == count, f"{name} has another length")
        _require(are_values(values), f"{name} has other values")
    for values in state.metrics.values():
        _require(is_kind("number", values), "a metric has other values")
    _require(_are_rows(state.trials["worker"], state.workers["rank"]), "trials/worker names no worker")
    _require(_are_rows(state.attempts["worker"], state.workers["rank"]), "attempts/worker names no worker")
    _require(_are_rows(state.attempts["trial"], state.trials["number"]), "attempts/trial names no trial")
    _require(_are_rows(state.ranks["worker"], state.workers["rank"]), "ranks/worker names no worker")
    _require(_are_rows(state.ranks["trial"], state.trials["number"]), "ranks/trial names no trial")
    _require(
        _are_rows(state.workers["allocation"], state.allocations["run"]), "workers/allocation names no run"
    )
    _require(state.trials["number"] == list(range(count)), "trials/number does not count")
    for name, curve in state.curves.stored.items():
        _require(is_curve(curve, count), f"curves/{name} does not fit together")


def are_values(values: list[Any]) -> bool:
    """Whether each can be the value of a parameter."""
    return all(map(_is_value, values))


def _is_value(value: Any) -> bool:
    return type(value) in (str, float, bool) or (type(value) is int and -(1 << 63) <= value < 1 << 63)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def is_kind(kind: Any, values: list[Any]) -> bool:
    """Whether values are of the kind of a column."""
    if kind in ("text", "long text"):
        return all(type(value) is str for value in values)
    if kind == "number":
        return all(type(value) is float for value in values)
    if kind == "integer":
        return all(type(value) is int and -(1 << 63) <= value < 1 << 63 for value in values)
    if kind == "flag":
        return True
    return all(type(value) is int for value in set(values)) and set(values) <= {
        int(member) for member in kind
    }


def _are_rows(rows: list[int], table: list[Any]) -> bool:
    return all(-1 <= row < len(table) for row in rows)


def is_curve(curve: StoredCurve, count: int) -> bool:
    """Whether the parts of a metric's curves fit each other, and so many trials."""
    arrays = (curve.step, curve.value, curve.time)
    if any(samples.ndim != 1 for samples in (*arrays, curve.offset, curve.length)):
        return False
    if curve.step.dtype.kind != "i" or any(samples.dtype.kind != "f" for samples in arrays[1:]):
        return False
    if any(table.dtype.kind not in "iu" or len(table) != count for table in (curve.offset, curve.length)):
        return False
    reports = len(curve.step)
    # Compared so that nothing overflows.
    fits = (
        (curve.offset >= 0) & (curve.length >= 0) & (curve.offset <= reports)
        & (curve.length <= reports - np.minimum(curve.offset, reports))
    )  # fmt: skip
    return {len(samples) for samples in arrays} == {reports} and bool(fits.all())
