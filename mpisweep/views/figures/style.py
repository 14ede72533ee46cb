"""The style of all figures, their sizes for print, shared helpers, and saving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

from mpisweep.results import ResultsError
from mpisweep.spec import nearest

__all__ = [
    "BLACK",
    "BLUE",
    "BROWN",
    "GREEN",
    "GREY",
    "MILLIMETRES",
    "ORANGE",
    "PURPLE",
    "RED",
    "SKY",
    "STYLE",
    "FigureError",
    "Floats",
    "SweepFigure",
    "Width",
    "checked_width",
    "dense",
    "label",
    "legend",
    "marker_size",
    "plain",
    "positions",
    "save",
    "spans_decades",
    "style_of",
    "time_unit",
    "title",
    "words",
    "wrapped",
]

Floats = NDArray[np.float64]

#: Okabe and Ito's palette for colour-blind readers; brown takes the place of their yellow, which is too pale.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#999999"
SKY, PURPLE, BLACK, BROWN = "#56B4E9", "#CC79A7", "#222222", "#7F5A00"

#: A column of a two-column journal, or both.
Width = Literal["column", "page"]
MILLIMETRES: dict[str, float] = {"column": 89.0, "page": 183.0}
_MM_PER_INCH, _POINTS_PER_INCH = 25.4, 72.0

#: The style of a figure as wide as a page.
STYLE: Any = {
    "figure.figsize": (7.2, 4.2),
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "figure.titlesize": 10,
    "legend.fontsize": 8,
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
#: What differs in one column: journals ask for 5 to 7 pt in print, and nothing here is below 6 pt.
_COLUMN: Any = {
    "font.size": 7,
    "axes.titlesize": 7,
    "figure.titlesize": 7.5,
    "legend.fontsize": 6.5,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "savefig.dpi": 400,
}

#: Points or curves' reports above which a layer is an image also in SVG and PDF.
_DENSE = 2000
#: Units of catalogue and columns -> plain words.
_WORDS = {
    "s": "seconds", "min": "minutes", "h": "hours", "d": "days", "byte": "bytes", "image": "images",
    "image/s": "images per second", "pixel": "pixels", "J": "joules", "W": "watts",
}  # fmt: skip


class FigureError(ResultsError):
    """A figure has nothing to draw; the message is one sentence."""


class SweepFigure(Figure):
    """A figure that knows its data.

    Args:
        width: ``column`` is 89 mm, ``page`` 183 mm.
        height_mm: its height.

    Attributes:
        layers: name of a layer -> its columns, arrays of equal length: the numbers that are drawn.
        width: as given.
        panel: prefix of the layers that are added next, for a figure of several panels.
        note: a sentence for its caption; empty for none.
    """

    def __init__(self, width: Width = "page", height_mm: float | None = None) -> None:
        high = height_mm or (66.0 if width == "column" else 107.0)
        super().__init__(figsize=(MILLIMETRES[checked_width(width)] / _MM_PER_INCH, high / _MM_PER_INCH))
        self.width: Width = width
        self.layers: dict[str, dict[str, NDArray[Any]]] = {}
        self.panel = ""
        self.note = ""

    def add_layer(self, name: str, columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> None:
        """Note the numbers of what was drawn.

        Raises:
            ValueError: if the columns differ in length, or the layer is there already.
        """
        name = f"{self.panel}{name}"
        arrays = {key: np.asarray(values) for key, values in columns.items()}
        if name in self.layers or len({len(values) for values in arrays.values()}) > 1:
            raise ValueError(f"layer {name!r} is there already, or its columns differ in length")
        self.layers[name] = arrays

    @property
    def is_narrow(self) -> bool:
        """Whether it is one column wide."""
        return self.width == "column"

    @property
    def width_pt(self) -> float:
        """Its width in points."""
        return float(self.get_size_inches()[0]) * _POINTS_PER_INCH

    def lay_out(self) -> None:
        """Place axes and texts as drawing does, in half its time."""
        engine = self.get_layout_engine()
        if engine is not None:
            engine.execute(self)

    def grow(self, height_pt: float) -> None:
        """Make it higher, e.g. for a legend below the axes."""
        width, height = self.get_size_inches()
        self.set_size_inches(width, height + height_pt / _POINTS_PER_INCH)


def checked_width(width: str) -> Width:
    """Check the name of a width.

    Raises:
        FigureError: if it is neither ``column`` nor ``page``.
    """
    if width not in MILLIMETRES:
        raise FigureError(f"width is {width!r}; expected 'column' (89 mm) or 'page' (183 mm)")
    return "column" if width == "column" else "page"


def style_of(width: Width) -> Any:
    """The style of figures of this width, for ``matplotlib.rc_context``."""
    return STYLE | (_COLUMN if checked_width(width) == "column" else {})


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
    ending = path.suffix.lower()
    if ending not in metadata:
        close = f"; {nearest(ending, metadata)}" if ending else ""
        raise FigureError(f"{path}: figures end in .png, .svg or .pdf{close if 'mean' in close else ''}")
    with mpl.rc_context(style_of(figure.width if isinstance(figure, SweepFigure) else "page")):
        figure.savefig(path, format=ending[1:], metadata=metadata[ending])


def dense(count: int) -> bool:
    """Whether a layer of so many points is drawn as an image, so that vector files stay small."""
    return count > _DENSE


def marker_size(figure: SweepFigure, count: int) -> float:
    """Size of the markers of so many points, in points."""
    size = 4.5 if count <= 150 else 2.5 if count <= 1500 else 1.4 if count <= 20_000 else 0.8
    return size * (0.75 if figure.is_narrow else 1.0)


def label(name: str, unit: str) -> str:
    """Axis label: a name in words, and its units in words."""
    unit = _WORDS.get(unit, unit)
    return f"{words(name)} [{unit}]" if unit else words(name)


def words(name: str) -> str:
    """The name of a parameter or metric in words: ``loss_mean`` is "mean loss"."""
    stem = name.removesuffix("_mean")
    return plain(name if stem == name else f"mean {stem}").replace("_", " ")


def plain(text: str) -> str:
    """Escape a user's text so that matplotlib does not read it as mathematics."""
    return text.replace("$", r"\$")


