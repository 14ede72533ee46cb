"""The journal: what the HDF5 file does not have yet, safe against a kill at any instant.

A folder beside the file holds *segments*, each with one writer: ``<run>-<epoch>.<part>``, created
exclusively.  A segment is a sequence of frames::

    4 bytes  magic
    4 bytes  length of the body, little-endian
    4 bytes  CRC-32 of the length and the body
    body     one record, see mpisweep.blocks

A torn last frame is what a kill leaves, and is no damage.  Where a frame in the middle does not check, the
reader looks for the next one that does, and reports what it skipped.

Writing is a thread's work: :meth:`Journal.append` only queues.  Whatever gathers during one fsync goes with
the next (group commit).  After a failed write or fsync nothing that was not synced before can be trusted, and
a repeated fsync may lie; so the segment is abandoned and everything unsynced is written again to a new one.

A new segment is made in the master's token and linked into the journal's folder: a master whose token was taken away
(:mod:`mpisweep.results.claim`) makes none any more, and of what it still writes to the one that it has, the opening
record of its successor says how far it counts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from mpisweep.blocks import BlockError, Curve, Record, ReportBlock, RunRecord, decode, encode
from mpisweep.results.journal.checking import is_sensible
from mpisweep.results.reports import lengths_of

__all__ = [
    "RECORD_BYTES",
    "Damage",
    "Entry",
    "Frames",
    "FramesGoneError",
    "Journal",
    "PlacedReports",
    "master_name",
    "read_journal",
    "run_of",
    "segments",
    "sync_folder",
    "sync_segments",
]

_MAGIC = b"mSj1"
_HEADER = struct.Struct("<4sII")
_BODY_BEGINS = b'{"kind":'
#: The longest body, in bytes; where a frame says more, its length was damaged.
RECORD_BYTES = 1 << 28
#: A segment that has grown to this size is followed by a new part, so that old ones can go.
_PART_BYTES = 8 << 20
#: One write and fsync takes about so many bytes, however many have gathered: nothing else bounds a part, nor what is
#: held twice while it is written.
_COMMIT_BYTES = 8 << 20
#: Bytes of a segment that are in memory while it is read, unless one record is longer.
_HELD_BYTES = 1 << 18
#: Segments that are kept open while frames are read out of their order.
_OPEN_SEGMENTS = 32
#: Pauses after a failure, in seconds: the first, and the longest.
_RETRY_FIRST_S = 0.2
_RETRY_AT_MOST_S = 10.0


class Journal:
    """The writer of one run.

    Args:
        folder: of the journal; it must exist.
        opening: the first record of every segment; it names run and epoch.
        token: the master's folder in which segments are made.
    """

    def __init__(self, folder: Path, opening: RunRecord, token: Path) -> None:
        self._folder = folder
        self._opening = opening
        self._token = token
        self._part = 0
        self._file: int | None = None
        self._file_bytes = 0
        self._queue: deque[bytes] = deque()
        #: Bodies that are queued, counting up; and how far the thread has come.
        self._appended = 0
        self._written = 0
        self._synced = 0
        self._failure: OSError | None = None
        #: Since when the thread has been waiting for the disk, by the monotonic clock; None while it is not.
        self._waits_since: float | None = None
        self._work = threading.Event()
        self._closing = False
        self._abandoned = False
        self._ours, self._theirs = os.pipe()
        for end in (self._ours, self._theirs):
            os.set_blocking(end, False)
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def start(self) -> None:
        """Create the first segment, in a folder that has a lasting name too, and start the thread.

        Raises:
            OSError: when the segment cannot be created.
        """
        self._open_part()
        sync_folder(self._folder.parent)
        self._thread.start()

    def append(self, body: bytes) -> int:
        """Queue one encoded record; returns its token.  Never waits for the disk.

        Raises:
            ValueError: for a body of more than :data:`RECORD_BYTES`, which nobody could read.
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
        """Everything up to this token has been handed to the operating system."""
        return self._written

    @property
    def synced(self) -> int:
        """Everything up to this token is on the disk."""
        return self._synced

    @property
    def failure(self) -> OSError | None:
        """Why nothing is being written at the moment; None when all is well."""
        return self._failure

    @property
    def waits_since(self) -> float | None:
        """Since when the disk has owed an answer, by the monotonic clock; None while it owes none."""
        return self._waits_since

    @property
    def segment(self) -> str:
        """Name of the segment that is being written."""
        return self.name_of(self._part)

    def fileno(self) -> int:
        """For select(); readable when `written` or `synced` has advanced."""
        return self._ours

    def drain(self) -> None:
        """Make :meth:`fileno` unreadable until the next advance."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._ours, 4096)

    def close(self) -> None:
        """Write and sync what is queued, and let the thread end; waits for neither."""
        self._closing = True
        self._work.set()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def abandon(self) -> None:
        """Write nothing more, and wait for nothing: the thread may be inside a write that never returns."""
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
            fresh = self._next_commit(sum(map(len, unsynced)))
            unsynced += fresh
            self._waits_since = time.monotonic()
            try:
                if self._file is None:
                    self._open_part()
                    fresh = unsynced
                elif self._file_bytes >= _PART_BYTES:
                    self._abandon_part()
                    self._open_part()
                assert self._file is not None
                data = b"".join(map(_frame, fresh))
                _write_all(self._file, data)
                self._file_bytes += len(data)
                self._written = self._synced + len(unsynced)
                self._notify()
                os.fsync(self._file)
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

    def _next_commit(self, unsynced_bytes: int) -> list[bytes]:
        """What is written next, beside what was written already and not synced."""
        fresh: list[bytes] = []
        while self._queue and unsynced_bytes < _COMMIT_BYTES:
            fresh.append(self._queue.popleft())
            unsynced_bytes += len(fresh[-1])
        return fresh

    def _open_part(self) -> None:
        """Create the next segment, with its first record, durably."""
        made = self._token / "segment"
        made.unlink(missing_ok=True)
        file = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            data = _frame(encode(self._opening))
            _write_all(file, data)
            os.fsync(file)
            self._link_part(made)
            sync_folder(self._folder)
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


# ------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a segment that could not be read."""

    segment: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One record, where its frame begins, and the offset in its segment up to which it and all before it are read."""

    segment: str
    end: int
    record: Record
    start: int = 0


def master_name(run: str, epoch: int) -> str:
    """How the segments of one master begin; sorts in the order of runs and of masters."""
    return f"{run}-{epoch:06d}"


def run_of(segment: str) -> str:
    """Name of the run that has written a segment."""
    return segment.rpartition(".")[0].rpartition("-")[0]


def segments(folder: Path) -> list[str]:
    """Names of the segments of a journal, in the order in which they were written."""
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.name[-7:-6] == "."]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in names if name[-6:].isdigit())


def read_journal(
    folder: Path, covered: Mapping[str, int], damages: list[Damage], sizes: dict[str, int] | None = None
) -> Iterator[Entry]:
    """All records beyond what is covered, the first record of each segment always among them.

    Args:
        folder: of the journal; it need not exist.
        covered: segment -> offset up to which the HDF5 file has it.
        damages: gets what could not be read.
        sizes: gets, for each segment, how many bytes of it there were.
    """
    names = segments(folder)
    valid = _valid_bytes(folder, names)
    for name in names:
        try:
            file = (folder / name).open("rb", buffering=0)
        except FileNotFoundError:
            # A running sweep has folded this segment into the file meanwhile; the caller looks again.
            continue
        with file:
            size = os.fstat(file.fileno()).st_size
            if sizes is not None:
                sizes[name] = size
            data = _Held(file, min(size, valid.get(name, size)))
            yield from _read_segment(name, data, covered.get(name, 0), damages)


class _Held:
    """Bytes of a file of which only a stretch is in memory; sliced and searched like bytes.

    Args:
        file: unbuffered.
        size: how many of its bytes count.
    """

    def __init__(self, file: FileIO, size: int) -> None:
        self._file = file
        self._size = size
        self._at = 0
        self._bytes = b""

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, stretch: slice) -> bytes:
        first, end, _ = stretch.indices(self._size)
        if not self._at <= first <= end <= self._at + len(self._bytes):
            # Let go of the old ones first.
            self._bytes = b""
            self._bytes = _read_at(self._file.fileno(), first, min(max(end - first, _HELD_BYTES), self._size - first))
            self._at = first
        return self._bytes[first - self._at : end - self._at]

    def find(self, wanted: bytes, start: int) -> int:
        """As :meth:`bytes.find`."""
        while self[start : start + len(wanted)]:
            found = self._bytes.find(wanted, start - self._at)
            if found >= 0:
                return self._at + found
            start = max(start + 1, self._at + len(self._bytes) - len(wanted) + 1)
        return -1


def _read_at(file: int, at: int, length: int) -> bytes:
    """So many bytes of a file, or less where it ends."""
    pieces: list[bytes] = []
    while length > 0 and (piece := os.pread(file, length, at)):
        pieces.append(piece)
        at, length = at + len(piece), length - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _valid_bytes(folder: Path, names: list[str]) -> dict[str, int]:
    """How much of each segment counts, where a later master has said so: see RunRecord.follows."""
    openings = {name: opening for name in names if (opening := _opening_of(folder / name)) is not None}
    valid: dict[str, int] = {}
    for later in openings.values():
        for name, earlier in openings.items():
            if later.follows is not None and (earlier.run, earlier.epoch) < (later.run, later.epoch):
                until = later.follows.get(name, 0)
                valid[name] = min(valid.get(name, until), until)
    return valid


def _opening_of(path: Path) -> RunRecord | None:
    """The first record of a segment; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
            length = _HEADER.unpack(header)[1] if len(header) == _HEADER.size else 0
            data = header + file.read(length if length <= RECORD_BYTES else 0)
    except OSError:
        return None
    found = _record_at(data, 0)
    return found[1] if found is not None and isinstance(found[1], RunRecord) else None


