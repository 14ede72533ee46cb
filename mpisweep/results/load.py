"""Reading a sweep: file and journal as one, also while it runs and after a crash.

::

    sweep = mpisweep.load("resnet50.h5")
    sweep.best(5)                        # the five best complete trials
    sweep.trials["loss"]                 # a column, shape (trials,)
    sweep.curve(17, "loss").value        # a curve, shape (reports,)
"""

from __future__ import annotations

import html
import os
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisweep.records import AttemptEnd, Direction, FailureCause, TrialState, Value
from mpisweep.results import ResultsError, behind_link
from mpisweep.results.columns import columns_of
from mpisweep.results.journal import Damage
from mpisweep.results.merging import read_sweep
from mpisweep.results.replay import SweepState
from mpisweep.results.snapshot import _native
from mpisweep.spec import Spec, SpecError, nearest, parse_spec
from mpisweep.spec.units import value_text

__all__ = ["CurveArrays", "Sweep", "TrialTable", "load"]

Rows = NDArray[Any]


class CurveArrays(NamedTuple):
    """One metric over one trial; three arrays of shape (reports,).  `time` is seconds since its start."""

    step: NDArray[np.int64]
    value: NDArray[np.float64]
    time: NDArray[np.float64]


#: A table of more trials is printed with its first and its last ones.
_ROWS_AT_MOST = 20


def _see_columns(key: Any, names: tuple[str, ...]) -> None:
    """Refuse a column that there is not, in better words than numpy's."""
    for name in key if isinstance(key, list) else (key,):
        if isinstance(name, str) and name not in names:
            raise KeyError(f"no column {name!r}; {nearest(name, names)}")


