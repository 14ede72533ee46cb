"""The master's client of the side process that leases trials of a shared sweep.

Like :mod:`mpisweep.master.snapshotter` it asks and never waits; it turns answers into the scheduler's events.
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

#: A process that does not answer for this long hangs, in seconds; the last member to leave first writes the
#: whole file.
_HANGS_S = 600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """The membership has ended; exit code 3 if trials are left, which `who` is running."""

    exit_code: int
    who: str


@dataclass(frozen=True, slots=True)
class EndedByOthers:
    """Other members ended the sweep after they had declared this one dead."""

    exit_code: int


LeaseEvent = TrialsGranted | TrialsRevoked | NothingToLease | StopRequested | MemberLeft | EndedByOthers


class LeaseClient:
    """Asks for trials and never waits for them; replaces a process that was killed.

    Args:
        server: forks the process.
        path: the HDF5 file of the whole sweep.
        member: name of this run.
        job_id: job id of the batch system.
        silence_s: a member that is silent for this long is declared dead.
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
        #: Maximum number of ranks of the trials left to other members that was logged.
        self._wide = 0

    def fileno(self) -> int:
        """For select(); readable when :meth:`hear` has something to read."""
        return self._process.fileno()

    def close(self) -> None:
        """Close the connection to the process, which then exits."""
        self._process.close()

    def lease(self, shortest: bool, ranks: int | None) -> None:
        """Ask for more trials; answered by TrialsGranted or NothingToLease.

        Args:
            shortest: whether to lease the shortest trials, not the longest.
            ranks: maximum number of ranks per trial; None for no limit.
        """
        self._process.ask({"ask": "lease", "shortest": shortest, "ranks": ranks})

    def leave(self) -> None:
        """End this membership after the part is written; answered by MemberLeft or EndedByOthers."""
        self._process.ask({"ask": "leave"})

    def hear(self) -> Iterator[LeaseEvent]:
        """Read the events from the process; call it when :meth:`fileno` is readable."""
        answers = self._process.receive()
        if answers is None:
            self._replace()
            return
        for answer in answers:
            yield from self._events(answer)

    def keep_time(self, now: float) -> None:
        """Replace a process that hangs."""
        if self._process.hangs(now, _HANGS_S):
            self._replace()

    def _replace(self) -> None:
        """Start another process, and repeat the unanswered request."""
        self._process.replace()
        if self._process.asked is not None:
            self._process.ask(self._process.asked)

    def _events(self, answer: dict[str, Any]) -> Iterator[LeaseEvent]:
        match answer:
            case {"granted": [numbers, attempts, losses]}:
                self._process.done()
                yield TrialsGranted(tuple(numbers), tuple(attempts), tuple(losses))
            case {"nothing": _, "sure": sure}:
                self._log_error(answer.get("error", ""))
                if answer.get("wide", 0) > self._wide:
                    self._wide = answer["wide"]
                    log.warning(
                        "trials with up to %d ranks are left to members with more workers", self._wide
                    )
                asked = self._process.asked
                if asked is None or asked["ask"] == "lease":
                    self._process.done()
                    yield NothingToLease(sure)
            case {"revoked": numbers}:
                log.warning(
                    "this member was silent and was declared dead: others took over %d of its trials",
                    len(numbers),
                )
                yield TrialsRevoked(tuple(numbers))
            case {"stop": _}:
                yield StopRequested(EndReason.REQUEST)
            case {"rule": why}:
                yield StopRequested(EndReason(why))
            case {"over": code}:
                self._process.done()
                yield EndedByOthers(code)
            case {"left": code, "who": who}:
                self._log_error(answer.get("error", ""))
                self._process.done()
                yield MemberLeft(code, who)

    def _log_error(self, error: str) -> None:
        if error and error != self._error:
            log.error("the files that the members share cannot be used: %s", error)
        self._error = error