def _read_segment(name: str, data: bytes | _Held, start: int, damages: list[Damage]) -> Iterator[Entry]:
    at = 0
    is_first = True
    skipped_from: int | None = None
    while at < len(data):
        found = _record_at(data, at)
        if found is None:
            if skipped_from is None:
                skipped_from = at
            at = data.find(_MAGIC, at + 1)
            if at < 0:
                break
            continue
        end, record = found
        if skipped_from is not None:
            damages.append(Damage(name, skipped_from, at - skipped_from))
            skipped_from = None
        if is_first or at >= start:
            yield Entry(name, end, record, at)
        if is_first:
            is_first = False
            at = max(end, start)
        else:
            at = end


def _record_at(data: bytes | _Held, at: int) -> tuple[int, Record] | None:
    header = data[at : at + _HEADER.size]
    if len(header) < _HEADER.size:
        return None
    magic, length, checksum = _HEADER.unpack(header)
    start, end = at + _HEADER.size, at + _HEADER.size + length
    if magic != _MAGIC or length > RECORD_BYTES or end > len(data):
        return None
    # Cheaper than a checksum, where damage looks like the beginning of one long frame after another.
    if data[start : start + len(_BODY_BEGINS)] != _BODY_BEGINS:
        return None
    body = data[start:end]
    if not body.endswith(b"}") or _checksum(length, body) != checksum:
        return None
    try:
        record = decode(body)
    except BlockError:
        return None
    return (end, record) if is_sensible(record) else None