def _on_one_line(text: str) -> str:
    """A text without control characters, which would move the cursor."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


class _Row(np.void):  # type: ignore[misc]  # numpy's own record is one too
    """One row of a table."""

    def __getitem__(self, key: Any) -> Any:
        _see_columns(key, self.dtype.names or ())
        return super().__getitem__(key)


class TrialTable:
    """Trials as a structured array, one row a trial.

    Indexing is numpy's: a column by name, rows by mask or slice; a single row is a ``numpy.void`` whose
    fields are the columns.  Columns: those of the file's /trials, then parameters, then metrics.  Printed, it is a
    table of what was searched and measured.
    """

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
        _see_columns(key, self.names)
        found = self.array[key]
        is_rows = isinstance(found, np.ndarray) and found.dtype.names and not isinstance(key, (str, list))
        return TrialTable(found) if is_rows else found

    def __repr__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([*lines, *self._what_is_left_out()])

    def _repr_html_(self) -> str:
        header, *rows = (
            "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
            for tag, row in zip(("th", *("td" for _ in range(len(self)))), self._cells(), strict=False)
        )
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        below = "".join(f"<p>{text}</p>" for text in self._what_is_left_out())
        return f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>{below}"

    def _cells(self) -> list[tuple[str, ...]]:
        """What is printed, with a heading: of many trials the first ones and the last ones."""
        fixed = [column.name for column in columns_of("trials")]
        names = ["number", "state", *(name for name in self.names if name not in fixed), "wall_time"]
        names = [name for name in names if name in self.names]
        many = len(self) > _ROWS_AT_MOST
        chosen = [*range(_ROWS_AT_MOST // 2), *range(len(self) - _ROWS_AT_MOST // 2, len(self))] if many else range(len(self))
        rows = [tuple(_on_one_line(value_text(self.array[name][row].item())) for name in names) for row in chosen]
        if many:
            rows.insert(_ROWS_AT_MOST // 2, ("...",) * len(names))
        return [tuple(names), *rows]

    def _what_is_left_out(self) -> list[str]:
        return [f"{len(self):,} trials"] if len(self) > _ROWS_AT_MOST or len(self) == 0 else []

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


class Sweep:
    """A sweep as it is at the moment of loading.

    Attributes:
        path: of the HDF5 file.
        spec: the sweep file as it was when the sweep last ran.
        trials: all trials, in number order.
        damages: parts of the journal that could not be read.
    """

    def __init__(self, path: Path, state: SweepState, damages: list[Damage]) -> None:
        self.path = path
        self.damages = damages
        self._state = state
        if not state.spec:
            raise ResultsError(
                f"{path}: the sweep file in it is lost; `mpisweep run` with the sweep file and -o {path} puts it back"
            )
        try:
            self.spec: Spec = parse_spec(state.spec, source=state.source, folder=path.parent, is_recorded=True)
        except SpecError as error:
            raise ResultsError(f"{path}: the sweep file in it is damaged: {error}") from error
        # What damage has taken is searched all the same.
        lost: dict[str, list[Value | None]] = {name: [None] * state.count for name in self.spec.space.names}
        state.parameters = lost | state.parameters
        #: Name of a parameter, or of a metric, to its column: that name, unless it was taken.
        self._parameter_columns: dict[str, str] = {}
        self._metric_columns: dict[str, str] = {}
        self.trials = TrialTable(self._trial_rows())

    def __repr__(self) -> str:
        return f"<sweep {self.name!r}: {self.count(TrialState.COMPLETE)}/{len(self.trials)} trials complete>"

    @property
    def name(self) -> str:
        """Name of the sweep."""
        return self.spec.name

    @property
    def objective(self) -> str:
        """The metric that decides which trial is best."""
        return self.spec.objective

    @property
    def direction(self) -> Direction:
        """Whether a smaller or a larger objective is better."""
        return self.spec.direction

    @property
    def state(self) -> str:
        """``running``, or why the last run of the program ended; a run that crashed still says running."""
        return self._state.state

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters: searched ones first, then fixed ones."""
        return tuple(self._state.parameters)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that have final values."""
        return tuple(self._state.metrics)

    @property
    def curve_names(self) -> tuple[str, ...]:
        """Names of the metrics that have curves."""
        return tuple(self._state.curve_names)

    @property
    def environment(self) -> dict[str, str]:
        """Versions, the command line, and what else was around."""
        return dict(self._state.environment)

    @property
    def allocations(self) -> Rows:
        """One row for each run of the program on this sweep."""
        return _rows(self._state, "allocations")

    @property
    def workers(self) -> Rows:
        """One row for each worker of each run."""
        return _rows(self._state, "workers")

    @property
    def attempts(self) -> Rows:
        """One row for each attempt at a trial, those included that came to nothing."""
        return _rows(self._state, "attempts")

    @property
    def ranks(self) -> Rows:
        """One row for each rank of each attempt at a trial of several ranks, but for rank 0, which is in attempts."""
        return _rows(self._state, "ranks")

    @property
    def last_ranks(self) -> Rows:
        """Of :attr:`ranks`, those of each trial's last attempt."""
        ranks = self.ranks
        last: Rows = ranks[ranks["attempt"] == self.trials["attempt"][ranks["trial"]]]
        return last

    @property
    def spans(self) -> NDArray[np.float64]:
        """From when to when each run of the program lasted, shape (runs, 2), in seconds since 1970.

        Of a run that was killed the end of its last trial is taken, and where damage has taken its start that of its
        first one; NaN where it has neither.
        """
        allocations, trials = self.allocations, self.trials
        found = np.stack([allocations["started_at"], allocations["ended_at"]], axis=1)
        owner = np.append(self.workers["allocation"], -1)[trials["worker"]]
        for run, end in np.argwhere(~np.isfinite(found)):
            own = trials["ended_at" if end else "started_at"][owner == run]
            own = own[np.isfinite(own)]
            if len(own):
                found[run, end] = own.max() if end else own.min()
        return found

    @property
    def most_workers(self) -> int:
        """How many workers there were at a time at most: of runs one after another, or beside each other."""
        workers, attempts = self.workers, self.attempts
        started, ended = self.spans[workers["allocation"]].T if len(workers) else (np.empty(0), np.empty(0))
        # A run that has not said that it ended may go on where its trials do.
        at_work = np.isin(np.arange(len(workers)), attempts["worker"][attempts["end"] == AttemptEnd.RUNNING.label])
        at_work = np.isin(workers["allocation"], workers["allocation"][at_work])
        ended = np.where(at_work & np.isnan(self.allocations["ended_at"][workers["allocation"]]), np.inf, ended)
        joined = np.fmax(workers["joined_at"], started)
        left = np.fmax(np.where(np.isfinite(workers["left_at"]), workers["left_at"], ended), joined)
        steps = np.concatenate([np.ones(len(workers), int), -np.ones(len(workers), int)])
        order = np.lexsort((-steps, np.concatenate([joined, left])))
        return int(steps[order].cumsum().max(initial=0))

    def count(self, state: TrialState) -> int:
        """How many trials are in this state."""
        return self._state.trials["state"].count(int(state))

    def best(self, k: int = 1) -> TrialTable:
        """The `k` best complete trials by the objective, the best first; NaN and infinity come last."""
        complete = self.trials.array[self.trials["state"] == TrialState.COMPLETE.label]
        if self.objective not in self.metrics:
            return TrialTable(complete[:0])
        values = complete[self.metric_column(self.objective)]
        keys = values if self.direction == Direction.MINIMIZE else -values
        keys = np.where(np.isfinite(keys), keys, np.inf)
        return TrialTable(complete[np.argsort(keys, kind="stable")[:k]])

    def curve(self, number: int, metric: str) -> CurveArrays:
        """The reports of one metric of one trial; empty arrays where there are none.

        Raises:
            KeyError: when no trial has such a curve.
            IndexError: when there is no such trial.
        """
        if metric not in self._state.curve_names:
            raise KeyError(f"there is no curve of {metric!r}; {nearest(metric, self._state.curve_names)}")
        if not 0 <= number < len(self.trials):
            raise IndexError(f"there is no trial {number}; the last is {len(self.trials) - 1}")
        curve = self._state.curve(number, metric)
        return CurveArrays(
            np.array(curve.step, dtype=np.int64),
            np.array(curve.value, dtype=np.float64),
            np.array(curve.time, dtype=np.float64),
        )

    def configuration(self, number: int) -> dict[str, Value]:
        """The parameters of one trial, searched and fixed ones.

        Raises:
            IndexError: when there is no such trial.
        """
        if not 0 <= number < len(self.trials):
            raise IndexError(f"there is no trial {number}; the last is {len(self.trials) - 1}")
        known = ((name, column[number]) for name, column in self._state.parameters.items())
        # What damage has taken away stays away.
        return {name: value for name, value in known if value is not None}

    @property
    def baseline(self) -> Any:
        """The baseline's row, or None when the sweep has no baseline."""
        number = self._state.baseline
        return None if number is None or number >= len(self.trials) else self.trials[number]

    def column(self, name: str) -> str:
        """The column of :attr:`trials` that holds a parameter or metric.

        Raises:
            KeyError: when there is neither of that name.
        """
        if name in self._parameter_columns:
            return self._parameter_columns[name]
        return self.metric_column(name)

    def metric_column(self, name: str) -> str:
        """The same where a metric is meant, which a parameter may be called like; or a column like ``wall_time``.

        Raises:
            KeyError: when there is none of that name.
        """
        for columns in (self._metric_columns, self._parameter_columns):
            if name in columns:
                return columns[name]
        if name in self.trials.names:
            return name
        raise KeyError(f"there is no parameter or metric {name!r}; {nearest(name, (*self.parameters, *self.metrics))}")

    def _trial_rows(self) -> Rows:
        """The structured array; a parameter or metric whose name is taken gets a prefix."""
        state, columns = self._state, _fixed_columns(self._state, self.objective)
        for name, values in state.parameters.items():
            native = _native(values)
            text = np.char.decode(native, "utf-8") if native.dtype.kind == "S" else native
            column = self._parameter_columns[name] = _free_name(name, "parameter_", columns)
            columns[column] = text
        for name, numbers in state.metrics.items():
            column = self._metric_columns[name] = _free_name(name, "metric_", columns)
            columns[column] = np.array(numbers, dtype=np.float64)
        return _structured(columns, state.count)