def time_unit(longest_s: float) -> tuple[float, str]:
    """The unit in which a time up to this one is drawn: its seconds, and its name in words."""
    for scale, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if longest_s >= 3 * scale:
            return scale, unit
    return (1.0, "seconds") if longest_s >= 0.5 else (1e-3, "milliseconds")


def wrapped(text: str, width_pt: float, size_pt: float) -> str:
    """Break a text into lines that are at most so wide in this size of type."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _length(longer, size_pt) <= width_pt:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def _length(text: str, size_pt: float) -> float:
    """Length of a line in points."""
    font = FontProperties(size=size_pt)
    escaped = text.replace(r"\$", "$")
    return float(text_to_path.get_text_width_height_descent(escaped, font, ismath=False)[0])


def title(figure: SweepFigure, text: str) -> None:
    """Put a title over the figure, in as many lines as its width needs."""
    size = float(mpl.rcParams["figure.titlesize"])
    lines = wrapped(text, figure.width_pt - 12, size)
    figure.suptitle(lines, x=0.01, ha="left", fontsize=size)
    figure.grow(1.2 * size * lines.count("\n"))


def legend(figure: SweepFigure, axes: Axes, *, covers: bool = True, handles: Sequence[Any] = ()) -> None:
    """Add a legend below the axes, or inside if it covers nothing there.

    Args:
        figure: grows by the height of a legend below.
        axes: whose labelled artists are in it, unless `handles` are given.
        covers: whether it could cover data inside the axes.
        handles: labelled artists.
    """
    found = list(handles) or axes.get_legend_handles_labels()[0]
    if not found:
        return
    size = float(mpl.rcParams["legend.fontsize"])
    room = figure.width_pt - 6 * size
    labels = [wrapped(str(handle.get_label()), room, size) for handle in found]
    widest = max(_length(line, size) for text in labels for line in text.split("\n"))
    inside = not covers and len(found) <= 3 and widest < figure.width_pt / 3
    if inside:
        _clear(axes.legend(found, labels, loc="best"))
        return
    columns = max(1, min(len(found), int((figure.width_pt - 2 * size) // (widest + 5.5 * size))))
    _clear(figure.legend(found, labels, loc="outside lower center", ncols=columns))
    rows = -(-len(found) // columns) + sum(text.count("\n") for text in labels)
    figure.grow(1.3 * size * rows)


def _clear(drawn: Legend) -> None:
    """Show marks that are faint or tiny among thousands as one sees them in the legend."""
    for handle in drawn.legend_handles:
        if isinstance(handle, Line2D):
            handle.set(alpha=1.0, markersize=max(float(handle.get_markersize()), 3.5))


def spans_decades(values: Floats) -> bool:
    """Whether positive values span more than two decades."""
    finite = values[np.isfinite(values)]
    return len(finite) > 0 and finite.min() > 0 and finite.max() / finite.min() > 100


def positions(column: NDArray[Any]) -> tuple[Floats, tuple[str, ...]]:
    """Positions of a parameter's values on an axis, and the names of categories, if it has any.

    The position of a number that a trial does not have is NaN; a text that it does not have is "(none)".
    """
    if column.dtype.kind in "iuf":
        return column.astype(float), ()
    names, place = np.unique(column.astype(str), return_inverse=True)
    # In the order of first appearance.
    first = np.full(len(names), len(column))
    np.minimum.at(first, place, np.arange(len(column)))
    order = np.argsort(first)
    rank = np.empty(len(names))
    rank[order] = np.arange(len(names), dtype=float)
    return rank[place], tuple(plain(str(names[index])) or "(none)" for index in order)
