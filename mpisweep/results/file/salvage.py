"""Reading the intact parts of a damaged HDF5 file, column by column."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import h5py

from mpisweep.results.columns import TABLES, columns_of
from mpisweep.results.file.consistency import are_values, is_curve, is_kind
from mpisweep.results.file.names import from_link
from mpisweep.results.file.reading import (
    DAMAGE,
    baseline_of,
    covered_of,
    curve_of,
    environment_of,
    lacks_column,
    read_column,
    read_parameter,
    report_gaps_of,
)
from mpisweep.results.reports import StoredCurve
from mpisweep.results.state import SweepState

__all__ = ["salvage_file"]


def salvage_file(
    path: Path,
    lost: list[str],
    *,
    unreadable: Container[str] = (),
    begin: Callable[[str], None] = lambda name: None,
) -> SweepState:
    """Read the intact columns of a damaged file; the result is consistent.

    Args:
        path: of the HDF5 file.
        lost: receives the names of parts that could not be read; ``/`` for the whole file.
        unreadable: names of parts on which HDF5 crashes or hangs.
        begin: called with the name of each part before it is read.
    """
    read = _SafeReader(lost, unreadable, begin).read
    state = SweepState()
    size = path.stat().st_size
    file = read("/", None, h5py.File, path, "r")
    if file is None:
        return state
    with file:
        for name in ("spec", "source", "version", "state"):
            setattr(state, name, read(f"/ attribute {name}", getattr(state, name), _text_of, file, name))
        state.baseline = read("/ attribute baseline", None, baseline_of, file)
        state.covered = read("/ attribute covered", {}, covered_of, file)
        state.report_gaps = read("/ attribute report_gaps", {}, report_gaps_of, file)
        state.environment = read("/environment", {}, environment_of, file)
        for group in TABLES:
            _salvage_table(file, group, getattr(state, group), read, size)
        count = state.count
        for group, columns, kind in (
            ("parameters", state.parameters, ""),
            ("metrics", state.metrics, "number"),
        ):
            for link in read(f"/trials/{group}", [], _links_of, file, f"trials/{group}"):
                name = f"/trials/{group}/{link}"
                values = read(name, None, _sound_column, file, name, size, kind, count)
                if values is not None:
                    columns[from_link(link)] = values
        for link in read("/curves", [], _links_of, file, "curves"):
            curve = read(f"/curves/{link}", None, _sound_curve, file, link, size, count)
            if curve is not None:
                state.curves.stored[from_link(link)] = curve
    _clear_lost_rows(state)
    return state


class _SafeReader:
    """Reads parts of a file and survives every error.

    Args:
        lost: receives the names of parts that could not be read.
        unreadable: names of parts on which HDF5 crashes or hangs; they are lost without a read.
        begin: called with the name of each part before it is read.
    """

    def __init__(self, lost: list[str], unreadable: Container[str], begin: Callable[[str], None]) -> None:
        self._lost = lost
        self._hopeless = unreadable
        self._begin = begin

    def read(self, name: str, otherwise: Any, how: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of `how`, or `otherwise` if the part is lost."""
        if name not in self._hopeless:
            self._begin(name)
            with contextlib.suppress(*DAMAGE):
                return how(*arguments)
        self._lost.append(name)
        return otherwise


def _salvage_table(
    file: h5py.File, group: str, table: dict[str, list[Any]], read: Callable[..., Any], size: int
) -> None:
    """Read the columns of a table; a lost column gets the default value in every row."""
    kinds = {column.name: column.kind for column in columns_of(group)}
    for name in table:
        table[name] = read(f"/{group}/{name}", [], _table_column, file, group, name, size, kinds[name])
    # A column whose length differs from the others' is damaged.
    [(rows, _)] = Counter(len(column) for column in table.values() if column).most_common(1) or [(0, 0)]
    usual = SweepState.usual_row(group)
    for name, column in table.items():
        if len(column) != rows:
            table[name] = read(f"/{group}/{name}", [], _of_length, column, rows) if column else []
        table[name] = table[name] or [usual[name]] * rows
    if group == "trials":
        table["number"] = list(range(rows))


def _clear_lost_rows(state: SweepState) -> None:
    """Clear references to lost rows, and drop rows without a trial."""
    if state.count and not state.allocations["run"]:
        # There were runs: at least those that the known workers belong to.
        of_workers = state.workers["allocation"]
        runs = 1 + min(max([0, *of_workers]), len(of_workers))
        state.allocations = {
            name: [value] * runs for name, value in SweepState.usual_row("allocations").items()
        }
    for table, name, rows in (
        (state.trials, "worker", state.workers["rank"]),
        (state.attempts, "worker", state.workers["rank"]),
        (state.attempts, "trial", state.trials["number"]),
        (state.ranks, "worker", state.workers["rank"]),
        (state.ranks, "trial", state.trials["number"]),
        (state.workers, "allocation", state.allocations["run"]),
    ):
        table[name] = [row if -1 <= row < len(rows) else -1 for row in table[name]]
    for table in (state.attempts, state.ranks):
        kept = [row for row, number in enumerate(table["trial"]) if number >= 0]
        for name, column in table.items():
            table[name] = [column[row] for row in kept]


# ------------------------------------------------------------------------------------- parts of a file


def _text_of(file: h5py.File, name: str) -> str:
    return str(file.attrs[name])


def _links_of(file: h5py.File, group: str) -> list[str]:
    return list(file[group])


def _table_column(file: h5py.File, group: str, name: str, size: int, kind: Any) -> list[Any]:
    return [] if lacks_column(file, group, name) else _sound_column(file, f"{group}/{name}", size, kind)


def _sound_column(file: h5py.File, name: str, size: int, kind: Any, count: int | None = None) -> list[Any]:
    column = read_column(file[name], size) if kind else read_parameter(file[name], size)
    if not are_values(column) if kind == "" else not is_kind(kind, column):
        raise ValueError(f"{name} has invalid values")
    return column if count is None else _of_length(column, count)


def _sound_curve(file: h5py.File, link: str, size: int, count: int) -> StoredCurve:
    curve = curve_of(file["curves"][link], size)
    if not is_curve(curve, count):
        raise ValueError(f"curves/{link} is inconsistent")
    return curve


def _of_length(column: list[Any], count: int) -> list[Any]:
    if len(column) != count:
        raise ValueError(f"has {len(column)} entries instead of {count}")
    return column
