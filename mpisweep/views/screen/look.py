"""What the user has chosen to see, and how each key changes it; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from mpisweep.progress import counted
from mpisweep.records import RequestKind
from mpisweep.views.screen.facts import Failures

__all__ = ["HELP", "Look", "Pane", "Quit", "Send", "Shown", "press"]


class Pane(IntEnum):
    """A part of the screen that can be chosen."""

    TRIALS = 0
    WORKERS = 1
    PLOT = 2
    FAILURES = 3
    RUNS = 4

    @property
    def title(self) -> str:
        """Its name on the screen."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Quit:
    """Leave the screen."""


@dataclass(frozen=True, slots=True)
class Send:
    """Ask something of the sweep; `trials` is empty for a stop."""

    kind: RequestKind
    trials: tuple[int, ...]

    @property
    def question(self) -> str:
        """What is asked before it is sent."""
        if self.kind is RequestKind.STOP:
            return "stop the sweep? It can be resumed"
        named = ", ".join(map(str, self.trials[:_NAMED]))
        more = f" and {len(self.trials) - _NAMED:,} more" if len(self.trials) > _NAMED else ""
        what = f"trial{'s' * (len(self.trials) > 1)} {named}{more}"
        return f"run {what} first?" if self.kind is RequestKind.FIRST else f"{self.kind} {what}?"


@dataclass(frozen=True, slots=True)
class Look:
    """What the user has chosen.

    Attributes:
        pane: the part of the screen that the keys move in.
        column: by which the table is sorted; empty for the objective.
        is_reversed: whether its order is turned round.
        filter: of the table; empty for none.
        typed: a filter that is being typed; None if none is.
        trial: number of the chosen trial; None for the first one.
        place: its last row in the table.
        marked: trials that a request concerns instead of the chosen one.
        line: first line, or chosen line, of a pane other than the table.
        parameter: horizontal axis of the plot.
        metric: vertical axis of the plot.
        asked: what waits for a confirmation.
        helps: whether the help is shown.
        notice: what happened last, for the lowest line.
    """

    pane: Pane = Pane.TRIALS
    column: str = ""
    is_reversed: bool = False
    filter: str = ""
    typed: str | None = None
    trial: int | None = None
    place: int = 0
    marked: frozenset[int] = frozenset()
    line: int = 0
    parameter: int = 0
    metric: int = 0
    asked: Send | None = None
    helps: bool = False
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """What is on the screen, as far as keys depend on it.

    Attributes:
        columns: headings of the table.
        usual: that of the objective.
        order: numbers of the trials in the table, from above.
        page: number of lines of the chosen pane.
        lines: number of lines that it has in all.
        failures: the groups of failed trials.
        axes: number of horizontal and of vertical axes of the plot.
    """

    columns: Sequence[str]
    usual: str
    order: NDArray[np.intp]
    page: int
    lines: int = 0
    failures: Sequence[Failures] = ()
    axes: tuple[int, int] = (1, 1)


#: Trials that a question names.
_NAMED = 6
#: Key -> request.
_REQUESTS = {
    "R": RequestKind.RETRY,
    "K": RequestKind.SKIP,
    "F": RequestKind.FIRST,
    "S": RequestKind.STOP,
}
HELP = (
    ("Tab, 1 to 5", "next pane: trials, workers, plot, failures, runs"),
    ("arrows, PgUp, PgDn, Home, End", "move; Left and Right choose the column to sort by"),
    ("v", "reverse the order"),
    ("/", "filter trials, e.g. failed, or complete and batch_size > 64; Esc removes it"),
    ("x, y", "next parameter, and next metric, of the plot; X, Y the previous one"),
    ("Space", "mark a trial; requests then concern all marked ones"),
    ("R", "retry: failed or skipped trials; in the pane of failures all of one kind"),
    ("K, F", "skip waiting trials; run waiting trials first"),
    ("S", "stop the sweep; it can be resumed"),
    ("q", "quit; the sweep goes on"),
)


def press(look: Look, key: str, shown: Shown) -> tuple[Look, Quit | Send | None]:
    """Answer a key.

    Args:
        look: what is chosen.
        key: one character, or the name of a key such as ``up``.
        shown: what is on the screen.

    Returns:
        What is chosen then, and what to do.
    """
    if look.typed is not None:
        return _type(look, look.typed, key), None
    look = replace(look, notice="")
    if look.asked is not None:
        asked, look = look.asked, replace(look, asked=None)
        if key in ("y", "Y"):
            return replace(look, marked=frozenset()), asked
        return replace(look, notice="nothing was asked"), None
    if look.helps:
        return replace(look, helps=False), Quit() if key == "q" else None
    if key == "q":
        return look, Quit()
    if key in _REQUESTS:
        return _ask(look, _REQUESTS[key], shown), None
    return _choose(look, key, shown), None