def load(path: str | os.PathLike[str]) -> Sweep:
    """Read a sweep: finished, running or crashed.

    Args:
        path: of the HDF5 file.

    Raises:
        ResultsError: when there is no sweep, or the file is something else.
    """
    file = behind_link(Path(path))
    damages: list[Damage] = []
    try:
        state = read_sweep(file, damages)
    except OSError as error:
        raise ResultsError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error
    return Sweep(file, state, damages)


def _free_name(name: str, prefix: str, taken: Container[str]) -> str:
    while name in taken or not name:
        name = prefix + name
    return name


def _fixed_columns(state: SweepState, objective: str) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    workers = np.array(state.trials["worker"], dtype=np.int64)
    for column in columns_of("trials"):
        if column.name in ("host", "device"):
            columns[column.name] = np.array([*state.workers[column.name], ""], dtype=str)[workers]
        elif column.name == "ended_at":
            columns["ended_at"] = columns["started_at"] + np.array(state.trials["wall_time"], dtype=float)
        elif column.name == "diverged":
            columns["diverged"] = np.array(state.diverged(objective), dtype=bool)
        else:
            columns[column.name] = _array(column.kind, state.trials[column.name])
    return columns


def _rows(state: SweepState, group: str) -> Rows:
    table = getattr(state, group)
    columns = {column.name: _array(column.kind, table[column.name]) for column in columns_of(group)}
    return _structured(columns, len(next(iter(table.values()))))


def _array(kind: Any, values: list[Any]) -> Any:
    if kind == "integer":
        return np.array(values, dtype=np.int64)
    if kind == "number":
        return np.array(values, dtype=np.float64)
    if kind == "long text":
        # As an array of text each would take the space of the longest.
        return np.array([*values, None], dtype=object)[:-1]
    if kind == "text":
        return np.array(values, dtype=str) if values else np.empty(0, dtype="U1")
    labels: dict[type[Any], list[str]] = {
        TrialState: [member.label for member in TrialState],
        FailureCause: [member.label for member in FailureCause],
        AttemptEnd: [member.label for member in AttemptEnd],
    }
    return np.array(labels[kind], dtype=str)[np.array(values, dtype=np.int64)]


def _structured(columns: dict[str, Any], count: int) -> Rows:
    rows: Rows = np.empty(count, dtype=[(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        rows[name] = column
    return rows
