"""The segments of a journal: their names and their frames.

A segment is named ``<run>-<epoch>.<part>`` and is a sequence of frames::

    4 bytes  magic
    4 bytes  length of the body, little-endian
    4 bytes  CRC-32 of the length and the body
    body     one record, see mpisweep.blocks
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import zlib
from pathlib import Path
from typing import Protocol

from mpisweep.blocks import BlockError, Record, decode
from mpisweep.results.journal.checking import is_valid
from mpisweep.results.syncing import sync

__all__ = [
    "HEADER",
    "MAGIC",
    "RECORD_BYTES",
    "Sliced",
    "frame",
    "master_name",
    "record_at",
    "require_place",
    "run_of",
    "segments",
    "sync_segments",
]

MAGIC = b"mSj1"
HEADER = struct.Struct("<4sII")
_BODY_BEGINS = b'{"kind":'
#: The longest valid body, in bytes; a longer length field is damaged.
RECORD_BYTES = 1 << 28


# ------------------------------------------------------------------------------------- names


def master_name(run: str, epoch: int) -> str:
    """Prefix of the names of one master's segments; sorts in the order of runs and of masters."""
    return f"{run}-{epoch:06d}"


def run_of(segment: str) -> str:
    """Name of the run that wrote a segment."""
    return segment.rpartition(".")[0].rpartition("-")[0]


def segments(folder: Path) -> list[str]:
    """Names of the segments of a journal, in the order of writing."""
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.name[-7:-6] == "."]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in names if name[-6:].isdigit())


def sync_segments(folder: Path) -> None:
    """Sync every segment, and the folder.

    Their writer may have died before it synced them, and records count only when they are on the disk.
    """
    for name in segments(folder):
        # The snapshotter of a superseded master that is not fenced yet may remove one.
        with contextlib.suppress(FileNotFoundError):
            sync(folder / name)
    sync(folder)


# ------------------------------------------------------------------------------------- frames


class Sliced(Protocol):
    """Bytes, or an object that is sliced like bytes."""

    def __len__(self) -> int: ...

    def __getitem__(self, stretch: slice, /) -> bytes: ...


def frame(body: bytes) -> bytes:
    """Wrap a record in a frame."""
    return HEADER.pack(MAGIC, len(body), _checksum(len(body), body)) + body


def record_at(data: Sliced, at: int) -> tuple[int, Record] | None:
    """The end of the frame at `at`, and its record; None if no valid frame begins there."""
    header = data[at : at + HEADER.size]
    if len(header) < HEADER.size:
        return None
    magic, length, checksum = HEADER.unpack(header)
    start, end = at + HEADER.size, at + HEADER.size + length
    if magic != MAGIC or length > RECORD_BYTES or end > len(data):
        return None
    # Cheaper than a checksum if damaged bytes look like the headers of many long frames.
    if data[start : start + len(_BODY_BEGINS)] != _BODY_BEGINS:
        return None
    body = data[start:end]
    if not body.endswith(b"}") or _checksum(length, body) != checksum:
        return None
    try:
        record = decode(body)
    except BlockError:
        return None
    return (end, record) if is_valid(record) else None


def _checksum(length: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(length.to_bytes(4, "little")))


def require_place(folder: Path) -> None:
    """Fail if every file of the sweep is missing, because then its file system is unavailable.

    Raises:
        FileNotFoundError: if so.
    """
    file = folder.with_name(folder.name.removesuffix(".journal"))
    # Not with_name: the parent of a bare file name has none.
    shared = Path(os.fspath(file.parent).removesuffix(".shares"))
    if not (folder.exists() or file.exists() or (shared != file.parent and shared.exists())):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(folder))
