"""The data to stage: a folder or a tar file, as one sequence of entries that is read once.

The sequence has the same order each time, so that a node's partial copy is described by the number of its
first entries that are complete.  `key` changes when the source changes: with name, size or modification time
of any file in a folder, with those of the tar file itself.

Files of a folder are read by several threads, ahead of their turn: a parallel file system answers one request
after a millisecond, and many at once.

Links within the folder stay links.  A link that leads out of it is replaced by what it leads to, because
copies have nothing there.  Devices, sockets and pipes are left out.  In a tar file, an absolute path or one
with ``..``, and a link that leads out of the archive, are errors, as with ``filter="data"`` of
:mod:`tarfile`.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import posixpath
import stat
import tarfile
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Protocol

from mpisweep.errors import UserError

__all__ = ["Entry", "EntryKind", "FolderSource", "Source", "StageError", "TarSource", "open_source"]

#: Files that are read ahead, and the size up to which a file is read ahead as a whole, in bytes.
_AHEAD = 16
_SMALL_BYTES = 1 << 20
_READ_BYTES = 4 << 20
#: Unit in which file systems allocate space, in bytes.
_BLOCK_BYTES = 4096


class StageError(UserError):
    """Data cannot be staged; the message is one sentence."""


class EntryKind(StrEnum):
    """Kind of an entry; the target of a hard link is an earlier entry."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    HARD_LINK = "hard link"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, folder or link; paths are relative and have slashes."""

    path: str
    kind: EntryKind
    size: int = 0
    mode: int = 0o644
    mtime_ns: int = 0
    target: str = ""


class Source(Protocol):
    """Data to stage.

    Attributes:
        path: of the folder or the tar file.
        key: identifies its present content.
        size_bytes: size of the files, or of the tar file.
        files: number of files; None if only reading everything would tell.
        needs_bytes: space that a copy takes; a lower bound for a compressed tar file.
        is_compressed: whether it is a compressed tar file, whose copy is larger than itself.
        skipped: number of devices, sockets and pipes that were left out.
        read_bytes: number of bytes read from its files so far.
    """

    path: Path
    key: str
    size_bytes: int
    files: int | None
    needs_bytes: int
    is_compressed: bool
    skipped: int
    read_bytes: int

    def entries(self, start: int = 0) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        """Read the entries from number `start` on, each with its content.

        The content is to be consumed before the next entry.

        Raises:
            StageError: when the source cannot be read, or has changed.
        """


def open_source(path: Path) -> Source:
    """Look through a folder, or at a tar file.

    Raises:
        StageError: when there is neither, or it cannot be read.
    """
    try:
        if path.is_dir():
            return FolderSource(path)
        if not path.exists():
            raise StageError(f"{path}: does not exist; --stage-data takes a folder or a tar file")
        return TarSource(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | os.PathLike[str], error: OSError) -> StageError:
    return StageError(f"{error.filename or path}: cannot be read: {error.strerror or error}")


# ------------------------------------------------------------------------------------- a folder


