"""The screen on a real terminal, with curses: keys, sizes, styles, and how it is left."""

from __future__ import annotations

import contextlib
import curses
import locale
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType

import numpy as np
from numpy.typing import NDArray

from mpisweep.errors import UserError
from mpisweep.records import RequestKind
from mpisweep.spec.expression import ExpressionError
from mpisweep.views.screen.drawing import Drawn, draw
from mpisweep.views.screen.look import Look, Quit, Send, press
from mpisweep.views.screen.reader import Reader, Reading
from mpisweep.views.screen.spans import Moment, Span
from mpisweep.views.screen.table import parsed_filter, sorted_rows

__all__ = ["AskSweep", "can_show", "show_screen"]

#: Asks something of the sweep, and returns what was done in a sentence; it raises a UserError if it is
#: refused.  No trials for a stop.
AskSweep = Callable[[RequestKind, tuple[int, ...]], str]

#: Milliseconds between two looks at what the reader has, and thus between two updates of the times.
_PAUSE_MS = 250
_KEYS = {
    curses.KEY_UP: "up", curses.KEY_DOWN: "down", curses.KEY_LEFT: "left", curses.KEY_RIGHT: "right",
    curses.KEY_PPAGE: "pgup", curses.KEY_NPAGE: "pgdn", curses.KEY_HOME: "home", curses.KEY_END: "end",
    curses.KEY_BTAB: "backtab", curses.KEY_BACKSPACE: "backspace", curses.KEY_ENTER: "enter",
}  # fmt: skip
_SIGNS = {"\t": "tab", "\n": "enter", "\r": "enter", "\x1b": "esc", "\x7f": "backspace", "\x08": "backspace"}
#: Milliseconds after which Escape is a key and not the beginning of one.
_ESCAPE_MS = 50


