"""Detection of a disk that does not take the journal."""

from __future__ import annotations

import logging

from mpisweep.results.journal.writer import Journal

__all__ = ["DiskWatch"]

#: A disk that does not answer for this long hangs, in seconds.
_HANGS_S = 5.0

log = logging.getLogger(__name__)


class DiskWatch:
    """Logs when the journal cannot be written, and detects when that lasts too long.

    Args:
        journal: the journal.
        disk_s: how long the disk may fail, in seconds.
    """

    def __init__(self, journal: Journal, disk_s: float) -> None:
        self._journal = journal
        self._disk_s = disk_s
        self._failure = ""
        self._failing_since: float | None = None

    def check(self, now: float) -> bool:
        """Log a change of the disk's state; returns whether the run must end for it."""
        if self._journal.is_deleted:
            log.error("the results file and its journal were deleted while the sweep ran; the run ends")
            return True
        failure = self._current_failure(now)
        if failure and not self._failure:
            log.error("the journal cannot be written (%s); workers keep their results until it can", failure)
            self._failing_since = self._journal.waits_since or now
        elif self._failure and not failure:
            log.warning("the journal can be written again")
            self._failing_since = None
        self._failure = failure
        if self._failing_since is None or now - self._failing_since < self._disk_s:
            return False
        log.error(
            "the journal could not be written for %g s (%s); all acknowledged results are on disk: free disk "
            "space and run the same command", self._disk_s, failure,
        )  # fmt: skip
        return True

    def _current_failure(self, now: float) -> str:
        """Why the journal cannot be written; empty while it can."""
        since = self._journal.waits_since
        if since is not None and now - since >= min(_HANGS_S, self._disk_s):
            return "the disk does not answer"
        return str(self._journal.failure or "")
