"""The kinds of figures and the options of each, for parsers and help; without matplotlib."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mpisweep.results import ResultsError
from mpisweep.spec import nearest
from mpisweep.views.reading import at_least_1, duration

__all__ = [
    "KINDS",
    "FigureKind",
    "add_figure_options",
    "check_options",
    "figure_kind",
    "kind_lines",
    "used_options",
]

#: Widths in print.
_WIDTHS = ("column", "page")


@dataclass(frozen=True, slots=True)
class FigureKind:
    """One kind of figure.

    Attributes:
        name: of it.
        text: what it shows.
        options: the options that it takes beside those of every figure.
        files: the most results files that it takes; None if there is no bound.
        parameters: the most parameters that it takes; None if there is no bound.
        over: choices of its horizontal axis, the default first.
    """

    name: str
    text: str
    options: tuple[str, ...] = ()
    files: int | None = 1
    parameters: int | None = 1
    over: tuple[str, ...] = ()


#: All kinds, by name.
KINDS = {
    kind.name: kind
    for kind in (
        FigureKind(
            "metric", "a metric vs. a parameter, with the best, the baseline and every end marked",
            ("parameter", "metric", "at"), parameters=2,
        ),
        FigureKind(
            "total", "the trials one by one, as single jobs in the queue, and as one job", ("queue_wait",)
        ),
        FigureKind(
            "curves", "learning curves of all trials, coloured by a parameter",
            ("metric", "parameter", "over", "smooth"), over=("step", "samples", "time"),
        ),
        FigureKind("timeline", "which worker ran which trial when"),
        FigureKind(
            "trend", "the trend of a metric over a numeric parameter, with its 95% band",
            ("parameter", "metric", "at"),
        ),
        FigureKind("map", "a metric over two parameters", ("parameter", "metric", "at"), parameters=2),
        FigureKind(
            "parallel", "one line per trial across its parameters to the metric",
            ("parameter", "metric", "at"), parameters=None,
        ),
        FigureKind("importance", "how much of a metric each parameter explains", ("metric", "method", "at")),
        FigureKind(
            "budgets", "a metric vs. a parameter at equal steps, samples and seconds",
            ("parameter", "metric", "at"),
        ),
        FigureKind(
            "history", "the best so far over trials or time; several files for comparison",
            ("metric", "over", "k"), files=None, over=("trials", "time"),
        ),
        FigureKind("utilisation", "busy and idle workers over time, and why they were idle"),
        FigureKind("front", "one objective vs. another, with the Pareto front", ("x", "y", "at")),
        FigureKind("hypervolume", "the hypervolume of several objectives over time", ("reference",)),
        FigureKind("scaling", "speedup and efficiency vs. ranks per trial", ("metric",)),
        FigureKind("batch-sizes", "the objective vs. the batch size at each budget, with trends"),
        FigureKind("critical-batch", "steps and samples to a target vs. the batch size, with the fit"),
    )
}  # fmt: skip


def figure_kind(name: str) -> FigureKind:
    """The kind of this name.

    Raises:
        KeyError: if there is none; the message names the nearest.
    """
    if name not in KINDS:
        raise KeyError(f"there is no figure {name!r}; {nearest(name, KINDS)}")
    return KINDS[name]


def kind_lines() -> Iterator[str]:
    """One line per kind: its name, what it shows, and its options."""
    wide = max(map(len, KINDS))
    for kind in KINDS.values():
        options = " ".join(_flag(name) for name in kind.options)
        yield f"{kind.name:<{wide}}  {kind.text}" + (f" ({options})" if options else "")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}" if len(name) > 1 or name in "xy" else f"-{name}"


def add_figure_options(parser: argparse.ArgumentParser, kind: FigureKind | None = None) -> None:
    """Add the options of a kind of figure; of all kinds unless one is given."""
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="PDF, PNG or SVG file")
    parser.add_argument("--data", type=Path, metavar="CSV", help="also write the numbers that are drawn")
    parser.add_argument("--width", choices=_WIDTHS, default="page", help="89 mm or 183 mm (default: page)")
    for name in kind.options if kind else _OPTIONS:
        _OPTIONS[name](parser)


def _add_parameter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--parameter", action="append", default=[], metavar="NAME",
        help="parameter on the axis, in the colour or on the map; repeatable (default: those searched)",
    )  # fmt: skip


def _add_metric(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--metric", metavar="NAME", help="metric (default: the objective)")


def _add_at(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--at", action="append", default=[], metavar="AXIS=N",
        help="compare trials after equal training: step=N, samples=N or seconds=N",
    )  # fmt: skip


def _add_over(parser: argparse.ArgumentParser) -> None:
    axes = sorted({axis for kind in KINDS.values() for axis in kind.over})
    parser.add_argument("--over", choices=axes, help="horizontal axis")


def _add_smooth(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--smooth", type=at_least_1, metavar="N", help="running mean over N reports")


def _add_x(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--x", metavar="NAME", help="objective of the horizontal axis")


def _add_y(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--y", metavar="NAME", help="objective of the vertical axis")


def _add_reference(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reference", type=_bound, action="append", default=[], metavar="OBJECTIVE=VALUE",
        help="reference point; repeatable (default: the worst value of each objective)",
    )  # fmt: skip


def _add_method(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--method", choices=("ped-anova", "fanova"),
        help="what the best tenth has in common, or the whole space (default: ped-anova)",
    )  # fmt: skip


def _add_k(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-k", type=at_least_1, metavar="K", help="number of best trials marked (default: 5)")


def _add_queue_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--queue-wait", type=duration, metavar="TIME",
        help="how long each job waits in the queue, e.g. 10m; draws single jobs too (default: as long as "
        "this sweep's own jobs)",
    )  # fmt: skip


#: Option -> the function that adds it to a parser.
_OPTIONS = {
    "parameter": _add_parameter,
    "metric": _add_metric,
    "at": _add_at,
    "over": _add_over,
    "smooth": _add_smooth,
    "x": _add_x,
    "y": _add_y,
    "method": _add_method,
    "k": _add_k,
    "reference": _add_reference,
    "queue_wait": _add_queue_wait,
}


def used_options(kind: FigureKind, options: argparse.Namespace) -> dict[str, object]:
    """The options that were given, checked against those that the kind takes.

    Raises:
        ResultsError: if the kind does not take one of them, or a results file would be overwritten.
    """
    given = {name: getattr(options, name, None) for name in _OPTIONS}
    given = {name: value for name, value in given.items() if value not in (None, [])}
    for name in given:
        if name not in kind.options:
            others = ", ".join(one.name for one in KINDS.values() if name in one.options)
            raise ResultsError(f"figure {kind.name}: takes no {_flag(name)}; it is for {others}")
    check_options(kind, given)
    if kind.files is not None and len(options.file) > kind.files:
        raise ResultsError(f"figure {kind.name}: found {len(options.file)} files; it takes {kind.files}")
    for written in (options.output, options.data):
        for file in options.file:
            if written is not None and written.exists() and file.exists() and written.samefile(file):
                raise ResultsError(f"{written}: is a results file; write to another file")
    return given


def check_options(kind: FigureKind, given: Mapping[str, object]) -> None:
    """Check the values of options that a kind takes.

    Raises:
        ResultsError: if it takes fewer parameters, or another axis.
    """
    if kind.parameters is not None and len(options_of(given, "parameter")) > kind.parameters:
        raise ResultsError(f"figure {kind.name}: takes --parameter at most {_times(kind.parameters)}")
    if (over := given.get("over")) is not None and over not in kind.over:
        raise ResultsError(f"figure {kind.name}: --over is {over!r}; expected {' or '.join(kind.over)}")


def options_of(given: Mapping[str, object], name: str) -> list[object]:
    """A repeatable option as a list."""
    value = given.get(name)
    return value if isinstance(value, list) else []


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _bound(text: str) -> tuple[str, float]:
    """Parse OBJECTIVE=VALUE."""
    name, _, value = text.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"{text!r}: expected OBJECTIVE=VALUE, e.g. loss=3")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: {value!r} is not a valid number") from None
