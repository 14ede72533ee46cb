"""A sweep's trials for other programs: CSV for spreadsheets and R, JSON for everything else.

The HDF5 file stays the original; what is written here is a copy of what :func:`mpisweep.load` gives.  Each
trial is a row with the columns of :attr:`~mpisweep.results.load.Sweep.trials`, under the same names.  With
curves there is in CSV one row for each report instead (the long form that plotting libraries take), and in
JSON a curve inside each trial.  What has no value (NaN) is an empty cell, or null; JSON has no infinity
either, so there it is the text ``"inf"`` or ``"-inf"``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

from mpisweep.results.load import Sweep
from mpisweep.views.wording import units

__all__ = ["FORMATS", "write_csv", "write_json"]


def write_csv(sweep: Sweep, out: TextIO, *, curves: bool = False) -> None:
    """One row a trial, or, with `curves`, one row a report: trial, metric, step, time, value."""
    if curves:
        _write_row(out, ("number", "metric", "step", "time", "value"))
        for number in range(len(sweep.trials)):
            for metric in sweep.curve_names:
                curve = sweep.curve(number, metric)
                for step, time_s, value in zip(curve.step, curve.time, curve.value, strict=True):
                    _write_row(out, (number, metric, int(step), float(time_s), float(value)))
        return
    _write_row(out, sweep.trials.names)
    for row in _rows(sweep):
        _write_row(out, row)


def write_json(sweep: Sweep, out: TextIO, *, curves: bool = False) -> None:
    """One object: what the sweep is, and a list of its trials, one object and one line each."""
    head = {
        "name": sweep.name,
        "state": sweep.state,
        "objective": sweep.objective,
        "direction": sweep.direction.value,
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


#: Name of a format, which is also how the names of its files end, to what writes it.
FORMATS: dict[str, Callable[..., None]] = {"csv": write_csv, "json": write_json}


def _rows(sweep: Sweep) -> Iterator[Sequence[Any]]:
    """The trials as tuples of Python's own values."""
    return (row.item() for row in sweep.trials)


def _json_curves(sweep: Sweep, number: int) -> dict[str, dict[str, list[Any]]]:
    found: dict[str, dict[str, list[Any]]] = {}
    for metric in sweep.curve_names:
        curve = sweep.curve(number, metric)
        if len(curve.value):
            found[metric] = {
                name: [_json_value(value) for value in column.tolist()]
                for name, column in curve._asdict().items()
            }
    return found


def _write_row(out: TextIO, values: Sequence[Any]) -> None:
    out.write(",".join(map(_cell, values)) + "\n")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    # Python's csv leaves a bare carriage return as it is where lines end in "\n", and cannot read that back.
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else repr(value)
    return value
