"""Writing an HDF5 file, which is always replaced as a whole.

Every file is written to a temporary name, synced and renamed over the old one; then the folder is synced.  At
every moment the name leads to a complete, closed file.
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
from mpisweep.results.columns import ABSENT, COLUMNS, CURVE_COLUMNS, FORMAT, Column, version_of
from mpisweep.results.file.image import Extent, ExtentWriter, Image, seal, write_image
from mpisweep.results.file.names import as_text, to_link
from mpisweep.results.reports import Curves
from mpisweep.results.state import SweepState
from mpisweep.results.syncing import sync
from mpisweep.spec import BuiltinWorkload, Spec, SpecError, parse_spec
from mpisweep.spec.catalogue import entry_of, units_of

__all__ = ["native_column", "write_file"]

#: Types of the samples of curves in the file.
_SAMPLES = {"step": np.dtype("<i8"), "value": np.dtype("<f8"), "time": np.dtype("<f8")}
#: Integers up to this are exact as floats.
_EXACT = 2**53
#: Number of samples per copy from one file to another.
_SAMPLES_AT_ONCE = 1 << 13


def write_file(
    path: Path, state: SweepState, aside: Path | None = None, *, closing_since: float | None = None
) -> None:
    """Replace the file by one that holds `state`.

    Args:
        path: of the file.
        state: what to write.
        closing_since: when the last run began to close, in seconds since 1970, if this write ends the
            closing; the file then records the duration.
        aside: folder for the temporary file, on the same file system.  A master that takes over removes the
            folders of its predecessors, so that the rename of a superseded master fails.

    Raises:
        OSError: when the write fails; the old file is untouched.
    """
    image = Image()
    order = _order_of(state)
    with h5py.File(image, "w", libver=("earliest", "v110")) as file:
        extents = _write(file, state, order)
        column_at = file["allocations/closing_time"].id.get_offset()
    filled = [extent for extent in extents.values() if extent.length]
    made = (aside or path.parent) / f"{path.name}.tmp-{os.getpid()}"
    try:
        with made.open("wb") as out:
            write_image(out, image, filled)
            _write_samples(ExtentWriter(out, extents), state.curves, order)
            seal(out, image, filled)
            if closing_since is not None and column_at is not None:
                # The closing time is known only when everything is on disk, so its eight bytes follow.
                column_at += 8 * (len(state.allocations["run"]) - 1)
                _write_number(out, image, column_at, max(0.0, time.time() - closing_since))
                seal(out, image, filled)
        os.replace(made, path)
    except BaseException:
        with contextlib.suppress(OSError):
            made.unlink(missing_ok=True)
        raise
    finally:
        state.curves.close()
    sync(path.parent)


def _write_number(out: BinaryIO, image: Image, at: int, number: float) -> None:
    for file in (out, image):
        file.seek(at)
        file.write(struct.pack("=d", number))


def _order_of(state: SweepState) -> list[int]:
    """The order of the trials' curves in the file: running trials come last."""
    return sorted(range(state.count), key=lambda number: state.trials["state"][number] == TrialState.RUNNING)


def _write_samples(writer: ExtentWriter, curves: Curves, order: Sequence[int]) -> None:
    """Write the stored and pending reports of all trials end to end."""
    # Adjacent ranges are copied together.
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
        for reports in curves.pending.get(number, ()):
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


