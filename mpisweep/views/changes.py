"""When the files of a sweep have changed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mpisweep.results import journal_folder, requests_folder, shares_folder, stop_file
from mpisweep.results.holder import CLAIM

__all__ = ["SHARE_OF_TIME", "SILENCE_S", "change_times", "without_heartbeats"]

#: Seconds without any change of the files after which a run counts as stopped; a claim changes every 5 s.
SILENCE_S = 60.0
#: Maximum share of the time spent on reading, however large the sweep is.
SHARE_OF_TIME = 0.1


def change_times(path: Path) -> dict[Path, int]:
    """File -> time of its last change, for all files that a run or a request writes."""
    times: dict[Path, int] = {}
    files = [path, stop_file(path)]
    for top in (journal_folder(path), shares_folder(path), requests_folder(path)):
        files += [Path(folder, name) for folder, _, names in os.walk(top) for name in names]
    for file in files:
        # Files may disappear meanwhile.
        with contextlib.suppress(OSError):
            times[file] = file.stat().st_mtime_ns
    return times


def without_heartbeats(times: dict[Path, int]) -> dict[Path, int]:
    """The changes without those of claims, which say that a run is alive and nothing more."""
    return {file: at for file, at in times.items() if file.name != CLAIM}
