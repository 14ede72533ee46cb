"""The manifest of a copy: what the copy has, one line per entry.

A line is written after its entry, so the first lines describe what a killed writer has left, and the next one
continues behind them.  The page cache survives the death of a process, not that of the node: a manifest of
another boot counts for nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from mpisweep.staged.source import Entry, EntryKind

__all__ = ["Found", "Identity", "entry_line", "header", "last_line", "read_manifest"]

_VERSION = 1
#: Begins the names of all copies.
_PREFIX = "mpisweep-data"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a copy is of, and whose.

    Attributes:
        source: real path of the source.
        key: of its content, see :class:`mpisweep.staged.source.Source`.
        host: name of this node.
        boot: identifies this boot of the node.
    """

    source: str
    key: str
    host: str
    boot: str

    @property
    def own(self) -> str:
        """The beginning of the names of all copies of this user on this node."""
        return f"{_PREFIX}-{os.getuid()}-{self.host}-"

    @property
    def name(self) -> str:
        """The name of its folder."""
        made_of = self.source.encode(errors="surrogateescape")
        return self.own + hashlib.blake2b(made_of, digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True)
class Found:
    """What a manifest says, as far as the copy agrees, and where to continue it."""

    entries: int = 0
    size_bytes: int = 0
    offset: int = 0
    is_complete: bool = False


def read_manifest(folder: Path, identity: Identity, *, looks: bool = True) -> Found:
    """Read the manifest as far as it is whole, and as the copy agrees with it.

    Args:
        folder: of the copy.
        identity: of the copy; the manifest of another one counts for nothing.
        looks: whether to look at each file of the copy.
    """
    count = size = offset = 0
    try:
        with (folder / "manifest").open("rb") as file:
            first = file.readline()
            if first != header(identity):
                return Found()
            offset = len(first)
            for line in file:
                found = _line(line)
                if isinstance(found, dict):
                    return Found(count, size, offset, is_complete=found == _totals(count, size))
                if found is None or (looks and not _agrees(folder, found)):
                    break
                count += 1
                size += found.size
                offset += len(line)
    except OSError:
        return Found()
    return Found(count, size, offset)


def header(identity: Identity) -> bytes:
    """The first line."""
    fields = {"version": _VERSION, "source": identity.source, "key": identity.key, "boot": identity.boot}
    return json.dumps(fields).encode() + b"\n"


def entry_line(entry: Entry, checksum: int) -> bytes:
    """The line of an entry that is complete."""
    size = entry.size if entry.kind is EntryKind.FILE else 0
    return json.dumps([entry.path, entry.kind, size, checksum]).encode() + b"\n"


def last_line(entries: int, size: int) -> bytes:
    """The line behind the last entry, whose presence makes the copy complete."""
    return json.dumps(_totals(entries, size)).encode() + b"\n"


def _totals(entries: int, size: int) -> dict[str, int]:
    return {"entries": entries, "bytes": size}


def _line(line: bytes) -> Entry | dict[str, int] | None:
    """An entry, the last line, or None for a line that was not written whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line)
        if isinstance(found, dict):
            return found
        path, kind, size, _ = found
        return Entry(path, EntryKind(kind), size)
    except (ValueError, TypeError):
        return None


def _agrees(folder: Path, entry: Entry) -> bool:
    """Whether the copy has this entry, with this kind and size."""
    try:
        found = os.lstat(f"{folder}/data/{entry.path}")
    except OSError:
        return False
    match entry.kind:
        case EntryKind.FOLDER:
            return stat.S_ISDIR(found.st_mode)
        case EntryKind.LINK:
            return stat.S_ISLNK(found.st_mode)
        case EntryKind.HARD_LINK:
            return stat.S_ISREG(found.st_mode)
    return stat.S_ISREG(found.st_mode) and found.st_size == entry.size
