"""``mpisweep watch``: the progress of a sweep, read from its files.

On a terminal it is a full screen (:mod:`mpisweep.views.screen`), otherwise one line per change.

The run opens no port, and may be on another host.  Its files show that it is active: the journal grows, and
the claim's time stamp changes every few seconds.  If no file has changed for :data:`SILENCE_S`, the run has
stopped.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TextIO

from mpisweep.progress import progress_line
from mpisweep.records import EndReason
from mpisweep.results import ResultsError
from mpisweep.results.load import load
from mpisweep.views.changes import SHARE_OF_TIME, SILENCE_S, change_times
from mpisweep.views.running import Watched, look_at
from mpisweep.views.status import CONTINUES, GONE, Status, print_status, sweep_status

__all__ = ["exit_code_of", "watch_lines"]


def watch_lines(path: Path, *, every_s: float, out: TextIO) -> int:
    """Print one line per change until the run of the sweep ends, then its status.

    Args:
        path: the results file.
        every_s: seconds between two updates; more if reading takes long.
        out: receives the lines.

    Returns:
        The exit code of the run, or 3 if the run has stopped and can be resumed.

    Raises:
        ResultsError: if there is no sweep at first, or for longer than a minute.
    """
    seen = change_times(path)
    changed_at = time.monotonic()
    read_at: float | None = None
    shown: object = None
    while True:
        began = time.monotonic()
        try:
            sweep, read_at = load(path), began
        except ResultsError:
            # A file system may not answer for a moment.
            if read_at is None or began - read_at > SILENCE_S:
                raise
            time.sleep(every_s)
            continue
        watched = look_at(sweep, time.time())
        if (now := _what_changes(watched)) != shown:
            shown = now
            print(f"{watched.name}: {progress_line(watched.progress)}", file=out, flush=True)
        is_gone = began - changed_at > SILENCE_S
        if watched.state not in CONTINUES or is_gone:
            break
        time.sleep(max(every_s, (time.monotonic() - began) / SHARE_OF_TIME))
        times = change_times(path)
        if times != seen:
            seen, changed_at = times, time.monotonic()
    print_status(sweep_status(sweep))
    if is_gone and watched.state != GONE:
        print(f"  no file has changed for {SILENCE_S:.0f} s: no active run; run the same command to resume")
    return exit_code_of(watched.status)


def _what_changes(watched: Watched) -> object:
    progress = watched.progress
    return progress.ended, progress.failed, [trial.number for trial in watched.running], watched.state


def exit_code_of(status: Status) -> int:
    """The exit code of the last run; that of a run without workers if it died, or has not ended."""
    return next((end.exit_code for end in EndReason if end == status.state), EndReason.NO_WORKERS.exit_code)
