"""The master's handle on the process that gets it more of a sweep that several allocations share.

Like :mod:`mpisweep.master.snapshotter` it asks and never waits; what comes is turned into the scheduler's events.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpisweep.messages import NothingToLease, StopRequested, TrialsGranted, TrialsRevoked
from mpisweep.processes.forkserver import ForkServer
from mpisweep.records import EndReason

__all__ = ["Keeper", "Left", "Over"]

#: A process hangs that does not answer for so long, in seconds; the last one to leave writes the whole file before.
_HANGS_S = 600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Left:
    """The member has left; with exit code 3 while something of the sweep is to be done, by `who` at the moment."""

    exit_code: int
    who: str


@dataclass(frozen=True, slots=True)
class Over:
    """The sweep was ended by others, without this member, which they had given up."""

    exit_code: int


Told = TrialsGranted | TrialsRevoked | NothingToLease | StopRequested | Left | Over


class Keeper:
    """Asks for trials and never waits for them.  A process that is killed is replaced.

    Args:
        server: forks the process.
        path: of the HDF5 file of the whole sweep.
        member: name of this run.
        job_id: of the batch system.
        silence_s: another member that is silent for so long is dead.
    """

    def __init__(self, server: ForkServer, path: Path, *, member: str, job_id: str, silence_s: float) -> None:
        self._server = server
        self._arguments: dict[str, Any] = {
            "path": os.fspath(path), "member": member, "job_id": job_id, "silence_s": silence_s,
        }  # fmt: skip
        #: The question that has no answer yet.
        self._asked: dict[str, Any] | None = None
        self._asked_at = 0.0
        self._unread = b""
        self._error = ""
        #: How many ranks the trials need that were seen to be left to others.
        self._wide = 0
        self._start()

    def _start(self) -> None:
        self._line, theirs = socket.socketpair()
        self._child = self._server.spawn("mpisweep.results.keeping:serve", [theirs.fileno()], self._arguments)
        theirs.close()
        self._line.setblocking(False)

    def fileno(self) -> int:
        """For select(); readable when there is something to :meth:`hear`."""
        return self._line.fileno()

    def close(self) -> None:
        """Let the process go."""
        self._line.close()

    def lease(self, shortest: bool, ranks: int | None) -> None:
        """Ask for more trials, the longest ones or the shortest ones; answered by a grant or by NothingToLease.

        Args:
            shortest: whether to begin with the shortest ones.
            ranks: how many ranks each may need; None for any number.
        """
        self._ask({"ask": "lease", "shortest": shortest, "ranks": ranks})

    def leave(self) -> None:
        """The part is written: end this membership; answered by Left or Over."""
        self._ask({"ask": "leave"})

    def hear(self) -> Iterator[Told]:
        """What the process has told; to be called when :meth:`fileno` is readable."""
        try:
            received = self._line.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionResetError:
            received = b""
        if not received:
            self._replace()
            return
        *lines, self._unread = (self._unread + received).split(b"\n")
        for line in lines:
            yield from self._understand(json.loads(line))

    def keep_time(self, now: float) -> None:
        """Replace a process that hangs."""
        if self._asked is not None and now - self._asked_at > _HANGS_S:
            self._server.kill(self._child)
            self._replace()

    def _replace(self) -> None:
        """Start another process, and ask it what this one has not answered."""
        self._line.close()
        self._unread = b""
        self._start()
        if self._asked is not None:
            self._ask(self._asked)

    def _understand(self, told: dict[str, Any]) -> Iterator[Told]:
        match told:
            case {"granted": [numbers, attempts, losses]}:
                self._asked = None
                yield TrialsGranted(tuple(numbers), tuple(attempts), tuple(losses))
            case {"nothing": _, "sure": sure}:
                self._complain(told.get("error", ""))
                if told.get("wide", 0) > self._wide:
                    self._wide = told["wide"]
                    log.warning("trials that need up to %d ranks are left to members with so many workers", self._wide)
                if self._asked is None or self._asked["ask"] == "lease":
                    self._asked = None
                    yield NothingToLease(sure)
            case {"revoked": numbers}:
                log.warning(
                    "this member was silent and was given up: %d of its trials were given to others", len(numbers)
                )
                yield TrialsRevoked(tuple(numbers))
            case {"stop": _}:
                yield StopRequested(EndReason.REQUEST)
            case {"over": code}:
                self._asked = None
                yield Over(code)
            case {"left": code, "who": who}:
                self._complain(told.get("error", ""))
                self._asked = None
                yield Left(code, who)

    def _complain(self, error: str) -> None:
        if error and error != self._error:
            log.error("the files that the members share cannot be used: %s", error)
        self._error = error

    def _ask(self, request: dict[str, Any]) -> None:
        self._asked = request
        self._asked_at = time.monotonic()
        # One that has just died is replaced when its line is seen to be closed.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._line.send(json.dumps(request).encode() + b"\n")
