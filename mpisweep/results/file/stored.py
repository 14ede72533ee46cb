"""Curves as a results file has them, read a stretch at a time."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import h5py

from mpisweep.results import ResultsError

__all__ = ["SampleFile", "Samples"]

#: Samples that are read at once where fewer are asked for: whoever copies asks for one trial after another.
_WINDOW = 8192


class SampleFile:
    """A results file, opened again when samples of it are wanted.

    Args:
        path: of the file.
        file: the same, open.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self._path = path
        self._identity = _identity(file)
        self._file: h5py.File | None = None
        self._datasets: dict[str, h5py.Dataset] = {}

    def read(self, name: str, first: int, end: int) -> Any:
        """A stretch of one of its datasets.

        Raises:
            OSError: when the file was replaced since.
            ResultsError: when it is damaged.
        """
        if self._file is None:
            file = h5py.File(self._path, "r")
            if _identity(file) != self._identity:
                file.close()
                raise OSError(errno.ESTALE, "was replaced while it was read", os.fspath(self._path))
            self._file = file
        if name not in self._datasets:
            self._datasets[name] = self._file[name]
        try:
            return self._datasets[name][first:end]
        except (OSError, RuntimeError, ValueError) as error:
            # Its checksum was right, or it has none, as another tool has made it.
            raise ResultsError(
                f"{self._path}: is damaged ({error}); `mpisweep repair {self._path}` saves what can be saved"
            ) from error

    def close(self) -> None:
        """Close the file; what is read afterwards opens it again."""
        if self._file is not None:
            self._datasets.clear()
            self._file.close()
            self._file = None


class Samples:
    """A column of curves in a file, as far as an array of one dimension is needed: its type, its length,
    stretches of it.

    Args:
        file: where it is.
        dataset: the column, open.
    """

    ndim = 1

    def __init__(self, file: SampleFile, dataset: h5py.Dataset) -> None:
        self.file = file
        self.dtype = dataset.dtype
        self._name = dataset.name
        self._length = len(dataset)
        #: What was read last, and where it begins.
        self._window: tuple[int, Any] = (0, ())

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, stretch: slice) -> Any:
        """An array that nobody may change.

        Raises:
            OSError: when the file was replaced since.
            ResultsError: when it is damaged.
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
