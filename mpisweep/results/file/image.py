"""A results file while it is made: what HDF5 writes is held in memory, and samples of curves go past it to
the disk.

HDF5 on a disk that fails leaves a library full of files that it cannot close; so it never sees the disk.  It
writes to an :class:`Image`, which is like a file, and is told of the samples only how many there are: it
makes *room* for them that nobody writes to.  :func:`write_image` then writes all of it to a real file, the
rooms from wherever the samples are.

Behind what HDF5 knows of stand two checksums::

    for each room      8 bytes where it begins, 8 bytes how long it is
    4 bytes  "mSr1"
    4 bytes  how many rooms there are
    4 bytes  CRC-32 of everything before, rooms left out
    4 bytes  "mSt1"
    8 bytes  length of everything before these last 16 bytes
    4 bytes  CRC-32 of everything before these last 16 bytes

The first is for those who need no curves, and read none.  Files of earlier versions have the second one only,
and those versions see nothing but the second one.  All numbers are little-endian.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, BinaryIO

__all__ = ["Image", "Room", "RoomWriter", "is_whole", "seal", "write_image"]

_PAGE = 1 << 16
_ROOM = struct.Struct("<QQ")
_LIST = struct.Struct("<4sI")
_LIST_MAGIC = b"mSr1"
_CHECKSUM = struct.Struct("<I")
#: At the end of the file.
_TRAILER = struct.Struct("<4sQI")
_TRAILER_MAGIC = b"mSt1"
#: Bytes that are read or written at once.
_BLOCK = 1 << 16
#: What waits to be written into all rooms together, and at least for one of them, in bytes.
_WAITING = 1 << 19
_WAITING_AT_LEAST = 1 << 14


# ------------------------------------------------------------------------------------- in memory


class Image(io.RawIOBase):
    """What HDF5 takes for a file; bytes that were never written take no memory."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._at = 0
        self.size = 0

    def readable(self) -> bool:
        """It can be read."""
        return True

    def writable(self) -> bool:
        """It can be written."""
        return True

    def seekable(self) -> bool:
        """It has offsets."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to an offset."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def tell(self) -> int:
        """The offset."""
        return self._at

    def truncate(self, size: int | None = None) -> int:
        """Say how long the file is."""
        self.size = self._at if size is None else size
        return self.size

    def write(self, data: Any) -> int:
        """Write there; it always succeeds."""
        view = memoryview(data).cast("B")
        for page, first, part in _parts(self._at, len(view)):
            held = self._pages.setdefault(page, bytearray(_PAGE))
            held[first : first + len(part)] = view[part.start : part.stop]
        self._at += len(view)
        self.size = max(self.size, self._at)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        """Read from there; zeros where nothing was written."""
        view = memoryview(buffer).cast("B")
        for page, first, part in _parts(self._at, len(view)):
            held = self._pages.get(page)
            view[part.start : part.stop] = held[first : first + len(part)] if held else bytes(len(part))
        self._at += len(view)
        return len(view)

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """What stands between two offsets."""
        while start < end:
            piece = bytearray(min(_BLOCK, end - start))
            self.seek(start)
            self.readinto(piece)
            yield bytes(piece)
            start += len(piece)


def _parts(at: int, length: int) -> Iterator[tuple[int, int, range]]:
    """Page, where in it, and which of `length` bytes from `at` on are there."""
    done = 0
    while done < length:
        page, first = divmod(at + done, _PAGE)
        part = range(done, min(length, done + _PAGE - first))
        yield page, first, part
        done = part.stop


# ------------------------------------------------------------------------------------- rooms


@dataclass(slots=True)
class Room:
    """Bytes of a file that do not come from its image, how many of them were written, and their checksum."""

    at: int
    length: int
    written: int = 0
    checksum: int = 0


class RoomWriter:
    """Fills the rooms of a file, all at the same time.

    Args:
        out: the file.
        rooms: to be filled, each from its beginning to its end.
    """

    def __init__(self, out: BinaryIO, rooms: Mapping[Any, Room]) -> None:
        self._out = out
        self._rooms = rooms
        self._waiting = {key: bytearray() for key in rooms}
        self._at_once = max(_WAITING_AT_LEAST, _WAITING // max(1, len(rooms)))

    def add(self, key: Any, data: bytes) -> None:
        """Add to what a room has."""
        waiting = self._waiting[key]
        waiting += data
        if len(waiting) >= self._at_once:
            self._write(key)

    def finish(self) -> None:
        """Write what waits.

        Raises:
            ValueError: when a room was not filled, or too much was put into it.
        """
        for key, room in self._rooms.items():
            self._write(key)
            if room.written != room.length:
                raise ValueError(f"{key}: {room.written} bytes of curves where there should be {room.length}")

    def _write(self, key: Any) -> None:
        room, waiting = self._rooms[key], self._waiting[key]
        if room.written + len(waiting) > room.length:
            raise ValueError(f"{key}: more curves than there should be")
        if waiting:
            self._out.seek(room.at + room.written)
            self._out.write(bytes(waiting))
            room.written += len(waiting)
            room.checksum = zlib.crc32(waiting, room.checksum)
            waiting.clear()


def write_image(out: BinaryIO, image: Image, rooms: Sequence[Room]) -> None:
    """Write what is not in the rooms."""
    # Small rooms are written over: once with zeros here, and once with what belongs there.
    large = [room for room in rooms if room.length >= _BLOCK]
    for start, end in _between(large, image.size):
        out.seek(start)
        for piece in image.pieces(start, end):
            out.write(piece)


# ------------------------------------------------------------------------------------- checksums


def seal(out: BinaryIO, image: Image, rooms: Sequence[Room]) -> None:
    """Write the checksums of a file, when all else is written, and sync it."""
    rooms = sorted(rooms, key=_at)
    tables = whole = 0
    for (start, end), room in zip_longest(_between(rooms, image.size), rooms):
        piece_checksum = 0
        for piece in image.pieces(start, end):
            tables, piece_checksum = zlib.crc32(piece, tables), zlib.crc32(piece, piece_checksum)
        whole = _combined(whole, piece_checksum, end - start)
        if room is not None:
            whole = _combined(whole, room.checksum, room.length)
    listed = b"".join(_ROOM.pack(room.at, room.length) for room in rooms) + _LIST.pack(
        _LIST_MAGIC, len(rooms)
    )
    listed += _CHECKSUM.pack(zlib.crc32(listed, tables))
    length = image.size + len(listed)
    out.seek(image.size)
    out.write(listed + _TRAILER.pack(_TRAILER_MAGIC, length, zlib.crc32(listed, whole)))
    out.flush()
    os.fsync(out.fileno())


def is_whole(file: BinaryIO, *, curves: bool) -> bool:
    """Whether a file is what was written, as far as it has checksums.

    One that another tool has copied into a new one has none.

    Args:
        file: open for reading.
        curves: whether they are checked as well.
    """
    size = file.seek(0, os.SEEK_END)
    end = _read_at(file, size - _TRAILER.size, _TRAILER.size)
    magic, length, checksum = _TRAILER.unpack(end) if end else (b"", 0, 0)
    if magic != _TRAILER_MAGIC:
        return not _looks_sealed(size - _hdf5_bytes(file))
    if length != size - _TRAILER.size:
        return False
    listed = None if curves else _listed(file, length)
    if listed is None:
        return _checksum_of(file, [(0, length)]) == int(checksum)
    rooms, checksum = listed
    return _checksum_of(file, _between(rooms, length - _CHECKSUM.size)) == checksum


def _listed(file: BinaryIO, length: int) -> tuple[list[Room], int] | None:
    """The rooms of a file, and the checksum of everything else; None where it does not say that."""
    tail = _LIST.size + _CHECKSUM.size
    end = _read_at(file, length - tail, tail)
    if not end.startswith(_LIST_MAGIC):
        return None
    _, count = _LIST.unpack_from(end)
    start = length - tail - count * _ROOM.size
    rooms = [Room(at, size) for at, size in _ROOM.iter_unpack(_read_at(file, start, count * _ROOM.size))]
    # Otherwise it is damaged, as the checksum of the whole file says.
    is_sound = all(a <= b for a, b in _between(rooms, start)) if len(rooms) == count else False
    return (rooms, *_CHECKSUM.unpack_from(end, _LIST.size)) if is_sound else None


def _checksum_of(file: BinaryIO, stretches: Iterable[tuple[int, int]]) -> int:
    found = 0
    for start, end in stretches:
        file.seek(start)
        while start < end and (block := file.read(min(_BLOCK, end - start))):
            found = zlib.crc32(block, found)
            start += len(block)
    return found


def _read_at(file: BinaryIO, at: int, length: int) -> bytes:
    """So many bytes; none where there are not so many."""
    if at < 0:
        return b""
    file.seek(at)
    found = file.read(length)
    return found if len(found) == length else b""


def _hdf5_bytes(file: BinaryIO) -> int:
    """Where HDF5 itself says that the file ends; 0 where it says nothing."""
    head = _read_at(file, 0, 64)
    at = {0: 40, 1: 44, 2: 28, 3: 28}.get(head[8] if head else -1)
    if at is None or not head.startswith(b"\x89HDF\r\n\x1a\n"):
        return 0
    return int.from_bytes(head[at : at + 8], "little")


def _looks_sealed(behind: int) -> bool:
    """Whether so many bytes behind what HDF5 knows of are checksums, of this version or an earlier one."""
    listed = behind - _TRAILER.size - _LIST.size - _CHECKSUM.size
    return behind == _TRAILER.size or (listed >= 0 and listed % _ROOM.size == 0)


def _between(rooms: Sequence[Room], size: int) -> Iterator[tuple[int, int]]:
    """What lies before, between and behind the rooms."""
    start = 0
    for room in sorted(rooms, key=_at):
        yield start, room.at
        start = room.at + room.length
    yield start, size


def _at(room: Room) -> int:
    return room.at


#: The polynomial of CRC-32, x to the power of 0 in the highest bit.
_POLYNOMIAL = 0xEDB88320


def _combined(first: int, second: int, length: int) -> int:
    """The CRC-32 of two stretches end to end, from that of each and the length of the second in bytes."""
    power, square = 1 << 31, 1 << 23  # 1, and x to the power of 8
    while length:
        if length & 1:
            power = _product(power, square)
        square = _product(square, square)
        length >>= 1
    return _product(power, first) ^ second


def _product(a: int, b: int) -> int:
    """Of two polynomials over GF(2), modulo that of CRC-32."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product
