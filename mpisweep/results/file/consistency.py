"""Consistency checks on the columns of a results file, which other tools may change."""

from __future__ import annotations

from typing import Any

import numpy as np

from mpisweep.results.columns import COLUMNS, TABLES
from mpisweep.results.reports import StoredCurve
from mpisweep.results.state import SweepState

__all__ = ["are_values", "check_consistent", "is_curve", "is_kind"]


def check_consistent(state: SweepState) -> None:
    """Check every property that readers rely on.

    Raises:
        ValueError: naming the part that is inconsistent.
    """
    for text in (state.spec, state.source, state.version, state.state):
        _require(isinstance(text, str), "an attribute is not text")
    for group in TABLES:
        table = getattr(state, group)
        rows = len(next(iter(table.values())))
        for column in COLUMNS:
            if column.group == group and column.name in table:
                _require(len(table[column.name]) == rows, f"{group}/{column.name}: wrong length")
                _require(is_kind(column.kind, table[column.name]), f"{group}/{column.name}: invalid values")
    count = state.count
    for name, values in (state.parameters | state.metrics).items():
        _require(len(values) == count, f"{name} has the wrong length")
        _require(are_values(values), f"{name} has invalid values")
    for values in state.metrics.values():
        _require(is_kind("number", values), "a metric has invalid values")
    _require(_are_rows(state.trials["worker"], state.workers["rank"]), "trials/worker: no such worker")
    _require(_are_rows(state.attempts["worker"], state.workers["rank"]), "attempts/worker: no such worker")
    _require(_are_rows(state.attempts["trial"], state.trials["number"]), "attempts/trial: no such trial")
    _require(_are_rows(state.ranks["worker"], state.workers["rank"]), "ranks/worker: no such worker")
    _require(_are_rows(state.ranks["trial"], state.trials["number"]), "ranks/trial: no such trial")
    _require(
        _are_rows(state.workers["allocation"], state.allocations["run"]), "workers/allocation: no such run"
    )
    _require(state.trials["number"] == list(range(count)), "trials/number is not 0, 1, 2, ...")
    for name, curve in state.curves.stored.items():
        _require(is_curve(curve, count), f"curves/{name} is inconsistent")


def are_values(values: list[Any]) -> bool:
    """Whether every value is of a parameter's type, or absent."""
    return all(value is None or _is_value(value) for value in values)


def _is_value(value: Any) -> bool:
    return type(value) in (str, float, bool) or (type(value) is int and -(1 << 63) <= value < 1 << 63)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def is_kind(kind: Any, values: list[Any]) -> bool:
    """Whether all values match the kind of a column."""
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
    """Whether the arrays of a metric's curves match each other and the number of trials."""
    arrays = (curve.step, curve.value, curve.time)
    if any(samples.ndim != 1 for samples in (*arrays, curve.offset, curve.length)):
        return False
    if curve.step.dtype.kind != "i" or any(samples.dtype.kind != "f" for samples in arrays[1:]):
        return False
    if any(table.dtype.kind not in "iu" or len(table) != count for table in (curve.offset, curve.length)):
        return False
    reports = len(curve.step)
    # Written so that no sum can overflow.
    fits = (
        (curve.offset >= 0) & (curve.length >= 0) & (curve.offset <= reports)
        & (curve.length <= reports - np.minimum(curve.offset, reports))
    )  # fmt: skip
    return {len(samples) for samples in arrays} == {reports} and bool(fits.all())
