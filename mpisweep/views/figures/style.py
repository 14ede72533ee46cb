"""The style of all figures, their shared helpers, and saving."""

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
    "label",
    "legend",
    "plain",
    "positions",
    "save",
    "spans_decades",
    "words",
]

Floats = NDArray[np.float64]

#: Okabe and Ito's palette for colour-blind readers.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"

#: Twice the size of a column in a two-column paper, with type to match.
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
    # Text stays text, and equal data gives equal bytes.
    "svg.fonttype": "none",
    "svg.hashsalt": "mpisweep",
    "pdf.fonttype": 42,
}

#: Letters that fit below an axis, beside it, and in a line of the legend inside it.
LETTERS_IN_A_ROW = 70
LETTERS_IN_A_COLUMN = 36
LETTERS_IN_A_LEGEND = 60

#: Units that are counted things -> how an axis names them.
_PLURALS = {"byte": "bytes", "image": "images", "image/s": "images/s", "pixel": "pixels"}


class FigureError(ResultsError):
    """A figure has nothing to draw; the message is one sentence."""


def drawn_as_svg(figure: Figure) -> str:
    """Render a figure as an SVG element for an HTML page."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    # The XML declaration before the element is for stand-alone files.
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def save(figure: Figure, path: Path) -> None:
    """Write PNG, SVG or PDF, by the file's ending; equal data gives equal bytes.

    Raises:
        FigureError: if the file has another ending.
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
    """Axis label: a name in words, and its units."""
    unit = _PLURALS.get(unit, unit)
    return textwrap.fill(f"{words(name)} [{unit}]" if unit else words(name), LETTERS_IN_A_COLUMN)


def words(name: str) -> str:
    """The name of a parameter or metric in words: ``loss_mean`` is "mean loss"."""
    stem = name.removesuffix("_mean")
    return plain(name if stem == name else f"mean {stem}").replace("_", " ")


def plain(text: str) -> str:
    """Escape a user's text so that matplotlib does not read it as mathematics."""
    return text.replace("$", r"\$")


def legend(figure: Figure, axes: Axes, *, covers: bool = False) -> None:
    """Add a legend inside the axes, or below them if it is too wide or would cover the data."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    if covers or max(map(len, labels)) > LETTERS_IN_A_LEGEND:
        figure.legend(
            handles, labels, loc="outside lower center", ncols=1 + (max(map(len, labels)) < 45), fontsize=9
        )
    else:
        axes.legend(loc="best")


def spans_decades(values: Floats) -> bool:
    """Whether positive values span more than two decades."""
    finite = values[np.isfinite(values)]
    return len(finite) > 0 and finite.min() > 0 and finite.max() / finite.min() > 100


def positions(column: NDArray[Any]) -> tuple[Floats, tuple[str, ...]]:
    """Positions of a parameter's values on an axis, and the names of categories, if it has any."""
    if column.dtype.kind in "iuf":
        return column.astype(float), ()
    names = tuple(dict.fromkeys(str(value) for value in column))
    place = {name: float(index) for index, name in enumerate(names)}
    return np.array([place[str(value)] for value in column]), tuple(plain(name) for name in names)
