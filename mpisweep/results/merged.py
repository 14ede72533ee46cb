"""A sweep out of its HDF5 file and its journal, as one."""

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

#: How often what is changed while it is being read is looked at again, and the pause before that, in seconds.
_LOOKS = 20
_AGAIN_S = 0.05
State = TypeVar("State")


def read_until_stable(
    read: Callable[[list[Damage]], tuple[State, bool]],
    by_change: tuple[type[Exception], ...],
    damages: list[Damage] | None,
) -> State:
    """Read what may be changed meanwhile, again until it was not.

    Args:
        read: returns what it has read, and whether that was there all the time; notes what could not be read.
        by_change: what a change that comes in between may look like to it.
        damages: gets what could not be read in the end.
    """
    for look in range(_LOOKS):
        found: list[Damage] = []
        try:
            state, has_stayed = read(found)
        except by_change:
            if look == _LOOKS - 1:
                raise
            time.sleep(_AGAIN_S)
            continue
        if has_stayed:
            break
    if damages is not None:
        damages.extend(found)
    return state


def read_merged(
    path: Path, damages: list[Damage] | None = None, *, reading: Reading = Reading.SAMPLES
) -> SweepState:
    """The state of a sweep from its file and its journal; either may be missing.

    Args:
        path: of the HDF5 file.
        damages: gets what could not be read in the journal.
        reading: what of its curves.

    Raises:
        ResultsError: when there is no sweep, or the file is something else.
    """
    # NFS says by ESTALE that the file was replaced while it was being read.
    state = read_until_stable(functools.partial(_read_merged, path, reading), (OSError,), damages)
    if not state.allocations["run"]:
        raise ResultsError(f"{path}: no such results file")
    return state


def _read_merged(path: Path, reading: Reading, damages: list[Damage]) -> tuple[SweepState, bool]:
    folder = journal_folder(path)
    names = segments(folder)
    state = read_file(path, reading) if path.exists() else SweepState()
    add_journal(state, folder, damages, reading)
    # Had a segment gone in between, its records would be in the new file and not in the one that was read.
    return state, set(names) <= set(segments(folder))


def add_journal(state: SweepState, folder: Path, damages: list[Damage], reading: Reading) -> None:
    """Take in what a journal has beyond the file that `state` was read from."""
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
    state.settle()


def _size_of(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
