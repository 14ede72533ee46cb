"""The HTML report of a sweep: result, table, figures, time, failures and environment.

``mpisweep report FILE`` writes it.  The page is self-contained: its figures are inline, it loads nothing
and has no scripts, which its own policy forbids, and it opens on a machine without mpisweep.
"""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mpisweep.progress import counted
from mpisweep.records import TrialState
from mpisweep.results import ResultsError
from mpisweep.results.load import Sweep
from mpisweep.spec.units import duration_text
from mpisweep.views.batch_sizes import batch_size_lines
from mpisweep.views.device_hours import BUSY, REASONS, device_hours
from mpisweep.views.report.best import best_table
from mpisweep.views.report.drawing import figures, time_figures
from mpisweep.views.report.failures import failure_groups
from mpisweep.views.report.headline import headline
from mpisweep.views.report.style import STYLE
from mpisweep.views.status import Status, status_lines, sweep_status
from mpisweep.views.wording import clock

__all__ = ["Written", "page"]

#: Groups of failed trials that the page lists; all trials are in the results file.
_GROUPS = 20
#: Runs that the page lists, the last ones.
_RUNS = 20
#: Entries of the environment that are told elsewhere on the page, or are too long.
_ELSEWHERE = ("command", "git_diff", "template")
_LONGEST = 500
#: The page loads nothing, whatever a user's text in it says.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True, slots=True)
class Written:
    """When the page of a running sweep is written.

    Attributes:
        at: in seconds since 1970.
        every_s: seconds until it is written again; None if it is not.
    """

    at: float
    every_s: float | None = None


def page(
    sweep: Sweep,
    k: int | None = None,
    *,
    written: Written | None = None,
    log_lines: Callable[[Collection[int]], Mapping[int, str]] = lambda numbers: {},
) -> str:
    """Render the page as HTML.

    Args:
        sweep: from :func:`mpisweep.load`; it may be running.
        k: number of trials in the table; see :func:`~mpisweep.views.tables.top_table`.
        written: when; None leaves it out, so that equal results give equal pages.
        log_lines: finds the first line of the output of some trials.
    """
    status = sweep_status(sweep)
    reload = ""
    if written is not None and written.every_s is not None:
        reload = f'<meta http-equiv="refresh" content="{max(round(written.every_s), 1)}">'
    parts = [
        "<!DOCTYPE html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">', *([reload] if reload else []),
        f"<title>{_text(sweep.name)}: report</title>", f"<style>{STYLE}</style>", "</head>", "<body>",
        "<header>", f"<h1>{_text(sweep.name)}</h1>", *_when(written),
        f'<p class="found">{_words(headline(sweep, status))}</p>', *_facts(status), "</header>", "<main>",
        *_best(sweep, k), *_section("Figures", figures(sweep)),
        *_section("Time and devices", [*_states(sweep), *_hours(sweep, status), *time_figures(sweep)]),
        *_section("Failures", _failures(sweep, log_lines)),
        *_section("Runs", _runs(sweep)), *_section("Repeat it", _repeat(sweep)),
        *_section("Environment", _environment(sweep)), "</main>", "</body>", "</html>", "",
    ]  # fmt: skip
    return "\n".join(parts)


def _text(text: object) -> str:
    return html.escape(str(text), quote=True)


