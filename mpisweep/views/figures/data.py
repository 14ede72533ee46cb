"""The numbers of a figure as CSV: a row per drawn item, its layer in the first column."""

from __future__ import annotations

from pathlib import Path

from mpisweep.results import ResultsError
from mpisweep.views.figures.style import SweepFigure
from mpisweep.views.wording import csv_cell

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
            out.write(",".join(map(csv_cell, ["layer", *names])) + "\n")
            for layer, columns in figure.layers.items():
                lists = [columns[name].tolist() if name in columns else None for name in names]
                for row in range(len(next(iter(columns.values())))):
                    cells = ["" if values is None else csv_cell(values[row]) for values in lists]
                    out.write(f"{csv_cell(layer)},{','.join(cells)}\n")
    except OSError as error:
        raise ResultsError(f"{path}: cannot be written: {error.strerror}") from error
