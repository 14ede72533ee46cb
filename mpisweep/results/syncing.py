"""Flushing files to the disk, and creating them durably."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["create_once", "sync", "write_synced"]


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write_synced(path: Path, text: str) -> None:
    """Write a file and flush it to the disk; its entry in the folder is not flushed."""
    with path.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


def create_once(path: Path, text: str) -> bool:
    """Create a file durably and whole; False if another process has created it."""
    aside = path.with_name(f"{path.suffix[1:]}.{os.urandom(8).hex()}")
    try:
        write_synced(aside, text)
        try:
            os.link(aside, path)
        except FileExistsError:
            # Over NFS the answer may be lost, and the repeated request then finds our own link.
            if aside.stat().st_nlink < 2:
                return False
        sync(path.parent)
        return True
    finally:
        aside.unlink(missing_ok=True)
