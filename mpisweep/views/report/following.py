"""Write the report repeatedly while the sweep runs."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from mpisweep.results import ResultsError
from mpisweep.results.holder import holder_of
from mpisweep.results.load import Sweep, load
from mpisweep.views.status import CONTINUES, journals, sweep_status

__all__ = ["follow", "goes_on", "write_whole"]

#: Seconds without a live run after which the sweep counts as stopped; between two starts there is none.
SILENCE_S = 60.0
#: Maximum share of the time that is spent on reading and drawing.
_SHARE_OF_TIME = 0.2


def goes_on(sweep: Sweep) -> bool:
    """Whether a run is active, or is about to be started again."""
    return sweep_status(sweep).state in CONTINUES


def follow(path: Path, write: Callable[[Sweep, bool], None], *, every_s: float) -> None:
    """Write until the sweep has ended, and once more then.

    Args:
        path: of the results file.
        write: takes the sweep, and whether it goes on.
        every_s: seconds between two pages; more if a page takes long.

    Raises:
        ResultsError: if there is no sweep at first, or for longer than a minute.
    """
    sweep, seen_at = load(path), time.monotonic()
    gone_since: float | None = None
    try:
        while True:
            began = time.monotonic()
            is_over = not goes_on(sweep) or (gone_since is not None and began - gone_since > SILENCE_S)
            write(sweep, not is_over)
            if is_over:
                return
            time.sleep(max(every_s, (time.monotonic() - began) / _SHARE_OF_TIME))
            if any(holder_of(folder) is not None for folder in journals(path)):
                gone_since = None
            elif gone_since is None:
                gone_since = time.monotonic()
            try:
                sweep, seen_at = load(path), time.monotonic()
            except ResultsError:
                # A file system may not answer for a moment.
                if time.monotonic() - seen_at > SILENCE_S + every_s:
                    raise
    except KeyboardInterrupt:
        # The last page does not say that another one will follow.
        write(sweep, False)
        raise


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once, so that nobody reads half of it.

    Raises:
        OSError: when it cannot be written.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        # Standard output, for one, cannot be replaced.
        path.write_text(text, encoding="utf-8")
        return
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
