"""Structured arrays for readers of a sweep: one row per trial, worker, attempt or run."""

from __future__ import annotations

import html
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpisweep.records import EXCLUDED, AttemptEnd, FailureCause, TrialState
from mpisweep.results.columns import columns_of
from mpisweep.results.state import SweepState
from mpisweep.spec import nearest
from mpisweep.spec.units import value_text

__all__ = ["Rows", "Table", "TrialTable", "fixed_columns", "needs_too_much", "rows_of", "structured"]

Rows = NDArray[Any]
#: A longer table prints only its first and last rows.
_MAX_ROWS = 20


class Table:
    """A structured array that prints itself.

    Indexing is numpy's: a column by name, rows by mask or slice; a single row is a ``numpy.void`` whose
    fields are the columns.
    """

    #: What a row is, in plural.
    noun = "rows"

    def __init__(self, array: Rows) -> None:
        self.array = array.view(np.dtype((_Row, array.dtype)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Rows:
        """The structured array itself."""
        return self.array

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.array)

    def __getitem__(self, key: Any) -> Any:
        _check_columns(key, self.names)
        found = self.array[key]
        is_rows = isinstance(found, np.ndarray) and found.dtype.names and not isinstance(key, (str, list))
        return type(self)(found) if is_rows else found

    def __repr__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in cells
        ]
        return "\n".join([*lines, *self._footer()])

    def _repr_html_(self) -> str:
        header, *rows = (
            "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
            for tag, row in zip(("th", *("td" for _ in range(len(self)))), self._cells(), strict=False)
        )
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        below = "".join(f"<p>{text}</p>" for text in self._footer())
        return f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>{below}"

    def _cells(self) -> list[tuple[str, ...]]:
        """The printed cells with a heading; of a long table only the first and last rows."""
        names = self._shown
        many = len(self) > _MAX_ROWS
        chosen = (
            [*range(_MAX_ROWS // 2), *range(len(self) - _MAX_ROWS // 2, len(self))]
            if many
            else range(len(self))
        )
        rows = [
            tuple(_on_one_line(value_text(self.array[name][row].item())) for name in names) for row in chosen
        ]
        if many:
            rows.insert(_MAX_ROWS // 2, ("...",) * len(names))
        return [tuple(names), *rows]

    def _footer(self) -> list[str]:
        return [f"{len(self):,} {self.noun}"] if len(self) > _MAX_ROWS or len(self) == 0 else []

    @property
    def _shown(self) -> list[str]:
        """The columns that are printed."""
        return list(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.array.dtype.names or ()

    def to_pandas(self) -> Any:
        """A pandas DataFrame with the same columns.

        Raises:
            ImportError: when pandas is not installed.
        """
        import pandas

        return pandas.DataFrame({name: self.array[name] for name in self.names})


class TrialTable(Table):
    """Trials as a structured array, one row per trial.

    Columns: those of the file's /trials, then parameters, then metrics.  Its printed form shows the searched
    parameters and the metrics.
    """

    noun = "trials"

    @property
    def _shown(self) -> list[str]:
        fixed = [column.name for column in columns_of("trials")]
        names = ["number", "state", *(name for name in self.names if name not in fixed), "wall_time"]
        return [name for name in names if name in self.names]


class _Row(np.void):  # type: ignore[misc]  # numpy's own record is one too
    """One row of a table; it prints one column per line, without those that have no value."""

    def __getitem__(self, key: Any) -> Any:
        _check_columns(key, self.dtype.names or ())
        return super().__getitem__(key)

    def __repr__(self) -> str:
        cells = self._cells()
        width = max((len(name) for name, _ in cells), default=0)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in cells)

    __str__ = __repr__

    def _repr_html_(self) -> str:
        rows = (
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
            for name, text in self._cells()
        )
        return f"<table><tbody>{''.join(rows)}</tbody></table>"

    def _cells(self) -> list[tuple[str, str]]:
        values = ((name, super(_Row, self).__getitem__(name)) for name in self.dtype.names or ())
        # NaN and empty texts stand for what a trial does not have.
        return [
            (name, _on_one_line(_text(name, value.item() if isinstance(value, np.generic) else value)))
            for name, value in values
            if value == value and value != ""
        ]


def _text(name: str, value: Any) -> str:
    """A value of one row; the times of day among the fixed columns are local."""
    if name in ("started_at", "ended_at"):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    return value_text(value)


def _check_columns(key: Any, names: tuple[str, ...]) -> None:
    """Refuse an unknown column with a clearer message than numpy's."""
    for name in key if isinstance(key, list) else (key,):
        if isinstance(name, str) and name not in names:
            raise KeyError(f"no column {name!r}; {nearest(name, names)}")


def _on_one_line(text: str) -> str:
    """Replace control characters, which would move the cursor."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


# ------------------------------------------------------------------------------------- from a state


def fixed_columns(state: SweepState, objectives: Sequence[str]) -> dict[str, Any]:
    """The columns of /trials as arrays."""
    columns: dict[str, Any] = {}
    workers = np.array(state.trials["worker"], dtype=np.int64)
    for column in columns_of("trials"):
        if column.name in ("host", "device"):
            columns[column.name] = np.array([*state.workers[column.name], ""], dtype=str)[workers]
        elif column.name == "ended_at":
            columns["ended_at"] = columns["started_at"] + np.array(state.trials["wall_time"], dtype=float)
        elif column.name == "device_power":
            columns["device_power"] = np.array(state.device_power(), dtype=float)
        elif column.name == "diverged":
            columns["diverged"] = np.array(state.diverged(objectives), dtype=bool)
        else:
            columns[column.name] = _array(column.kind, state.trials[column.name])
    return columns


def needs_too_much(trials: TrialTable) -> Rows:
    """Mask of the infeasible trials that need too much memory; others violate a constraint."""
    is_excluded = np.array([text.startswith(EXCLUDED) for text in trials["message"]], dtype=bool)
    mask: Rows = (trials["state"] == TrialState.INFEASIBLE.label) & ~is_excluded
    return mask


def rows_of(state: SweepState, group: str) -> Rows:
    """Any other table as a structured array."""
    table = getattr(state, group)
    columns = {column.name: _array(column.kind, table[column.name]) for column in columns_of(group)}
    return structured(columns, len(next(iter(table.values()))))


def structured(columns: dict[str, Any], count: int) -> Rows:
    """Combine columns of equal length into a structured array."""
    rows: Rows = np.empty(count, dtype=[(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        rows[name] = column
    return rows


def _array(kind: Any, values: list[Any]) -> Any:
    if kind == "integer":
        return np.array(values, dtype=np.int64)
    if kind == "number":
        return np.array(values, dtype=np.float64)
    if kind == "long text":
        # In an array of text each entry would take the space of the longest.
        return np.array([*values, None], dtype=object)[:-1]
    if kind == "text":
        return np.array(values, dtype=str) if values else np.empty(0, dtype="U1")
    labels: dict[type[Any], list[str]] = {
        TrialState: [member.label for member in TrialState],
        FailureCause: [member.label for member in FailureCause],
        AttemptEnd: [member.label for member in AttemptEnd],
    }
    return np.array(labels[kind], dtype=str)[np.array(values, dtype=np.int64)]
