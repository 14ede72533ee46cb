"""The holder of a sweep, and whether it is alive.

A holder on this machine is dead if its process is gone or its number belongs to another process (compared by
boot id and start time, see :func:`~mpisweep.processes.kernel.machine_id`).  For a holder on another machine
the heartbeat decides: the holder updates the claim's mtime every few seconds, and a second run that sees it
unchanged for :data:`STALE_S` takes over.  It watches for a change and does not compare clocks, because the
clocks of two hosts differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from datetime import datetime
from pathlib import Path

from mpisweep.dataclass import dataclass
from mpisweep.processes.kernel import machine_id, process_start, this_host

__all__ = [
    "CLAIM",
    "STALE_S",
    "ClaimedError",
    "Holder",
    "claim_file",
    "holder_of",
    "is_gone_here",
    "is_surely_gone",
    "judged_dead",
    "this_process",
]

#: A claim whose mtime has not changed for this long is stale, in seconds; holders update it far more often.
STALE_S = 30.0
#: How long to wait for a successor of a dead holder while its parent process lives, in seconds: another
#: master of its run may be about to take over.
SUCCESSION_S = 3.0
#: How often a claim is polled, in seconds.
_POLL_S = 1.0
CLAIM = "claim.json"


class ClaimedError(Exception):
    """Another run holds the sweep; the message is one sentence, :attr:`holder` says which run."""

    def __init__(self, message: str, holder: Holder) -> None:
        super().__init__(message)
        self.holder = holder


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a sweep."""

    host: str
    #: See :func:`~mpisweep.processes.kernel.machine_id`.
    boot_id: str
    pid: int
    #: Start of the process in clock ticks since boot; tells it from a later one with the same number.
    process_start: int
    job_id: str
    since: float
    #: What a short operation does with the sweep; empty for a run.
    purpose: str = ""
    #: Name of the run.
    run: str = ""
    #: The process that started it, which may start or hold others of the run.
    parent: int = 0
    parent_start: int = 0

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine, so that its process can be checked."""
        return self.host == this_host() and self.boot_id == machine_id()

    @property
    def is_running(self) -> bool:
        """Whether it is on this machine and its process exists."""
        return self.is_here and process_start(self.pid) == self.process_start

    @property
    def has_parent(self) -> bool:
        """Whether it is on this machine and its parent process exists."""
        return self.is_here and self.parent > 1 and process_start(self.parent) == self.parent_start

    def text(self) -> str:
        """The text for messages."""
        when = datetime.fromtimestamp(self.since).strftime("%Y-%m-%d %H:%M:%S")
        job = f", job {self.job_id}" if self.job_id else ""
        return f"process {self.pid} on {self.host}{job}, since {when}"


def claim_file(folder: Path) -> Path:
    """The path of the claim on the sweep whose journal is in `folder`."""
    return folder / CLAIM


def holder_of(folder: Path) -> Holder | None:
    """The live holder of the sweep whose journal is in `folder`; None if there is none.

    If the holder is on another machine, it takes up to :data:`STALE_S` to detect that it died.
    """
    path = claim_file(folder)
    try:
        before = path.stat()
        holder = _holder_in(path)
    except (OSError, ValueError, TypeError):
        return None
    return None if _is_dead(holder, path, before.st_mtime_ns) else holder


def is_surely_gone(folder: Path) -> bool:
    """Whether the sweep whose journal is in `folder` certainly has no holder; does not wait."""
    try:
        holder = _holder_in(claim_file(folder))
    except FileNotFoundError:
        return True
    except (OSError, ValueError, TypeError):
        return False
    return is_gone_here(holder)


def is_gone_here(holder: Holder) -> bool:
    """Whether a holder is on this machine and its process is gone."""
    return holder.is_here and not holder.is_running


def judged_dead(folder: Path) -> os.stat_result | None:
    """The stat of the current claim if its holder is dead; None if there is no claim.

    Raises:
        ClaimedError: when its holder is alive.
    """
    path = claim_file(folder)
    try:
        before = path.stat()
        holder = _holder_in(path)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        # The write of the claim was cut off.
        return before
    if _is_dead(holder, path, before.st_mtime_ns):
        return before
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        # A successor may have replaced it in the meantime.
        holder = _holder_in(path)
    raise ClaimedError(
        f"{folder.name.removesuffix('.journal')}: another run is writing it: {holder.text()}", holder
    )


def this_process(job_id: str, run: str, purpose: str) -> Holder:
    """Describe this process as a holder."""
    pid, parent = os.getpid(), os.getppid()
    return Holder(
        this_host(), machine_id(), pid, process_start(pid), job_id, time.time(), purpose, run, parent,
        process_start(parent),
    )  # fmt: skip


def _holder_in(path: Path) -> Holder:
    return Holder(**json.loads(path.read_text(encoding="utf-8")))


def _is_dead(holder: Holder, path: Path, before: int) -> bool:
    if holder.is_here:
        if holder.is_running:
            return False
        # A parent of both would not have started this process beside a live run.
        may_be_followed = holder.has_parent and holder.parent != os.getppid()
        return not may_be_followed or _is_stale(path, before, SUCCESSION_S, holder)
    return _is_stale(path, before, STALE_S)


def _is_stale(path: Path, before: int, seconds: float, holder: Holder | None = None) -> bool:
    """Whether a claim stays unchanged for `seconds`, is released, or its holder's parent exits."""
    until = time.monotonic() + seconds
    while True:
        try:
            if path.stat().st_mtime_ns != before:
                return False
        except FileNotFoundError:
            # The holder released it.
            return True
        if time.monotonic() >= until or (holder is not None and not holder.has_parent):
            return True
        time.sleep(min(_POLL_S, seconds / 10))
