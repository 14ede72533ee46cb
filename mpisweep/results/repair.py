"""Repair of a damaged sweep, without ever changing or deleting the damaged parts.

HDF5 may crash on a damaged file or loop for ever.  So a child process reads it: it announces each part before
it reads it, and if it dies or times out on one, another child reads the rest.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from mpisweep.records import TrialState
from mpisweep.results import ResultsError, damaged_folder, journal_folder, shares_folder
from mpisweep.results.claim import Claim, FollowedError, RunOverError
from mpisweep.results.compaction import close_with, keep_damaged
from mpisweep.results.file.reading import NotOursError, read_file
from mpisweep.results.file.salvage import salvage_file
from mpisweep.results.holder import STALE_S, ClaimedError
from mpisweep.results.journal.reader import Damage
from mpisweep.results.journal.segments import segments
from mpisweep.results.merged import add_journal, read_merged
from mpisweep.results.reports import Reading
from mpisweep.results.shares.folder import base_file, left_file, members, part_file
from mpisweep.results.shares.merging import gather
from mpisweep.results.state import SweepState

__all__ = ["Repaired", "repair"]

#: Timeout for reading one part of a file, in seconds; and the addition per byte of the file.
_TIMEOUT_S = 20.0
_TIMEOUT_S_PER_BYTE = 1e-7


@dataclass(frozen=True, slots=True)
class Repaired:
    """The outcome of a repair.

    Attributes:
        ended: number of trials that have ended.
        trials: number of known trials.
        lost: parts of the HDF5 file that could not be read, as their names in it.
        is_changed: whether the HDF5 file differs from what was written; values read from it may be wrong.
        damages: parts of the journal that could not be read.
        kept: paths of the kept damaged parts.
    """

    ended: int
    trials: int
    lost: tuple[str, ...]
    is_changed: bool
    damages: tuple[Damage, ...]
    kept: tuple[Path, ...]


def repair(path: Path) -> Repaired:
    """Write an intact results file from the readable parts of a file and its journal.

    Args:
        path: of the HDF5 file.

    Raises:
        ResultsError: when the file is not a results file, a run is writing it, or nothing can be read.
        OSError: when the new file cannot be written; all old files still exist then.
    """
    if shares_folder(path).exists():
        return _repair_shares(path)
    folder = journal_folder(path)
    if not path.exists() and not segments(folder):
        raise ResultsError(f"{path}: no such results file")
    try:
        claim = Claim.take(folder, "", purpose="repair")
    except ClaimedError as error:
        raise ResultsError(str(error)) from error
    try:
        with _heartbeat(claim):
            return _repair(path, folder, claim.token)
    finally:
        claim.release()


class _NothingLeftError(ResultsError):
    """Nothing of a file or its journal can be read."""


def _repair_shares(path: Path) -> Repaired:
    """Repair the part of each member of a split sweep, then merge the parts."""
    folder = shares_folder(path)
    done = {base_file(folder): _repair_part(base_file(folder))} if base_file(folder).exists() else {}
    for member in members(folder):
        part = part_file(folder, member)
        if part.exists() or segments(journal_folder(part)):
            done[part] = _repair_part(part)
            # Its member is dead, or the repair would have been refused.
            left_file(folder, member).touch()
    gather(path, STALE_S)
    # A member that was killed before its first record has no file.
    states = read_merged(path, reading=Reading.TABLES).trials["state"] if path.exists() else []
    return Repaired(
        sum(TrialState(state).is_end for state in states),
        len(states),
        tuple(f"{part.name}{name}" for part, one in done.items() for name in one.lost),
        any(one.is_changed for one in done.values()),
        tuple(damage for one in done.values() for damage in one.damages),
        (damaged_folder(path),) if any(one.kept for one in done.values()) else (),
    )


def _repair_part(part: Path) -> Repaired:
    """Repair one part; move it aside if nothing is readable, so that the others can merge."""
    try:
        return repair(part)
    except _NothingLeftError:
        kept = damaged_folder(part)
        kept.mkdir(exist_ok=True)
        if part.exists():
            _move_aside(part)
            part.unlink()
        if segments(journal_folder(part)):
            os.rename(journal_folder(part), kept / journal_folder(part).name)
        return Repaired(0, 0, ("/",), True, (), (kept,))


@contextlib.contextmanager
def _heartbeat(claim: Claim) -> Iterator[None]:
    """Send heartbeats for the claim in the background, so that a long repair is not judged dead."""
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.wait(STALE_S / 10):
            with contextlib.suppress(OSError, RunOverError, FollowedError):
                claim.beat()

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _repair(path: Path, folder: Path, token: Path) -> Repaired:
    lost: list[str] = []
    kept: list[Path] = []
    state = SweepState()
    is_changed = False
    if path.exists():
        try:
            state = read_file(path, Reading.SAMPLES)
        except NotOursError:
            raise
        except ResultsError:
            is_changed = True
            state, lost = _salvaged(path)
    damages: list[Damage] = []
    add_journal(state, folder, damages, Reading.PLACES)
    if not state.allocations["run"]:
        raise _NothingLeftError(
            f"{path}: no part of it or of its journal can be read; the files are unchanged"
        )
    kept += keep_damaged(path, damages)
    if is_changed:
        kept.append(_move_aside(path))
    if is_changed or segments(folder):
        close_with(path, state, token)
    ended = sum(state.trials["state"].count(int(s)) for s in TrialState if s.is_end)
    return Repaired(ended, state.count, tuple(lost), is_changed, tuple(damages), tuple(kept))


def _salvaged(path: Path) -> tuple[SweepState, list[str]]:
    """Read a damaged file in child processes; return the state and the names of the lost parts."""
    unreadable: set[str] = set()
    timeout_s = _TIMEOUT_S + _TIMEOUT_S_PER_BYTE * path.stat().st_size
    forking = multiprocessing.get_context("fork")
    while True:
        ours, theirs = forking.Pipe(duplex=False)
        reader = forking.Process(target=_salvage, args=(path, unreadable, theirs))
        with warnings.catch_warnings():
            # Python 3.12 warns of threads; a linear algebra library's do not affect a child that reads.
            warnings.simplefilter("ignore", DeprecationWarning)
            reader.start()
        theirs.close()
        at = "/"
        found: tuple[SweepState, list[str]] | None = None
        try:
            while found is None and ours.poll(timeout_s):
                message = ours.recv()
                if isinstance(message, str):
                    at = message
                else:
                    found = message
        except EOFError:
            pass
        finally:
            reader.kill()
            reader.join()
            ours.close()
        if found is not None:
            return found
        if at in unreadable:
            return SweepState(), ["/"]
        unreadable.add(at)


def _salvage(path: Path, unreadable: set[str], line: Connection) -> None:
    lost: list[str] = []
    line.send((salvage_file(path, lost, unreadable=unreadable, begin=line.send), lost))


def _move_aside(path: Path) -> Path:
    kept = damaged_folder(path)
    kept.mkdir(exist_ok=True)
    count = 1
    while (aside := kept / f"{path.stem}-{count}{path.suffix}").exists():
        count += 1
    os.link(path, aside)
    return aside
