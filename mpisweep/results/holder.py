"""Who holds a sweep, and whether it is alive.

A holder is dead when it is of this machine (boot and process numbers, see
:func:`~mpisweep.processes.kernel.machine_id`) and its process is gone or is another one that got its number.
Of any other machine nothing of that can be seen; there the heartbeat decides: the time of the claim changes
every few seconds, and a second run that has watched it stand still for :data:`STALE_S` takes over.  It
watches for change and does not compare clocks, for those of two hosts differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

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
    "myself",
]

#: A claim whose time has not changed for so long is nobody's, in seconds; holders change it many times as
#: often.
STALE_S = 30.0
#: How long a holder whose process is gone is waited for while the process that has started it lives: another
#: master of its run may be about to take over, in seconds.
SUCCESSION_S = 3.0
#: How often a claim is looked at, in seconds.
_LOOK_S = 1.0
CLAIM = "claim.json"


class ClaimedError(Exception):
    """Another run holds the sweep; the message is one sentence that names it, :attr:`holder` is who it is."""

    def __init__(self, message: str, holder: Holder) -> None:
        super().__init__(message)
        self.holder = holder


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a sweep."""

    host: str
    #: See :func:`~mpisweep.processes.kernel.machine_id`.
    boot_id: str
    pid: int
    #: Start of the process in clock ticks since boot: tells it from a later one with the same number.
    process_start: int
    job_id: str
    since: float
    #: What it does with the sweep, where that is over in a moment; empty for a run.
    purpose: str = ""
    #: Name of the run.
    run: str = ""
    #: The process that has started this one, which may start or hold others of the run.
    parent: int = 0
    parent_start: int = 0

    @property
    def is_here(self) -> bool:
        """Whether it is of this machine, so that its process can be looked for."""
        return self.host == this_host() and self.boot_id == machine_id()

    @property
    def is_running(self) -> bool:
        """Whether its process is there, for a holder of this machine."""
        return self.is_here and process_start(self.pid) == self.process_start

    @property
    def has_parent(self) -> bool:
        """Whether the process that has started it is there, for a holder of this machine."""
        return self.is_here and self.parent > 1 and process_start(self.parent) == self.parent_start

    def text(self) -> str:
        """For messages."""
        when = datetime.fromtimestamp(self.since).strftime("%Y-%m-%d %H:%M:%S")
        job = f", job {self.job_id}" if self.job_id else ""
        return f"process {self.pid} on {self.host}{job}, since {when}"


def claim_file(folder: Path) -> Path:
    """The claim of the sweep whose journal lies in `folder`."""
    return folder / CLAIM


def holder_of(folder: Path) -> Holder | None:
    """Who holds the sweep whose journal lies in `folder`; None when nobody does who is alive.

    For a holder of another machine it takes up to :data:`STALE_S` to see that it has died.
    """
    path = claim_file(folder)
    try:
        before = path.stat()
        holder = _holder_in(path)
    except (OSError, ValueError, TypeError):
        return None
    return None if _is_dead(holder, path, before.st_mtime_ns) else holder


def is_surely_gone(folder: Path) -> bool:
    """Whether nobody holds the sweep whose journal lies in `folder`, as far as is seen without waiting."""
    try:
        holder = _holder_in(claim_file(folder))
    except FileNotFoundError:
        return True
    except (OSError, ValueError, TypeError):
        return False
    return is_gone_here(holder)


def is_gone_here(holder: Holder) -> bool:
    """Whether a holder is of this machine, and its process is gone."""
    return holder.is_here and not holder.is_running


def judged_dead(folder: Path) -> os.stat_result | None:
    """The claim that there is, whose holder is dead; None where there is none.

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
        # Cut off while it was written.
        return before
    if _is_dead(holder, path, before.st_mtime_ns):
        return before
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        # It may have been followed while it was watched.
        holder = _holder_in(path)
    raise ClaimedError(
        f"{folder.name.removesuffix('.journal')}: another run is writing it: {holder.text()}", holder
    )


def myself(job_id: str, run: str, purpose: str) -> Holder:
    """A holder that is this process."""
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
        # What started it and this process as well would not have started this one beside it.
        may_be_followed = holder.has_parent and holder.parent != os.getppid()
        return not may_be_followed or _stands_still(path, before, SUCCESSION_S, holder)
    return _stands_still(path, before, STALE_S)


def _stands_still(path: Path, before: int, seconds: float, holder: Holder | None = None) -> bool:
    """Whether a claim does not change for so long, or its holder lets go, or leaves no parent behind."""
    until = time.monotonic() + seconds
    while True:
        try:
            if path.stat().st_mtime_ns != before:
                return False
        except FileNotFoundError:
            # It has let go.
            return True
        if time.monotonic() >= until or (holder is not None and not holder.has_parent):
            return True
        time.sleep(min(_LOOK_S, seconds / 10))
