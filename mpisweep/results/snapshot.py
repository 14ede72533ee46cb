"""The HDF5 file, which is only ever replaced whole.

Every file is written aside, synced, renamed over the old one, and the folder synced; at every moment the name
leads to a complete, closed file.  :func:`fold` makes a new file of the old one and the journal, as a pure
function of files; during a sweep it runs in a process of its own (:mod:`mpisweep.results.storing`), which holds up
nobody.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import struct
import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import h5py
import numpy as np

from mpisweep.records import TrialState
from mpisweep.results import ResultsError, damaged_folder, journal_folder
from mpisweep.results.claim import after_token, remove_through
from mpisweep.results.columns import (
    COLUMNS,
    CURVE_COLUMNS,
    FORMAT,
    FORMAT_VERSION,
    TABLES,
    Column,
    columns_of,
)
from mpisweep.results.consistency import are_values, is_curve, is_kind, see_that_it_is_consistent
from mpisweep.results.image import Image, Room, RoomWriter, is_whole, seal, write_image
from mpisweep.results.journal import Damage, Frames, read_journal, segments, sync_folder
from mpisweep.results.names import as_text, from_link, to_link
from mpisweep.results.replay import SweepState
from mpisweep.results.reports import Curves, Reading, StoredCurve
from mpisweep.results.stored import SampleFile, Samples
from mpisweep.spec import BuiltinWorkload, Spec, SpecError, parse_spec
from mpisweep.spec.catalogue import entry_of, units_of

__all__ = ["Folded", "NotOursError", "add_journal", "finish", "finish_with", "fold", "keep_damaged", "read_file", "read_merged", "read_until_it_stays", "remove_covered", "salvage_file", "write_file"]


#: Columns that files of earlier versions lack, and tables that they lack as a whole.
_ADDED = {(column.group, column.name) for column in COLUMNS if column.added}
_ADDED_TABLES = {table for table in TABLES if all(column.added for column in columns_of(table))}

#: How the samples of curves are written.
_SAMPLES = {"step": np.dtype("<i8"), "value": np.dtype("<f8"), "time": np.dtype("<f8")}

#: How many of them are copied at once from one file to another.
_SAMPLES_AT_ONCE = 1 << 13

#: How often what is changed while it is being read is looked at again, and the pause before that, in seconds.
_LOOKS = 20
_AGAIN_S = 0.05

State = TypeVar("State")


class NotOursError(ResultsError):
    """A file that is fine, but no results file, or of a newer format: nothing to repair."""


@dataclass(frozen=True, slots=True)
class Folded:
    """What a fold has cost."""

    seconds: float
    bytes: int


# ------------------------------------------------------------------------------------- reading


def read_until_it_stays(
    read: Callable[[list[Damage]], tuple[State, bool]],
    by_change: tuple[type[Exception], ...],
    damages: list[Damage] | None,
) -> State:
    """Read what may be changed meanwhile, again until it was not.

    Args:
        read: returns what it has read, and whether that was there all the time; notes what could not be read.
        by_change: what a change that comes in between may look like to it.
        damages: gets what could not be read in the end.
    """
    for look in range(_LOOKS):
        found: list[Damage] = []
        try:
            state, has_stayed = read(found)
        except by_change:
            if look == _LOOKS - 1:
                raise
            time.sleep(_AGAIN_S)
            continue
        if has_stayed:
            break
    if damages is not None:
        damages.extend(found)
    return state


def read_merged(
    path: Path, damages: list[Damage] | None = None, *, reading: Reading = Reading.SAMPLES
) -> SweepState:
    """The state of a sweep from its file and its journal; either may be missing.

    Args:
        path: of the HDF5 file.
        damages: gets what could not be read in the journal.
        reading: what of its curves.

    Raises:
        ResultsError: when there is no sweep, or the file is something else.
    """
    # NFS says by ESTALE that the file was replaced while it was being read.
    state = read_until_it_stays(functools.partial(_read_merged, path, reading), (OSError,), damages)
    if not state.allocations["run"]:
        raise ResultsError(f"{path}: no such results file")
    return state


def _read_merged(path: Path, reading: Reading, damages: list[Damage]) -> tuple[SweepState, bool]:
    folder = journal_folder(path)
    names = segments(folder)
    state = read_file(path, reading) if path.exists() else SweepState()
    add_journal(state, folder, damages, reading)
    # Had a segment gone in between, its records would be in the new file and not in the one that was read.
    return state, set(names) <= set(segments(folder))


def add_journal(state: SweepState, folder: Path, damages: list[Damage], reading: Reading) -> None:
    """Take in what a journal has beyond the file that `state` was read from."""
    state.most_trials = state.count + sum(_size_of(folder / name) for name in segments(folder))
    frames = None
    if reading is not Reading.SAMPLES:
        frames = Frames(folder)
        state.curves.sources.append(frames)
    for entry in read_journal(folder, state.covered, damages, state.sizes):
        state.apply(entry, frames)
    state.settle()


def _size_of(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def read_file(path: Path, reading: Reading) -> SweepState:
    """The state that an HDF5 file holds.

    Args:
        path: of the file.
        reading: what of its curves.

    Raises:
        ResultsError: when it is not one of our files, or of a newer format.
    """
    if path.is_dir():
        raise ResultsError(f"{path}: is a folder; a results file is wanted")
    path_bytes = _see_that_it_is_whole(path, reading)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if not path.exists():
            raise
        raise ResultsError(
            f"{path}: is not a readable HDF5 file ({error}); `mpisweep repair {path}` saves what can be saved"
        ) from error
    with file:
        _see_that_it_is_ours(path, file)
        try:
            return _state_of(file, path_bytes, None if reading is Reading.SAMPLES else SampleFile(path, file))
        except _DAMAGE as error:
            raise ResultsError(
                f"{path}: is damaged ({error}); `mpisweep repair {path}` saves what can be saved"
            ) from error


#: What h5py and our own reading raise for a file that is not what it should be.
_DAMAGE = (
    KeyError, ValueError, TypeError, IndexError, AttributeError, OSError, RuntimeError, OverflowError, MemoryError,
)  # fmt: skip


def _see_that_it_is_whole(path: Path, reading: Reading) -> int:
    """Check the file against its checksums, where it has any; returns its size in bytes."""
    with path.open("rb") as file:
        if is_whole(file, curves=reading is not Reading.TABLES):
            return file.seek(0, os.SEEK_END)
    raise ResultsError(f"{path}: is damaged; `mpisweep repair {path}` saves what can be saved")


def _see_that_it_is_ours(path: Path, file: h5py.File) -> None:
    try:
        ours = bool(file.attrs.get("format") == FORMAT)
        version = int(file.attrs.get("format_version", 0))
    except _DAMAGE as error:
        raise ResultsError(f"{path}: is damaged: {error}") from error
    if not ours:
        raise NotOursError(f"{path}: is an HDF5 file, but not a results file of mpisweep")
    if version > FORMAT_VERSION:
        raise NotOursError(
            f"{path}: has format version {version}, and this mpisweep reads up to {FORMAT_VERSION}; "
            f"use mpisweep {file.attrs.get('version', '')} or newer"
        )


class _Saving:
    """Reads what it is asked to and comes back, whatever becomes of that.

    Args:
        lost: gets the names of what could not be read.
        hopeless: names of what HDF5 does not come back from; they are lost unread.
        begin: is told the name of what is about to be read.
    """

    def __init__(self, lost: list[str], hopeless: Container[str], begin: Callable[[str], None]) -> None:
        self._lost = lost
        self._hopeless = hopeless
        self._begin = begin

    def read(self, name: str, otherwise: Any, how: Callable[..., Any], *arguments: Any) -> Any:
        """What `how` returns; `otherwise` where that is lost."""
        if name not in self._hopeless:
            self._begin(name)
            with contextlib.suppress(*_DAMAGE):
                return how(*arguments)
        self._lost.append(name)
        return otherwise


def salvage_file(
    path: Path,
    lost: list[str],
    *,
    hopeless: Container[str] = (),
    begin: Callable[[str], None] = lambda name: None,
) -> SweepState:
    """The state that can be read of a damaged file, column by column; all that is not lost fits together.

    Args:
        path: of the HDF5 file.
        lost: gets the names of what could not be read; ``/`` for the whole file.
        hopeless: names of what HDF5 does not come back from.
        begin: is told the name of what is about to be read.
    """
    read = _Saving(lost, hopeless, begin).read
    state = SweepState()
    size = path.stat().st_size
    file = read("/", None, h5py.File, path, "r")
    if file is None:
        return state
    with file:
        for name in ("spec", "source", "version", "state"):
            setattr(state, name, read(f"/ attribute {name}", getattr(state, name), _text_of, file, name))
        state.baseline = read("/ attribute baseline", None, _baseline_of, file)
        state.covered = read("/ attribute covered", {}, _covered_of, file)
        state.report_gaps = read("/ attribute report_gaps", {}, _report_gaps_of, file)
        state.environment = read("/environment", {}, _environment_of, file)
        for group in TABLES:
            _salvage_table(file, group, getattr(state, group), read, size)
        count = state.count
        for group, columns, kind in (("parameters", state.parameters, ""), ("metrics", state.metrics, "number")):
            for link in read(f"/trials/{group}", [], _links_of, file, f"trials/{group}"):
                name = f"/trials/{group}/{link}"
                values = read(name, None, _sound_column, file, name, size, kind, count)
                if values is not None:
                    columns[from_link(link)] = values
        for link in read("/curves", [], _links_of, file, "curves"):
            curve = read(f"/curves/{link}", None, _sound_curve, file, link, size, count)
            if curve is not None:
                state.curves.stored[from_link(link)] = curve
    _let_go_of_lost_rows(state)
    state.index()
    return state


def _salvage_table(
    file: h5py.File, group: str, table: dict[str, list[Any]], read: Callable[..., Any], size: int
) -> None:
    """Read the columns of a table; one that is lost has the usual value in every row."""
    kinds = {column.name: column.kind for column in columns_of(group)}
    for name in table:
        table[name] = read(f"/{group}/{name}", [], _table_column, file, group, name, size, kinds[name])
    # One of another length than the others is no column of theirs.
    [(rows, _)] = Counter(len(column) for column in table.values() if column).most_common(1) or [(0, 0)]
    usual = SweepState.usual_row(group)
    for name, column in table.items():
        if len(column) != rows:
            table[name] = read(f"/{group}/{name}", [], _of_length, column, rows) if column else []
        table[name] = table[name] or [usual[name]] * rows
    if group == "trials":
        table["number"] = list(range(rows))


def _text_of(file: h5py.File, name: str) -> str:
    return str(file.attrs[name])


def _baseline_of(file: h5py.File) -> int | None:
    baseline = int(file.attrs["baseline"])
    return None if baseline < 0 else baseline


def _covered_of(file: h5py.File) -> dict[str, int]:
    return {name: int(offset) for name, offset in json.loads(file.attrs["covered"]).items()}


def _report_gaps_of(file: h5py.File) -> dict[int, set[int]]:
    return {int(n): set(blocks) for n, blocks in json.loads(file.attrs["report_gaps"]).items()}


def _environment_of(file: h5py.File) -> dict[str, str]:
    return {from_link(name): str(text) for name, text in file["environment"].attrs.items()}


def _links_of(file: h5py.File, group: str) -> list[str]:
    return list(file[group])


def _table_column(file: h5py.File, group: str, name: str, size: int, kind: Any) -> list[Any]:
    return [] if _is_younger(file, group, name) else _sound_column(file, f"{group}/{name}", size, kind)


def _sound_column(file: h5py.File, name: str, size: int, kind: Any, count: int | None = None) -> list[Any]:
    column = _read_column(file[name], size)
    if not are_values(column) if kind == "" else not is_kind(kind, column):
        raise ValueError(f"{name} has other values")
    return column if count is None else _of_length(column, count)


def _sound_curve(file: h5py.File, link: str, size: int, count: int) -> StoredCurve:
    curve = _curve_of(file["curves"][link], size)
    if not is_curve(curve, count):
        raise ValueError(f"curves/{link} does not fit together")
    return curve


def _curve_of(group: h5py.Group, size: int, samples: SampleFile | None = None) -> StoredCurve:
    """Curves with their samples, or with where `samples` has them."""
    return StoredCurve(
        *(
            _read_array(group[name], size) if samples is None else _samples_of(samples, group[name], size)
            for name in ("step", "value", "time")
        ),
        *(_read_array(group[name], size) for name in ("offset", "length")),
    )  # fmt: skip


def _samples_of(samples: SampleFile, dataset: h5py.Dataset, size: int) -> Samples:
    _see_that_it_fits(dataset, size)
    return Samples(samples, dataset)


def _let_go_of_lost_rows(state: SweepState) -> None:
    """What names a row of a table that was lost names none; what says nothing of any trial goes."""
    if state.count and not state.allocations["run"]:
        # There were runs: at least those of the workers that are known.
        of_workers = state.workers["allocation"]
        runs = 1 + min(max([0, *of_workers]), len(of_workers))
        state.allocations = {name: [value] * runs for name, value in SweepState.usual_row("allocations").items()}
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


def _is_younger(file: h5py.File, group: str, name: str) -> bool:
    """Whether a file lacks a column because it is from before there was such a column."""
    if group in _ADDED_TABLES:
        return group not in file
    return (group, name) in _ADDED and name not in file.get(group, {})


def _fill_in(group: str, table: dict[str, list[Any]]) -> None:
    """Give a table of an earlier version the columns that it lacks."""
    rows = len(next(iter(table.values())))
    for name in table:
        if (group, name) in _ADDED and not table[name]:
            table[name] = [SweepState.usual_row(group)[name]] * rows


def _of_length(column: list[Any], count: int) -> list[Any]:
    if len(column) != count:
        raise ValueError(f"has {len(column)} entries for {count} trials")
    return column


def _state_of(file: h5py.File, path_bytes: int, samples: SampleFile | None) -> SweepState:
    attributes = file.attrs
    state = SweepState(
        spec=attributes["spec"],
        source=attributes["source"],
        version=attributes["version"],
        state=attributes["state"],
        baseline=_baseline_of(file),
        environment=_environment_of(file),
        covered=_covered_of(file),
        report_gaps=_report_gaps_of(file),
    )
    for group in TABLES:
        table = getattr(state, group)
        for name in table:
            if not _is_younger(file, group, name):
                table[name] = _read_column(file[group][name], path_bytes)
        _fill_in(group, table)
    for link, dataset in file["trials/parameters"].items():
        state.parameters[from_link(link)] = _read_column(dataset, path_bytes)
    for link, dataset in file["trials/metrics"].items():
        state.metrics[from_link(link)] = _read_array(dataset, path_bytes).tolist()
    if samples is not None:
        state.curves.sources.append(samples)
    for link, group in file["curves"].items():
        state.curves.stored[from_link(link)] = _curve_of(group, path_bytes, samples)
    see_that_it_is_consistent(state)
    state.index()
    return state


def _see_that_it_fits(dataset: h5py.Dataset, path_bytes: int) -> None:
    """Refuse what promises more than the file can hold, compressed a thousandfold where another tool did that."""
    if dataset.shape is None or dataset.ndim != 1:
        raise ValueError(f"{dataset.name} is no column")
    if dataset.nbytes > path_bytes * (1000 if dataset.chunks else 1):
        raise ValueError(f"{dataset.name} has {len(dataset)} entries")


def _read_array(dataset: h5py.Dataset, path_bytes: int) -> Any:
    _see_that_it_fits(dataset, path_bytes)
    return dataset[()]


def _read_column(dataset: h5py.Dataset, path_bytes: int) -> list[Any]:
    _see_that_it_fits(dataset, path_bytes)
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return dataset.asstr()[()].tolist() if dataset.size else []
    column: list[Any] = dataset[()].tolist()
    return column


# ------------------------------------------------------------------------------------- writing


def write_file(
    path: Path, state: SweepState, aside: Path | None = None, *, closing_since: float | None = None
) -> int:
    """Replace the file by one that holds `state`; returns its size in bytes.

    Args:
        path: of the file.
        state: what to write.
        closing_since: when the last run began to close, in seconds since 1970, where this is the end of that: how
            long it took is put in.
        aside: folder to write it in first, on the same file system.  A master that takes over removes the
            folders of those before it: so one that was given up, but is still there, cannot replace the file
            any more, for the rename then has nothing to rename.

    Raises:
        OSError: when the disk does not take it; the old file is untouched.
    """
    image = Image()
    with h5py.File(image, "w", libver=("earliest", "v110")) as file:
        rooms = _write(file, state)
        column_at = file["allocations/closing_time"].id.get_offset()
    filled = [room for room in rooms.values() if room.length]
    made = (aside or path.parent) / f"{path.name}.tmp-{os.getpid()}"
    try:
        with made.open("wb") as out:
            write_image(out, image, filled)
            _write_samples(RoomWriter(out, rooms), state.curves, _order_of(state))
            size = seal(out, image, filled)
            if closing_since is not None and column_at is not None:
                # How long closing takes is known when everything is on disk, and has to be there too: eight bytes.
                column_at += 8 * (len(state.allocations["run"]) - 1)
                _put_in(out, image, column_at, max(0.0, time.time() - closing_since))
                seal(out, image, filled)
        os.replace(made, path)
    except BaseException:
        with contextlib.suppress(OSError):
            made.unlink(missing_ok=True)
        raise
    finally:
        state.curves.close()
    _sync(path.parent)
    return size


def _put_in(out: BinaryIO, image: Image, at: int, number: float) -> None:
    for file in (out, image):
        file.seek(at)
        file.write(struct.pack("=d", number))


def _order_of(state: SweepState) -> list[int]:
    """In which order the curves of trials lie: those of trials that still run last."""
    return sorted(range(state.count), key=lambda number: state.trials["state"][number] == TrialState.RUNNING)


def _write_samples(writer: RoomWriter, curves: Curves, order: Sequence[int]) -> None:
    """Stored and fresh reports of all trials end to end."""
    # Trials that lie one after another are copied together.
    together = dict.fromkeys(curves.stored, (0, 0))

    def copy(metric: str) -> None:
        stored, (first, end) = curves.stored[metric], together[metric]
        for at in range(first, end, _SAMPLES_AT_ONCE):
            for name, kind in _SAMPLES.items():
                samples = getattr(stored, name)[at : min(end, at + _SAMPLES_AT_ONCE)]
                writer.add((metric, name), samples.astype(kind, copy=False).tobytes())
        together[metric] = (0, 0)

    for number in order:
        for metric in together:
            first, end = curves.stored_range(number, metric)
            if first != together[metric][1] and end > first:
                copy(metric)
                together[metric] = (first, end)
            elif end > first:
                together[metric] = (together[metric][0], end)
        for reports in curves.fresh.get(number, ()):
            for metric, curve in reports.read().items():
                if metric in together:
                    copy(metric)
                for name, kind in _SAMPLES.items():
                    column = getattr(curve, name)
                    writer.add((metric, name), np.frombuffer(column, column.typecode).astype(kind, copy=False).tobytes())
    for metric in together:
        copy(metric)
    writer.finish()


def _write(file: h5py.File, state: SweepState) -> dict[tuple[str, str], Room]:
    """Write everything but the samples of curves; returns the room for those, by metric and name."""
    spec = _spec_of(state)
    workload = spec.workload.name if spec and isinstance(spec.workload, BuiltinWorkload) else ""
    file.attrs.update({
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "version": as_text(state.version),
        "name": as_text(spec.name) if spec else "",
        "objective": spec.objective if spec else "",
        "direction": spec.direction.value if spec else "",
        "workload": workload,
        "state": as_text(state.state),
        "baseline": -1 if state.baseline is None else state.baseline,
        "spec": as_text(state.spec),
        "source": as_text(state.source),
        "covered": json.dumps(state.covered),
        "report_gaps": json.dumps({number: sorted(blocks) for number, blocks in state.report_gaps.items()}),
        "description": "a sweep: trials, their metrics and curves, and who ran them",
    })  # fmt: skip
    environment = file.create_group("environment").attrs
    for name, text in state.environment.items():
        environment[to_link(name)] = as_text(text)
    for column in COLUMNS:
        _create(file.require_group(column.group), column, _column_data(state, column))
    parameters = file["trials"].create_group("parameters", track_order=True)
    for name, values in state.parameters.items():
        made = Column("", name, "text", "parameter" + _described(workload, name), units_of(workload, name))
        _create(parameters, made, _native(values))
    metrics = file["trials"].create_group("metrics", track_order=True)
    for name, values_of in state.metrics.items():
        described = "final value" + _described(workload, name)
        made = Column("", name, "number", described, units_of(workload, name))
        _create(metrics, made, np.array(values_of, dtype=np.float64))
    curves = file.create_group("curves", track_order=True)
    lengths, order = _curve_lengths(state), _order_of(state)
    rooms: dict[tuple[str, str], Room] = {}
    for name in state.curve_names:
        group = curves.create_group(to_link(name))
        group.attrs["name"] = as_text(name)
        made_rooms = _write_curve(group, lengths[name], order, units_of(workload, name))
        rooms |= {(name, column): room for column, room in made_rooms.items()}
    return rooms


def _spec_of(state: SweepState) -> Spec | None:
    try:
        return parse_spec(state.spec, source=state.source, folder=Path(), is_recorded=True)
    except SpecError:
        return None


def _described(workload: str, name: str) -> str:
    entry = entry_of(workload, name)
    return f": {entry.description}" if entry else f" {name}"


def _column_data(state: SweepState, column: Column) -> Any:
    table = getattr(state, column.group)
    if column.group == "trials" and column.name in ("host", "device"):
        known = [*state.workers[column.name], ""]
        # Worker -1 is "none yet", and the last entry is its empty text.
        return _texts(known)[np.array(table["worker"], dtype=np.int64)]
    if column.group == "trials" and column.name == "ended_at":
        return np.array(table["started_at"], dtype=float) + np.array(table["wall_time"], dtype=float)
    if column.group == "trials" and column.name == "diverged":
        spec = _spec_of(state)
        return np.array(state.diverged(spec.objective if spec else ""), dtype=bool)
    values = table[column.name]
    match column.kind:
        case "integer":
            return np.array(values, dtype=np.int64)
        case "number":
            return np.array(values, dtype=np.float64)
        case "text":
            return _texts(values)
        case "long text":
            return values
    return np.array(values, dtype=np.int8)


def _texts(values: Sequence[str]) -> Any:
    """Fixed-length UTF-8: one read for a whole column, in every tool."""
    encoded = [value.encode("utf-8", "backslashreplace") for value in values]
    return np.array(encoded, dtype=f"S{max([1, *map(len, encoded)])}")


def _native(values: Sequence[Any]) -> Any:
    """The column of a parameter in the narrowest type that holds it; what a trial lacks is NaN or empty."""
    present = {type(value) for value in values if value is not None}
    if None not in values:
        if present <= {bool}:
            return np.array(values, dtype=bool)
        if present <= {int}:
            return np.array(values, dtype=np.int64)
    if present <= {int, float}:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return _texts(["" if value is None else str(value) for value in values])


def _create(group: h5py.Group, column: Column, data: Any) -> None:
    dtype: Any = None
    if column.kind == "long text":
        dtype = h5py.string_dtype("utf-8")
        data = [as_text(text).encode() for text in data]
    elif isinstance(column.kind, type) and issubclass(column.kind, IntEnum):
        dtype = h5py.enum_dtype({m.name.lower(): m.value for m in column.kind}, basetype="i1")
        data = data.astype(dtype)
    elif data.dtype.kind == "S":
        dtype = h5py.string_dtype("utf-8", data.dtype.itemsize)
        data = data.astype(dtype)
    dataset = group.create_dataset(to_link(column.name), data=data, dtype=dtype, shape=(len(data),))
    _describe(dataset, column)


def _describe(dataset: h5py.Dataset, column: Column) -> None:
    dataset.attrs["description"] = as_text(column.description)
    if column.units:
        dataset.attrs["units"] = column.units


def _curve_lengths(state: SweepState) -> dict[str, Any]:
    """Metric -> how many reports of it each trial has, shape (trials,)."""
    curves = state.curves
    lengths = {name: np.zeros(state.count, dtype=np.int64) for name in curves.names}
    for name, stored in curves.stored.items():
        lengths[name][: len(stored.length)] = stored.length
        lengths[name][sorted(curves.outdated)] = 0
    for number, blocks in curves.fresh.items():
        for reports in blocks:
            for name, length in reports.lengths.items():
                lengths[name][number] += length
    return lengths


def _write_curve(group: h5py.Group, lengths: Any, order: Sequence[int], units: str) -> dict[str, Room]:
    """Write where the samples of a metric are, and make room for them."""
    offsets = np.zeros_like(lengths)
    offsets[order] = np.cumsum(lengths[order]) - lengths[order]
    tables = {"offset": offsets, "length": lengths}
    rooms: dict[str, Room] = {}
    for column in CURVE_COLUMNS:
        shown = Column("", column.name, column.kind, column.description, column.units)
        if column.name == "value" and units:
            shown = Column("", column.name, column.kind, column.description, units)
        if column.name in tables:
            _create(group, shown, tables[column.name])
        else:
            rooms[column.name] = _make_room(group, shown, int(lengths.sum()))
    return rooms


def _make_room(group: h5py.Group, column: Column, length: int) -> Room:
    """Create a dataset of 8-byte numbers that HDF5 gives a place and no contents."""
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_layout(h5py.h5d.CONTIGUOUS)
    made.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    made.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    kind = h5py.h5t.py_create(np.dtype(_SAMPLES[column.name]))
    space = h5py.h5s.create_simple((length,))
    dataset = h5py.h5d.create(group.id, column.name.encode(), kind, space, made)
    _describe(h5py.Dataset(dataset), column)
    # What is empty has no place.
    return Room(dataset.get_offset() or 0, 8 * length)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


# ------------------------------------------------------------------------------------- folding


#: Sorts after the names of all segments.
_ALL = "~"


def fold(
    path: Path, keep: str = "", token: Path | None = None, *, closing_since: float | None = None
) -> Folded:
    """Make a new file of the old one and the journal, then delete the segments that it covers.

    Segments that are damaged are kept, see :func:`keep_damaged`.

    Args:
        path: of the HDF5 file.
        keep: name of the segment that is being written: it and all later ones stay; empty for all.
        token: of the master in whose name that is done, see :mod:`mpisweep.results.claim`; None where nobody else
            can be at work on the sweep.
        closing_since: see :func:`write_file`.
    """
    started = time.monotonic()
    damages: list[Damage] = []
    state = read_merged(path, damages, reading=Reading.PLACES)
    size = write_file(path, state, token, closing_since=closing_since)
    keep_damaged(path, damages)
    remove_covered(path, state, token, keep)
    return Folded(time.monotonic() - started, size)


def finish(path: Path, token: Path | None = None, *, closing_since: float | None = None) -> Folded:
    """The last fold of a run in order: afterwards there is only the HDF5 file, and what a later master has written."""
    folded = fold(path, _ALL if token is None else after_token(token), token, closing_since=closing_since)
    sync_folder(journal_folder(path))
    return folded


def finish_with(path: Path, state: SweepState, token: Path | None = None) -> None:
    """Write what was read and repaired, then let the journal go."""
    state.covered = {}
    write_file(path, state, token)
    remove_covered(path, state, token, _ALL)
    sync_folder(journal_folder(path))


def remove_covered(path: Path, state: SweepState, token: Path | None, keep: str) -> None:
    """Delete the segments of which the file that `state` was written to has everything.

    Args:
        path: of the HDF5 file.
        state: what was read, and of how much of each segment.
        token: see :func:`fold`.
        keep: segments from this name on stay.
    """
    folder = journal_folder(path)
    for name in segments(folder):
        segment = folder / name
        # Whatever was appended since it was read is in no file.
        if name >= keep or state.sizes.get(name) != segment.stat().st_size:
            continue
        if token is None:
            segment.unlink()
        else:
            remove_through(token, segment)


def keep_damaged(path: Path, damages: Sequence[Damage]) -> list[Path]:
    """Copy damaged segments into ``NAME.h5.damaged/``, where nothing ever deletes them; returns the copies."""
    folder, kept = journal_folder(path), damaged_folder(path)
    copies: list[Path] = []
    for name in dict.fromkeys(damage.segment for damage in damages):
        copy = kept / name
        source = folder / name
        if not source.exists() or (copy.exists() and copy.stat().st_size >= source.stat().st_size):
            continue
        kept.mkdir(exist_ok=True)
        shutil.copyfile(source, copy)
        _sync(copy)
        copies.append(copy)
    if copies:
        # What it was copied from may go now.
        _sync(kept)
        _sync(kept.parent)
    return copies
