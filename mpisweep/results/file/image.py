"""A results file under construction: HDF5's part in memory, samples of curves on disk.

If a disk fails, HDF5 is left with files that it cannot close; therefore it never sees the disk.  It writes to
an :class:`Image`, a file in memory, and receives only the number of samples: it allocates an *extent* for
them and never writes to it.  :func:`write_image` then writes the image to a real file, and
:class:`ExtentWriter` fills the extents.

After HDF5's bytes come two checksums::

    for each extent    8 bytes offset, 8 bytes length
    4 bytes  "mSr1"
    4 bytes  number of extents
    4 bytes  CRC-32 of everything before, without the extents
    4 bytes  "mSt1"
    8 bytes  length of everything before these last 16 bytes
    4 bytes  CRC-32 of everything before these last 16 bytes

Readers that need no curves verify only the first one and read no curves.  Files of earlier versions have only
the second one, and earlier versions read only the second one.  All numbers are little-endian.
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

__all__ = ["Extent", "ExtentWriter", "Image", "is_whole", "seal", "write_image"]

_PAGE = 1 << 16
_EXTENT = struct.Struct("<QQ")
_LIST = struct.Struct("<4sI")
_LIST_MAGIC = b"mSr1"
_CHECKSUM = struct.Struct("<I")
#: The last bytes of the file.
_TRAILER = struct.Struct("<4sQI")
_TRAILER_MAGIC = b"mSt1"
#: Bytes per read or write.
_BLOCK = 1 << 16
#: Size of the write buffers of all extents together, and the minimum for one of them, in bytes.
_WAITING = 1 << 19
_WAITING_AT_LEAST = 1 << 14


# ------------------------------------------------------------------------------------- in memory


class Image(io.RawIOBase):
    """A sparse file in memory for HDF5; unwritten bytes take no memory."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._at = 0
        self.size = 0

    def readable(self) -> bool:
        """Return true: it is readable."""
        return True

    def writable(self) -> bool:
        """Return true: it is writable."""
        return True

    def seekable(self) -> bool:
        """Return true: it is seekable."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def tell(self) -> int:
        """The current offset."""
        return self._at

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file."""
        self.size = self._at if size is None else size
        return self.size

    def write(self, data: Any) -> int:
        """Write at the current offset; it always succeeds."""
        view = memoryview(data).cast("B")
        for page, first, part in _parts(self._at, len(view)):
            held = self._pages.setdefault(page, bytearray(_PAGE))
            held[first : first + len(part)] = view[part.start : part.stop]
        self._at += len(view)
        self.size = max(self.size, self._at)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        """Read from the current offset; unwritten bytes are zero."""
        view = memoryview(buffer).cast("B")
        for page, first, part in _parts(self._at, len(view)):
            held = self._pages.get(page)
            view[part.start : part.stop] = held[first : first + len(part)] if held else bytes(len(part))
        self._at += len(view)
        return len(view)

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes between two offsets, in blocks."""
        while start < end:
            piece = bytearray(min(_BLOCK, end - start))
            self.seek(start)
            self.readinto(piece)
            yield bytes(piece)
            start += len(piece)


def _parts(at: int, length: int) -> Iterator[tuple[int, int, range]]:
    """Split `length` bytes from `at` on by page: (page, offset in it, range of bytes)."""
    done = 0
    while done < length:
        page, first = divmod(at + done, _PAGE)
        part = range(done, min(length, done + _PAGE - first))
        yield page, first, part
        done = part.stop


# ------------------------------------------------------------------------------------- extents


@dataclass(slots=True)
class Extent:
    """A range of the file for samples: its place, the bytes written so far, and their checksum."""

    at: int
    length: int
    written: int = 0
    checksum: int = 0


class ExtentWriter:
    """Fills the extents of a file in parallel.

    Args:
        out: the file.
        extents: the extents, each filled from its beginning to its end.
    """

    def __init__(self, out: BinaryIO, extents: Mapping[Any, Extent]) -> None:
        self._out = out
        self._extents = extents
        self._waiting = {key: bytearray() for key in extents}
        self._at_once = max(_WAITING_AT_LEAST, _WAITING // max(1, len(extents)))

    def add(self, key: Any, data: bytes) -> None:
        """Append bytes to an extent."""
        waiting = self._waiting[key]
        waiting += data
        if len(waiting) >= self._at_once:
            self._write(key)

    def finish(self) -> None:
        """Write all buffers.

        Raises:
            ValueError: when an extent is not full, or received too many bytes.
        """
        for key, extent in self._extents.items():
            self._write(key)
            if extent.written != extent.length:
                raise ValueError(f"{key}: {extent.written} bytes of curves instead of {extent.length}")

    def _write(self, key: Any) -> None:
        extent, waiting = self._extents[key], self._waiting[key]
        if extent.written + len(waiting) > extent.length:
            raise ValueError(f"{key}: more than {extent.length} bytes of curves")
        if waiting:
            self._out.seek(extent.at + extent.written)
            self._out.write(bytes(waiting))
            extent.written += len(waiting)
            extent.checksum = zlib.crc32(waiting, extent.checksum)
            waiting.clear()


def write_image(out: BinaryIO, image: Image, extents: Sequence[Extent]) -> None:
    """Write the image, without large extents."""
    # Skipping small extents is not worth it: they are written twice, first with zeros.
    large = [extent for extent in extents if extent.length >= _BLOCK]
    for start, end in _between(large, image.size):
        out.seek(start)
        for piece in image.pieces(start, end):
            out.write(piece)


# ------------------------------------------------------------------------------------- checksums


def seal(out: BinaryIO, image: Image, extents: Sequence[Extent]) -> None:
    """Write the checksums of a file that is complete otherwise, and sync it."""
    extents = sorted(extents, key=_at)
    tables = whole = 0
    for (start, end), extent in zip_longest(_between(extents, image.size), extents):
        piece_checksum = 0
        for piece in image.pieces(start, end):
            tables, piece_checksum = zlib.crc32(piece, tables), zlib.crc32(piece, piece_checksum)
        whole = _combined(whole, piece_checksum, end - start)
        if extent is not None:
            whole = _combined(whole, extent.checksum, extent.length)
    listed = b"".join(_EXTENT.pack(extent.at, extent.length) for extent in extents) + _LIST.pack(
        _LIST_MAGIC, len(extents)
    )
    listed += _CHECKSUM.pack(zlib.crc32(listed, tables))
    length = image.size + len(listed)
    out.seek(image.size)
    out.write(listed + _TRAILER.pack(_TRAILER_MAGIC, length, zlib.crc32(listed, whole)))
    out.flush()
    os.fsync(out.fileno())


def is_whole(file: BinaryIO, *, curves: bool) -> bool:
    """Whether a file matches its checksums, if it has any.

    A file that another tool has rewritten has none.

    Args:
        file: open for reading.
        curves: whether to verify the curves too.
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
    extents, checksum = listed
    return _checksum_of(file, _between(extents, length - _CHECKSUM.size)) == checksum


