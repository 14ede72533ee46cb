"""The one drawing style, what every figure needs of it, and saving."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mpisweep.results import ResultsError

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "LETTERS_IN_A_COLUMN",
    "LETTERS_IN_A_LEGEND",
    "LETTERS_IN_A_ROW",
    "ORANGE",
    "RED",
    "STYLE",
    "FigureError",
    "Floats",
    "drawn_as_svg",
    "is_logarithmic",
    "label",
    "legend",
    "plain",
    "positions",
    "save",
    "spans_decades",
    "words",
]

Floats = NDArray[np.float64]

#: Okabe and Ito's palette, which the colour-blind can tell apart.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"

#: Sizes are those of a column in a two-column paper, doubled, with type to match.
STYLE: Any = {
    "figure.figsize": (6.8, 4.2),
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "savefig.dpi": 200,
    # Text stays text, and the same data gives the same bytes.
    "svg.fonttype": "none",
    "svg.hashsalt": "mpisweep",
    "pdf.fonttype": 42,
}

#: Letters that fit below an axis, beside it, and into a legend's line inside it.
LETTERS_IN_A_ROW = 70
LETTERS_IN_A_COLUMN = 36
LETTERS_IN_A_LEGEND = 60


class FigureError(ResultsError):
    """There is nothing to draw; the message is one sentence."""


def drawn_as_svg(figure: Figure) -> str:
    """The figure as an SVG element, for a page of HTML."""
    made = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(made, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    # What comes before the element is for files of their own.
    return made.getvalue()[made.getvalue().index("<svg") :]


def save(figure: Figure, path: Path) -> None:
    """Write PNG, SVG or PDF, as the file's name says; the same data gives the same bytes.

    Raises:
        FigureError: when the name ends otherwise.
    """
    metadata: dict[str, dict[str, Any]] = {
        ".png": {"Software": None},
        ".svg": {"Date": None},
        ".pdf": {"CreationDate": None},
    }
    if path.suffix not in metadata:
        raise FigureError(f"{path}: figures end in .png, .svg or .pdf")
    with mpl.rc_context(STYLE):
        figure.savefig(path, metadata=metadata[path.suffix])


def label(name: str, unit: str) -> str:
    """Of an axis: a name in words, and its units."""
    return textwrap.fill(f"{words(name)} [{unit}]" if unit else words(name), LETTERS_IN_A_COLUMN)


def words(name: str) -> str:
    """A parameter's or a metric's name as one would write it."""
    return plain(name).replace("_", " ")


def plain(text: str) -> str:
    """A user's text, of which nothing is taken for mathematics."""
    return text.replace("$", r"\$")


def legend(figure: Figure, axes: Axes, *, covers: bool = False) -> None:
    """A legend inside the axes; below them where it is too wide for that, or would cover the data."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    if covers or max(map(len, labels)) > LETTERS_IN_A_LEGEND:
        figure.legend(
            handles, labels, loc="outside lower center", ncols=1 + (max(map(len, labels)) < 45), fontsize=9
        )
    else:
        axes.legend(loc="best")


def is_logarithmic(values: Floats) -> bool:
    """Whether equal ratios say more about these values than equal differences."""
    distinct = np.unique(values)
    if len(distinct) < 3 or distinct[0] <= 0 or distinct[-1] / distinct[0] < 30:
        return False
    gaps = np.diff(distinct)
    return bool(gaps.max() > 5 * gaps.min()) and bool(np.median(distinct) < 0.25 * distinct[-1])


def spans_decades(values: Floats) -> bool:
    """Whether values are better seen on a logarithmic axis."""
    finite = values[np.isfinite(values)]
    return len(finite) > 0 and finite.min() > 0 and finite.max() / finite.min() > 100


def positions(column: NDArray[Any]) -> tuple[Floats, tuple[str, ...]]:
    """Where a parameter's values are on an axis, and the names of categories, which have places instead of
    values.
    """
    if column.dtype.kind in "iuf":
        return column.astype(float), ()
    names = tuple(dict.fromkeys(str(value) for value in column))
    place = {name: float(index) for index, name in enumerate(names)}
    return np.array([place[str(value)] for value in column]), tuple(plain(name) for name in names)
