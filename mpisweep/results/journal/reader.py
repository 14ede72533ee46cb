"""Reading a journal: all records of its segments in order, or single ones by their places.

A torn last frame is the normal result of a kill, not damage.  If a frame in the middle is invalid, the reader
searches for the next valid one and reports the bytes that it skipped.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path

from mpisweep.blocks import Curve, Record, ReportBlock, RunRecord
from mpisweep.dataclass import dataclass
from mpisweep.results.journal.segments import HEADER, MAGIC, RECORD_BYTES, record_at, segments
from mpisweep.results.reports import lengths_of

__all__ = ["Damage", "Entry", "Frames", "FramesGoneError", "PlacedReports", "read_journal", "read_segment"]

#: Bytes of a segment held in memory during a read, unless one record is longer.
_HELD_BYTES = 1 << 18
#: Number of segments kept open for reads in random order.
_OPEN_SEGMENTS = 32


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a segment that could not be read."""

    segment: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One record, the offset of its frame, and the offset up to which its segment has been read."""

    segment: str
    end: int
    record: Record
    start: int = 0


def read_journal(
    folder: Path, covered: Mapping[str, int], damages: list[Damage], sizes: dict[str, int] | None = None
) -> Iterator[Entry]:
    """Read all records that are not covered, and always the first record of each segment.

    Args:
        folder: of the journal; it need not exist.
        covered: segment -> offset up to which the HDF5 file covers it.
        damages: receives the parts that could not be read.
        sizes: receives the size of each segment in bytes.
    """
    names = segments(folder)
    valid = _valid_bytes(folder, names)
    for name in names:
        try:
            file = (folder / name).open("rb", buffering=0)
        except FileNotFoundError:
            # A running sweep has compacted this segment into the file; the caller reads again.
            continue
        with file:
            size = os.fstat(file.fileno()).st_size
            if sizes is not None:
                sizes[name] = size
            data = _Held(file, min(size, valid.get(name, size)))
            yield from read_segment(name, data, covered.get(name, 0), damages)


class _Held:
    """A file of which only a range is in memory; sliced and searched like bytes.

    Args:
        file: unbuffered.
        size: number of its bytes that count.
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
            # Free the old range before the new one is allocated.
            self._bytes = b""
            self._bytes = _read_at(
                self._file.fileno(), first, min(max(end - first, _HELD_BYTES), self._size - first)
            )
            self._at = first
        return self._bytes[first - self._at : end - self._at]

    def find(self, wanted: bytes, start: int) -> int:
        """Search like :meth:`bytes.find`."""
        while self[start : start + len(wanted)]:
            found = self._bytes.find(wanted, start - self._at)
            if found >= 0:
                return self._at + found
            start = max(start + 1, self._at + len(self._bytes) - len(wanted) + 1)
        return -1


def _read_at(file: int, at: int, length: int) -> bytes:
    """Read up to `length` bytes; fewer only at the end of the file."""
    pieces: list[bytes] = []
    while length > 0 and (piece := os.pread(file, length, at)):
        pieces.append(piece)
        at, length = at + len(piece), length - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _frame_at(file: int, start: int) -> tuple[int, Record] | None:
    """The length of the frame at `start`, and its record; None if no valid frame begins there."""
    header = _read_at(file, start, HEADER.size)
    length = HEADER.unpack(header)[1] if len(header) == HEADER.size else 0
    return record_at(header + _read_at(file, start + HEADER.size, length if length <= RECORD_BYTES else 0), 0)


def _valid_bytes(folder: Path, names: list[str]) -> dict[str, int]:
    """The valid length of each segment that a later master has limited, see RunRecord.follows."""
    openings = {name: opening for name in names if (opening := _opening_of(folder / name)) is not None}
    valid: dict[str, int] = {}
    for later in openings.values():
        for name, earlier in openings.items():
            if later.follows is not None and (earlier.run, earlier.epoch) < (later.run, later.epoch):
                until = later.follows.get(name, 0)
                valid[name] = min(valid.get(name, until), until)
    return valid


def _opening_of(path: Path) -> RunRecord | None:
    """The first record of a segment; None if it cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            found = _frame_at(file.fileno(), 0)
    except OSError:
        return None
    return found[1] if found is not None and isinstance(found[1], RunRecord) else None


def read_segment(name: str, data: bytes | _Held, start: int, damages: list[Damage]) -> Iterator[Entry]:
    """Read the first record of a segment and all from `start` on."""
    at = 0
    is_first = True
    skipped_from: int | None = None
    while at < len(data):
        found = record_at(data, at)
        if found is None:
            if skipped_from is None:
                skipped_from = at
            at = data.find(MAGIC, at + 1)
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


# ------------------------------------------------------------------------------------- single records


class FramesGoneError(OSError):
    """A segment was removed or replaced after it was read."""


class Frames:
    """Rereads single records of a journal by their places.

    Args:
        folder: of the journal.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, int] = {}
        self._lengths: dict[tuple[tuple[str, int], ...], dict[str, int]] = {}

    def placed(self, entry: Entry) -> PlacedReports:
        """Convert a block of reports to a reference without its samples."""
        assert isinstance(entry.record, ReportBlock)
        lengths = lengths_of(entry.record.curves)
        # Most blocks share their lengths with many others.
        lengths = self._lengths.setdefault(tuple(lengths.items()), lengths)
        return PlacedReports(entry.record.sequence, lengths, self, entry.segment, entry.start)

    def reports(self, segment: str, start: int) -> ReportBlock:
        """Read the block of reports whose frame begins at `start`.

        Raises:
            OSError: when it is gone.
        """
        found = _frame_at(self._open(segment), start)
        if found is None or not isinstance(found[1], ReportBlock):
            raise FramesGoneError(
                errno.ESTALE, "was changed during the read", os.fspath(self._folder / segment)
            )
        return found[1]

    def close(self) -> None:
        """Close the segments; the next read opens them again."""
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
        """Read the samples.

        Raises:
            OSError: when they are gone.
        """
        return self.frames.reports(self.segment, self.start).curves
