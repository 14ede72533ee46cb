"""The writer of a journal.

A thread writes; :meth:`Journal.append` only queues.  Records that arrive during one fsync are written with
the next one (group commit).  After a failed write or fsync no unsynced byte can be trusted, and a repeated
fsync may report false success; so the writer abandons the segment and rewrites all unsynced records to a new
one.

A new segment is created in the master's token and linked into the journal's folder.  Therefore a fenced
master (:mod:`mpisweep.results.claim`) cannot create segments, and its successor's opening record states how
much of its last segment counts.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from pathlib import Path

from mpisweep.blocks import RunRecord, encode
from mpisweep.results.journal.segments import RECORD_BYTES, frame, master_name, require_place
from mpisweep.results.syncing import sync

__all__ = ["Journal"]

#: Size at which a segment is followed by a new part, so that covered ones can be deleted.
_PART_BYTES = 8 << 20
#: Approximate size of one write and fsync, however large the backlog; it bounds the size of a part and the
#: memory for the copy that is written.
_COMMIT_BYTES = 8 << 20
#: First and longest pause after a failure, in seconds.
_RETRY_FIRST_S = 0.2
_RETRY_AT_MOST_S = 10.0


class Journal:
    """The writer of one run.

    Args:
        folder: of the journal; it must exist.
        opening: the first record of every segment; it names run and epoch.
        token: the master's folder, in which segments are created.

    Attributes:
        is_deleted: whether all files of the sweep were deleted while it ran.
    """

    def __init__(self, folder: Path, opening: RunRecord, token: Path) -> None:
        self._folder = folder
        self._opening = opening
        self._token = token
        self._part = 0
        self._file: int | None = None
        self._file_bytes = 0
        self._queue: deque[bytes] = deque()
        #: Number of bodies queued, written and synced.
        self._appended = 0
        self._written = 0
        self._synced = 0
        self._failure: OSError | None = None
        self.is_deleted = False
        #: When the thread began to wait for the disk, by the monotonic clock; None if it is not waiting.
        self._waits_since: float | None = None
        self._work = threading.Event()
        self._closing = False
        self._abandoned = False
        self._ours, self._theirs = os.pipe()
        for end in (self._ours, self._theirs):
            os.set_blocking(end, False)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Create the first segment, sync the name of its folder, and start the thread.

        Raises:
            OSError: when the segment cannot be created.
        """
        self._open_part()
        sync(self._folder.parent)
        self._thread.start()

    def append(self, body: bytes) -> int:
        """Queue one encoded record and return its token; never waits for the disk.

        Raises:
            ValueError: for a body of more than :data:`RECORD_BYTES`, which readers refuse.
        """
        if len(body) > RECORD_BYTES:
            raise ValueError(f"a record of {len(body):,} bytes; the journal takes up to {RECORD_BYTES:,}")
        self._appended += 1
        self._queue.append(body)
        if not self._work.is_set():
            self._work.set()
        return self._appended

    @property
    def written(self) -> int:
        """The token up to which everything has been handed to the operating system."""
        return self._written

    @property
    def synced(self) -> int:
        """The token up to which everything is on the disk."""
        return self._synced

    @property
    def failure(self) -> OSError | None:
        """The error that currently prevents writing; None if there is none."""
        return self._failure

    @property
    def waits_since(self) -> float | None:
        """When the current wait for the disk began, by the monotonic clock; None if there is none."""
        return self._waits_since

    @property
    def segment(self) -> str:
        """Name of the current segment."""
        return self.name_of(self._part)

    def fileno(self) -> int:
        """File descriptor for select(); readable when `written` or `synced` has advanced."""
        return self._ours

    def drain(self) -> None:
        """Make :meth:`fileno` unreadable until the next advance."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._ours, 4096)

    def close(self) -> None:
        """Ask the thread to write and sync the queue, then end; does not wait for it."""
        self._closing = True
        self._work.set()

    def join(self) -> None:
        """Wait for the end of the thread."""
        self._thread.join()

    def abandon(self) -> None:
        """Stop writing without waiting: the thread may be inside a write that never returns."""
        self._abandoned = True
        self._queue.clear()
        self.close()

    # ------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        self._write_until_closed()
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None

    def _write_until_closed(self) -> None:
        unsynced: list[bytes] = []
        pause_s = _RETRY_FIRST_S
        while True:
            self._work.wait()
            self._work.clear()
            if not unsynced and not self._queue and self._closing:
                return
            if self._abandoned:
                return
            new = self._next_commit(sum(map(len, unsynced)))
            unsynced += new
            self._waits_since = time.monotonic()
            try:
                if self._file is None:
                    self._open_part()
                    new = unsynced
                elif self._file_bytes >= _PART_BYTES:
                    self._abandon_part()
                    self._open_part()
                assert self._file is not None
                data = b"".join(map(frame, new))
                _write_all(self._file, data)
                self._file_bytes += len(data)
                self._written = self._synced + len(unsynced)
                self._notify()
                os.fsync(self._file)
                if not os.fstat(self._file).st_nlink:
                    self._require_sweep()
            except OSError as error:
                self._failure = error
                self._waits_since = None
                self._abandon_part()
                self._notify()
                if self._closing:
                    return
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _RETRY_AT_MOST_S)
                self._work.set()
                continue
            self._failure = self._waits_since = None
            pause_s = _RETRY_FIRST_S
            self._synced = self._written
            unsynced.clear()
            self._notify()
            if self._closing or self._queue:
                self._work.set()

    def _require_sweep(self) -> None:
        """Fail if the segment was deleted together with all files of the sweep, and not by a later run."""
        try:
            require_place(self._folder)
        except FileNotFoundError:
            self.is_deleted = True
            raise

    def _next_commit(self, unsynced_bytes: int) -> list[bytes]:
        """Take the bodies of the next commit from the queue; unsynced ones count towards its size."""
        new: list[bytes] = []
        while self._queue and unsynced_bytes < _COMMIT_BYTES:
            new.append(self._queue.popleft())
            unsynced_bytes += len(new[-1])
        return new

    def _open_part(self) -> None:
        """Create the next segment with its first record, and sync it."""
        made = self._token / "segment"
        made.unlink(missing_ok=True)
        file = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            data = frame(encode(self._opening))
            _write_all(file, data)
            os.fsync(file)
            self._link_part(made)
            sync(self._folder)
        except OSError:
            os.close(file)
            raise
        self._file = file
        self._file_bytes = len(data)

    def _link_part(self, made: Path) -> None:
        while True:
            try:
                os.link(made, self._folder / self.name_of(self._part))
            except FileExistsError:
                self._part += 1
            else:
                made.unlink()
                return

    def _abandon_part(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
        self._file = None
        self._part += 1

    def name_of(self, part: int) -> str:
        """Name of a part of this master's segment."""
        return f"{master_name(self._opening.run, self._opening.epoch)}.{part:06d}"

    def _notify(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._theirs, b"x")


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
