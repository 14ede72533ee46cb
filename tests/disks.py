"""A disk that fails, fills, hangs or is slow at any moment; see disk.c."""

from __future__ import annotations

import os
from pathlib import Path

from libraries import build_library

__all__ = ["Disk"]

SOURCE = Path(__file__).with_name("disk.c")


class Disk:
    """The disk below a folder, as processes with :attr:`environment` find it.

    Args:
        folder: everything below it is on the disk.
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
        """Change to ``fine``, ``hang``, ``slow SECONDS`` or ``fail ERRNO``, also for calls under way."""
        aside = self._state.with_suffix(".new")
        aside.write_text(state)
        aside.replace(self._state)
