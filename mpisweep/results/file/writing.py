"""Writing an HDF5 file, which is only ever replaced whole.

Every file is written aside, synced, renamed over the old one, and the folder synced; at every moment the name
leads to a complete, closed file.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from mpisweep.records import TrialState
from mpisweep.results.columns import COLUMNS, CURVE_COLUMNS, FORMAT, FORMAT_VERSION, Column
from mpisweep.results.file.image import Image, Room, RoomWriter, seal, write_image
from mpisweep.results.file.names import as_text, to_link
from mpisweep.results.reports import Curves
from mpisweep.results.state import SweepState
from mpisweep.results.syncing import sync
from mpisweep.spec import BuiltinWorkload, Spec, SpecError, parse_spec
from mpisweep.spec.catalogue import entry_of, units_of

__all__ = ["native_column", "write_file"]

#: How the samples of curves are written.
_SAMPLES = {"step": np.dtype("<i8"), "value": np.dtype("<f8"), "time": np.dtype("<f8")}
#: How many of them are copied at once from one file to another.
_SAMPLES_AT_ONCE = 1 << 13


def write_file(
    path: Path, state: SweepState, aside: Path | None = None, *, closing_since: float | None = None
) -> None:
    """Replace the file by one that holds `state`.

    Args:
        path: of the file.
        state: what to write.
        closing_since: when the last run began to close, in seconds since 1970, where this is the end of that:
            how long it took is put in.
        aside: folder to write it in first, on the same file system.  A master that takes over removes the
            folders of those before it: so one that was given up, but is still there, cannot replace the file
            any more, for the rename then has nothing to rename.

    Raises:
        OSError: when the disk does not take it; the old file is untouched.
    """
    image = Image()
    order = _order_of(state)
    with h5py.File(image, "w", libver=("earliest", "v110")) as file:
        rooms = _write(file, state, order)
        column_at = file["allocations/closing_time"].id.get_offset()
    filled = [room for room in rooms.values() if room.length]
    made = (aside or path.parent) / f"{path.name}.tmp-{os.getpid()}"
    try:
        with made.open("wb") as out:
            write_image(out, image, filled)
            _write_samples(RoomWriter(out, rooms), state.curves, order)
            seal(out, image, filled)
            if closing_since is not None and column_at is not None:
                # How long closing takes is known when everything is on disk, and has to be there too: eight
                # bytes.
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
    sync(path.parent)


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
                    writer.add(
                        (metric, name),
                        np.frombuffer(column, column.typecode).astype(kind, copy=False).tobytes(),
                    )
    for metric in together:
        copy(metric)
    writer.finish()


# ------------------------------------------------------------------------------------- tables


def _write(file: h5py.File, state: SweepState, order: Sequence[int]) -> dict[tuple[str, str], Room]:
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
        _create(
            file.require_group(column.group),
            column,
            _column_data(state, column, spec.objective if spec else ""),
        )
    parameters = file["trials"].create_group("parameters", track_order=True)
    for name, values in state.parameters.items():
        made = Column("", name, "text", "parameter" + _described(workload, name), units_of(workload, name))
        _create(parameters, made, native_column(values))
    metrics = file["trials"].create_group("metrics", track_order=True)
    for name, values_of in state.metrics.items():
        described = "final value" + _described(workload, name)
        made = Column("", name, "number", described, units_of(workload, name))
        _create(metrics, made, np.array(values_of, dtype=np.float64))
    curves = file.create_group("curves", track_order=True)
    lengths = _curve_lengths(state)
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


def _column_data(state: SweepState, column: Column, objective: str) -> Any:
    table = getattr(state, column.group)
    if column.group == "trials" and column.name in ("host", "device"):
        known = [*state.workers[column.name], ""]
        # Worker -1 is "none yet", and the last entry is its empty text.
        return _texts(known)[np.array(table["worker"], dtype=np.int64)]
    if column.group == "trials" and column.name == "ended_at":
        return np.array(table["started_at"], dtype=float) + np.array(table["wall_time"], dtype=float)
    if column.group == "trials" and column.name == "diverged":
        return np.array(state.diverged(objective), dtype=bool)
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


def native_column(values: Sequence[Any]) -> Any:
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


# ------------------------------------------------------------------------------------- curves


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
