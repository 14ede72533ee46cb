"""The stream from the reader to the writers: entries and their content in chunks.

A chunk is a whole number of frames, so each can be unpacked by itself::

    4 bytes   number of bytes in use, little-endian; the rest of the buffer is not sent
    1 byte    1 in the last chunk of the stream, else 0
    frames    1 byte kind, 4 bytes length, body

The frames of a file are its entry, its content in pieces, and the CRC-32 of the content; the writer computes
it from what has arrived, so that each file is checked on each node before it counts as complete.  The last
frame of a stream says how it ended.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from enum import IntEnum

from mpisweep.staged.source import Entry, EntryKind, Source, StageError

__all__ = ["CHUNK_BYTES", "Frame", "FrameKind", "frames", "is_last", "pack", "used_bytes"]

#: Size of a buffer.
CHUNK_BYTES = 8 << 20
_USED = struct.Struct("<IB")
_HEAD = struct.Struct("<BI")
_CHECKSUM = struct.Struct("<I")


class FrameKind(IntEnum):
    """Kind of a frame."""

    ENTRY = 1
    CONTENT = 2
    CHECKSUM = 3
    #: The last one: everything was sent; the source failed, with a sentence; the sweep is to stop.
    END = 4
    FAILURE = 5
    STOP = 6


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame; its body is valid as long as the chunk is."""

    kind: FrameKind
    body: memoryview

    def entry(self) -> Entry:
        """The entry of a frame ENTRY."""
        path, kind, *rest = json.loads(bytes(self.body))
        return Entry(path, EntryKind(kind), *rest)

    def checksum(self) -> int:
        """The CRC-32 of a frame CHECKSUM."""
        found: int = _CHECKSUM.unpack(self.body)[0]
        return found


def used_bytes(chunk: memoryview) -> int:
    """Number of bytes of a chunk that are in use, from its beginning."""
    used: int = _USED.unpack_from(chunk)[0]
    return used


def is_last(chunk: memoryview) -> bool:
    """Whether no chunk follows."""
    found: int = _USED.unpack_from(chunk)[1]
    return found != 0


def frames(chunk: memoryview) -> Iterator[Frame]:
    """Unpack a chunk."""
    at, end = _USED.size, used_bytes(chunk)
    while at < end:
        kind, length = _HEAD.unpack_from(chunk, at)
        at += _HEAD.size
        yield Frame(FrameKind(kind), chunk[at : at + length])
        at += length


class _Packer:
    """Fills buffers with frames."""

    def __init__(self, take: Callable[[], memoryview], give: Callable[[memoryview], None]) -> None:
        self._take = take
        self._give = give
        self._chunk = take()
        self._used = _USED.size

    def add(self, kind: FrameKind, body: bytes | memoryview) -> None:
        """Add a frame that fits into one chunk."""
        if self._used + _HEAD.size + len(body) > len(self._chunk):
            self.flush()
        _HEAD.pack_into(self._chunk, self._used, kind, len(body))
        self._used += _HEAD.size
        self._chunk[self._used : self._used + len(body)] = body
        self._used += len(body)

    def add_content(self, content: bytes) -> None:
        """Add content of any length, in as many frames as it takes."""
        left = memoryview(content)
        while left:
            room = len(self._chunk) - self._used - _HEAD.size
            if room <= 0:
                self.flush()
                continue
            self.add(FrameKind.CONTENT, left[:room])
            left = left[room:]

    def flush(self, *, is_last: bool = False) -> None:
        """Give the chunk away; unless it is the last one, begin another."""
        _USED.pack_into(self._chunk, 0, self._used, is_last)
        self._give(self._chunk)
        if not is_last:
            self._chunk = self._take()
            self._used = _USED.size


def pack(
    source: Source,
    start: int,
    take: Callable[[], memoryview],
    give: Callable[[memoryview], None],
    ended_by: Callable[[], tuple[FrameKind, str] | None],
    note_end: Callable[[FrameKind, str], None],
) -> None:
    """Read the source from entry `start` on, and give it away in chunks.

    Args:
        source: the data.
        start: number of entries that every receiver has.
        take: returns an empty buffer; waits for one.
        give: takes a filled one.
        ended_by: why the stream is to end early, as its last frame; None if it is not.
        note_end: is told the last frame before it is given away.
    """
    packer = _Packer(take, give)
    try:
        last = _pack_entries(source, start, packer, ended_by)
    except StageError as error:
        last = FrameKind.FAILURE, str(error)
    except Exception as error:
        last = FrameKind.FAILURE, f"{source.path}: cannot be staged: {type(error).__name__}: {error}"
    note_end(*last)
    packer.add(last[0], last[1].encode(errors="backslashreplace"))
    packer.flush(is_last=True)


def _pack_entries(
    source: Source, start: int, packer: _Packer, ended_by: Callable[[], tuple[FrameKind, str] | None]
) -> tuple[FrameKind, str]:
    for entry, content in source.entries(start):
        packer.add(FrameKind.ENTRY, json.dumps(astuple(entry)).encode())
        checksum = 0
        for part in content:
            checksum = zlib.crc32(part, checksum)
            packer.add_content(part)
            if (early := ended_by()) is not None:
                return early
        packer.add(FrameKind.CHECKSUM, _CHECKSUM.pack(checksum))
    return FrameKind.END, ""
