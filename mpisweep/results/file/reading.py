"""Reading an intact HDF5 file; damaged ones are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py

from mpisweep.results import ResultsError
from mpisweep.results.columns import ABSENT, COLUMNS, FORMAT, FORMAT_VERSION, TABLES, columns_of
from mpisweep.results.file.consistency import check_consistent
from mpisweep.results.file.image import is_whole
from mpisweep.results.file.names import from_link
from mpisweep.results.file.stored import SampleFile, Samples
from mpisweep.results.reports import Reading, StoredCurve
from mpisweep.results.state import SweepState

__all__ = [
    "DAMAGE",
    "NotOursError",
    "baseline_of",
    "covered_of",
    "curve_of",
    "environment_of",
    "lacks_column",
    "read_column",
    "read_file",
    "read_parameter",
    "report_gaps_of",
]

#: Columns, and whole tables, that files of earlier versions lack.
_ADDED = {(column.group, column.name) for column in COLUMNS if column.added}
_ADDED_TABLES = {table for table in TABLES if all(column.added for column in columns_of(table))}
#: Exceptions that h5py and this package raise for a damaged file.
DAMAGE = (
    KeyError, ValueError, TypeError, IndexError, AttributeError, OSError, RuntimeError, OverflowError,
    MemoryError,
)  # fmt: skip


class NotOursError(ResultsError):
    """An intact file that is not a results file, or has a newer format: nothing to repair."""


def read_file(path: Path, reading: Reading) -> SweepState:
    """Read the state from an HDF5 file.

    Args:
        path: of the file.
        reading: which curves to read.

    Raises:
        ResultsError: when it is damaged, is not a results file, or has a newer format.
    """
    if path.is_dir():
        raise ResultsError(f"{path}: is a folder, not a results file")
    path_bytes = _check_whole(path, reading)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if not path.exists():
            raise
        raise ResultsError(
            f"{path}: is not a readable HDF5 file ({error}); run `mpisweep repair {path}`"
        ) from error
    with file:
        _check_ours(path, file)
        try:
            return _state_of(file, path_bytes, None if reading is Reading.SAMPLES else SampleFile(path, file))
        except DAMAGE as error:
            raise ResultsError(f"{path}: is damaged ({error}); run `mpisweep repair {path}`") from error


def _check_whole(path: Path, reading: Reading) -> int:
    """Verify the file's checksums, if it has any; return its size in bytes."""
    with path.open("rb") as file:
        if is_whole(file, curves=reading is not Reading.TABLES):
            return file.seek(0, os.SEEK_END)
    raise ResultsError(f"{path}: is damaged; run `mpisweep repair {path}`")


def _check_ours(path: Path, file: h5py.File) -> None:
    try:
        ours = bool(file.attrs.get("format") == FORMAT)
        version = int(file.attrs.get("format_version", 0))
    except DAMAGE as error:
        raise ResultsError(f"{path}: is damaged: {error}") from error
    if not ours:
        raise NotOursError(f"{path}: is an HDF5 file, but not a results file of mpisweep")
    if version > FORMAT_VERSION:
        raise NotOursError(
            f"{path}: has format version {version}, and this mpisweep reads up to {FORMAT_VERSION}; "
            f"use mpisweep {file.attrs.get('version', '')} or newer"
        )


def _state_of(file: h5py.File, path_bytes: int, samples: SampleFile | None) -> SweepState:
    attributes = file.attrs
    state = SweepState(
        spec=attributes["spec"],
        source=attributes["source"],
        version=attributes["version"],
        state=attributes["state"],
        baseline=baseline_of(file),
        environment=environment_of(file),
        covered=covered_of(file),
        report_gaps=report_gaps_of(file),
    )
    for group in TABLES:
        table = getattr(state, group)
        for name in table:
            if not lacks_column(file, group, name):
                table[name] = read_column(file[group][name], path_bytes)
        _fill_in(group, table)
    for link, dataset in file["trials/parameters"].items():
        state.parameters[from_link(link)] = read_parameter(dataset, path_bytes)
    for link, dataset in file["trials/metrics"].items():
        state.metrics[from_link(link)] = _read_array(dataset, path_bytes).tolist()
    if samples is not None:
        state.curves.sources.append(samples)
    for link, group in file["curves"].items():
        state.curves.stored[from_link(link)] = curve_of(group, path_bytes, samples)
    check_consistent(state)
    return state


