"""Reading a sweep from its HDF5 file and its journal as one."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mpisweep.results import ResultsError, journal_folder
from mpisweep.results.file.reading import read_file
from mpisweep.results.journal.reader import Damage, Entry, Frames, read_journal
from mpisweep.results.journal.segments import segments
from mpisweep.results.replay import apply, kept
from mpisweep.results.reports import Reading, Reports
from mpisweep.results.state import SweepState

__all__ = ["State", "add_journal", "read_merged", "read_until_stable"]

#: Attempts to read files that change during the read, and the pause between them, in seconds.
_TRIES = 20
_RETRY_S = 0.05
State = TypeVar("State")


def read_until_stable(
    read: Callable[[list[Damage]], tuple[State, bool]],
    by_change: tuple[type[Exception], ...],
    damages: list[Damage] | None,
) -> State:
    """Read files that may change during the read; repeat until they did not change.

    Args:
        read: returns its result and whether the files stayed in place; records damage in its argument.
        by_change: exceptions that a change during the read can cause.
        damages: receives the damage that the last read found.
    """
    for attempt in range(_TRIES):
        found: list[Damage] = []
        try:
            state, is_stable = read(found)
        except by_change:
            if attempt == _TRIES - 1:
                raise
            time.sleep(_RETRY_S)
            continue
        if is_stable:
            break
    if damages is not None:
        damages.extend(found)
    return state


def read_merged(
    path: Path, damages: list[Damage] | None = None, *, reading: Reading = Reading.SAMPLES
) -> SweepState:
    """Read the state of a sweep from its file and its journal; either may be missing.

    Args:
        path: of the HDF5 file.
        damages: receives the parts of the journal that could not be read.
        reading: which curves to read.

    Raises:
        ResultsError: when there is no sweep, or the file is not a results file.
    """
    # On NFS, ESTALE means that the file was replaced during the read.
    state = read_until_stable(functools.partial(_read_merged, path, reading), (OSError,), damages)
    if not state.allocations["run"]:
        raise ResultsError(f"{path}: no such results file")
    return state


def _read_merged(path: Path, reading: Reading, damages: list[Damage]) -> tuple[SweepState, bool]:
    folder = journal_folder(path)
    names = segments(folder)
    state = read_file(path, reading) if path.exists() else SweepState()
    add_journal(state, folder, damages, reading)
    # The records of a segment deleted in between are in the new file and not in the one that was read.
    return state, set(names) <= set(segments(folder))


def add_journal(state: SweepState, folder: Path, damages: list[Damage], reading: Reading) -> None:
    """Apply the journal's records that are not in the file that `state` was read from."""
    state.most_trials = state.count + sum(_size_of(folder / name) for name in segments(folder))
    state.index()
    keep: Callable[[Entry], Reports] | None = None
    if reading is Reading.SAMPLES:
        keep = kept
    elif reading is Reading.PLACES:
        frames = Frames(folder)
        state.curves.sources.append(frames)
        keep = frames.placed
    for entry in read_journal(folder, state.covered, damages, state.sizes):
        apply(state, entry, keep)
    state.drop_lookups()


def _size_of(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
