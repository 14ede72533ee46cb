"""Where a node keeps its copy: a node-local folder with room for it.

Unless the user names a folder, the candidates are the folders that the batch system made for the job on the
node's own disk, then ``TMPDIR``, then ``/dev/shm``.  A folder on a file system that nodes share is passed
over.  A file system in main memory may take at most half of the memory that is available, so that the trials
keep the other half.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpisweep.staged.source import StageError

__all__ = ["Place", "choose_place", "size_text"]

_MEMORY_FOLDER = "/dev/shm"  # noqa: S108 each copy is in a folder that only its user can enter
#: Types of file systems that nodes share.
_SHARED_TYPES = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "dvs", "fefs", "fuse.ceph", "fuse.glusterfs", "fuse.juicefs",
    "fuse.sshfs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "orangefs", "panfs", "pvfs2", "smb3", "smbfs",
    "virtiofs", "wekafs",
})  # fmt: skip
_MEMORY_TYPES = frozenset({"tmpfs", "ramfs"})
#: Share of the available memory that a copy in main memory may take.
_MEMORY_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Place:
    """A folder for a copy, the room in it in bytes, and where its name comes from."""

    folder: Path
    room_bytes: int
    named_by: str

    def __str__(self) -> str:
        return f"{self.folder} ({self.named_by})" if self.named_by else str(self.folder)


def size_text(size: float) -> str:
    """Format a number of bytes: ``1.2 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 99.5 else f"{size:.2g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def choose_place(
    to: str,
    variables: Sequence[str],
    environment: Mapping[str, str],
    needs_bytes: int,
    make_room: Callable[[Path], int] = lambda _: 0,
) -> Place:
    """Choose the folder for a copy on this node.

    Args:
        to: the folder that the user names, which may contain ``$VARIABLES``; empty to choose one.
        variables: with node-local folders of the batch system, the best first.
        environment: of this process.
        needs_bytes: size of the copy.
        make_room: removes from a folder what nobody needs, and returns the size of what it has of the copy.

    Raises:
        StageError: when there is no folder, or no room.
    """
    if to:
        return _named_place(to, environment, needs_bytes, make_room)
    refused: list[str] = []
    for name, folder in _candidates(variables, environment):
        held_bytes = make_room(folder)
        place = Place(folder, _room_bytes(folder), f"${name}" if name else "")
        if place.room_bytes + held_bytes >= needs_bytes:
            return place
        refused.append(f"{place} has room for {size_text(place.room_bytes)}")
    rooms = "; ".join(refused) or "there is none"
    raise StageError(
        f"no node-local folder has room for {size_text(needs_bytes)} of data: {rooms}; set --stage-to to a "
        "larger one"
    )


def _named_place(
    to: str, environment: Mapping[str, str], needs_bytes: int, make_room: Callable[[Path], int]
) -> Place:
    folder = Path(_expanded(to, environment)).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held_bytes = make_room(folder)
        room_bytes = _free_bytes(folder)
    except OSError as error:
        raise StageError(f"--stage-to {folder}: cannot be used: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StageError(f"--stage-to {folder}: may not be written")
    if room_bytes + held_bytes < needs_bytes:
        raise StageError(
            f"--stage-to {folder}: has {size_text(room_bytes)} free, but the data takes "
            f"{size_text(needs_bytes)}; set it to a larger node-local folder"
        )
    return Place(folder, room_bytes, "--stage-to")


def _expanded(to: str, environment: Mapping[str, str]) -> str:
    """Replace variables by their values on this node."""

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if not environment.get(name):
            raise StageError(f"--stage-to {to}: ${name} is not set on this node")
        return environment[name]

    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, to)


def _candidates(variables: Sequence[str], environment: Mapping[str, str]) -> list[tuple[str, Path]]:
    """Variables and their folders, as far as they can be used; at the end the one in main memory."""
    named = [(name, environment.get(name, "")) for name in dict.fromkeys((*variables, "TMPDIR"))]
    found: dict[Path, str] = {}
    for name, text in [*named, ("", _MEMORY_FOLDER)]:
        folder = Path(text)
        is_usable = folder.is_absolute() and folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
        if is_usable and _type_of(folder) not in _SHARED_TYPES:
            found.setdefault(folder, name)
    return [(name, folder) for folder, name in found.items()]


def _room_bytes(folder: Path) -> int:
    room_bytes = _free_bytes(folder)
    if _type_of(folder) in _MEMORY_TYPES:
        room_bytes = min(room_bytes, int(_MEMORY_SHARE * _available_memory()))
    return room_bytes


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _available_memory() -> float:
    """Available main memory in bytes; infinite for unknown."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return float("inf")


def _type_of(folder: Path) -> str:
    """Type of the file system that a folder is on; empty for unknown."""
    path = os.path.realpath(folder)
    best, found = "", ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            point = before.split(" ")[4].replace("\\040", " ")
            if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
                best, found = point, after.split(" ", 1)[0]
    return found
