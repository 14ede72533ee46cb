"""Axes of parameters, metrics and times: scale, ticks, labels that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import (
    FixedLocator,
    Formatter,
    FuncFormatter,
    Locator,
    LogLocator,
    MaxNLocator,
    NullFormatter,
)
from matplotlib.transforms import Bbox

from mpisweep.results.load import Sweep
from mpisweep.views.figures.style import Floats, SweepFigure, label, spans_decades, wrapped
from mpisweep.views.scales import acts_by_ratios
from mpisweep.views.wording import units

__all__ = [
    "Scale",
    "Which",
    "count_axis",
    "finish",
    "is_binary",
    "keep_above",
    "metric_axis",
    "name_axis",
    "parameter_axis",
    "round_ticks",
    "scale_of",
    "tick_text",
    "ticks_on",
]

Which = Literal["x", "y"]
#: How the values of an axis lie: evenly, in multiples of a power of two, by ratios, by powers of two.
Scale = Literal["linear", "binary", "log", "log2"]

#: Tick spacings between powers of ten.
_ROUND = (1, 2, 5, 10)
#: A power of two of which all values are multiples, from which on ticks are multiples of powers of two.
_BINARY_FROM = 8
_GIB = 2**30


class _BinaryLocator(Locator):
    """Ticks at multiples of a power of two."""

    def __call__(self) -> Any:
        assert self.axis is not None
        return self.tick_values(*self.axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> Any:
        room = max(2, self.axis.get_tick_space()) if self.axis is not None else 9
        low, high = sorted((vmin, vmax))
        step = 2.0 ** math.ceil(math.log2(max(high - low, 1e-300) / min(room, 9)))
        return step * np.arange(math.ceil(low / step), math.floor(high / step) + 1)


class _RatioLocator(Locator):
    """Ticks of a logarithmic axis: powers of its base, of ten also multiples where they fit."""

    def __init__(self, base: int) -> None:
        self._base = base

    def __call__(self) -> Any:
        assert self.axis is not None
        return self.tick_values(*self.axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> Any:
        low, high = sorted((max(vmin, 1e-300), max(vmax, 1e-300)))
        room = max(2, min(10, self.axis.get_tick_space())) if self.axis is not None else 9
        first, last = (math.floor(math.log(end, self._base)) for end in (low, high))
        decades = math.log10(high / low)
        choices = ((1, 2, 5), (1, 3), (1,)) if decades < 2 else ((1, 3), (1,)) if decades < 3 else ((1,),)
        for subs in choices if self._base == 10 else ((1,),):
            found = [sub * float(self._base) ** power for power in range(first, last + 1) for sub in subs]
            found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
            if 2 <= len(found) <= room:
                return np.array(found)
        powers = np.arange(first, last + 2)
        stride = -(-len(powers) // room)
        found = [
            value
            for value in (float(self._base) ** powers[::stride].astype(float)).tolist()
            if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)
        ]
        if len(found) >= 2:
            return np.array(found)
        return MaxNLocator(nbins=min(room, 6), steps=_ROUND).tick_values(low, high)


class _Names(Formatter):
    """The names of categories, one at each whole number."""

    def __init__(self, names: Sequence[str], *, may_turn: bool = True) -> None:
        self.names = list(names)
        self.may_turn = may_turn

    def __call__(self, x: float, pos: int | None = None) -> str:
        return self.names[round(x)] if 0 <= round(x) < len(self.names) else ""


class _RatioText(Formatter):
    """Plain digits if all ticks have them in a few letters, else powers of ten for all."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return tick_text(x)

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        sizes = [abs(value) for value in values if value]
        is_plain = not sizes or (min(sizes) >= 1e-3 * (1 - 1e-9) and max(sizes) < 1e6)
        return [tick_text(value) if is_plain else _with_power(value) for value in values]


