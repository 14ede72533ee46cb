"""The master's handle on the process that gets it more of a sweep that several allocations share.

Like :mod:`mpisweep.master.snapshotter` it asks and never waits; what comes is turned into the scheduler's
events.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpisweep.processes.forkserver import ForkServer
from mpisweep.processes.side_process import SideProcess
from mpisweep.records import EndReason
from mpisweep.scheduling.events import NothingToLease, StopRequested, TrialsGranted, TrialsRevoked

__all__ = ["EndedByOthers", "LeaseClient", "MemberLeft"]

#: A process hangs that does not answer for so long, in seconds; the last one to leave writes the whole file
#: before.
_HANGS_S = 600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """The member has left; with exit code 3 while something of the sweep is to be done, by `who` at the
    moment.
    """

    exit_code: int
    who: str


@dataclass(frozen=True, slots=True)
class EndedByOthers:
    """The sweep was ended by others, without this member, which they had given up."""

    exit_code: int


Told = TrialsGranted | TrialsRevoked | NothingToLease | StopRequested | MemberLeft | EndedByOthers


class LeaseClient:
    """Asks for trials and never waits for them.  A process that is killed is replaced.

    Args:
        server: forks the process.
        path: of the HDF5 file of the whole sweep.
        member: name of this run.
        job_id: of the batch system.
        silence_s: another member that is silent for so long is dead.
    """

    def __init__(self, server: ForkServer, path: Path, *, member: str, job_id: str, silence_s: float) -> None:
        arguments = {"path": os.fspath(path), "member": member, "job_id": job_id, "silence_s": silence_s}
        self._process = SideProcess(
            server,
            "the process that keeps leases",
            "mpisweep.results.shares.lease_agent:serve_leases",
            arguments,
        )
        self._error = ""
        #: How many ranks the trials need that were seen to be left to others.
        self._wide = 0

    def fileno(self) -> int:
        """For select(); readable when there is something to :meth:`hear`."""
        return self._process.fileno()

    def close(self) -> None:
        """Let the process go."""
        self._process.close()

    def lease(self, shortest: bool, ranks: int | None) -> None:
        """Ask for more trials, the longest ones or the shortest ones; answered by a grant or by
        NothingToLease.

        Args:
            shortest: whether to begin with the shortest ones.
            ranks: how many ranks each may need; None for any number.
        """
        self._process.ask({"ask": "lease", "shortest": shortest, "ranks": ranks})

    def leave(self) -> None:
        """The part is written: end this membership; answered by MemberLeft or EndedByOthers."""
        self._process.ask({"ask": "leave"})

    def hear(self) -> Iterator[Told]:
        """What the process has told; to be called when :meth:`fileno` is readable."""
        told = self._process.receive()
        if told is None:
            self._replace()
            return
        for one in told:
            yield from self._understand(one)

    def keep_time(self, now: float) -> None:
        """Replace a process that hangs."""
        if self._process.hangs(now, _HANGS_S):
            self._replace()

    def _replace(self) -> None:
        """Start another process, and ask it what this one has not answered."""
        self._process.replace()
        if self._process.asked is not None:
            self._process.ask(self._process.asked)

    def _understand(self, told: dict[str, Any]) -> Iterator[Told]:
        match told:
            case {"granted": [numbers, attempts, losses]}:
                self._process.done()
                yield TrialsGranted(tuple(numbers), tuple(attempts), tuple(losses))
            case {"nothing": _, "sure": sure}:
                self._complain(told.get("error", ""))
                if told.get("wide", 0) > self._wide:
                    self._wide = told["wide"]
                    log.warning(
                        "trials that need up to %d ranks are left to members with so many workers", self._wide
                    )
                asked = self._process.asked
                if asked is None or asked["ask"] == "lease":
                    self._process.done()
                    yield NothingToLease(sure)
            case {"revoked": numbers}:
                log.warning(
                    "this member was silent and was given up: %d of its trials were given to others",
                    len(numbers),
                )
                yield TrialsRevoked(tuple(numbers))
            case {"stop": _}:
                yield StopRequested(EndReason.REQUEST)
            case {"over": code}:
                self._process.done()
                yield EndedByOthers(code)
            case {"left": code, "who": who}:
                self._complain(told.get("error", ""))
                self._process.done()
                yield MemberLeft(code, who)

    def _complain(self, error: str) -> None:
        if error and error != self._error:
            log.error("the files that the members share cannot be used: %s", error)
        self._error = error
