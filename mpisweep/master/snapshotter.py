"""The handle on the process that reads and writes the results file; see :mod:`mpisweep.results.storing`.

A master asks for snapshots and never waits for one.  Whoever opens a sweep, in a thread of its own, waits for
answers.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

from mpisweep.processes.forkserver import ForkServer
from mpisweep.processes.side_process import SideProcess
from mpisweep.results import ResultsError
from mpisweep.results.journal.reader import Damage
from mpisweep.results.state import SweepState
from mpisweep.results.storing import state_from

__all__ = ["Answer", "Snapshotter"]

_NAME = "the process that writes the results file"
#: A process hangs that does not answer for so long, in seconds, and for so many times as long as the last
#: answer took.
_HANGS_S = 60.0
_HANGS_FACTOR = 10.0

log = logging.getLogger(__name__)


class Answer:
    """What came of a request: `seconds` it took, and what went wrong or ''."""

    __slots__ = ("error", "seconds")

    def __init__(self, seconds: float, error: str) -> None:
        self.seconds = seconds
        self.error = error


class Snapshotter:
    """Asks the process; one that is killed is replaced.

    Args:
        server: forks the process.
    """

    def __init__(self, server: ForkServer) -> None:
        self._process = SideProcess(server, _NAME, "mpisweep.results.storing:serve_snapshots", {})
        self._path = ""
        self._token = ""
        #: What has come of what was asked for, once it is there.
        self._answer: Answer | None = None
        self._complained = False
        #: How long the last answer took.
        self._usual_s = 0.0

    def fileno(self) -> int:
        """For select()."""
        return self._process.fileno()

    @property
    def busy(self) -> bool:
        """Whether something was asked for and not answered."""
        return self._process.asked is not None

    def close(self) -> None:
        """Let the process go; it ends by itself when it has done what it was asked for."""
        self._process.close()

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()

    # ----------------------------------------------------------------------------------- opening, which waits

    def read(self, path: Path) -> tuple[SweepState | None, list[Damage]]:
        """The tables of a sweep, and what could not be read of its journal; None where there is none.

        Raises:
            ResultsError: when it is something else, or damaged.
            OSError: when the disk fails, or the process was killed.
        """
        answer = self._wait_for({"ask": "read", "path": os.fspath(path)})
        damages = [Damage(*one) for one in answer["damages"]]
        return (None if answer["state"] is None else state_from(answer["state"])), damages

    def close_journal(self, path: Path, token: Path) -> None:
        """Write all that the journal has into the file; raises as :meth:`read` does."""
        self._wait_for({"ask": "close", "path": os.fspath(path), "token": os.fspath(token), "since": None})

    def gather(self, path: Path, silence_s: float) -> None:
        """Put the parts of a split sweep together; raises as :meth:`read` does."""
        self._wait_for({"ask": "gather", "path": os.fspath(path), "silence_s": silence_s})

    def _wait_for(self, request: dict[str, object]) -> dict[str, Any]:
        answer = self._process.ask_and_wait(request)
        if answer.get("refused"):
            raise ResultsError(answer["error"])
        if answer["error"]:
            if "errno" in answer:
                raise OSError(answer["errno"], os.strerror(answer["errno"] or 0), answer["filename"])
            raise ResultsError(answer["error"])
        return answer

    # -------------------------------------------------------------------------------- running, which does not

    def write(self, path: Path, token: Path) -> None:
        """Name the file that is written from now on, and the token of the master that has it written."""
        self._path, self._token = os.fspath(path), os.fspath(token)

    def compact(self, keep: str) -> None:
        """Ask for a snapshot; segments before `keep` that it covers are deleted."""
        self._process.ask({"ask": "compact", "path": self._path, "token": self._token, "keep": keep})

    def compact_and_close(self, closing_since: float) -> None:
        """Ask for the last snapshot, which says how long closing took since then; no segment stays."""
        self._process.ask({"ask": "close", "path": self._path, "token": self._token, "since": closing_since})

    def leave(self, folders: list[str]) -> None:
        """Ask for the claim to be released, and for these folders to be removed where they are empty."""
        self._process.ask({"ask": "leave", "token": self._token, "folders": folders})

    def listen(self) -> None:
        """Read what the process has said; to be called when :meth:`fileno` is readable."""
        told = self._process.receive()
        if told is None:
            self._replace(f"{_NAME} was killed")
        else:
            for answer in told:
                self._answer = Answer(answer["seconds"], answer["error"])

    def keep_time(self, now: float) -> None:
        """Replace a process that has not answered for much longer than it did before: it hangs."""
        if self._process.hangs(now, max(_HANGS_S, _HANGS_FACTOR * self._usual_s)):
            self._replace(f"{_NAME} does not answer")

    def _replace(self, error: str) -> None:
        """Start another process; whatever this one was doing, the file is replaced by one rename or not at
        all.
        """
        self._process.replace()
        if self._process.asked is not None:
            self._answer = Answer(time.monotonic() - self._process.asked_at, error)

    def poll(self) -> Answer | None:
        """What has come of what was asked for, once it is there."""
        made, self._answer = self._answer, None
        if made is None:
            return None
        self._process.done()
        if not made.error:
            self._usual_s = made.seconds
        if made.error and not self._complained:
            log.error(
                "%s cannot be replaced (%s); the journal keeps everything until it can",
                self._path,
                made.error,
            )
        self._complained = bool(made.error)
        return made
