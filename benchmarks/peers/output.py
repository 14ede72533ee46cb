"""The results as tables for a terminal, and as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peers.catalogue import OURS
from peers.measures import COLUMNS

HEADS = {
    "noop_per_s": "no-op/s", "busy_50ms_8": "50ms x8", "busy_50ms_32": "50ms x32", "busy_1s_8": "1s x8",
    "busy_1s_32": "1s x32", "start_s": "start s", "durable_s": "700x20ms", "programs_per_s": "progr./s",
    "memory_mib": "MiB",
}  # fmt: skip
TITLES = {
    "noop_per_s": "no-op trials per second",
    "busy_50ms_8": "utilisation, 50 ms trials, 8 workers",
    "busy_50ms_32": "utilisation, 50 ms trials, 32 workers",
    "busy_1s_8": "utilisation, 1 s trials, 8 workers",
    "busy_1s_32": "utilisation, 1 s trials, 32 workers",
    "start_s": "shell to first trial [s]",
    "durable_s": "700 trials of 20 ms, shell to file [s]", "programs_per_s": "programs per second",
    "memory_mib": "peak memory, 8 workers [MiB]",
}  # fmt: skip


def cell(column: str, value: float | None) -> str:
    """A number as its column shows it."""
    if value is None:
        return "-"
    if column.startswith("busy"):
        return f"{value:.3f}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def ratio(column: str, value: float | None, ours: float | None) -> str:
    """How many times better than mpisweep; below 1 is worse."""
    if value is None or not ours or not value:
        return "-"
    better = value / ours if COLUMNS[column][2] else ours / value
    return f"{better:.2f}" if better >= 0.01 else f"{better:.4f}"


def tables(results: Mapping[str, Any]) -> str:
    """All tables as text."""
    peers = results["peers"]
    ours = peers.get(OURS.name, {}).get("columns", {})
    columns = [c for c in COLUMNS if any(c in one.get("columns", {}) for one in peers.values())]
    lines = [f"{'':<20}" + "".join(f"{HEADS[c]:>10}" for c in columns)]
    lines += [_line(name, one, columns, cell) for name, one in peers.items()]
    if ours:
        lines += ["", "times better than mpisweep (below 1: worse)"]
        lines += [
            _line(name, one, columns, lambda c, value: ratio(c, value, ours.get(c)))
            for name, one in peers.items()
            if name != OURS.name
        ]
    lines += ["", "a worker killed with -9 in the middle of 200 trials of 50 ms, 4 workers (2.5 s)"]
    for name, one in peers.items():
        found = one.get("measures", {}).get("recovery")
        if found:
            lines.append(f"{name:<20}{recovery(found)}")
    errors = [
        f"{name:<20}{measure}: {found['error']}"
        for name, one in peers.items()
        for measure, found in ({"start": one} | one.get("measures", {})).items()
        if found.get("error")
    ]
    return "\n".join([*lines, *(["", "not measured", *errors] if errors else [])])


def markdown(results: Mapping[str, Any]) -> str:
    """The tables as a page has them: numbers, and in brackets how many times better than mpisweep."""
    peers = results["peers"]
    ours = peers.get(OURS.name, {}).get("columns", {})
    columns = [c for c in COLUMNS if any(c in one["columns"] for one in peers.values())]
    lines = ["| | version | " + " | ".join(TITLES[c] for c in columns) + " |"]
    lines.append("|---|---|" + "---:|" * len(columns))
    for name, one in peers.items():
        cells = []
        for c in columns:
            value = one["columns"].get(c)
            better = "" if name == OURS.name else f" ({ratio(c, value, ours.get(c))})"
            cells.append(cell(c, value) + better if value is not None else "-")
        lines.append(f"| {name} | {one['version']} | " + " | ".join(cells) + " |")
    lines += ["", "| | after the kill | results kept of 200 | lost | run again |", "|---|---|---:|---:|---:|"]
    for name, one in peers.items():
        found = one["measures"].get("recovery")
        if found and found["was_killed"]:
            lines.append(
                f"| {name} | {ending(found)} | {found['kept']} | {found['lost']} | {found['run_again']} |"
            )
    return "\n".join(lines)


def _line(name: str, one: Mapping[str, Any], columns: list[str], show: Any) -> str:
    found = one.get("columns", {})
    return f"{name:<20}" + "".join(f"{show(c, found.get(c)):>10}" for c in columns)


def recovery(found: Mapping[str, Any]) -> str:
    """What one kill did, in words."""
    if not found["was_killed"]:
        return "no worker was killed: " + str(found["error"])
    counts = f"{found['kept']} results kept, {found['lost']} lost, {found['run_again']} trials run again"
    return f"{ending(found)}; {counts}"


def ending(found: Mapping[str, Any]) -> str:
    """How the run in which a worker was killed has ended."""
    if not found["ends"]:
        return f"does not end (stopped after {found['limit_s']:.0f} s)"
    return f"ends after {found['seconds']:.1f} s, exit code {found['exit_code']}"


def draw(results: Mapping[str, Any], path: Path) -> None:
    """A panel per column, a bar per tool; mpisweep is coloured."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from mpisweep.views.figures.style import BLUE, GREY, STYLE, save

    peers = results["peers"]
    columns = [c for c in COLUMNS if any(c in one.get("columns", {}) for one in peers.values())]
    rows = -(-len(columns) // 3)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 0.6 + rows * (0.5 + 0.19 * len(peers))), layout="constrained")
        panels = figure.subplots(rows, 3, squeeze=False).ravel()
        for axes in panels[len(columns) :]:
            axes.set_visible(False)
        for axes, column in zip(panels, columns, strict=False):
            found = {
                n: one["columns"][column] for n, one in peers.items() if column in one.get("columns", {})
            }
            names = sorted(found, key=found.__getitem__, reverse=not COLUMNS[column][2])
            colours = [BLUE if n == OURS.name else GREY for n in names]
            bars = axes.barh(names, [found[n] for n in names], color=colours)
            axes.bar_label(bars, [cell(column, found[n]) for n in names], padding=2, fontsize=7)
            axes.set_title(TITLES[column], fontsize=9)
            axes.tick_params(labelsize=7)
            if column.endswith("per_s"):
                axes.set_xscale("log")
            axes.margins(x=0.2)
        save(figure, path)
