"""The panes of the screen: trials, workers, plot, failures and runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size

from mpisweep.records import TrialState
from mpisweep.spec.units import configuration_text, duration_text, number_text, value_text
from mpisweep.views.running import RunningTrial
from mpisweep.views.screen.facts import Facts, Run, SlotOfWorker
from mpisweep.views.screen.look import Look, Pane, row_of
from mpisweep.views.screen.plot import plot_lines
from mpisweep.views.screen.spans import Line, Moment, Span, aligned_lines, clock

__all__ = ["chosen_pane", "horizontal_axes", "panes_below"]

#: Heights of the panes below the chosen one.
_PLOT_LINES, _WORKER_LINES = 11, 6
#: Widest cell of the table of trials.
_CELL = 24


def chosen_pane(
    facts: Facts, order: NDArray[np.intp], look: Look, moment: Moment, width: int, room: int
) -> tuple[list[Line], int]:
    """The chosen pane, and its number of lines if it had room for all."""
    match look.pane:
        case Pane.TRIALS:
            return _trials(facts, order, look, moment, width, room), len(order)
        case Pane.WORKERS:
            return _workers(facts, moment, look.line, room), len(facts.slots)
        case Pane.PLOT:
            return _plot(facts, look, width, room), 1
        case Pane.FAILURES:
            return _failures(facts, look.line, room), len(facts.failures)
        case Pane.RUNS:
            return _runs(facts, moment, look.line, room), len(facts.runs)


def panes_below(facts: Facts, look: Look, moment: Moment, width: int, room: int) -> list[Line]:
    """Panes below the chosen one, on a tall terminal."""
    lines: list[Line] = []
    if look.pane is not Pane.WORKERS and facts.slots:
        lines += [[], *_workers(facts, moment, 0, min(_WORKER_LINES, len(facts.slots) + 1))]
    if look.pane is not Pane.PLOT and room - len(lines) >= 2 * _PLOT_LINES:
        lines += [[], *_plot(facts, look, width, _PLOT_LINES)]
    return lines


def _trials(
    facts: Facts, order: NDArray[np.intp], look: Look, moment: Moment, width: int, room: int
) -> list[Line]:
    if not len(order):
        return [[Span("no trial passes the filter" if look.filter else "there is no trial yet")]]
    page = max(room - 1, 1)
    row = row_of(look, order)
    first = max(0, min(row - page // 2, len(order) - page))
    numbers = [int(number) for number in order[first : first + page]]
    running = {trial.number: trial for trial in facts.watched.running}
    sorted_by = look.column or facts.table.usual
    names = _fitting(facts, numbers, sorted_by, running, moment, width)
    rows = [[_cell(facts, name, number, running, moment) for name in names] for number in numbers]
    right = [facts.table.columns[name].dtype.kind in "iuf" for name in names]
    headings = [f"{name}*" if name == sorted_by else name for name in names]
    drawn = aligned_lines(headings, rows, right)
    lines: list[Line] = [[Span(f"  {drawn[0]}", "bold")]]
    for number, text in zip(numbers, drawn[1:], strict=True):
        is_chosen = number == int(order[row])
        sign = (">" if is_chosen else " ") + ("+" if number in look.marked else " ")
        lines.append([Span(f"{sign}{text}", "reverse" if is_chosen else _style(facts, number))])
    return lines


def _style(facts: Facts, number: int) -> str:
    return "bad" if facts.table.columns["state"][number] == "failed" else ""


def _fitting(
    facts: Facts,
    numbers: Sequence[int],
    sorted_by: str,
    running: dict[int, RunningTrial],
    moment: Moment,
    width: int,
) -> list[str]:
    """The columns for which there is room: trial and state, then as many as reach the sorted one."""
    fixed, others = ["trial", "state"], [n for n in facts.table.columns if n not in ("trial", "state")]
    sizes = {
        name: 2
        + max(
            cell_len(name) + 1, *(cell_len(_cell(facts, name, number, running, moment)) for number in numbers)
        )
        for name in facts.table.columns
    }
    left = width - sum(sizes[name] for name in fixed)
    start = 0
    while sorted_by in others and sum(sizes[n] for n in others[start : others.index(sorted_by) + 1]) > left:
        if start == others.index(sorted_by):
            break
        start += 1
    found: list[str] = []
    for name in others[start:]:
        left -= sizes[name]
        if left < 0:
            break
        found.append(name)
    return fixed + found


def _cell(facts: Facts, name: str, number: int, running: dict[int, RunningTrial], moment: Moment) -> str:
    if number in running:
        trial = running[number]
        if name == "time":
            return duration_text(max(moment.now - trial.since, 0.0))
        if name == facts.table.usual and trial.last is not None:
            return f"({number_text(trial.last[1])})"
    value: Any = facts.table.columns[name][number].item()
    if isinstance(value, float) and not math.isfinite(value):
        return "" if math.isnan(value) else value_text(value)
    text = duration_text(value) if name == "time" and isinstance(value, float) else value_text(value)
    return text if cell_len(text) <= _CELL else f"{set_cell_size(text, _CELL - 1)}~"


def _workers(facts: Facts, moment: Moment, first: int, room: int) -> list[Line]:
    if not facts.slots:
        return [[Span("no worker is active")]]
    headings = ("rank, device", "trial", "for", "silent", "last report", "configuration")
    chosen = facts.slots[first : first + max(room - 1, 1)]
    rows = [_worker_cells(slot, moment) for slot in chosen]
    drawn = aligned_lines(headings, rows, (False, True, True, True, False, False))
    left = len(facts.slots) - first - len(chosen)
    if left and len(drawn) > 2:
        drawn[-1] = f"and {left + 1:,} more"
    styles = ["bold", *("warn" if slot.note else "" for slot in chosen)]
    return [[Span(text, style)] for text, style in zip(drawn, styles, strict=True)]


def _worker_cells(slot: SlotOfWorker, moment: Moment) -> tuple[str, ...]:
    trial = slot.trial
    if trial is None:
        return slot.where, "", "", "", slot.note or "idle", ""
    last = "none yet" if trial.last is None else f"{number_text(trial.last[1])} at {trial.last[0]:,}"
    number = f"{trial.number} (rank {slot.share})" if slot.share else str(trial.number)
    silent_s = moment.now - (trial.since if trial.reported_at is None else trial.reported_at)
    note = f"; {slot.note}" if slot.note else ""
    return (
        slot.where, number, duration_text(max(moment.now - trial.since, 0.0)),
        duration_text(max(silent_s, 0.0)), last, configuration_text(trial.parameters) + note,
    )  # fmt: skip


def horizontal_axes(facts: Facts) -> list[Any]:
    """The parameters; of several objectives also these, so that the front can be seen."""
    metrics = facts.metrics if facts.watched.status.others else ()
    return [*facts.parameters, *metrics]


def _plot(facts: Facts, look: Look, width: int, room: int) -> list[Line]:
    across = horizontal_axes(facts)
    if not across or not facts.metrics:
        return [[Span("no trial has ended yet")]]
    x = across[look.parameter % len(across)]
    y = facts.metrics[look.metric % len(facts.metrics)]
    pruned = facts.table.columns["state"] == TrialState.PRUNED.label
    lines = plot_lines(x, y, pruned, facts.marked, width, room)
    return [[Span(line)] for line in lines[:room]]


def _failures(facts: Facts, line: int, room: int) -> list[Line]:
    if not facts.failures:
        return [[Span("no trial has failed")]]
    chosen = min(line, len(facts.failures) - 1)
    first = max(0, min(chosen - (room - 1) // 2, len(facts.failures) - (room - 1)))
    rows = [
        (
            f"{'>' if first + index == chosen else ' '} {len(group.trials):,}", group.cause,
            _named(group.trials), group.message,
        )
        for index, group in enumerate(facts.failures[first : first + max(room - 1, 1)])
    ]  # fmt: skip
    drawn = aligned_lines(("count", "cause", "trials", "message"), rows, (True, False, False, False))
    return [
        [Span(text, "bold" if not index else "reverse" if first + index - 1 == chosen else "")]
        for index, text in enumerate(drawn)
    ]


def _named(trials: Sequence[int]) -> str:
    return ", ".join(map(str, trials[:3])) + (", ..." if len(trials) > 3 else "")


def _runs(facts: Facts, moment: Moment, first: int, room: int) -> list[Line]:
    if not facts.runs:
        return [[Span("no run has begun")]]
    rows = [_run_cells(run, moment) for run in facts.runs[first : first + max(room - 1, 1)]]
    drawn = aligned_lines(
        ("host", "job", "ranks", "started", "for", "walltime ends", "end"), rows,
        (False, False, True, False, True, False, False),
    )  # fmt: skip
    return [[Span(text, "" if index else "bold")] for index, text in enumerate(drawn)]


def _run_cells(run: Run, moment: Moment) -> tuple[str, ...]:
    ended_at = run.ended_at if math.isfinite(run.ended_at) else moment.now if run.is_active else math.nan
    took = duration_text(max(ended_at - run.started_at, 0.0)) if math.isfinite(ended_at) else "?"
    walltime = clock(run.deadline, moment.now) if math.isfinite(run.deadline) else ""
    end = "active" if run.is_active else run.end or "died without closing"
    started = clock(run.started_at, moment.now) if math.isfinite(run.started_at) else "?"
    return run.host, run.job, str(run.ranks), started, took, walltime, end