class _EndedBySignal(BaseException):
    """SIGTERM or SIGHUP: the terminal is restored before the process ends of it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def can_show() -> bool:
    """Whether curses knows the terminal, and it can move its cursor."""
    try:
        curses.setupterm()
    except curses.error:
        return False
    return curses.tigetstr("cup") is not None


def show_screen(reader: Reader, ask: AskSweep) -> None:
    """Show the screen until the user leaves it.

    Args:
        reader: reads the sweep.
        ask: sends requests.
    """
    locale.setlocale(locale.LC_ALL, "")
    # Otherwise they would hide the size of the terminal and its changes.
    for name in ("LINES", "COLUMNS"):
        os.environ.pop(name, None)
    os.environ.setdefault("ESCDELAY", str(_ESCAPE_MS))
    try:
        with _ending_by_signals(), _window() as window:
            _Screen(window, reader, ask).run()
    except _EndedBySignal as ended:
        signal.signal(ended.number, signal.SIG_DFL)
        os.kill(os.getpid(), ended.number)
    finally:
        reader.end()


@contextlib.contextmanager
def _window() -> Iterator[curses.window]:
    """The whole terminal; it is restored at the end, whatever happens.

    Not :func:`curses.wrapper`, which sets colours up where none are wanted.
    """
    window = curses.initscr()
    try:
        curses.noecho()
        curses.cbreak()
        window.keypad(True)
        yield window
    finally:
        window.keypad(False)
        curses.nocbreak()
        curses.echo()
        curses.endwin()


@contextlib.contextmanager
def _ending_by_signals() -> Iterator[None]:
    def end(number: int, _: FrameType | None) -> None:
        raise _EndedBySignal(number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Screen:
    """The loop: a key, or a moment without one, then what has changed is drawn."""

    def __init__(self, window: curses.window, reader: Reader, ask: AskSweep) -> None:
        self._window = window
        self._reader = reader
        self._ask = ask
        self._styles = _styles()
        self._look = Look()
        self._answers: queue.Queue[str] = queue.Queue()
        self._order: NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        #: From what that was computed.
        self._sorted_of: tuple[Reading, str, bool] | None = None

    def run(self) -> None:
        with contextlib.suppress(curses.error):
            curses.curs_set(0)
        self._window.timeout(_PAUSE_MS)
        drawn = self._draw()
        while True:
            key = self._key()
            if key:
                self._look, command = press(self._look, key, drawn.shown)
                if isinstance(command, Quit):
                    return
                if isinstance(command, Send):
                    self._send(command)
                elif key == "enter":
                    self._apply_filter()
            with contextlib.suppress(queue.Empty):
                self._look = replace(self._look, notice=self._answers.get_nowait())
                self._reader.look_now()
            drawn = self._draw()

    def _key(self) -> str:
        """The key that was pressed; empty if none was, or the terminal has another size."""
        try:
            pressed = self._window.get_wch()
        except curses.error:
            return ""
        if isinstance(pressed, str):
            return _SIGNS.get(pressed, pressed)
        return _KEYS.get(pressed, "")

    def _apply_filter(self) -> None:
        """Have the reader apply the filter that was typed; one that is wrong is typed again."""
        try:
            if self._look.filter:
                parsed_filter(self._reader.latest.facts.table, self._look.filter)
        except ExpressionError as error:
            self._look = replace(self._look, filter="", typed=self._look.filter, notice=str(error))
        self._reader.want(self._look.filter)

    def _send(self, command: Send) -> None:
        """Send a request from a thread of its own: a disk may be slow, and so may a batch system."""
        self._look = replace(self._look, notice="asking ...")

        def send() -> None:
            try:
                said = self._ask(command.kind, command.trials)
            except UserError as error:
                said = str(error)
            except Exception as error:
                # A traceback would be printed over the screen.
                said = f"{type(error).__name__}: {error}"
            self._answers.put(" ".join(said.split()))

        threading.Thread(target=send, name="request").start()

    def _draw(self) -> Drawn:
        reading, look = self._reader.latest, self._look
        if look.filter != reading.filter:
            # Escape has removed it, or the reader has not applied it yet.
            self._reader.want(look.filter)
        height, width = self._window.getmaxyx()
        silent_s = time.monotonic() - reading.changed_at
        moment = Moment(time.time(), silent_s, reading.problem, reading.judgement)
        drawn = draw(reading.facts, self._sorted(reading), look, moment, width, height)
        self._window.erase()
        for line, spans in enumerate(drawn.lines[:height]):
            self._put(line, spans, width)
        self._window.refresh()
        return drawn

    def _sorted(self, reading: Reading) -> NDArray[np.intp]:
        """The order of the table, computed when it may have changed."""
        column, is_reversed = self._look.column or reading.facts.table.usual, self._look.is_reversed
        before = self._sorted_of
        if before is None or before[0] is not reading or before[1:] != (column, is_reversed):
            self._order = sorted_rows(reading.facts.table, column, is_reversed=is_reversed, mask=reading.mask)
            self._sorted_of = reading, column, is_reversed
        return self._order

    def _put(self, line: int, spans: list[Span], width: int) -> None:
        """Write one line; what the terminal cannot show is a question mark."""
        self._window.move(line, 0)
        for text, style in spans:
            known = text.encode(self._window.encoding, "replace").decode(self._window.encoding)
            # curses reports an error when the lowest right corner is written, after it was.
            with contextlib.suppress(curses.error):
                self._window.addstr(known, self._styles[style])


def _styles() -> dict[str, int]:
    """Style -> attribute of curses; without colours if NO_COLOR is set, see https://no-color.org."""
    plain = {"": curses.A_NORMAL, "bold": curses.A_BOLD, "reverse": curses.A_REVERSE}
    colours = {"good": curses.COLOR_GREEN, "bad": curses.COLOR_RED, "warn": curses.COLOR_YELLOW}
    if os.environ.get("NO_COLOR") or not curses.has_colors():
        return plain | dict.fromkeys(colours, curses.A_NORMAL)
    curses.start_color()
    with contextlib.suppress(curses.error):
        curses.use_default_colors()
    for index, colour in enumerate(colours.values(), start=1):
        curses.init_pair(index, colour, -1)
    return plain | {style: curses.color_pair(index) for index, style in enumerate(colours, start=1)}
