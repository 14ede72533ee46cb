"""Shared libraries that override functions of the C library; building them takes a C compiler, as mpi4py does."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path

__all__ = ["build_library"]


def build_library(source: Path, library: Path) -> None:
    """Compile a C file into a shared library."""
    library.write_bytes(_compiled(source))


@functools.cache
def _compiled(source: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", made, source, "-ldl"], check=True)
        return made.read_bytes()
