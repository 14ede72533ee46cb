"""A disk that fails, fills, hangs or is slow at any moment; see disk.c.  Takes a C compiler, as mpi4py does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

__all__ = ["Disk"]

SOURCE = Path(__file__).with_name("disk.c")


class Disk:
    """A folder, and what is told of the disk below it to the processes that have :attr:`environment`.

    Args:
        folder: what lies below it is on the disk.
        beside: a folder that is not, for the library and the state.
    """

    def __init__(self, folder: Path, beside: Path) -> None:
        folder.mkdir(exist_ok=True)
        library, self._state = beside / "disk.so", beside / "disk.state"
        if not library.exists():
            subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
        self.environment = {
            "LD_PRELOAD": os.fspath(library),
            "DISK_FOLDER": os.fspath(folder.resolve()),
            "DISK_STATE": os.fspath(self._state),
        }
        self.be("fine")

    def be(self, state: str) -> None:
        """``fine``, ``hang``, ``slow SECONDS`` or ``fail ERRNO``; at once, whatever is under way."""
        aside = self._state.with_suffix(".new")
        aside.write_text(state)
        aside.replace(self._state)
