"""What mpirun and the ranks print, on its way through the launcher.

Passed on as it comes, with three exceptions:

* Lines that are for the launcher: progress, and the sign of life of a rank.
* What comes before the first rank lives is held back for up to :data:`_HOLD_S` seconds.  If none ever lives,
  it says why, and becomes part of the launcher's own sentence.
* What launchers of MPI say of ranks that exited with another code than 0 is held back to the end: after an
  end that the ranks have told themselves it is noise.

Every stream is read by a thread of its own that does nothing else, so that mpirun never waits for its reader.
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

from mpisweep.progress import ALIVE, Progress, parse

__all__ = ["ComplaintFilter", "Output", "PlainView", "View", "words_of"]

#: How long the first lines are held back, in seconds.
_HOLD_S = 5.0
#: How long the last lines may take to come after the process has exited, in seconds: somebody may still hold
#: the pipe.
_DRAIN_S = 5.0
#: Lines that are kept for the launcher's own sentence.
_KEPT = 40
#: Lines of words in that sentence, and the length of each.
_WORDS_AT_MOST = 12
_WORD_LENGTH = 300

_RULE = re.compile(r"([-=*])\1{30,}\s*")
#: How blocks begin that tell of ranks which exited with another code than 0: Open MPI 4 and 5, Hydra.
_COMPLAINT = re.compile(
    r"(prterun|mpirun|mpiexec|orterun) (detected that one or more processes exited"
    r"|has exited due to process rank"
    r"|noticed that process rank)"
    r"|MPI_ABORT was invoked on rank|Primary job +terminated normally, but|=+ +BAD TERMINATION OF ONE OF YOUR"
)
#: The same in single lines: Slurm, Hydra.
_COMPLAINT_LINE = re.compile(
    r"srun: error: \S+: tasks? [\d,-]+: Exited with exit code \d+"
    r"|YOUR APPLICATION TERMINATED WITH THE EXIT STRING: .*"
)
#: A block that grows longer than this is none.
_BLOCK_AT_MOST = 40


class ComplaintFilter:
    """Takes the complaints of one stream out, line by line."""

    def __init__(self) -> None:
        #: What was taken out.
        self.complaints: list[str] = []
        #: A rule, and what has followed it, while it may be a complaint.
        self._block: list[str] = []

    def feed(self, line: str) -> list[str]:
        """The lines that may pass now."""
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
        """What was held back in a block that has no end."""
        passed, self._block = self._block, []
        return passed


class View(Protocol):
    """Where lines and progress go."""

    def write(self, line: str, *, error: bool = False) -> None:
        """Show a line of somebody's output."""

    def show(self, progress: Progress) -> None:
        """Show how far the sweep is."""


class PlainView:
    """Standard output and standard error, for where there is no bar."""

    def write(self, line: str, *, error: bool = False) -> None:
        """Print it; where nobody reads any more nothing is printed, and the ranks go on."""
        stream = sys.stderr if error else sys.stdout
        with contextlib.suppress(OSError, ValueError, AttributeError):
            print(line, file=stream, flush=True)

    def show(self, progress: Progress) -> None:
        """Nothing: without a bar ranks are not asked for it."""


class Output:
    """The output of one start of the ranks.

    Args:
        view: gets what passes.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._lock = threading.Lock()
        self._filters = {False: ComplaintFilter(), True: ComplaintFilter()}
        #: What has come before a rank was alive; None once it is not held back any more.
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
        """Begin to read."""
        assert ranks.stdout is not None
        assert ranks.stderr is not None
        self._timer.start()
        for stream, error in ((ranks.stdout, False), (ranks.stderr, True)):
            reader = threading.Thread(target=self._read, args=(stream, error), daemon=True)
            reader.start()
            self._readers.append(reader)

    def finish(self, *, quietly: bool) -> None:
        """Wait for the last lines; complaints are dropped where the ranks have told their end themselves."""
        for reader in self._readers:
            reader.join(_DRAIN_S)
        self._timer.cancel()
        with self._lock:
            for error, taken in self._filters.items():
                # A complaint that was cut off is one all the same.
                for line in [] if quietly else taken.complaints:
                    self._pass(line, error)
                for line in taken.rest():
                    self._pass(line, error)

    def words(self) -> list[str]:
        """What was said last: only what was not shown yet, where no rank was alive before that."""
        with self._lock:
            held = self._held
            return words_of(self._last if held is None else [line for line, _ in held])

    def release(self) -> None:
        """Show what was held back."""
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
    """UTF-8, or what the ranks write in the locale that they share with this process."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode(locale.getencoding(), "replace")


def words_of(lines: list[str] | deque[str]) -> list[str]:
    """Lines for a sentence: without rules, empty lines and repetitions, which every rank prints."""
    said = list(dict.fromkeys(line.strip() for line in lines if line.strip() and not _RULE.fullmatch(line)))
    half = _WORDS_AT_MOST // 2
    # mpirun begins with what matters, and Python's tracebacks end with it.
    shown = said if len(said) <= _WORDS_AT_MOST else [*said[:half], "...", *said[-half:]]
    return [line[:_WORD_LENGTH] for line in shown]
