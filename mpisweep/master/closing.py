"""The end of a run, stage by stage, while the master's loop continues.

============  ============================================  ==========================================
stage         waits until                                   then
============  ============================================  ==========================================
``RUNNING``   the scheduler ends the run                    writes the remaining records
``JOURNAL``   all records are synced and acknowledged       closes the journal, requests a snapshot
``SNAPSHOT``  the last snapshot is written                  announces how the run has ended
``SHARE``     the other members of a split sweep know it    takes the exit code of the whole sweep
``CLAIM``     the claim is released                         sets :attr:`Closing.exit_code`
``OVER``      never                                         nothing
============  ============================================  ==========================================

A run that is not split goes from ``SNAPSHOT`` to ``CLAIM``.  If a stage takes too long because the disk does
not answer, the run ends at once, and its results are those in the journal.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from pathlib import Path

from mpisweep.master.lease_client import LeaseClient
from mpisweep.master.snapshotter import Snapshotter
from mpisweep.master.vigil import Vigil
from mpisweep.records import EndReason
from mpisweep.results.journal.writer import Journal

__all__ = ["Closing", "Stage"]

#: How long a failing last snapshot is retried, in seconds; then the results stay in the journal.
_LAST_SNAPSHOT_S = 60.0
#: Pause before a failed last snapshot is retried, in seconds.
_AGAIN_S = 1.0
#: Time limit of the last steps after everything is on disk, in seconds.
_LEAVE_S = 10.0

log = logging.getLogger(__name__)


class Stage(Enum):
    """Stage of the end; see the table of the module."""

    RUNNING = auto()
    JOURNAL = auto()
    SNAPSHOT = auto()
    SHARE = auto()
    CLAIM = auto()
    OVER = auto()


class Closing:
    """Closes a master's files in order.

    Args:
        journal: closed once all records are in it.
        snapshotter: writes the last snapshot, and releases the claim.
        vigil: ends before the claim is released.
        lease_client: ends the membership in a split sweep; None if the sweep is not split.
        folders: removed at the end if they are empty.
        disk_s: how long a failing disk is retried, in seconds.
        tell: called with the end once it is on disk.

    Attributes:
        stage: the current stage.
        reason: how the run ends; None while it runs.
        exit_code: exit code of a run that is over; None before.
    """

    def __init__(
        self,
        journal: Journal,
        snapshotter: Snapshotter,
        vigil: Vigil,
        lease_client: LeaseClient | None,
        folders: Sequence[Path],
        disk_s: float,
        tell: Callable[[EndReason], None],
    ) -> None:
        self._journal = journal
        self._snapshotter = snapshotter
        self._vigil = vigil
        self._lease_client = lease_client
        self._folders = [str(folder) for folder in folders]
        self._disk_s = disk_s
        self._tell = tell
        self._steps: dict[Stage, Callable[[float, bool], bool]] = {
            Stage.RUNNING: self._nothing,
            Stage.JOURNAL: self._close_journal,
            Stage.SNAPSHOT: self._await_last_snapshot,
            Stage.SHARE: self._nothing,
            Stage.CLAIM: self._await_release,
            Stage.OVER: self._nothing,
        }
        self.stage = Stage.RUNNING
        self.reason: EndReason | None = None
        self.exit_code: int | None = None
        #: The later value of :attr:`exit_code`.
        self._code = 0
        #: Since when no trial runs, in seconds since 1970; the time limit of this stage, and when the last
        #: snapshot is requested again, by the monotonic clock.
        self._since = 0.0
        self._close_by = math.inf
        self._again_at = math.inf
        #: Why the last snapshot is not written yet.
        self._error = "the disk does not answer"
        #: Whether the journal accepts records.
        self.journal_open = True

    # ------------------------------------------------------------------------------------- from outside

    def begin(self, reason: EndReason, since: float) -> None:
        """Start closing.

        Args:
            reason: how the run ends.
            since: when its running trials were asked to return, in seconds since 1970.
        """
        self.reason = reason
        self._since = since
        self._close_by = time.monotonic() + max(_LAST_SNAPSHOT_S, self._disk_s)
        self.stage = Stage.JOURNAL

    def step(self, now: float, settled: bool) -> bool:
        """Advance the current stage; True if it is complete.

        Args:
            now: the monotonic clock.
            settled: whether all records are synced and acknowledged.
        """
        return self._steps[self.stage](now, settled)

    def left_share(self, code: int | None) -> None:
        """Handle the end of the membership; `code` is the whole sweep's exit code once it has ended."""
        if code is not None:
            self._code = code
        if self.stage is Stage.SHARE:
            self._begin_to_leave()

    def end(self, reason: EndReason, code: int) -> None:
        """End the run at once with this exit code."""
        self.reason = reason
        self._end_with(code)

    def give_up_disk(self) -> None:
        """End the run without a disk: its results are those in the journal."""
        self._let_journal_go()
        self._vigil.end()
        self._snapshotter.kill()
        self.end(EndReason.DISK, EndReason.DISK.exit_code)

    def abandon(self) -> None:
        """Leave the sweep to another master without writing anything."""
        self._let_journal_go()
        self._vigil.end()
        self._snapshotter.close()
        if self._lease_client is not None:
            self._lease_client.close()

    # ------------------------------------------------------------------------------------- the stages

    def _nothing(self, now: float, settled: bool) -> bool:
        return False

    def _close_journal(self, now: float, settled: bool) -> bool:
        self._snapshotter.keep_time(now)
        if self._snapshotter.busy:
            # An earlier snapshot is still being written.
            self._snapshotter.poll()
        if not settled or self._snapshotter.busy:
            if now >= self._close_by:
                self._lose_last_snapshot()
            return False
        self._journal.close()
        self.journal_open = False
        self._snapshotter.compact_and_close(self._since)
        self._close_by = now + max(_LAST_SNAPSHOT_S, self._disk_s)
        self.stage = Stage.SNAPSHOT
        return True

    def _await_last_snapshot(self, now: float, settled: bool) -> bool:
        self._snapshotter.keep_time(now)
        snapshot = self._snapshotter.poll()
        if snapshot is None:
            if now >= self._close_by:
                self._lose_last_snapshot()
            elif now >= self._again_at:
                self._again_at = math.inf
                self._snapshotter.compact_and_close(self._since)
            return False
        if snapshot.error:
            self._error = snapshot.error
            self._close_by = min(self._close_by, now + min(_LAST_SNAPSHOT_S, self._disk_s))
            self._again_at = now + _AGAIN_S
            return False
        assert self.reason is not None
        self._code = self.reason.exit_code
        self._tell(self.reason)
        if self._lease_client is None:
            self._begin_to_leave()
        else:
            # The whole sweep's exit code decides how the run ends.
            self.stage = Stage.SHARE
            self._lease_client.leave()
        return True

    def _begin_to_leave(self) -> None:
        self._vigil.end()
        self._snapshotter.leave(self._folders)
        self._close_by = time.monotonic() + _LEAVE_S
        self.stage = Stage.CLAIM

    def _await_release(self, now: float, settled: bool) -> bool:
        self._snapshotter.keep_time(now)
        # If the process hangs here, a stale claim stays; all results are on disk.
        if self._snapshotter.poll() is None and now < self._close_by:
            return False
        self._end_with(self._code)
        return True

    def _lose_last_snapshot(self) -> None:
        log.error(
            "the last snapshot could not be written (%s); all results are in the journal: fix the cause and "
            "run the same command",
            self._error,
        )
        self.give_up_disk()

    def _let_journal_go(self) -> None:
        if self.journal_open:
            self._journal.abandon()
        self.journal_open = False

    def _end_with(self, code: int) -> None:
        self.stage = Stage.OVER
        self.exit_code = code