def _words(sentence: str) -> str:
    """A sentence in which what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(sentence))


def _section(heading: str, parts: Iterable[str]) -> Iterator[str]:
    """A section below its heading; nothing without any part."""
    found = [part for part in parts if part]
    if found:
        yield f"<section>\n<h2>{_text(heading)}</h2>"
        yield from found
        yield "</section>"


class _Column(NamedTuple):
    """A column of a table: its heading, and whether it is text, or text of several lines."""

    heading: str
    kind: str = ""


def _table(
    label: str, columns: Sequence[_Column], rows: Iterable[Sequence[str]], *, last: str = ""
) -> Iterator[str]:
    """A table in a box of its own, which scrolls if the screen is too narrow.

    Args:
        label: what it is, for screen readers.
        columns: its columns; the first one has the headings of the rows.
        rows: their cells.
        last: class of the last row.
    """
    listed = [list(cells) for cells in rows]
    yield f"{_box(label)}<table>"
    classes = [f' class="{column.kind}"' if column.kind else "" for column in columns]
    yield (
        "<thead><tr>"
        + "".join(
            f'<th scope="col"{own}>{_text(column.heading)}</th>'
            for column, own in zip(columns, classes, strict=True)
        )
        + "</tr></thead><tbody>"
    )
    for number, cells in enumerate(listed, 1):
        kind = "baseline" if cells[0] == "baseline" else last if number == len(listed) else ""
        first, *others = cells
        yield (
            (f'<tr class="{kind}">' if kind else "<tr>")
            + f'<th scope="row"{classes[0]}>{_text(first)}</th>'
            + "".join(f"<td{own}>{_text(cell)}</td>" for cell, own in zip(others, classes[1:], strict=True))
            + "</tr>"
        )
    yield "</tbody></table></div>"


def _code(label: str, text: str) -> str:
    """Text in letters of equal width, in a box of its own."""
    return f"{_box(label)}<pre>{_text(text)}</pre></div>"


def _box(label: str) -> str:
    """The start of a box that scrolls if the screen is too narrow, also by keys."""
    return f'<div class="box" tabindex="0" role="region" aria-label="{_text(label)}">'


def _when(written: Written | None) -> Iterator[str]:
    if written is None:
        return
    again = f"; this page is written again every {duration_text(written.every_s)}" if written.every_s else ""
    yield f'<p class="note">Written at {clock(written.at)}{again}.</p>'


def _facts(status: Status) -> Iterator[str]:
    """The lines of ``mpisweep status``, without what the first sentence says."""
    state, *lines = [line.strip() for line in status_lines(status)]
    if not status.front:
        lines = [line for line in lines if not line.startswith("best ")]
    listed = [f"state: {state.partition(': ')[2]}", *lines]
    yield "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in listed) + "</ul>"


# ------------------------------------------------------------------------------------- sections


def _best(sweep: Sweep, k: int | None) -> Iterator[str]:
    try:
        table = best_table(sweep, k)
    except ResultsError as error:
        said = str(error).removeprefix(f"{sweep.path}: ")
        yield f"<p>{_text(said[0].upper() + said[1:])}.</p>"
        return
    if all(row[0] == "baseline" for row in table.rows):
        return
    title = table.title.removeprefix(f"{sweep.name}: ")
    yield from _section(f"{title[0].upper()}{title[1:]}", [
        *_table(title, [_Column(heading or "rank") for heading in table.header], table.rows),
        *(f'<p class="note">{_text(note)}.</p>' for note in table.notes),
        *([_code("Batch sizes", "\n".join(lines))] if (lines := batch_size_lines(sweep)) else []),
    ])  # fmt: skip


def _states(sweep: Sweep) -> Iterator[str]:
    """The trials by state, with the time that each state took; pruned ones have ended early."""
    trials = sweep.trials
    rows = []
    for state in TrialState:
        times = trials["wall_time"][trials["state"] == state.label]
        if not len(times):
            continue
        ran = times[np.isfinite(times)]
        took = [duration_text(float(ran.sum())), duration_text(float(ran.mean()))] if len(ran) else ["", ""]
        rows.append((state.label, f"{len(times):,}", *took))
    if rows:
        columns = [_Column("state"), _Column("trials"), _Column("time"), _Column("time per trial")]
        yield "<h3>Trials by state</h3>"
        yield from _table("Trials by state", columns, rows)


def _hours(sweep: Sweep, status: Status) -> Iterator[str]:
    """Where the device-hours went, idle ones too."""
    spent = device_hours(sweep)
    if spent is None or not spent.total:
        return
    unit = f"{spent.unit}-hours"
    rows = [
        (
            name if name in BUSY else f"idle: {name}",
            f"{hours:.3g}",
            _percent(spent.share(name)),
            REASONS[name],
        )
        for name, hours in spent.hours.items()
        if hours > 0
    ]
    rows.append(
        ("in all", f"{spent.total:.3g}", "100%", "all devices, from the start of each run to its end")
    )
    idle = [name for name in REASONS if name not in BUSY]
    each = f", {spent.total / status.complete:.3g} {unit} per complete trial" if status.complete else ""
    yield f"<h3>Where the {unit} went</h3>"
    yield (
        f"<p>The devices were busy for {_percent(spent.share(*BUSY))} of {spent.total:.3g} {unit} and idle "
        f"for {_percent(spent.share(*idle))}{each}.</p>"
    )
    columns = [_Column("spent on"), _Column(unit), _Column("share"), _Column("what it is", "text prose")]
    yield from _table(f"Where the {unit} went", columns, rows, last="total")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%" if share >= 0.0005 else "below 0.1%"


def _failures(sweep: Sweep, log_lines: Callable[[Collection[int]], Mapping[int, str]]) -> Iterator[str]:
    groups = failure_groups(sweep)
    if not groups:
        return
    shown = groups[:_GROUPS]
    logs = log_lines([group.example for group in shown])
    columns = [
        _Column("trials"), _Column("cause", "text"), _Column("message", "text prose"), _Column("example"),
        *([_Column("first line of its output", "text prose")] if logs else []),
    ]  # fmt: skip
    failed = counted(sum(group.count for group in groups), "failed trial")
    yield f"<p>{failed}, grouped by cause and message; numbers in a message may differ.</p>"
    yield from _table("Failed trials by cause and message", columns, [
        (
            f"{group.count:,}", group.cause, group.message, f"trial {group.example}",
            *([logs.get(group.example, "")] if logs else []),
        )
        for group in shown
    ])  # fmt: skip
    if len(groups) > _GROUPS:
        rest = sum(group.count for group in groups[_GROUPS:])
        yield f"<p>And {counted(rest, 'trial')} in {counted(len(groups) - _GROUPS, 'group')} more.</p>"
    command = shlex.join(["mpisweep", "trial", str(sweep.path), str(shown[0].example)])
    yield f'<p class="note"><code>{_text(command)}</code> shows everything known of a trial.</p>'


def _runs(sweep: Sweep) -> Iterator[str]:
    """One row per run of the program, with its batch job."""
    runs, spans = sweep.allocations, sweep.spans
    workers = sweep.workers
    waits = runs["queue_wait"]
    has_waits = np.isfinite(waits).any()
    rows = []
    for index in range(max(0, len(runs) - _RUNS), len(runs)):
        run, (started, ended) = runs[index], spans[index]
        own = workers[workers["allocation"] == index]
        hosts = sorted({str(host) for host in own["host"]}) or [str(run["host"])]
        devices = sorted({str(device).partition(" #")[0] for device in own["device"]})
        rows.append((
            clock(started) if np.isfinite(started) else "",
            duration_text(ended - started) if np.isfinite(ended - started) else "",
            str(run["end"]) or "no end",
            f"{run['batch_system']} {run['job_id']}".strip(),
            *([duration_text(waits[index]) if np.isfinite(waits[index]) else ""] if has_waits else []),
            _listed(hosts), str(len(own)), _listed(devices),
        ))  # fmt: skip
    if len(runs) > _RUNS:
        yield f"<p>The last {_RUNS} of {len(runs):,} runs.</p>"
    if rows:
        columns = [
            _Column("started"), _Column("duration"), _Column("end", "text"), _Column("batch job", "text"),
            *([_Column("queue wait")] if has_waits else []), _Column("hosts", "text prose"),
            _Column("workers"), _Column("devices", "text prose"),
        ]  # fmt: skip
        yield from _table("Runs of the program", columns, rows)


def _listed(names: Sequence[str], most: int = 8) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def _repeat(sweep: Sweep) -> Iterator[str]:
    """The command of the last run, and the sweep file."""
    environment = sweep.environment
    try:
        words = [str(word) for word in json.loads(environment.get("command", "[]"))]
    except (TypeError, ValueError):
        words = []
    if words:
        # To start over once more is not to resume; behind `--` are words of the user's program.
        end = words.index("--") if "--" in words else len(words)
        ours = [word for word in words[1:end] if word != "--fresh"]
        command = shlex.join(["mpisweep", *ours, *words[end:]])
        folder = environment.get("user_folder", "")
        yield (
            f"<p>The last run{f' in {_text(folder)}' if folder else ''} was started with this command. The "
            "same command resumes the sweep; with <code>-o OTHER.h5</code> it repeats it.</p>"
        )
        yield _code("Command", command)
    yield "<h3>Sweep file</h3>"
    yield _code("Sweep file", sweep.spec.text)


def _environment(sweep: Sweep) -> Iterator[str]:
    """Versions and the state of the user's code; long values are in the results file."""
    short = [
        (name, text)
        for name, text in sorted(sweep.environment.items())
        if name not in _ELSEWHERE and "\n" not in text and len(text) < _LONGEST
    ]
    if short:
        yield from _table("Environment", [_Column("name"), _Column("value", "text prose")], short)
