"""Output of mpirun and the ranks on its way through the launcher.

It is passed on as it comes, with three exceptions:

* Lines for the launcher: progress, and the sign of life of a rank.
* Output before a rank is alive is held back for up to :data:`_HOLD_S` seconds.  If no rank ever is, it says
  why, and becomes part of the launcher's message.
* Complaints of MPI launchers about ranks that exited with another code than 0 are held back to the end: after
  an end that the ranks have reported they are noise.

A thread of its own reads each stream and does nothing else, so that mpirun never waits for its reader.
"""

from __future__ import annotations

import contextlib
import locale
import re
import subprocess
import sys
import threading
from collections import deque
from typing import IO, Protocol

from mpisweep.progress import ALIVE, Progress, marked_line, parse

__all__ = ["ComplaintFilter", "Output", "PlainView", "RelayView", "View", "words_of"]

#: Time for which the first lines are held back, in seconds.
_HOLD_S = 5.0
#: Wait for the last lines after the process has exited, in seconds: another process may still hold the pipe.
_DRAIN_S = 5.0
#: Lines to keep for the launcher's message.
_KEPT = 40
#: Lines of output in that message, and the length of each.
_WORDS_AT_MOST = 12
_WORD_LENGTH = 300

_RULE = re.compile(r"([-=*])\1{30,}\s*")
#: First lines of blocks about ranks that exited with another code than 0: Open MPI 4 and 5, Hydra.
_COMPLAINT = re.compile(
    r"(prterun|mpirun|mpiexec|orterun) (detected that one or more processes exited"
    r"|has exited due to process rank"
    r"|noticed that process rank)"
    r"|MPI_ABORT was invoked on rank|Primary job +terminated normally, but|=+ +BAD TERMINATION OF ONE OF YOUR"
)
#: Single lines about the same: Slurm, Hydra.
_COMPLAINT_LINE = re.compile(
    r"srun: error: \S+: tasks? [\d,-]+: Exited with exit code \d+"
    r"|YOUR APPLICATION TERMINATED WITH THE EXIT STRING: .*"
)
#: Longest block of a complaint, in lines.
_BLOCK_AT_MOST = 40


class ComplaintFilter:
    """Takes complaints out of a stream, line by line."""

    def __init__(self) -> None:
        #: Lines that were taken out.
        self.complaints: list[str] = []
        #: A rule and the lines after it, while they may be a complaint.
        self._block: list[str] = []

    def feed(self, line: str) -> list[str]:
        """Take a line and return the lines that may pass now."""
        if _COMPLAINT_LINE.fullmatch(line):
            self.complaints.append(line)
            return []
        is_rule = _RULE.fullmatch(line) is not None
        if not self._block:
            if not is_rule:
                return [line]
            self._block = [line]
            return []
        self._block.append(line)
        if len(self._block) == 2 and not _COMPLAINT.match(line):
            # Two rules in a row are the end of one block and the beginning of the next.
            passed, self._block = (self._block[:1], [line]) if is_rule else (self._block, [])
            return passed
        if is_rule:
            self.complaints += self._block
            self._block = []
        elif len(self._block) > _BLOCK_AT_MOST:
            return self.rest()
        return []

    def rest(self) -> list[str]:
        """Return the lines held back in an unfinished block."""
        passed, self._block = self._block, []
        return passed


class View(Protocol):
    """Shows lines and progress."""

    def write(self, line: str, *, error: bool = False) -> None:
        """Show a line of output."""

    def show(self, progress: Progress) -> None:
        """Show how far the sweep is."""


class PlainView:
    """Standard output and standard error, without a progress bar."""

    def write(self, line: str, *, error: bool = False) -> None:
        """Print a line; if the reader is gone, drop it, and the ranks continue."""
        stream = sys.stderr if error else sys.stdout
        with contextlib.suppress(OSError, ValueError, AttributeError):
            print(line, file=stream, flush=True)

    def show(self, progress: Progress) -> None:
        """Ignore it: without a bar ranks are not asked for progress."""


