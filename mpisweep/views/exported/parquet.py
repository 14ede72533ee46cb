"""Trials or curves as Parquet, for pandas, Polars, DuckDB and Spark.  Imports pyarrow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from mpisweep.results.load import Sweep
from mpisweep.views.wording import units

__all__ = ["write"]

#: Rows that a reader can skip together.
_ROWS = 1 << 20
#: The columns of curves.
_NOTHING = pa.schema(
    [
        ("number", pa.int64()),
        ("metric", pa.string()),
        ("step", pa.int64()),
        ("time", pa.float64()),
        ("value", pa.float64()),
    ]
).empty_table()


def write(sweep: Sweep, out: Path, *, curves: bool) -> None:
    """Write a row per trial, or per report with `curves`; columns have their units as metadata."""
    table = _curves(sweep) if curves else _trials(sweep)
    about = {"name": sweep.name, "objective": sweep.objective, "direction": sweep.direction.value}
    table = table.replace_schema_metadata(about | (table.schema.metadata or {}))
    aside = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    parquet.write_table(table, aside, row_group_size=_ROWS)
    os.replace(aside, out)


def _trials(sweep: Sweep) -> Any:
    names = sweep.trials.names
    columns = [_column(sweep.trials[name]) for name in names]
    described = {name: units(sweep, name) for name in names}
    fields = [
        pa.field(name, column.type, metadata={"units": described[name]} if described[name] else None)
        for name, column in zip(names, columns, strict=True)
    ]
    return pa.table(columns, schema=pa.schema(fields))


def _column(values: Any) -> Any:
    """A column; NaN becomes null, which is what a trial does not have."""
    return pa.array(values.tolist(), from_pandas=True)


def _curves(sweep: Sweep) -> Any:
    parts: list[Any] = []
    for number in range(len(sweep.trials)):
        for metric in sweep.curve_names:
            curve = sweep.curve(number, metric)
            parts.append(
                pa.table(
                    {
                        "number": pa.array([number] * len(curve.step), pa.int64()),
                        "metric": pa.array([metric] * len(curve.step), pa.string()),
                        "step": pa.array(curve.step),
                        "time": pa.array(curve.time),
                        "value": pa.array(curve.value),
                    }
                )
            )
    return pa.concat_tables([_NOTHING, *parts])
