"""Two runs never write one sweep: the first claims it, the second is refused or takes over from the dead.

The claim is a small file in the journal folder, made exclusively.  Its holder is dead when, on the same host,
the machine has been restarted since, or its process is gone or is another one that got its number.  From
another host nothing of that can be seen; there the holder's heartbeat decides: the file's time changes every
few seconds, and a second run that has watched it stand still for :data:`STALE_S` takes over.  It watches for
change and does not compare clocks, for those of two hosts differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from mpisweep.processes import process_start

__all__ = ["STALE_S", "Claim", "ClaimedError", "Holder", "claim_file", "holder_of", "is_surely_gone"]

#: How often a holder gives a sign of life, and how long none must come, in seconds.
BEAT_S = 5.0
STALE_S = 30.0


class ClaimedError(Exception):
    """Another run holds the sweep; the message is one sentence that names it, :attr:`holder` is who it is."""

    def __init__(self, message: str, holder: Holder) -> None:
        super().__init__(message)
        self.holder = holder


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a sweep."""

    host: str
    boot_id: str
    pid: int
    #: Start of the process in clock ticks since boot: tells it from a later one with the same number.
    process_start: int
    job_id: str
    since: float
    #: What it does with the sweep, where that is over in a moment; empty for a run.
    purpose: str = ""

    @property
    def is_running(self) -> bool:
        """Whether its process is there, for a holder of this host."""
        return self.boot_id == _boot_id() and process_start(self.pid) == self.process_start

    def text(self) -> str:
        """For messages."""
        when = datetime.fromtimestamp(self.since).strftime("%Y-%m-%d %H:%M:%S")
        job = f", job {self.job_id}" if self.job_id else ""
        return f"process {self.pid} on {self.host}{job}, since {when}"


def claim_file(folder: Path) -> Path:
    """The claim of the sweep whose journal lies in `folder`."""
    return folder / "claim.json"


class Claim:
    """A claim that this process holds.

    Args:
        path: of the claim's file.
        me: who holds it.
    """

    def __init__(self, path: Path, me: Holder) -> None:
        self._path = path
        self._me = me
        self._next_beat = 0.0
        #: How often it gives a sign of life, in seconds.
        self.every_s = BEAT_S

    @classmethod
    def take(cls, folder: Path, job_id: str, purpose: str = "") -> Claim:
        """Claim the sweep whose journal lies in `folder`, which must exist.

        Raises:
            ClaimedError: when a run that is alive holds it.
        """
        path = claim_file(folder)
        me = _myself(job_id, purpose)
        aside = folder / f"claim.{me.host}-{me.pid}"
        aside.write_text(json.dumps(asdict(me)), encoding="utf-8")
        try:
            while True:
                try:
                    # Linking is atomic on every file system, NFS included.
                    os.link(aside, path)
                    return cls(path, me)
                except FileExistsError:
                    _remove_if_dead(path, me)
        finally:
            aside.unlink(missing_ok=True)

    @classmethod
    def inherit(cls, folder: Path, job_id: str) -> Claim:
        """Take the claim over from a master of the same run, which may hang and be alive."""
        path = claim_file(folder)
        me = _myself(job_id)
        aside = folder / f"claim.{me.host}-{me.pid}"
        aside.write_text(json.dumps(asdict(me)), encoding="utf-8")
        os.replace(aside, path)
        return cls(path, me)

    def beat(self, now: float) -> None:
        """Give a sign of life when one is due; `now` is the monotonic clock."""
        if now >= self._next_beat:
            self._next_beat = now + self.every_s
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def release(self) -> None:
        """Let others have the sweep, unless they have taken it over."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            if _holder_in(self._path) == self._me:
                self._path.unlink()


def holder_of(folder: Path) -> Holder | None:
    """Who holds the sweep whose journal lies in `folder`; None when nobody does who is alive.

    From another host it takes up to :data:`STALE_S` to see that a holder has died.
    """
    path = claim_file(folder)
    try:
        before = path.stat().st_mtime_ns
        holder = _holder_in(path)
    except (OSError, ValueError, TypeError):
        return None
    return None if _is_dead(holder, _myself(""), path, before) else holder


def is_surely_gone(folder: Path) -> bool:
    """Whether nobody holds the sweep whose journal lies in `folder`, as far as can be seen without waiting."""
    try:
        holder = _holder_in(claim_file(folder))
    except FileNotFoundError:
        return True
    except (OSError, ValueError, TypeError):
        return False
    return holder.host == socket.gethostname() and not holder.is_running


def _holder_in(path: Path) -> Holder:
    return Holder(**json.loads(path.read_text(encoding="utf-8")))


def _remove_if_dead(path: Path, me: Holder) -> None:
    try:
        before = path.stat()
        holder = _holder_in(path)
    except FileNotFoundError:
        return
    except (ValueError, TypeError):
        path.unlink(missing_ok=True)
        return
    if _is_dead(holder, me, path, before.st_mtime_ns):
        # Moved, not deleted: of two that take over at once only one can move it.
        grave = path.with_name(f"claim.dead-{me.host}-{me.pid}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, grave)
            moved = grave.stat()
            if (moved.st_ino, moved.st_mtime_ns) != (before.st_ino, before.st_mtime_ns):
                # The other one was faster, and this is its claim.
                with contextlib.suppress(FileExistsError):
                    os.link(grave, path)
        grave.unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        # It may have been followed while it was watched.
        holder = _holder_in(path)
    raise ClaimedError(
        f"{path.parent.name.removesuffix('.journal')}: another run is writing it: {holder.text()}", holder
    )


def _is_dead(holder: Holder, me: Holder, path: Path, before: int) -> bool:
    if holder.host == me.host:
        return not holder.is_running
    until = time.monotonic() + STALE_S
    while True:
        try:
            if path.stat().st_mtime_ns != before:
                return False
        except FileNotFoundError:
            # It has let go.
            return True
        if time.monotonic() >= until:
            return True
        time.sleep(min(1.0, STALE_S / 10))


def _myself(job_id: str, purpose: str = "") -> Holder:
    pid = os.getpid()
    return Holder(socket.gethostname(), _boot_id(), pid, process_start(pid), job_id, time.time(), purpose)


def _boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
