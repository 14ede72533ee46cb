"""Whether the journal can be written, and for how long it could not."""

from __future__ import annotations

import logging

from mpisweep.results.journal.writer import Journal

__all__ = ["DiskWatch"]

#: A disk that owes an answer for so long hangs, in seconds.
_HANGS_S = 5.0

log = logging.getLogger(__name__)


class DiskWatch:
    """Says when results cannot be written, and when that has lasted for too long.

    Args:
        journal: is written.
        disk_s: how long a disk may fail, in seconds.
    """

    def __init__(self, journal: Journal, disk_s: float) -> None:
        self._journal = journal
        self._disk_s = disk_s
        self._failure = ""
        self._failing_since: float | None = None

    def has_failed(self, now: float) -> bool:
        """Whether the journal could not be written for too long."""
        failure = self._seen(now)
        if failure and not self._failure:
            log.error(
                "the journal cannot be written (%s); results stay with the workers until it can", failure
            )
            self._failing_since = self._journal.waits_since or now
        elif self._failure and not failure:
            log.warning("the journal can be written again")
            self._failing_since = None
        self._failure = failure
        if self._failing_since is None or now - self._failing_since < self._disk_s:
            return False
        log.error(
            "the journal could not be written for %g s (%s); everything that was acknowledged is on disk: "
            "make room and run again", self._disk_s, failure,
        )  # fmt: skip
        return True

    def _seen(self, now: float) -> str:
        """Why the journal cannot be written; empty while it can."""
        since = self._journal.waits_since
        if since is not None and now - since >= min(_HANGS_S, self._disk_s):
            return "the disk does not answer"
        return str(self._journal.failure or "")