def _write(file: h5py.File, state: SweepState, order: Sequence[int]) -> dict[tuple[str, str], Extent]:
    """Write everything except the samples of curves; return their extents by metric and name."""
    spec = _spec_of(state)
    objectives = [one.name for one in spec.objectives] if spec else [""]
    directions = [one.direction.value for one in spec.objectives] if spec else [""]
    workload = spec.workload.name if spec and isinstance(spec.workload, BuiltinWorkload) else ""
    file.attrs.update({
        "format": FORMAT,
        "format_version": version_of(state.trials["state"]),
        "version": as_text(state.version),
        "name": as_text(spec.name) if spec else "",
        # The first one; all of them.
        "objective": spec.objective if spec else "",
        "direction": spec.direction.value if spec else "",
        "objectives": np.array([as_text(name) for name in objectives], dtype=h5py.string_dtype()),
        "directions": np.array(directions, dtype=h5py.string_dtype()),
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
            _column_data(state, column, objectives),
        )
    parameters = file["trials"].create_group("parameters", track_order=True)
    for name, values in state.parameters.items():
        made = Column("", name, "text", "parameter" + _described(workload, name), units_of(workload, name))
        _create(parameters, made, native_column(values))
        if word := _type_where_present(values):
            parameters[to_link(name)].attrs[ABSENT] = word
    metrics = file["trials"].create_group("metrics", track_order=True)
    for name, values_of in state.metrics.items():
        described = "final value" + _described(workload, name, is_metric=True)
        made = Column("", name, "number", described, units_of(workload, name, is_metric=True))
        _create(metrics, made, np.array(values_of, dtype=np.float64))
    curves = file.create_group("curves", track_order=True)
    lengths = _curve_lengths(state)
    extents: dict[tuple[str, str], Extent] = {}
    for name in state.curve_names:
        group = curves.create_group(to_link(name))
        group.attrs["name"] = as_text(name)
        made_extents = _write_curve(group, lengths[name], order, units_of(workload, name, is_metric=True))
        extents |= {(name, column): extent for column, extent in made_extents.items()}
    return extents


def _spec_of(state: SweepState) -> Spec | None:
    try:
        return parse_spec(state.spec, source=state.source, folder=Path(), is_recorded=True)
    except SpecError:
        return None


def _described(workload: str, name: str, *, is_metric: bool = False) -> str:
    entry = entry_of(workload, name, is_metric=is_metric)
    return f": {entry.description}" if entry else f" {name}"


def _column_data(state: SweepState, column: Column, objectives: Sequence[str]) -> Any:
    table = getattr(state, column.group)
    if column.group == "trials" and column.name in ("host", "device"):
        known = [*state.workers[column.name], ""]
        # Worker -1 is "none yet", and the last entry is its empty text.
        return _texts(known)[np.array(table["worker"], dtype=np.int64)]
    if column.group == "trials" and column.name == "ended_at":
        return np.array(table["started_at"], dtype=float) + np.array(table["wall_time"], dtype=float)
    if column.group == "trials" and column.name == "device_power":
        return np.array(state.device_power(), dtype=float)
    if column.group == "trials" and column.name == "diverged":
        return np.array(state.diverged(objectives), dtype=bool)
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
    """Encode as fixed-length UTF-8, so that every tool reads a column with one read."""
    encoded = [value.encode("utf-8", "backslashreplace") for value in values]
    return np.array(encoded, dtype=f"S{max([1, *map(len, encoded)])}")


def native_column(values: Sequence[Any]) -> Any:
    """A parameter's column in the narrowest type that fits; absent values become NaN or empty."""
    present = {type(value) for value in values if value is not None}
    if None not in values:
        if present <= {bool}:
            return np.array(values, dtype=bool)
        if present <= {int}:
            return np.array(values, dtype=np.int64)
    is_number = present <= {int, float} or present <= {bool}
    # Where NaN has to stand for an absent value, integers must fit a float.
    if is_number and (None not in values or all(abs(value or 0) <= _EXACT for value in values)):
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return _texts(["" if value is None else str(value) for value in values])


def _type_where_present(values: Sequence[Any]) -> str:
    """The value of the attribute :data:`~mpisweep.results.columns.ABSENT`; empty if no value is absent."""
    if None not in values:
        return ""
    present = {type(value) for value in values if value is not None}
    for kind, word in ((bool, "boolean"), (int, "integer"), (str, "string")):
        if present == {kind}:
            return word
    # A column of several types is one of text.
    return "number" if present <= {int, float} else "string"


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
    """Metric -> number of reports of each trial, shape (trials,)."""
    curves = state.curves
    lengths = {name: np.zeros(state.count, dtype=np.int64) for name in curves.names}
    for name, stored in curves.stored.items():
        lengths[name][: len(stored.length)] = stored.length
        lengths[name][sorted(curves.outdated)] = 0
    for number, blocks in curves.pending.items():
        for reports in blocks:
            for name, length in reports.lengths.items():
                lengths[name][number] += length
    return lengths


def _write_curve(group: h5py.Group, lengths: Any, order: Sequence[int], units: str) -> dict[str, Extent]:
    """Write the offsets and lengths of a metric's curves, and allocate extents for the samples."""
    offsets = np.zeros_like(lengths)
    offsets[order] = np.cumsum(lengths[order]) - lengths[order]
    tables = {"offset": offsets, "length": lengths}
    extents: dict[str, Extent] = {}
    for column in CURVE_COLUMNS:
        shown = Column("", column.name, column.kind, column.description, column.units)
        if column.name == "value" and units:
            shown = Column("", column.name, column.kind, column.description, units)
        if column.name in tables:
            _create(group, shown, tables[column.name])
        else:
            extents[column.name] = _allocate(group, shown, int(lengths.sum()))
    return extents


def _allocate(group: h5py.Group, column: Column, length: int) -> Extent:
    """Create a dataset of 8-byte numbers that HDF5 allocates and does not fill."""
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_layout(h5py.h5d.CONTIGUOUS)
    made.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    made.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    kind = h5py.h5t.py_create(np.dtype(_SAMPLES[column.name]))
    space = h5py.h5s.create_simple((length,))
    dataset = h5py.h5d.create(group.id, column.name.encode(), kind, space, made)
    _describe(h5py.Dataset(dataset), column)
    # An empty dataset has no offset.
    return Extent(dataset.get_offset() or 0, 8 * length)