class FramesGoneError(OSError):
    """A segment has been removed, or is another one, since it was read."""


class Frames:
    """Reads single records of a journal again, by their places.

    Args:
        folder: of the journal.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, int] = {}
        self._lengths: dict[tuple[tuple[str, int], ...], dict[str, int]] = {}

    def placed(self, entry: Entry) -> PlacedReports:
        """What is kept of a block of reports in place of its samples."""
        assert isinstance(entry.record, ReportBlock)
        lengths = lengths_of(entry.record.curves)
        # Most blocks are as long as many others.
        lengths = self._lengths.setdefault(tuple(lengths.items()), lengths)
        return PlacedReports(entry.record.sequence, lengths, self, entry.segment, entry.start)

    def reports(self, segment: str, start: int) -> ReportBlock:
        """The block of reports whose frame begins there.

        Raises:
            OSError: when it is not there any more.
        """
        file = self._open(segment)
        header = _read_at(file, start, _HEADER.size)
        length = _HEADER.unpack(header)[1] if len(header) == _HEADER.size else 0
        found = _record_at(header + _read_at(file, start + _HEADER.size, min(length, RECORD_BYTES)), 0)
        if found is None or not isinstance(found[1], ReportBlock):
            raise FramesGoneError(errno.ESTALE, "was changed while it was read", os.fspath(self._folder / segment))
        return found[1]

    def close(self) -> None:
        """Close the segments; what is read afterwards opens them again."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _open(self, segment: str) -> int:
        if segment not in self._files:
            if len(self._files) >= _OPEN_SEGMENTS:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[segment] = os.open(self._folder / segment, os.O_RDONLY | os.O_CLOEXEC)
        return self._files[segment]


@dataclass(frozen=True, slots=True)
class PlacedReports:
    """A block of reports in a frame of the journal."""

    sequence: int
    lengths: Mapping[str, int]
    frames: Frames
    segment: str
    start: int

    def read(self) -> Mapping[str, Curve]:
        """The samples.

        Raises:
            OSError: when they are not there any more.
        """
        return self.frames.reports(self.segment, self.start).curves


def _frame(body: bytes) -> bytes:
    return _HEADER.pack(_MAGIC, len(body), _checksum(len(body), body)) + body


def _checksum(length: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(length.to_bytes(4, "little")))


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def sync_segments(folder: Path) -> None:
    """Have every segment, and the names of all of them, on the disk.

    Whoever wrote them may have died before it did that: what was read of them must not count before.
    """
    for name in segments(folder):
        # The snapshot process of a master that is not fenced yet may remove one.
        with contextlib.suppress(FileNotFoundError):
            _sync(folder / name)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    _sync(folder)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