class _Above(Locator):
    """Another locator's ticks from a value on."""

    def __init__(self, locator: Locator, floor: float) -> None:
        self._locator, self._floor = locator, floor

    def __call__(self) -> Any:
        found = np.asarray(self._locator())
        return found[found >= self._floor]

    def tick_values(self, vmin: float, vmax: float) -> Any:
        found = np.asarray(self._locator.tick_values(vmin, vmax))
        return found[found >= self._floor]


def keep_above(axes: Axes, floor: float) -> None:
    """Leave out the ticks of the vertical axis below a value."""
    axis = axes.yaxis
    minor = axis.get_minor_locator()
    for locator, set_locator in (
        (axis.get_major_locator(), axis.set_major_locator),
        (minor, axis.set_minor_locator),
    ):
        # The ticks of the axes take their number from the axis of the inner one.
        locator.set_axis(axis)
        set_locator(_Above(locator, floor))
        locator.set_axis(axis)


def tick_text(value: float, _: object = None) -> str:
    """The text of a tick: plain digits from 0.0001 to 10 million, powers of ten beyond."""
    if value == 0:
        return "0"
    if 1e-4 * (1 - 1e-9) <= abs(value) < 1e7:
        return f"{value:,.10g}".replace("-", "\N{MINUS SIGN}")
    return _with_power(value)


def round_ticks(low: float, high: float, *, is_ratio: bool) -> list[tuple[float, str]]:
    """Round values between two, with their texts, for an axis that is drawn by hand."""
    locator: Locator = _RatioLocator(10) if is_ratio else MaxNLocator(nbins=5, steps=_ROUND)
    margin = 1e-9 * (high - low)
    places = [float(at) for at in locator.tick_values(low, high) if low - margin <= at <= high + margin]
    formatter: Formatter = _RatioText() if is_ratio else FuncFormatter(tick_text)
    return list(zip(places, formatter.format_ticks(places), strict=True))


def _with_power(value: float) -> str:
    mantissa, _, power = f"{value:.6e}".partition("e")
    digits = f"{float(mantissa):g}"
    times = "" if digits == "1" else "-" if digits == "-1" else rf"{digits}\times "
    return f"${times}10^{{{int(power)}}}$"


def is_binary(values: Floats) -> bool:
    """Whether all values are multiples of eight or more times one of them."""
    finite = values[np.isfinite(values)]
    if len(finite) < 3 or not np.all(finite == np.round(finite)) or np.abs(finite).max() >= 2**53:
        return False
    shared = int(np.gcd.reduce(np.abs(finite).astype(np.int64)))
    return shared > 0 and shared & -shared >= _BINARY_FROM and shared & (shared - 1) == 0


def _is_powers_of_two(values: Floats) -> bool:
    finite = values[np.isfinite(values) & (values > 0)]
    return len(finite) > 0 and bool(np.all(np.frexp(finite)[0] == 0.5))


def scale_of(values: Floats, *, is_ratio: bool) -> Scale:
    """How ticks lie on an axis of these values.

    Args:
        values: of the axis.
        is_ratio: whether they act by ratios, so that a logarithmic axis suits them.
    """
    if is_ratio:
        return "log2" if _is_powers_of_two(values) else "log"
    return "binary" if is_binary(values) else "linear"


def parameter_axis(
    axes: Axes, which: Which, sweep: Sweep, name: str, values: Floats, categories: Sequence[str] = ()
) -> None:
    """Set scale, ticks and label of a parameter's axis.

    Args:
        axes: whose data are drawn already.
        which: the axis.
        sweep: that has the parameter.
        name: of the parameter.
        values: its values or positions.
        categories: names of the positions.
    """
    text = label(name, units(sweep, name))
    if categories:
        name_axis(axes, which, text, categories)
        return
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(text)
    known = values[np.isfinite(values)]
    scale = scale_of(known, is_ratio=acts_by_ratios(sweep, name, known))
    ticks_on(axes, which, scale, whole=bool(np.all(known == np.round(known))))