class FolderSource:
    """A folder; the constructor lists all of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_compressed = False
        self.skipped = 0
        self.read_bytes = 0
        self._root = os.path.realpath(path)
        self._entries = list(self._listed(os.fspath(path), "", is_own=True, above=()))
        made_of = hashlib.blake2b(self._root.encode(errors="surrogateescape"), digest_size=16)
        for entry in self._entries:
            made_of.update(repr(astuple(entry)).encode(errors="backslashreplace"))
        self.key = made_of.hexdigest()
        sizes = [entry.size for entry in self._entries if entry.kind is EntryKind.FILE]
        self.files: int | None = len(sizes)
        self.size_bytes = sum(sizes)
        self.needs_bytes = _BLOCK_BYTES * (
            len(self._entries) + sum(-(-size // _BLOCK_BYTES) for size in sizes)
        )

    def _listed(
        self, folder: str, inside: str, *, is_own: bool, above: tuple[tuple[int, int], ...]
    ) -> Iterator[Entry]:
        """List a folder, which is `inside` in the copy.

        Args:
            folder: its path.
            inside: its path in the copy, with a slash at the end; empty for the root.
            is_own: whether it lies in the source itself, not behind a link that leads out of it.
            above: device and inode of all folders on the way to it, to notice links that lead back.
        """
        here = os.stat(folder)  # noqa: PTH116 millions of files: paths as text
        above = (*above, (here.st_dev, here.st_ino))
        with os.scandir(folder) as found:
            items = sorted(found, key=lambda item: item.name)
        for item in items:
            path = inside + item.name
            if item.is_symlink() and (link := self._link(item, path, is_own=is_own)) is not None:
                yield link
                continue
            state = item.stat()
            if stat.S_ISDIR(state.st_mode):
                if (state.st_dev, state.st_ino) in above:
                    raise StageError(f"{item.path}: is a link to a folder that contains it")
                yield Entry(path, EntryKind.FOLDER)
                leads_out = item.is_symlink()
                yield from self._listed(item.path, f"{path}/", is_own=is_own and not leads_out, above=above)
            elif stat.S_ISREG(state.st_mode):
                yield Entry(
                    path, EntryKind.FILE, state.st_size, stat.S_IMODE(state.st_mode), state.st_mtime_ns
                )
            else:
                self.skipped += 1

    def _link(self, item: os.DirEntry[str], path: str, *, is_own: bool) -> Entry | None:
        """The link of the copy; None if what it leads to takes its place."""
        target = os.path.realpath(item.path)
        if not os.path.exists(target):  # noqa: PTH110
            return Entry(path, EntryKind.LINK, target=os.readlink(item.path))  # noqa: PTH115
        if is_own and target.startswith(self._root + os.sep):
            within = os.path.relpath(target, self._root)
            return Entry(path, EntryKind.LINK, target=os.path.relpath(within, os.path.dirname(path) or "."))  # noqa: PTH120
        return None

    def entries(self, start: int = 0) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        """See :class:`Source`."""
        todo = iter(self._entries[start:])
        with ThreadPoolExecutor(_AHEAD, thread_name_prefix="stage") as pool:
            ahead: deque[tuple[Entry, Future[bytes] | None]] = deque()
            try:
                while True:
                    while len(ahead) < _AHEAD and (entry := next(todo, None)) is not None:
                        is_small = entry.kind is EntryKind.FILE and entry.size <= _SMALL_BYTES
                        ahead.append((entry, pool.submit(self._whole, entry) if is_small else None))
                    if not ahead:
                        return
                    entry, content = ahead.popleft()
                    if content is not None:
                        yield entry, iter((self._counted(content.result()),))
                    elif entry.kind is EntryKind.FILE:
                        yield entry, map(self._counted, self._read(entry))
                    else:
                        yield entry, iter(())
            finally:
                for _, content in ahead:
                    if content is not None:
                        content.cancel()

    def _counted(self, part: bytes) -> bytes:
        self.read_bytes += len(part)
        return part

    def _whole(self, entry: Entry) -> bytes:
        return b"".join(self._read(entry))

    def _read(self, entry: Entry) -> Iterator[bytes]:
        path = os.path.join(self.path, entry.path)  # noqa: PTH118
        try:
            with open(path, "rb", buffering=0) as file:
                left = entry.size
                while left and (part := file.read(min(left, _READ_BYTES))):
                    left -= len(part)
                    yield part
                state = os.fstat(file.fileno())
        except OSError as error:
            raise _unreadable(path, error) from error
        if left or (state.st_size, state.st_mtime_ns) != (entry.size, entry.mtime_ns):
            raise StageError(f"{path}: changed while it was staged; run the same command again")


# ------------------------------------------------------------------------------------- a tar file


class _Counting:
    """A file that counts the bytes read from it."""

    def __init__(self, file: IO[bytes], source: TarSource) -> None:
        self._file = file
        self._source = source

    def read(self, size: int = -1) -> bytes:
        part = self._file.read(size)
        self._source.read_bytes += len(part)
        return part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class TarSource:
    """A tar file, compressed or not, which is read from beginning to end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        state = path.stat()
        self._state = (state.st_size, state.st_mtime_ns)
        self.size_bytes = state.st_size
        self.files: int | None = None
        self.needs_bytes = state.st_size
        self.skipped = 0
        self.read_bytes = 0
        made_of = f"{os.path.realpath(path)} {self._state}"
        self.key = hashlib.blake2b(made_of.encode(errors="surrogateescape"), digest_size=16).hexdigest()
        try:
            with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:"):
                self.is_compressed = False
        except tarfile.TarError:
            try:
                with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:*"):
                    self.is_compressed = True
            except tarfile.TarError as error:
                raise StageError(
                    f"{path}: is neither a folder nor a tar file (plain, gzip, bzip2 or xz)"
                ) from error

    def entries(self, start: int = 0) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        """See :class:`Source`."""
        self.skipped = 0
        with self._readable(), self.path.open("rb") as file:
            counting: Any = _Counting(file, self)
            with tarfile.open(fileobj=counting, mode="r:*") as archive:
                index = 0
                while (member := archive.next()) is not None:
                    # Otherwise it keeps a kilobyte of every member.
                    archive.members = []  # type: ignore[attr-defined]
                    entry = self._entry(member)
                    if entry is None:
                        self.skipped += 1
                    elif index >= start:
                        yield entry, self._content(archive, member, entry)
                    index += entry is not None
            state = os.fstat(file.fileno())
        if (state.st_size, state.st_mtime_ns) != self._state:
            raise StageError(f"{self.path}: changed while it was staged; run the same command again")

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Report a file that cannot be read, or is damaged, in one sentence."""
        try:
            yield
        except OSError as error:
            raise _unreadable(self.path, error) from error
        except (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
            raise StageError(f"{self.path}: is damaged: {error}") from error

    def _entry(self, member: tarfile.TarInfo) -> Entry | None:
        """The entry of a member; None for a device or a pipe."""
        path = posixpath.normpath(member.name)
        if not _is_inside(path):
            raise StageError(f"{self.path}: has the member {member.name!r}, which lies outside of it")
        if member.isdir():
            return Entry(path, EntryKind.FOLDER)
        if member.isreg():
            return Entry(
                path, EntryKind.FILE, member.size, member.mode & 0o777, int(member.mtime * 1_000_000_000)
            )
        if not member.issym() and not member.islnk():
            return None
        # A hard link names a member, a link a path beside itself.
        leads_to = (
            member.linkname if member.islnk() else posixpath.join(posixpath.dirname(path), member.linkname)
        )
        if not _is_inside(posixpath.normpath(leads_to)):
            raise StageError(
                f"{self.path}: has the link {member.name!r} to {member.linkname!r}, which lies outside of it"
            )
        if member.islnk():
            return Entry(path, EntryKind.HARD_LINK, target=posixpath.normpath(leads_to))
        return Entry(path, EntryKind.LINK, target=member.linkname)

    def _content(self, archive: tarfile.TarFile, member: tarfile.TarInfo, entry: Entry) -> Iterator[bytes]:
        if entry.kind is not EntryKind.FILE:
            return
        left = entry.size
        with self._readable(), archive.extractfile(member) as opened:  # type: ignore[union-attr]
            while left and (part := opened.read(min(left, _READ_BYTES))):
                left -= len(part)
                yield part
        if left:
            raise StageError(f"{self.path}: ends within {member.name!r}")


def _is_inside(path: str) -> bool:
    return not path.startswith("/") and path.split("/", 1)[0] != ".."
