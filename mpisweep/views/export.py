"""Export of a sweep's trials: CSV for spreadsheets and R, JSON for other programs.

An export is a copy of the data that :func:`mpisweep.load` returns; the HDF5 file stays the original.  Each
trial is a row with the columns of :attr:`~mpisweep.results.load.Sweep.trials`, under the same names.  With
curves, CSV has one row per report instead (the long form that plotting libraries take), and JSON has the
curves inside each trial.  NaN is an empty cell in CSV and null in JSON; infinity, which JSON lacks, is the
text ``"inf"`` or ``"-inf"`` there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from mpisweep.results.load import CurveArrays, Sweep
from mpisweep.views.wording import csv_cell, units

__all__ = ["FORMATS", "write_csv", "write_json"]


def write_csv(sweep: Sweep, out: TextIO, *, curves: bool = False) -> None:
    """Write one row per trial, or, with `curves`, one row per report."""
    if curves:
        _write_row(out, ("number", "metric", "step", "time", "value", "samples"))
        for number in range(len(sweep.trials)):
            for metric, curve, samples in _curves(sweep, number):
                for step, time_s, value, used in zip(
                    curve.step, curve.time, curve.value, samples, strict=True
                ):
                    _write_row(out, (number, metric, int(step), float(time_s), float(value), float(used)))
        return
    _write_row(out, sweep.trials.names)
    for row in _rows(sweep):
        _write_row(out, row)


def write_json(sweep: Sweep, out: TextIO, *, curves: bool = False) -> None:
    """Write one object: the sweep's description, and its trials as one object per line."""
    head = {
        "name": sweep.name,
        "state": sweep.state,
        "objective": sweep.objective,
        "direction": sweep.direction.value,
        "objectives": [{"name": one.name, "direction": one.direction.value} for one in sweep.objectives],
        "parameters": list(sweep.parameters),
        "metrics": list(sweep.metrics),
        "units": {name: unit for name in sweep.trials.names if (unit := units(sweep, name))},
        "baseline": None if sweep.baseline is None else int(sweep.baseline["number"]),
    }
    out.write("{\n")
    for key, value in head.items():
        out.write(f"{json.dumps(key)}: {json.dumps(value)},\n")
    out.write('"trials": [')
    names = sweep.trials.names
    for number, row in enumerate(_rows(sweep)):
        trial: dict[str, Any] = {name: _json_value(value) for name, value in zip(names, row, strict=True)}
        if curves:
            trial["curves"] = _json_curves(sweep, number)
        out.write(f"{',' if number else ''}\n{json.dumps(trial, allow_nan=False, ensure_ascii=False)}")
    out.write("\n]\n}\n")


#: Format -> the function that writes it; the format is also the ending of its files.
FORMATS: dict[str, Callable[..., None]] = {"csv": write_csv, "json": write_json}


def _rows(sweep: Sweep) -> Iterator[Sequence[Any]]:
    """The trials as tuples of Python values."""
    return (row.item() for row in sweep.trials)


def _curves(sweep: Sweep, number: int) -> Iterator[tuple[str, CurveArrays, Any]]:
    """The curves of one trial: metric, curve, and the samples used at each report."""
    progress = sweep.progress_by_metric(number)
    for metric in (metric for metric in sweep.curve_names if metric in progress):
        yield metric, sweep.curve(number, metric), progress[metric].samples


def _json_curves(sweep: Sweep, number: int) -> dict[str, dict[str, list[Any]]]:
    return {
        metric: {
            name: [_json_value(value) for value in column.tolist()]
            for name, column in (curve._asdict() | {"samples": samples}).items()
        }
        for metric, curve, samples in _curves(sweep, number)
    }


def _write_row(out: TextIO, values: Sequence[Any]) -> None:
    out.write(",".join(map(csv_cell, values)) + "\n")


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else repr(value)
    return value