def name_axis(axes: Axes, which: Which, text: str, names: Sequence[str], *, may_turn: bool = True) -> None:
    """Set ticks and label of an axis on which names lie at whole numbers.

    Args:
        axes: to set.
        which: the axis.
        text: of the label.
        names: of the places 0, 1, 2 ...
        may_turn: whether names that overlap are turned; others are left out, as numbers are.
    """
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(text)
    axis.set_major_locator(FixedLocator([float(place) for place in range(len(names))]))
    axis.set_major_formatter(_Names(names, may_turn=may_turn))
    (axes.set_xlim if which == "x" else axes.set_ylim)(-0.5, len(names) - 0.5)


def metric_axis(axes: Axes, which: Which, sweep: Sweep, name: str, values: Floats) -> None:
    """Set scale, ticks and label of a metric's axis; logarithmic beyond two decades."""
    unit = units(sweep, name)
    set_label = axes.set_xlabel if which == "x" else axes.set_ylabel
    known = values[np.isfinite(values)]
    if unit == "byte" and len(known) and known.max() >= _GIB and not spans_decades(known):
        set_label(label(name, "GiB"))
        ticks_on(axes, which, "binary")
        axis = axes.xaxis if which == "x" else axes.yaxis
        axis.set_major_formatter(FuncFormatter(lambda at, _: tick_text(at / _GIB)))
        return
    set_label(label(name, unit))
    ticks_on(axes, which, scale_of(known, is_ratio=spans_decades(known)))


def count_axis(axes: Axes, which: Which, text: str) -> None:
    """Set ticks and label of an axis of counted things."""
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(text)
    ticks_on(axes, which, "linear", whole=True)


def ticks_on(axes: Axes, which: Which, scale: Scale, *, whole: bool = False) -> None:
    """Set scale and ticks of an axis.

    Args:
        axes: to set.
        which: the axis.
        scale: how the ticks lie.
        whole: whether only whole numbers have ticks.
    """
    axis: Axis = axes.xaxis if which == "x" else axes.yaxis
    set_scale = axes.set_xscale if which == "x" else axes.set_yscale
    match scale:
        case "linear":
            set_scale("linear")
            axis.set_major_locator(MaxNLocator(nbins="auto", steps=_ROUND, integer=whole, min_n_ticks=2))
            low, high = axis.get_data_interval()
            if whole and low == high:
                # Around a single whole number there is no room for another one by default.
                (axes.set_xlim if which == "x" else axes.set_ylim)(low - 1, high + 1)
        case "binary":
            set_scale("linear")
            axis.set_major_locator(_BinaryLocator())
        case "log":
            set_scale("log")
            axis.set_major_locator(_RatioLocator(10))
            axis.set_minor_locator(LogLocator(base=10, subs=[float(sub) for sub in range(2, 10)], numticks=8))
        case "log2":
            set_scale("log", base=2)
            axis.set_major_locator(_RatioLocator(2))
            axes.minorticks_off()
    axis.set_major_formatter(_RatioText() if scale == "log" else FuncFormatter(tick_text))
    axis.set_minor_formatter(NullFormatter())


# ------------------------------------------------------------------------------ labels that do not overlap


def finish(figure: SweepFigure) -> None:
    """Break long labels, and turn or thin out ticks that overlap; the last step of a drawing."""
    figure.lay_out()
    if sum(_break_labels(axes) for axes in figure.axes):
        figure.lay_out()
    shown = [axes for axes in figure.axes if axes.axison]
    axis_of = [(a.xaxis, True) for a in shown] + [(a.yaxis, False) for a in shown]
    if sum(_mend(figure, axis, is_x=is_x) for axis, is_x in axis_of):
        # What was turned or left out changes the room of the axes, which changes the ticks.
        figure.lay_out()
        for axis, is_x in axis_of:
            _mend(figure, axis, is_x=is_x)


