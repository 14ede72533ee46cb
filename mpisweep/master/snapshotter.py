"""The client of the side process that reads and writes the results file.

The process is :mod:`mpisweep.results.storing`.  A running master requests snapshots and never waits for one.
Opening a sweep, which has a thread of its own, waits for answers.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpisweep.processes.forkserver import ForkServer
from mpisweep.processes.side_process import SideProcess
from mpisweep.results import ResultsError

if TYPE_CHECKING:
    from mpisweep.results.journal.reader import Damage
    from mpisweep.results.state import SweepState

__all__ = ["Answer", "Snapshotter"]

_NAME = "the process that writes the results file"
#: A process hangs if it does not answer for this long, in seconds, and for this multiple of the time of its
#: last answer.
_HANGS_S = 60.0
_HANGS_FACTOR = 10.0

log = logging.getLogger(__name__)


class Answer:
    """Answer to a request: its duration in `seconds`, and its `error` or ''."""

    __slots__ = ("error", "seconds")

    def __init__(self, seconds: float, error: str) -> None:
        self.seconds = seconds
        self.error = error


class Snapshotter:
    """Sends requests to the process, and replaces a process that was killed.

    Args:
        server: forks the process.
    """

    def __init__(self, server: ForkServer) -> None:
        self._process = SideProcess(server, _NAME, "mpisweep.results.storing:serve_snapshots", {})
        self._path = ""
        self._token = ""
        #: Answer to the pending request, once it has arrived.
        self._answer: Answer | None = None
        self._error_logged = False
        #: Duration of the last successful request.
        self._usual_s = 0.0

    def fileno(self) -> int:
        """For select()."""
        return self._process.fileno()

    @property
    def busy(self) -> bool:
        """Whether a request is pending."""
        return self._process.asked is not None

    def close(self) -> None:
        """Close the connection; the process exits after its current request."""
        self._process.close()

    def kill(self) -> None:
        """Kill the process at once."""
        self._process.kill()

    # ----------------------------------------------------------------------------------- opening, which waits

    def read(self, path: Path) -> tuple[SweepState | None, list[Damage]]:
        """Read the tables of a sweep (None if there is none) and the damages of its journal.

        Raises:
            ResultsError: if the file is of another kind, or damaged.
            OSError: if the disk fails, or the process was killed.
        """
        from mpisweep.results.journal.reader import Damage
        from mpisweep.results.storing import state_from

        answer = self._wait_for({"ask": "read", "path": os.fspath(path)})
        damages = [Damage(*one) for one in answer["damages"]]
        return (None if answer["state"] is None else state_from(answer["state"])), damages

    def close_journal(self, path: Path, token: Path) -> None:
        """Write the whole journal into the file; raises as :meth:`read` does."""
        self._wait_for({"ask": "close", "path": os.fspath(path), "token": os.fspath(token), "since": None})

    def gather(self, path: Path, silence_s: float) -> None:
        """Merge the parts of a split sweep; raises as :meth:`read` does."""
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
        """Set the file for snapshots, and the token of the master that requests them."""
        self._path, self._token = os.fspath(path), os.fspath(token)

    def compact(self, keep: str) -> None:
        """Request a snapshot, which deletes the segments before `keep` that it covers."""
        self._process.ask({"ask": "compact", "path": self._path, "token": self._token, "keep": keep})

    def compact_and_close(self, closing_since: float) -> None:
        """Request the last snapshot, which records the closing time and deletes all segments."""
        self._process.ask({"ask": "close", "path": self._path, "token": self._token, "since": closing_since})

    def leave(self, folders: list[str]) -> None:
        """Request the release of the claim and the removal of these folders if they are empty."""
        self._process.ask({"ask": "leave", "token": self._token, "folders": folders})

    def listen(self) -> None:
        """Read answers from the process; call it when :meth:`fileno` is readable."""
        answers = self._process.receive()
        if answers is None:
            self._replace(f"{_NAME} was killed")
        else:
            for answer in answers:
                self._answer = Answer(answer["seconds"], answer["error"])

    def keep_time(self, now: float) -> None:
        """Replace a process that hangs: it takes much longer than for its last answer."""
        if self._process.hangs(now, max(_HANGS_S, _HANGS_FACTOR * self._usual_s)):
            self._replace(f"{_NAME} does not answer")

    def _replace(self, error: str) -> None:
        """Start another process; the old one cannot leave a partial file, which a rename replaces."""
        self._process.replace()
        if self._process.asked is not None:
            self._answer = Answer(time.monotonic() - self._process.asked_at, error)

    def poll(self) -> Answer | None:
        """Take the answer to the pending request; None before it has arrived."""
        answer, self._answer = self._answer, None
        if answer is None:
            return None
        self._process.done()
        if not answer.error:
            self._usual_s = answer.seconds
        if answer.error and not self._error_logged:
            log.error(
                "%s cannot be replaced (%s); all results stay in the journal until it can",
                self._path,
                answer.error,
            )
        self._error_logged = bool(answer.error)
        return answer
