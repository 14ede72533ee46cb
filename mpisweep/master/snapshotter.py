"""The handle on the process that reads and writes the results file; see :mod:`mpisweep.results.storing`.

A master asks for snapshots and never waits for one.  Whoever opens a sweep, in a thread of its own, waits for answers.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

from mpisweep.processes.forkserver import ForkServer
from mpisweep.results import ResultsError
from mpisweep.results.journal import Damage
from mpisweep.results.replay import SweepState
from mpisweep.results.storing import state_from

__all__ = ["Answer", "Recorder", "RecorderLostError"]

#: What is told of a process that was killed.
_KILLED = "the process that writes the results file was killed"
#: A process hangs that does not answer for so long, in seconds, and for so many times as long as the last answer took.
_HANGS_S = 60.0
_HANGS_FACTOR = 10.0
#: How often a question is asked of a process that does not live to answer it.
_TRIES = 3

log = logging.getLogger(__name__)


class RecorderLostError(OSError):
    """The process was killed before it had answered; another one can be asked."""


class Answer:
    """What came of a request: `seconds` it took, and what went wrong or ''."""

    __slots__ = ("error", "seconds")

    def __init__(self, seconds: float, error: str) -> None:
        self.seconds = seconds
        self.error = error


class Recorder:
    """Asks the process; one that is killed is replaced.

    Args:
        server: forks the process.
    """

    def __init__(self, server: ForkServer) -> None:
        self._server = server
        self._path = ""
        self._token = ""
        self._unread = b""
        #: When what was asked for was asked for, by the monotonic clock; None where nothing is.
        self.busy_since: float | None = None
        self._complained = False
        #: How long the last answer took.
        self._usual_s = 0.0
        self._start()

    def _start(self) -> None:
        self._line, theirs = socket.socketpair()
        self._child = self._server.spawn("mpisweep.results.storing:serve", [theirs.fileno()], {})
        theirs.close()

    def restart(self) -> None:
        """Have another process in place of one that was killed."""
        self._line.close()
        self._unread = b""
        self.busy_since = None
        self._start()

    def fileno(self) -> int:
        """For select()."""
        return self._line.fileno()

    @property
    def busy(self) -> bool:
        """Whether something was asked for and not answered."""
        return self.busy_since is not None

    def close(self) -> None:
        """Let the process go; it ends by itself when it has done what it was asked for."""
        self._line.close()

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self._server.kill(self._child)
        self.close()

    # ------------------------------------------------------------------------------------- opening, which waits

    def read(self, path: Path) -> tuple[SweepState | None, list[Damage]]:
        """The tables of a sweep, and what could not be read of its journal; None where there is none.

        Raises:
            ResultsError: when it is something else, or damaged.
            OSError: when the disk fails, or the process was killed.
        """
        answer = self._wait_for({"ask": "read", "path": os.fspath(path)})
        damages = [Damage(*one) for one in answer["damages"]]
        return (None if answer["state"] is None else state_from(answer["state"])), damages

    def finish_journal(self, path: Path, token: Path) -> None:
        """Write all that the journal has into the file; raises as :meth:`read` does."""
        self._wait_for({"ask": "finish", "path": os.fspath(path), "token": os.fspath(token), "since": None})

    def gather(self, path: Path, silence_s: float) -> None:
        """Put the parts of a split sweep together; raises as :meth:`read` does."""
        self._wait_for({"ask": "gather", "path": os.fspath(path), "silence_s": silence_s})

    def _wait_for(self, request: dict[str, object]) -> dict[str, Any]:
        for _ in range(_TRIES):
            text = self._said_to(json.dumps(request).encode() + b"\n")
            if text.endswith(b"\n"):
                break
            self.restart()
        else:
            raise RecorderLostError(_KILLED)
        answer: dict[str, Any] = json.loads(text)
        if answer.get("refused"):
            raise ResultsError(answer["error"])
        if answer["error"]:
            if "errno" in answer:
                raise OSError(answer["errno"], os.strerror(answer["errno"] or 0), answer["filename"])
            raise ResultsError(answer["error"])
        return answer

    def _said_to(self, request: bytes) -> bytes:
        """A line of the process, or less where it was killed."""
        with contextlib.suppress(OSError):
            self._line.sendall(request)
            with self._line.makefile("rb") as lines:
                return lines.readline()
        return b""

    # ------------------------------------------------------------------------------------- running, which does not

    def write(self, path: Path, token: Path) -> None:
        """Name the file that is written from now on, and the token of the master that has it written."""
        self._path, self._token = os.fspath(path), os.fspath(token)
        self._line.setblocking(False)

    def fold(self, keep: str) -> None:
        """Ask for a snapshot; segments before `keep` that it covers are deleted."""
        self._ask({"ask": "fold", "path": self._path, "token": self._token, "keep": keep})

    def finish(self, closing_since: float) -> None:
        """Ask for the last snapshot, which says how long closing took since then; no segment stays."""
        self._ask({"ask": "finish", "path": self._path, "token": self._token, "since": closing_since})

    def leave(self, folders: list[str]) -> None:
        """Ask for the claim to be released, and for these folders to be removed where they are empty."""
        self._ask({"ask": "leave", "token": self._token, "folders": folders})

    def listen(self) -> None:
        """Read what the process has said; to be called when :meth:`fileno` is readable."""
        try:
            received = self._line.recv(4096)
        except BlockingIOError:
            return
        except ConnectionResetError:
            received = b""
        self._unread += received
        if not received:
            self._replace(_KILLED)

    def keep_time(self, now: float) -> None:
        """Replace a process that has not answered for much longer than it did before: it hangs."""
        if self.busy_since is not None and now - self.busy_since > max(_HANGS_S, _HANGS_FACTOR * self._usual_s):
            self._server.kill(self._child)
            self._replace("the process that writes the results file does not answer")

    def _replace(self, error: str) -> None:
        """Start another process; whatever this one was doing, the file is replaced by one rename or not at all."""
        since = self.busy_since
        self.restart()
        self._line.setblocking(False)
        if since is not None:
            self.busy_since = since
            answer = {"seconds": time.monotonic() - since, "error": error}
            self._unread = json.dumps(answer).encode() + b"\n"

    def poll(self) -> Answer | None:
        """What has come of what was asked for, once it is there."""
        if b"\n" not in self._unread:
            return None
        text, _, self._unread = self._unread.partition(b"\n")
        self.busy_since = None
        told = json.loads(text)
        made = Answer(told["seconds"], told["error"])
        if not made.error:
            self._usual_s = made.seconds
        if made.error and not self._complained:
            log.error("%s cannot be replaced (%s); the journal keeps everything until it can", self._path, made.error)
        self._complained = bool(made.error)
        return made

    def _ask(self, request: dict[str, object]) -> None:
        self.busy_since = time.monotonic()
        # One that has just died is replaced when its line is seen to be closed.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._line.send(json.dumps(request).encode() + b"\n")