def _break_labels(axes: Axes) -> bool:
    """Break the labels of the axes where they are longer than these; whether any changed."""
    box = axes.get_window_extent()
    size = float(mpl.rcParams["font.size"])
    changed = False
    for text, room in ((axes.xaxis.label, box.width), (axes.yaxis.label, box.height)):
        broken = wrapped(text.get_text().replace("\n", " "), max(room * 72 / axes.figure.dpi, 40), size)
        changed |= broken != text.get_text()
        text.set_text(broken)
    return changed


def _mend(figure: SweepFigure, axis: Axis, *, is_x: bool) -> bool:
    """Turn the labels of categories that overlap, then leave out every second one until none do."""
    changed = False
    names = axis.get_major_formatter()
    may_turn = is_x and isinstance(names, _Names) and names.may_turn
    if may_turn and isinstance(names, _Names) and _overlap(figure, axis):
        changed = True
        room = axis.axes.get_window_extent().width * 72 / figure.dpi / len(names.names)
        size = float(mpl.rcParams["font.size"])
        axis.set_major_formatter(_Names([wrapped(name, 0.9 * room, size) for name in names.names]))
        figure.lay_out()
        if _overlap(figure, axis):
            axis.set_major_formatter(names)
    if may_turn and _overlap(figure, axis):
        axis.set_tick_params(rotation=35)
        for text in axis.get_ticklabels():
            text.set(ha="right", rotation_mode="anchor")
        figure.lay_out()
        changed = True
        if _overlap(figure, axis):
            axis.set_tick_params(rotation=90)
            for text in axis.get_ticklabels():
                text.set(ha="right", va="center", rotation_mode="anchor")
            figure.lay_out()
    while _overlap(figure, axis):
        shown = [float(place) for place in axis.get_ticklocs() if _is_inside(axis, float(place))]
        if len(shown) < 2:
            break
        axis.set_major_locator(FixedLocator(shown[_rounder_half(axis, shown) :: 2]))
        figure.lay_out()
        changed = True
    return changed


def _rounder_half(axis: Axis, places: Sequence[float]) -> int:
    """Which half of the ticks has the rounder names: 0 or 1, the first of it."""
    names = axis.get_major_formatter()
    if not isinstance(names, _Names):
        return 0
    texts = [names(place) for place in places]
    if not all(text.replace(",", "").isdigit() for text in texts):
        return 0
    whole = [int(text.replace(",", "")) for text in texts]
    return int(math.gcd(*whole[1::2]) > math.gcd(*whole[::2]))


def _is_inside(axis: Axis, place: float) -> bool:
    low, high = sorted(axis.get_view_interval())
    margin = 1e-9 * (high - low)
    return bool(low - margin <= place <= high + margin)


def _overlap(figure: SweepFigure, axis: Axis) -> bool:
    """Whether two visible tick labels overlap."""
    renderer = figure._get_renderer()  # type: ignore[attr-defined]  # savefig uses the same
    found = [
        text
        for text, place in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=False)
        if text.get_visible() and text.get_text() and _is_inside(axis, float(place))
    ]
    angle = math.radians(found[0].get_rotation()) if found else 0.0
    if math.isclose(math.sin(angle), 0.0) or math.isclose(math.cos(angle), 0.0, abs_tol=1e-9):
        boxes: list[Bbox] = [text.get_window_extent(renderer) for text in found]
        return any(Bbox.intersection(one.padded(1.0), other) is not None for one, other in pairwise(boxes))
    # Turned labels are parallel: they overlap if their lines are closer than a line is high.
    high = float(mpl.rcParams["font.size"]) * figure.dpi / 72
    places = [axis.axes.transData.transform((float(at), 0.0))[0] for at in axis.get_ticklocs()]
    gaps = np.diff(np.sort(places))
    return bool(len(gaps)) and float(gaps.min()) * abs(math.sin(angle)) < high
