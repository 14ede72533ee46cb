"""The screen as text: what is shown where, for any size of the terminal; pure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpisweep.progress import facts_of
from mpisweep.spec.units import duration_text
from mpisweep.views.changes import SILENCE_S
from mpisweep.views.screen.facts import Facts
from mpisweep.views.screen.look import HELP, Look, Pane, Shown
from mpisweep.views.screen.panes import chosen_pane, horizontal_axes, panes_below
from mpisweep.views.screen.spans import Line, Moment, Span, clock, cut
from mpisweep.views.status import GONE

__all__ = ["HEIGHT", "WIDTH", "Drawn", "draw"]

#: Least size of a terminal, in characters.
WIDTH, HEIGHT = 60, 16
#: Lines that are kept for the names of the panes, one of them, and the lowest line.
_LEAST_PANE = 9
#: Width of bars, doubled on a terminal that is at least this wide.
_BAR, _WIDE = 10, 100
#: Least height from which on other panes are shown below the chosen one.
_TALL = 32


@dataclass(frozen=True, slots=True)
class Drawn:
    """The lines of the screen, and what is on it for the keys."""

    lines: list[Line]
    shown: Shown


def draw(facts: Facts, order: NDArray[np.intp], look: Look, moment: Moment, width: int, height: int) -> Drawn:
    """Draw the screen.

    Args:
        facts: of the sweep.
        order: numbers of the trials in the table, from above.
        look: what the user has chosen.
        moment: what surrounds the facts.
        width: of the terminal.
        height: of the terminal.
    """
    axes = max(len(horizontal_axes(facts)), 1), max(len(facts.metrics), 1)
    columns = list(facts.table.columns)
    if width < WIDTH or height < HEIGHT:
        text = f"The terminal has {width} x {height} characters; at least {WIDTH} x {HEIGHT} are needed."
        lines = [[Span(line)] for line in textwrap.wrap(text, max(width, 1))][:height]
        return Drawn(lines, Shown(columns, facts.table.usual, order, 1, axes=axes))
    if look.helps:
        return Drawn(
            cut(list(_help(width)), width)[:height], Shown(columns, facts.table.usual, order, 1, axes=axes)
        )
    top = cut(list(_overview(facts, moment, width, height))[: height - _LEAST_PANE], width)
    footer = _footer(look, width)
    room = height - len(top) - 1 - len(footer)
    below = panes_below(facts, look, moment, width, room) if height >= _TALL else []
    room -= len(below)
    pane, count = chosen_pane(facts, order, look, moment, width, room)
    lines = [
        *top,
        _tabs(facts, order, look),
        *pane,
        *([[]] * (room - len(pane))),
        *below,
        *footer,
    ]
    page = max(room - (1 if look.pane in (Pane.TRIALS, Pane.WORKERS, Pane.FAILURES, Pane.RUNS) else 0), 1)
    shown = Shown(columns, facts.table.usual, order, page, count, facts.failures, axes)
    return Drawn(cut(lines, width), shown)


# ------------------------------------------------------------------------------------- above the panes


def _overview(facts: Facts, moment: Moment, width: int, height: int) -> Iterator[Line]:
    watched = facts.watched
    progress = watched.progress
    state = watched.state
    style = {"running": "good", "complete": "good", GONE: "bad"}.get(state, "warn")
    words = "the last run died without closing; run the same command to resume" if state == GONE else state
    yield [Span(f"{watched.name}  ", "bold"), Span(words, style), *_silence(state, moment)]
    bar = _BAR if width < _WIDE else 2 * _BAR
    share = progress.ended / max(progress.total, 1)
    yield [Span(f"trials   {_bar(share, bar)} {progress.ended:,} of {progress.total:,}"), *_counts(facts)]
    yield _time_line(facts, moment, bar)
    tall = height >= _TALL
    if moment.problem:
        yield from ([Span(line, "bad")] for line in textwrap.wrap(moment.problem, width)[:3])
    # With repeats, the judgement begins with the best mean.
    has_means = bool(watched.status.repeats) and bool(moment.judgement)
    for finding in () if has_means else facts.findings[: 6 if tall else 3]:
        yield from ([Span(line)] for line in textwrap.wrap(finding, width)[:2])
    if facts.failures:
        causes: dict[str, int] = {}
        for group in facts.failures:
            causes[group.cause] = causes.get(group.cause, 0) + len(group.trials)
        yield [
            Span("failed ", "bad"),
            Span(", ".join(f"{count:,} {cause}" for cause, count in causes.items())),
        ]
    for request in facts.requests[: 4 if tall else 2]:
        yield [Span(request, "warn")]
    lines = textwrap.wrap(moment.judgement, width)
    yield from ([Span(line)] for line in lines[: 4 if tall else 3 if has_means else 2])
    yield from ([Span(note)] for note in facts.notes[: 4 if tall else 2])


def _silence(state: str, moment: Moment) -> Line:
    if state != "running" or moment.silent_s < SILENCE_S:
        return []
    return [Span(f"  no file has changed for {duration_text(moment.silent_s)}", "bad")]


def _bar(share: float, width: int) -> str:
    full = int(max(0.0, min(share, 1.0)) * width)
    return f"[{'#' * full}{'-' * (width - full)}]"


def _counts(facts: Facts) -> Line:
    """The numbers beside the bar: what the line of progress says, without the best."""
    progress = facts.watched.progress
    spans: Line = []
    for text, colour in facts_of(progress):
        if not text.startswith("best ") and " on the front" not in text:
            spans.append(Span(f", {text}", "bad" if colour == "red" else ""))
    return spans


def _time_line(facts: Facts, moment: Moment, bar: int) -> Line:
    """Elapsed time beside the walltime, and whether the predicted end is before it."""
    progress, deadline = facts.watched.progress, facts.deadline
    is_running = facts.watched.state == "running"
    active = [run for run in facts.runs if run.is_active] or list(facts.runs[:1])
    if not active:
        return [Span("time     no run has begun")]
    began = min(run.started_at for run in active)
    elapsed_s = moment.now - began if is_running else progress.elapsed_s
    ends_at = _predicted_end(facts, moment, began) if is_running else math.nan
    if not math.isfinite(deadline):
        end = f"; predicted end {clock(ends_at, moment.now)}" if math.isfinite(ends_at) else ""
        return [Span(f"time     {duration_text(elapsed_s)}{end}")]
    walltime_s = deadline - began
    line: Line = [
        Span(f"walltime {_bar(elapsed_s / max(walltime_s, 1e-9), bar)} "),
        Span(f"{duration_text(elapsed_s)} of {duration_text(walltime_s)}"),
    ]
    if math.isfinite(ends_at):
        margin_s = deadline - ends_at
        how = "before" if margin_s >= 0 else "after"
        line.append(Span(f", predicted end {clock(ends_at, moment.now)} "))
        line.append(Span(f"({duration_text(abs(margin_s))} {how})", "" if margin_s >= 0 else "bad"))
    return line


def _predicted_end(facts: Facts, moment: Moment, began: float) -> float:
    """When the sweep will have ended at the present rate; as was predicted, before any trial has ended."""
    left_s, prediction = facts.watched.progress.left_s, facts.watched.status.prediction
    if left_s is not None:
        return moment.now + left_s
    return math.nan if prediction is None or prediction.end else began + prediction.time_s


def _tabs(facts: Facts, order: NDArray[np.intp], look: Look) -> Line:
    """The names of the panes, the chosen one marked, and how the table is sorted and filtered."""
    line: Line = []
    for pane in Pane:
        text = f" {pane + 1} {pane.title} "
        # Brackets: a terminal may have no reverse video.
        line.append(
            Span(f"[{text.strip()}]" if pane is look.pane else text, "reverse" if pane is look.pane else "")
        )
    said = f"  by {look.column or facts.table.usual}{', reversed' if look.is_reversed else ''}"
    if look.filter:
        said += f"; {len(order):,} with {look.filter}"
    return [*line, Span(said)]


def _footer(look: Look, width: int) -> list[Line]:
    if look.asked is not None:
        return [[Span(f"{look.asked.question} y/n ", "reverse")]]
    if look.typed is not None:
        how = [[Span(line, "bad")] for line in textwrap.wrap(look.notice, width)]
        keys = "   Enter applies, Esc leaves" if not how else ""
        return [*how, [Span("filter: ", "bold"), Span(look.typed), Span("_"), Span(keys)]]
    if look.notice:
        return [[Span(line, "bold")] for line in textwrap.wrap(look.notice, width)[:3]]
    return [[Span("? help  Tab pane  / filter  <- -> sort  R retry  K skip  F first  S stop  q quit")]]


def _help(width: int) -> Iterator[Line]:
    yield [Span("Keys of mpisweep watch", "bold")]
    yield []
    for keys, what in HELP:
        first, *rest = textwrap.wrap(what, width - 34)
        yield [Span(f"  {keys:<32}", "bold"), Span(first)]
        for line in rest:
            yield [Span(f"{'':34}{line}")]
    yield []
    yield [Span("Any key returns.")]
