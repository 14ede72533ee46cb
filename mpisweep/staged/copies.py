"""The copies of one node: found again, shared by runs, removed.

A copy is a folder with these in it::

    lock       locked by every process that uses the copy
    manifest   what the copy has, see mpisweep.staged.manifest
    data/      the copy
    keep       exists if the copy outlives the runs that use it

Each rank of the node holds a shared lock (``flock``) on ``lock``, which the kernel releases however the
process ends.  A process that gets it exclusively knows that no other uses the copy, and may change it.
So the last rank that leaves removes the copy, and a later run removes those that nobody could.

A copy that another run is writing, or uses while its source has changed, is left alone; this run makes one of
its own under another name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from mpisweep.staged.manifest import Found, Identity, read_manifest
from mpisweep.staged.source import StageError

__all__ = ["Copy", "make_room", "remove_after_death", "remove_if_unused"]

#: Names that are tried for a copy.
_NAMES = 16
#: How long a dying process may keep its locks, and the pause between two tries, in seconds.
_UNLOCKED_S = 3.0
_PAUSE_S = 0.02


class Copy:
    """A copy that this process uses, because it holds its lock.

    Attributes:
        folder: holds the copy.
        entries: number of its first entries that are complete.
        size_bytes: their size.
        is_complete: whether it has everything.
        offset: size of the valid part of its manifest, in bytes.
    """

    def __init__(self, folder: Path, lock: int, identity: Identity, found: Found) -> None:
        self.folder = folder
        self.entries = found.entries
        self.size_bytes = found.size_bytes
        self.is_complete = found.is_complete
        self.offset = found.offset
        self.identity = identity
        self._lock = lock

    @property
    def data(self) -> Path:
        """The root of the copied data."""
        return self.folder / "data"

    @classmethod
    def claim(cls, place: Path, identity: Identity) -> Copy:
        """Use the copy of this source in `place`; become its only user if it is not complete.

        Raises:
            StageError: when `place` cannot be written.
        """
        for number in range(_NAMES):
            folder = place / (identity.name + (f".{number}" if number else ""))
            with _reported(folder), contextlib.ExitStack() as opened:
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
                lock = _locked(folder)
                if lock is None:
                    continue
                opened.callback(os.close, lock)
                found = read_manifest(folder, identity)
                if not found.is_complete:
                    if not _lock(lock, fcntl.LOCK_EX, folder):
                        continue
                    # Another process may have completed it since.
                    found = read_manifest(folder, identity)
                    if found.entries == 0 and not found.is_complete:
                        _remove_content(folder)
                        found = Found()
                    (folder / "data").mkdir(mode=0o700, exist_ok=True)
                opened.pop_all()
                return cls(folder, lock, identity, found)
        raise StageError(f"{place}: other runs use {_NAMES} copies of this data; wait for their end")

    @classmethod
    def join(cls, folder: Path, identity: Identity) -> Copy:
        """Use a copy that another process of this run has made.

        Raises:
            StageError: when it is gone.
        """
        with _reported(folder):
            lock = _locked(folder)
        if lock is None:
            raise StageError(f"{folder}: the copy of the data is gone")
        return cls(folder, lock, identity, Found(is_complete=True))

    def share(self) -> None:
        """Let others use the copy, once it is complete.

        Raises:
            StageError: when another process took it away in this moment.
        """
        with _reported(self.folder):
            is_shared = _lock(self._lock, fcntl.LOCK_SH, self.folder)
        if not is_shared:
            raise StageError(f"{self.folder}: another run removed the copy of the data; run the same command")

    def keep(self) -> None:
        """Mark a complete copy as one that outlives its users."""
        with contextlib.suppress(OSError):
            (self.folder / "keep").touch()

    def leave(self, *, keeps: bool = False) -> None:
        """Stop using it, and remove it if no other process uses it and it is not to be kept."""
        with contextlib.suppress(OSError):
            if not keeps and _lock(self._lock, fcntl.LOCK_EX, self.folder):
                _remove(self.folder)
        os.close(self._lock)


def make_room(place: Path, identity: Identity) -> tuple[int, list[Path]]:
    """Remove copies of this user on this node that no process uses.

    Those of other sources stay if they are kept for a later run; so does what there is of this one.

    Returns:
        The size of what there is of this one, and the folders that were removed.
    """
    held, removed = 0, []
    for folder in sorted(place.glob(f"{_escaped(identity.own)}*")):
        if folder.name == identity.name and _is_own(folder):
            found = read_manifest(folder, identity, looks=False)
            if found.offset:
                held = found.size_bytes
                continue
        is_same = folder.name.partition(".")[0] == identity.name.partition(".")[0]
        if (is_same or not (folder / "keep").exists()) and remove_if_unused(folder):
            removed.append(folder)
    return held, removed


def remove_after_death(folder: str) -> None:
    """Remove the copy of a rank that has died, unless other ranks of its node use it.

    A dying process keeps its locks until its last thread has ended, which may be after the kernel has
    reported its death.
    """
    until = time.monotonic() + _UNLOCKED_S
    while not remove_if_unused(Path(folder)) and time.monotonic() < until:
        time.sleep(_PAUSE_S)


def remove_if_unused(folder: Path) -> bool:
    """Remove a copy if it is this user's and no process uses it; True if it is gone now."""
    try:
        if not _is_own(folder):
            return False
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return not folder.exists()
    with contextlib.suppress(OSError):
        if _lock(lock, fcntl.LOCK_EX, folder):
            _remove(folder)
    os.close(lock)
    return not folder.exists()


# ------------------------------------------------------------------------------------- locks and folders


def _is_own(folder: Path) -> bool:
    """Whether it is a folder that this user has made for nobody else: places are open to all users."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


@contextlib.contextmanager
def _reported(folder: Path) -> Iterator[None]:
    """Report a place that cannot hold a copy, or has no locks, in one sentence."""
    try:
        yield
    except OSError as error:
        raise StageError(
            f"{folder}: cannot hold a copy: {error.strerror}; set --stage-to to another folder"
        ) from error


def _locked(folder: Path) -> int | None:
    """Lock the folder as one of its users; None if it is gone, not this user's, or about to be removed."""
    if not _is_own(folder):
        return None
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        return None
    with contextlib.ExitStack() as opened:
        opened.callback(os.close, lock)
        # The process that removes it holds the lock until nothing is left.
        if not _lock(lock, fcntl.LOCK_SH, folder):
            return None
        opened.pop_all()
        return lock


def _lock(lock: int, kind: int, folder: Path) -> bool:
    """Take the lock or change its kind; False if others hold it, or have removed the copy.

    The kernel releases a lock before it changes its kind, so another process can get it in between.

    Raises:
        OSError: when the file system has no locks.
    """
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
        there = (folder / "lock").lstat()
    except (BlockingIOError, FileNotFoundError):
        return False
    return os.path.samestat(os.fstat(lock), there)


def _remove_content(folder: Path) -> None:
    """Remove everything but the lock; the manifest first, so that it never promises too much."""
    for name in ("manifest", "keep"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "data", ignore_errors=True)


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        _remove_content(folder)
        (folder / "lock").unlink(missing_ok=True)
        folder.rmdir()


def _escaped(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)
