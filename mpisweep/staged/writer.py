"""Writing a stream into the copy of a node."""

from __future__ import annotations

import contextlib
import errno
import os
import zlib
from typing import IO

from mpisweep.staged.copies import Copy
from mpisweep.staged.manifest import entry_line, header, last_line
from mpisweep.staged.source import Entry, EntryKind, StageError
from mpisweep.staged.stream import FrameKind, frames

__all__ = ["CopyWriter"]


class CopyWriter:
    """Writes a stream into a copy of which this process is the only user.

    Args:
        copy: to write into.
        first: number of the first entry of the stream.
    """

    def __init__(self, copy: Copy, first: int) -> None:
        self._copy = copy
        self._root = os.path.realpath(copy.data)
        self._index = first
        self._count, self._size = copy.entries, copy.size_bytes
        self._manifest: IO[bytes] | None = None
        #: The file that is being written: entry, descriptor, checksum and bytes so far.
        self._entry: Entry | None = None
        self._file = -1
        self._checksum = self._written = 0
        #: Folders of the copy that are known to lie in it.
        self._folders = {""}

    def write(self, chunk: memoryview) -> None:
        """Write a chunk of the stream.

        Raises:
            StageError: when it cannot be written, or has arrived damaged.
        """
        try:
            if self._manifest is None:
                self._manifest = _opened_manifest(self._copy)
            for frame in frames(chunk):
                match frame.kind:
                    case FrameKind.ENTRY:
                        self._begin(frame.entry())
                    case FrameKind.CONTENT if self._entry is not None:
                        self._add(frame.body)
                    case FrameKind.CHECKSUM:
                        self._end(frame.checksum())
                    case FrameKind.END:
                        self._note(last_line(self._count, self._size))
                        self._copy.is_complete = True
            self._manifest.flush()
        except OSError as error:
            what = "; set --stage-to to a folder with more room" if error.errno == errno.ENOSPC else ""
            raise StageError(
                f"{self._copy.folder}: the data cannot be written: {error.strerror}{what}"
            ) from error

    def close(self) -> None:
        """Close all files; what is not complete is written again by the next writer."""
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = -1
        if self._manifest is not None:
            with contextlib.suppress(OSError):
                self._manifest.close()

    def _begin(self, entry: Entry) -> None:
        is_new = self._index >= self._copy.entries
        self._index += 1
        if not is_new:
            return
        self._entry, self._checksum, self._written = entry, 0, 0
        path = self._path(entry.path)
        if entry.kind is EntryKind.FOLDER:
            self._prepare(entry.path)
            return
        # A file that a killed writer has left, or an earlier member of the same name.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 millions of files: paths as text
        match entry.kind:
            case EntryKind.FILE:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                self._file = os.open(path, flags, 0o600)
            case EntryKind.LINK:
                os.symlink(entry.target, path)  # noqa: PTH211
                # A folder may lie behind it now.
                self._folders = {""}
            case EntryKind.HARD_LINK:
                os.link(self._path(entry.target), path, follow_symlinks=False)

    def _path(self, path: str) -> str:
        self._prepare(os.path.dirname(path))  # noqa: PTH120
        return f"{self._root}/{path}"

    def _prepare(self, folder: str) -> None:
        """Make a folder of the copy, and all above it; links must not lead out of the copy."""
        if folder in self._folders:
            return
        self._prepare(os.path.dirname(folder))  # noqa: PTH120
        path = f"{self._root}/{folder}"
        try:
            os.mkdir(path, 0o700)  # noqa: PTH102
        except FileExistsError:
            real = os.path.realpath(path)
            if real != self._root and not real.startswith(self._root + os.sep):
                raise StageError(
                    f"{folder} leads out of the data through a link; nothing is staged"
                ) from None
        self._folders.add(folder)

    def _add(self, content: memoryview) -> None:
        self._checksum = zlib.crc32(content, self._checksum)
        while content:
            written = os.write(self._file, content)
            self._written += written
            content = content[written:]

    def _end(self, checksum: int) -> None:
        entry, self._entry = self._entry, None
        if entry is None:
            return
        if entry.kind is EntryKind.FILE:
            file, self._file = self._file, -1
            try:
                # The user can read and replace it, also if only others could in the source.
                os.fchmod(file, entry.mode & 0o755 | 0o600)
                os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns))
            finally:
                os.close(file)
            if (self._checksum, self._written) != (checksum, entry.size):
                raise StageError(f"{entry.path}: arrived damaged; run the same command again")
            self._size += entry.size
        self._count += 1
        self._note(entry_line(entry, checksum))

    def _note(self, line: bytes) -> None:
        assert self._manifest is not None
        self._manifest.write(line)


def _opened_manifest(copy: Copy) -> IO[bytes]:
    """Open the manifest behind its last valid line; begin one if there is none."""
    file = (copy.folder / "manifest").open("r+b" if copy.offset else "w+b")
    file.truncate(copy.offset)
    file.seek(copy.offset)
    if not copy.offset:
        file.write(header(copy.identity))
    return file
