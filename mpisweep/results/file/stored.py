"""Curves in a results file, read in ranges."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import h5py

from mpisweep.results import ResultsError

__all__ = ["SampleFile", "Samples"]

#: Minimum number of samples per read, because a copy reads one trial after another.
_WINDOW = 8192


class SampleFile:
    """A results file that is reopened to read samples.

    Args:
        path: of the file.
        file: the same file, open.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self._path = path
        self._identity = _identity(file)
        self._file: h5py.File | None = None
        self._datasets: dict[str, h5py.Dataset] = {}

    def read(self, name: str, first: int, end: int) -> Any:
        """Read a range of one dataset.

        Raises:
            OSError: when the file was replaced in the meantime.
            ResultsError: when the file is damaged.
        """
        if self._file is None:
            file = h5py.File(self._path, "r")
            if _identity(file) != self._identity:
                file.close()
                raise OSError(errno.ESTALE, "was replaced during the read", os.fspath(self._path))
            self._file = file
        if name not in self._datasets:
            self._datasets[name] = self._file[name]
        try:
            return self._datasets[name][first:end]
        except (OSError, RuntimeError, ValueError) as error:
            # The checksum was right, or the file has none because another tool wrote it.
            raise ResultsError(
                f"{self._path}: is damaged ({error}); run `mpisweep repair {self._path}`"
            ) from error

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._file is not None:
            self._datasets.clear()
            self._file.close()
            self._file = None


class Samples:
    """A column of curves in a file, used like a one-dimensional array: type, length, slices.

    Args:
        file: that contains it.
        dataset: the column, open.
    """

    ndim = 1

    def __init__(self, file: SampleFile, dataset: h5py.Dataset) -> None:
        self.file = file
        self.dtype = dataset.dtype
        self._name = dataset.name
        self._length = len(dataset)
        #: The last samples read, and their offset.
        self._window: tuple[int, Any] = (0, ())

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, stretch: slice) -> Any:
        """Read a range; callers must not modify the array.

        Raises:
            OSError: when the file was replaced in the meantime.
            ResultsError: when the file is damaged.
        """
        first, end, _ = stretch.indices(self._length)
        at, window = self._window
        if not at <= first <= end <= at + len(window):
            if end - first >= _WINDOW:
                return self.file.read(self._name, first, end)
            at, window = self._window = (
                first,
                self.file.read(self._name, first, min(first + _WINDOW, self._length)),
            )
        return window[first - at : end - at]


def _identity(file: h5py.File) -> tuple[int, int, int, int]:
    found = os.fstat(file.id.get_vfd_handle())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