class RelayView(PlainView):
    """Output for a program that draws the progress from marked lines."""

    def __init__(self) -> None:
        # Two threads print; a marked line must not end up inside another one.
        self._lock = threading.Lock()

    def write(self, line: str, *, error: bool = False) -> None:
        """Print a line; if the reader is gone, drop it, and the ranks continue."""
        with self._lock:
            super().write(line, error=error)

    def show(self, progress: Progress) -> None:
        """Print a marked line."""
        self.write(marked_line(progress))


class Output:
    """The output of one start of the ranks.

    Args:
        view: shows the lines that pass.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._lock = threading.Lock()
        self._filters = {False: ComplaintFilter(), True: ComplaintFilter()}
        #: Lines from before a rank was alive; None once they are released.
        self._held: list[tuple[str, bool]] | None = []
        self._last: deque[str] = deque(maxlen=_KEPT)
        self._readers: list[threading.Thread] = []
        self._timer = threading.Timer(_HOLD_S, self._release)
        self._timer.daemon = True
        self._lives = threading.Event()

    @property
    def lives(self) -> bool:
        """Whether a rank was seen alive."""
        return self._lives.is_set()

    def follow(self, ranks: subprocess.Popen[bytes]) -> None:
        """Begin to read the output of the ranks."""
        assert ranks.stdout is not None
        assert ranks.stderr is not None
        self._timer.start()
        for stream, error in ((ranks.stdout, False), (ranks.stderr, True)):
            reader = threading.Thread(target=self._read, args=(stream, error), daemon=True)
            reader.start()
            self._readers.append(reader)

    def finish(self, *, quietly: bool) -> None:
        """Wait for the last lines; `quietly` drops complaints, after an end that ranks reported."""
        for reader in self._readers:
            reader.join(_DRAIN_S)
        self._timer.cancel()
        with self._lock:
            for error, taken in self._filters.items():
                # A truncated complaint may be one, too.
                for line in [] if quietly else taken.complaints:
                    self._pass(line, error)
                for line in taken.rest():
                    self._pass(line, error)

    def words(self) -> list[str]:
        """The last lines; only those not shown yet, if output is still held back."""
        with self._lock:
            held = self._held
            return words_of(self._last if held is None else [line for line, _ in held])

    def release(self) -> None:
        """Show the lines that were held back."""
        self._release()

    def _read(self, stream: IO[bytes], error: bool) -> None:
        with stream, contextlib.suppress(OSError, ValueError):
            for raw in stream:
                # MPI_Abort of Open MPI 5 prints a NUL at the end of its message.
                line = _text_of(raw).replace("\0", "").rstrip("\r\n")
                if line or raw.strip(b"\0") == raw:
                    self._take(line, error)

    def _take(self, line: str, error: bool) -> None:
        if ALIVE in line:
            self._lives.set()
            self._release()
            return
        progress = parse(line)
        if progress is not None:
            self._lives.set()
            self._view.show(progress)
            return
        with self._lock:
            self._last.append(line)
            for passed in self._filters[error].feed(line):
                self._pass(passed, error)

    def _pass(self, line: str, error: bool) -> None:
        if self._held is not None:
            self._held.append((line, error))
        else:
            self._view.write(line, error=error)

    def _release(self) -> None:
        with self._lock:
            held, self._held = self._held or [], None
            for line, error in held:
                self._view.write(line, error=error)


def _text_of(raw: bytes) -> str:
    """Decode as UTF-8, or else by the locale, which the ranks share with this process."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode(locale.getencoding(), "replace")


def words_of(lines: list[str] | deque[str]) -> list[str]:
    """Pick lines for a message: no rules, no empty lines, no repetitions by other ranks."""
    said = list(dict.fromkeys(line.strip() for line in lines if line.strip() and not _RULE.fullmatch(line)))
    half = _WORDS_AT_MOST // 2
    # mpirun says first what matters, and Python's tracebacks last.
    shown = said if len(said) <= _WORDS_AT_MOST else [*said[:half], "...", *said[-half:]]
    return [line[:_WORD_LENGTH] for line in shown]
