"""A program in a real pseudo-terminal, whose screen an emulator of a terminal keeps."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyte
from waiting import wait_for

#: Keys that send more than one character, on an xterm in application mode as curses sets it.
KEYS = {
    "up": "\x1bOA", "down": "\x1bOB", "right": "\x1bOC", "left": "\x1bOD", "home": "\x1bOH", "end": "\x1bOF",
    "pgup": "\x1b[5~", "pgdn": "\x1b[6~", "esc": "\x1b", "enter": "\r", "tab": "\t", "ctrl-c": "\x03",
    "backspace": "\x7f",
}  # fmt: skip


class Terminal:
    """A program and the screen that it draws."""

    def __init__(self, process: subprocess.Popen[bytes], master: int, width: int, height: int) -> None:
        self.process = process
        self._master = master
        self._emulator = pyte.Screen(width, height)
        self._stream = pyte.ByteStream(self._emulator)
        #: Everything that the program has written.
        self.written = b""
        # The emulator answers questions of the program, as a terminal does.
        self._emulator.write_process_input = lambda data: os.write(master, data.encode())

    def read(self) -> None:
        """Take in what the program has written."""
        while select.select([self._master], [], [], 0.01)[0]:
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:
                return  # the program has ended
            if not data:
                return
            self.written += data
            self._stream.feed(data)

    @property
    def lines(self) -> list[str]:
        """The screen, as text."""
        self.read()
        return [line.rstrip() for line in self._emulator.display]

    @property
    def text(self) -> str:
        """The screen, as one text."""
        return "\n".join(self.lines)

    @property
    def colours(self) -> set[str]:
        """The colours of all characters."""
        self.read()
        return {cell.fg for line in self._emulator.buffer.values() for cell in line.values()}

    def press(self, *keys: str) -> None:
        """Press keys: names of :data:`KEYS`, or text."""
        for key in keys:
            os.write(self._master, KEYS.get(key, key).encode())

    def shows(self, *texts: str) -> bool:
        """Whether the screen has all these texts; False too if it does not have them yet."""
        now = self.text
        return all(text in now for text in texts)

    def wait_for(self, *texts: str) -> None:
        """Wait until the screen has all these texts."""

        def is_there() -> bool:
            there = self.shows(*texts)
            assert there or self.process.poll() is None, f"it has ended; the screen:\n{self.text}"
            return there

        try:
            wait_for(is_there)
        except AssertionError as error:
            raise AssertionError(f"{texts} never came; the screen:\n{self.text}") from error

    def resize(self, width: int, height: int) -> None:
        """Change the size of the terminal, as a window manager does."""
        self.read()
        self._emulator.resize(height, width)
        _set_size(self._master, width, height)

    def settings(self) -> Any:
        """The settings of the terminal, such as echo."""
        return termios.tcgetattr(self._master)[:4]

    def end(self) -> int:
        """Wait for the end of the program, and return its exit code."""
        wait_for(lambda: (self.read(), self.process.poll() is not None)[1])
        self.read()
        return self.process.returncode


def _set_size(terminal: int, width: int, height: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


@contextmanager
def in_terminal(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], width: int = 80, height: int = 24
) -> Iterator[Terminal]:
    """Start a program in a terminal of this size; it is killed at the end if it still runs."""
    master, slave = pty.openpty()
    _set_size(slave, width, height)

    def begin() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    begun: Callable[[], None] = begin
    process = subprocess.Popen(
        command, cwd=folder, env=dict(environment), stdin=slave, stdout=slave, stderr=slave, preexec_fn=begun
    )
    # The slave stays open here, so that its settings can be read after the program has ended.
    terminal = Terminal(process, master, width, height)
    try:
        yield terminal
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(slave)
        os.close(master)