def _type(look: Look, typed: str, key: str) -> Look:
    match key:
        case "enter":
            return replace(look, filter=typed.strip(), typed=None, place=0, trial=None, notice="")
        case "esc":
            return replace(look, typed=None, notice="")
        case "backspace":
            typed = typed[:-1]
        case _ if len(key) == 1 and key.isprintable():
            typed += key
    return replace(look, typed=typed, notice="")


def _ask(look: Look, kind: RequestKind, shown: Shown) -> Look:
    """Put the question before a request."""
    if kind is RequestKind.STOP:
        return replace(look, asked=Send(kind, ()))
    if look.pane is Pane.FAILURES and kind is RequestKind.RETRY and shown.failures:
        group = shown.failures[min(look.line, len(shown.failures) - 1)]
        return replace(look, asked=Send(kind, group.trials))
    if look.pane is not Pane.TRIALS:
        return replace(look, notice="choose trials first (key 1)")
    now = chosen_trial(look, shown)
    chosen = sorted(look.marked) or ([] if now is None else [now])
    if not chosen:
        return replace(look, notice="there is no trial")
    return replace(look, asked=Send(kind, tuple(chosen)))


def chosen_trial(look: Look, shown: Shown) -> int | None:
    """Number of the trial in the chosen row; None if the table is empty."""
    return int(shown.order[row_of(look, shown.order)]) if len(shown.order) else None


def row_of(look: Look, order: NDArray[np.intp]) -> int:
    """The chosen row: that of the chosen trial, or its last one if it has left the table."""
    found = [] if look.trial is None else np.flatnonzero(order == look.trial).tolist()
    return found[0] if found else max(0, min(look.place, len(order) - 1))


def _choose(look: Look, key: str, shown: Shown) -> Look:
    """Answer a key that only changes what is seen."""
    match key:
        case "?":
            return replace(look, helps=True)
        case "tab" | "backtab":
            step = 1 if key == "tab" else -1
            return replace(look, pane=Pane((look.pane + step) % len(Pane)), line=0)
        case "1" | "2" | "3" | "4" | "5":
            return replace(look, pane=Pane(int(key) - 1), line=0)
        case "/":
            return replace(look, typed=look.filter, pane=Pane.TRIALS)
        case "esc":
            return replace(look, filter="", marked=frozenset())
        case "x" | "X":
            step = 1 if key == "x" else -1
            return replace(look, parameter=(look.parameter + step) % max(shown.axes[0], 1))
        case "y" | "Y":
            step = 1 if key == "y" else -1
            return replace(look, metric=(look.metric + step) % max(shown.axes[1], 1))
        case "v":
            return replace(look, is_reversed=not look.is_reversed)
        case "left" | "right":
            return _sort(look, 1 if key == "right" else -1, shown)
        case " ":
            return _mark(look, shown)
    return _move(look, key, shown)


def _sort(look: Look, step: int, shown: Shown) -> Look:
    """Sort by the next or the previous column."""
    now = list(shown.columns).index(look.column or shown.usual)
    column = shown.columns[(now + step) % len(shown.columns)]
    return replace(look, column=column, notice=f"sorted by {column}")


def _mark(look: Look, shown: Shown) -> Look:
    number = chosen_trial(look, shown)
    if look.pane is not Pane.TRIALS or number is None:
        return look
    marked = look.marked ^ {number}
    look = _move(replace(look, marked=marked), "down", shown)
    return replace(look, notice=f"{counted(len(marked), 'trial')} marked" if marked else "")


def _move(look: Look, key: str, shown: Shown) -> Look:
    steps = {"up": -1, "down": 1, "pgup": -shown.page, "pgdn": shown.page, "home": -(1 << 60), "end": 1 << 60}
    if key not in steps:
        return look
    if look.pane is not Pane.TRIALS:
        last = shown.lines - (1 if look.pane is Pane.FAILURES else shown.page)
        return replace(look, line=max(0, min(look.line + steps[key], last)))
    if not len(shown.order):
        return look
    row = max(0, min(row_of(look, shown.order) + steps[key], len(shown.order) - 1))
    return replace(look, place=row, trial=int(shown.order[row]))