# ------------------------------------------------------------------------------------- parts of a file


def baseline_of(file: h5py.File) -> int | None:
    """The number of the baseline; None if there is none."""
    baseline = int(file.attrs["baseline"])
    return None if baseline < 0 else baseline


def covered_of(file: h5py.File) -> dict[str, int]:
    """Segment -> offset up to which the file covers it."""
    return {name: int(offset) for name, offset in json.loads(file.attrs["covered"]).items()}


def report_gaps_of(file: h5py.File) -> dict[int, set[int]]:
    """Trial -> blocks of reports after the first gap."""
    return {int(n): set(blocks) for n, blocks in json.loads(file.attrs["report_gaps"]).items()}


def environment_of(file: h5py.File) -> dict[str, str]:
    """The entries of /environment."""
    return {from_link(name): str(text) for name, text in file["environment"].attrs.items()}


def curve_of(group: h5py.Group, size: int, samples: SampleFile | None = None) -> StoredCurve:
    """The curves of a metric, with their samples, or with references into `samples`."""
    return StoredCurve(
        *(
            _read_array(group[name], size) if samples is None else _samples_of(samples, group[name], size)
            for name in ("step", "value", "time")
        ),
        *(_read_array(group[name], size) for name in ("offset", "length")),
    )  # fmt: skip


def _samples_of(samples: SampleFile, dataset: h5py.Dataset, size: int) -> Samples:
    _check_fits(dataset, size)
    return Samples(samples, dataset)


def lacks_column(file: h5py.File, group: str, name: str) -> bool:
    """Whether a file lacks a column because its version did not have that column yet."""
    if group in _ADDED_TABLES:
        return group not in file
    return (group, name) in _ADDED and name not in file.get(group, {})


def _fill_in(group: str, table: dict[str, list[Any]]) -> None:
    """Add the columns that a table of an earlier version lacks."""
    rows = len(next(iter(table.values())))
    for name in table:
        if (group, name) in _ADDED and not table[name]:
            table[name] = [SweepState.usual_row(group)[name]] * rows


def _check_fits(dataset: h5py.Dataset, path_bytes: int) -> None:
    """Refuse a dataset that is larger than the file can hold, even if compressed 1000-fold."""
    if dataset.shape is None or dataset.ndim != 1:
        raise ValueError(f"{dataset.name} is not a column")
    if dataset.nbytes > path_bytes * (1000 if dataset.chunks else 1):
        raise ValueError(f"{dataset.name} has {len(dataset)} entries")


def _read_array(dataset: h5py.Dataset, path_bytes: int) -> Any:
    _check_fits(dataset, path_bytes)
    return dataset[()]


def read_column(dataset: h5py.Dataset, path_bytes: int) -> list[Any]:
    """The entries of a column as Python values; refused if the file cannot hold that many."""
    _check_fits(dataset, path_bytes)
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return dataset.asstr()[()].tolist() if dataset.size else []
    column: list[Any] = dataset[()].tolist()
    return column


def read_parameter(dataset: h5py.Dataset, path_bytes: int) -> list[Any]:
    """The values of a parameter; None where a trial does not have it."""
    column = read_column(dataset, path_bytes)
    word = dataset.attrs.get(ABSENT)
    if word is None:
        return column
    convert = {"boolean": bool, "integer": int, "string": str, "number": float}[word]
    # NaN is not equal to itself.
    return [None if value == "" or value != value else convert(value) for value in column]