def _listed(file: BinaryIO, length: int) -> tuple[list[Extent], int] | None:
    """The extents of a file, and the checksum of everything else; None if it does not have them."""
    tail = _LIST.size + _CHECKSUM.size
    end = _read_at(file, length - tail, tail)
    if not end.startswith(_LIST_MAGIC):
        return None
    _, count = _LIST.unpack_from(end)
    start = length - tail - count * _EXTENT.size
    extents = [
        Extent(at, size) for at, size in _EXTENT.iter_unpack(_read_at(file, start, count * _EXTENT.size))
    ]
    # If the list itself is damaged, the checksum of the whole file decides.
    is_sound = all(a <= b for a, b in _between(extents, start)) if len(extents) == count else False
    return (extents, *_CHECKSUM.unpack_from(end, _LIST.size)) if is_sound else None


def _checksum_of(file: BinaryIO, stretches: Iterable[tuple[int, int]]) -> int:
    found = 0
    for start, end in stretches:
        file.seek(start)
        while start < end and (block := file.read(min(_BLOCK, end - start))):
            found = zlib.crc32(block, found)
            start += len(block)
    return found


def _read_at(file: BinaryIO, at: int, length: int) -> bytes:
    """Read exactly `length` bytes; empty if the file has fewer."""
    if at < 0:
        return b""
    file.seek(at)
    found = file.read(length)
    return found if len(found) == length else b""


def _hdf5_bytes(file: BinaryIO) -> int:
    """The size of the file according to HDF5's header; 0 if the header is unknown."""
    head = _read_at(file, 0, 64)
    at = {0: 40, 1: 44, 2: 28, 3: 28}.get(head[8] if head else -1)
    if at is None or not head.startswith(b"\x89HDF\r\n\x1a\n"):
        return 0
    return int.from_bytes(head[at : at + 8], "little")


def _looks_sealed(behind: int) -> bool:
    """Whether that many bytes after HDF5's own can be checksums of any version."""
    listed = behind - _TRAILER.size - _LIST.size - _CHECKSUM.size
    return behind == _TRAILER.size or (listed >= 0 and listed % _EXTENT.size == 0)


def _between(extents: Sequence[Extent], size: int) -> Iterator[tuple[int, int]]:
    """The ranges before, between and after the extents."""
    start = 0
    for extent in sorted(extents, key=_at):
        yield start, extent.at
        start = extent.at + extent.length
    yield start, size


def _at(extent: Extent) -> int:
    return extent.at


#: The polynomial of CRC-32, x to the power of 0 in the highest bit.
_POLYNOMIAL = 0xEDB88320


def _combined(first: int, second: int, length: int) -> int:
    """The CRC-32 of two ranges end to end; `length` is that of the second, in bytes."""
    power, square = 1 << 31, 1 << 23  # 1, and x to the power of 8
    while length:
        if length & 1:
            power = _product(power, square)
        square = _product(square, square)
        length >>= 1
    return _product(power, first) ^ second


def _product(a: int, b: int) -> int:
    """The product of two polynomials over GF(2), modulo that of CRC-32."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product
