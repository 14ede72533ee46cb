"""The runs of a sweep: their names, and moving old results aside."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

from mpisweep.results import journal_folder, requests_folder
from mpisweep.results.journal.segments import run_of, segments

__all__ = ["last_run", "move_aside", "new_run_name", "run_name"]

log = logging.getLogger(__name__)


def new_run_name(folder: Path) -> str:
    """A unique run name that sorts after those of all earlier runs, whatever the clock says."""
    after = last_run(folder)
    # "x" comes after the "-" that follows a run's name in the names of its segments.
    name = run_name()
    return name if name > after else f"{after}x-{secrets.token_hex(3)}"


def run_name() -> str:
    """A unique run name that sorts after earlier ones if the clock is right."""
    return f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%S%f')}-{secrets.token_hex(3)}"


def last_run(folder: Path) -> str:
    """Name of the last run in a journal; empty if there is none."""
    return max(map(run_of, segments(folder)), default="")


def move_aside(path: Path, token: Path) -> Path | None:
    """Rename an old results file, and its journal, instead of deleting them.

    Args:
        path: of the HDF5 file.
        token: of the master that renames; see :mod:`mpisweep.results.claim`.

    Returns:
        The new path of the file; None if there was nothing to move.
    """
    folder = journal_folder(path)
    old_segments = segments(folder)
    if not path.exists() and not old_segments:
        return None
    stamp = time.strftime("%Y%m%d-%H%M%S")
    kept = path.with_name(f"{path.stem}.{stamp}{path.suffix}")
    count = 1
    while kept.exists() or journal_folder(kept).exists():
        count += 1
        kept = path.with_name(f"{path.stem}.{stamp}-{count}{path.suffix}")
    if old_segments:
        journal_folder(kept).mkdir()
        for name in old_segments:
            _move_through(token, folder / name, journal_folder(kept) / name)
    # What was asked of the old sweep is not asked of the new one.
    with contextlib.suppress(FileNotFoundError):
        os.rename(requests_folder(path), requests_folder(kept))
    if path.exists():
        _move_through(token, path, kept)
    log.info("moved %s to %s", path.name, kept.name)
    return kept


def _move_through(token: Path, old: Path, new: Path) -> None:
    os.rename(old, token / "moved")
    os.rename(token / "moved", new)
