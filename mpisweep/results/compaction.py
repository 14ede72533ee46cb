"""Compaction: a new HDF5 file from the old one and the journal, as a function of files.

During a sweep it runs in a process of its own (:mod:`mpisweep.results.storing`), so that no rank waits for
it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from mpisweep.results import damaged_folder, journal_folder
from mpisweep.results.claim import after_token, remove_through
from mpisweep.results.file.writing import write_file
from mpisweep.results.journal.reader import Damage
from mpisweep.results.journal.segments import segments
from mpisweep.results.merged import read_merged
from mpisweep.results.reports import Reading
from mpisweep.results.state import SweepState
from mpisweep.results.syncing import sync

__all__ = ["close_with", "compact", "compact_and_close", "keep_damaged", "remove_covered"]

#: Sorts after the names of all segments.
_ALL = "~"


def compact(
    path: Path, keep: str = "", token: Path | None = None, *, closing_since: float | None = None
) -> None:
    """Write a new file from the old one and the journal, then delete the covered segments.

    Damaged segments are kept, see :func:`keep_damaged`.

    Args:
        path: of the HDF5 file.
        keep: name of the current segment: it and all later ones stay; empty keeps all.
        token: of the master that compacts, see :mod:`mpisweep.results.claim`; None if no other process can
            use the sweep.
        closing_since: see :func:`write_file`.
    """
    damages: list[Damage] = []
    state = read_merged(path, damages, reading=Reading.PLACES)
    write_file(path, state, token, closing_since=closing_since)
    keep_damaged(path, damages)
    remove_covered(path, state, token, keep)


def compact_and_close(path: Path, token: Path | None = None, *, closing_since: float | None = None) -> None:
    """Take the last snapshot of a run.

    Afterwards only the HDF5 file remains, and the segments of later masters.
    """
    compact(path, _ALL if token is None else after_token(token), token, closing_since=closing_since)
    sync(journal_folder(path))


def close_with(path: Path, state: SweepState, token: Path | None = None) -> None:
    """Write a repaired state, then delete the journal."""
    state.covered = {}
    write_file(path, state, token)
    remove_covered(path, state, token, _ALL)
    sync(journal_folder(path))


def remove_covered(path: Path, state: SweepState, token: Path | None, keep: str) -> None:
    """Delete the segments whose records are all in the file that `state` was written to.

    Args:
        path: of the HDF5 file.
        state: what was read, with the size of each segment at that time.
        token: see :func:`compact`.
        keep: segments from this name on stay.
    """
    folder = journal_folder(path)
    for name in segments(folder):
        segment = folder / name
        # Records appended after the read are not in the file.
        if name >= keep or state.sizes.get(name) != segment.stat().st_size:
            continue
        if token is None:
            segment.unlink()
        else:
            remove_through(token, segment)


def keep_damaged(path: Path, damages: Sequence[Damage]) -> list[Path]:
    """Copy damaged segments into ``NAME.h5.damaged/``; return the copies."""
    folder, kept = journal_folder(path), damaged_folder(path)
    copies: list[Path] = []
    for name in dict.fromkeys(damage.segment for damage in damages):
        copy = kept / name
        source = folder / name
        if not source.exists() or (copy.exists() and copy.stat().st_size >= source.stat().st_size):
            continue
        kept.mkdir(exist_ok=True)
        shutil.copyfile(source, copy)
        sync(copy)
        copies.append(copy)
    if copies:
        # The originals may be deleted from here on.
        sync(kept)
        sync(kept.parent)
    return copies
