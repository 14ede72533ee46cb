"""A disk that can fail, fill up, hang or slow down at any moment; see disk.c."""

from __future__ import annotations

import os
from pathlib import Path

from libraries import build_library

__all__ = ["Disk"]

SOURCE = Path(__file__).with_name("disk.c")


class Disk:
    """The disk below a folder, as seen by processes that run with :attr:`environment`.

    Args:
        folder: everything below it is on this disk.
        beside: a folder outside it, for the library and the state.
    """

    def __init__(self, folder: Path, beside: Path) -> None:
        folder.mkdir(exist_ok=True)
        library, self._state = beside / "disk.so", beside / "disk.state"
        if not library.exists():
            build_library(SOURCE, library)
        self.environment = {
            "LD_PRELOAD": os.fspath(library),
            "DISK_FOLDER": os.fspath(folder.resolve()),
            "DISK_STATE": os.fspath(self._state),
        }
        self.be("fine")

    def be(self, state: str) -> None:
        """Switch to ``fine``, ``hang``, ``slow SECONDS`` or ``fail ERRNO``, also for pending calls."""
        aside = self._state.with_suffix(".new")
        aside.write_text(state)
        aside.replace(self._state)
