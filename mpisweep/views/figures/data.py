"""The numbers of a figure as CSV: a row per drawn item, its layer in the first column."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mpisweep.results import ResultsError
from mpisweep.views.figures.style import SweepFigure

__all__ = ["write_data"]


def write_data(figure: SweepFigure, path: Path) -> None:
    """Write the layers of a figure below each other.

    A cell is empty where a layer lacks the column, or the value is NaN.

    Raises:
        ResultsError: if the file cannot be written.
    """
    names = list(dict.fromkeys(name for columns in figure.layers.values() for name in columns))
    try:
        with path.open("w", encoding="utf-8", newline="") as out:
            out.write(",".join(map(_cell, ["layer", *names])) + "\n")
            for layer, columns in figure.layers.items():
                lists = [columns[name].tolist() if name in columns else None for name in names]
                for row in range(len(next(iter(columns.values())))):
                    cells = ["" if values is None else _cell(values[row]) for values in lists]
                    out.write(f"{_cell(layer)},{','.join(cells)}\n")
    except OSError as error:
        raise ResultsError(f"{path}: cannot be written: {error.strerror}") from error


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text
