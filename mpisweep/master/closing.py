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

#: How long the last snapshot is tried again before the journal is left to keep everything, in seconds.
_LAST_SNAPSHOT_S = 60.0
#: Pause after a last snapshot that failed, in seconds.
_AGAIN_S = 1.0
#: How long the last steps may take after everything is on disk, in seconds.
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
    """What a master lets go of, in which order.

    Args:
        journal: closed once everything is in it.
        snapshotter: writes the last snapshot, and releases the claim.
        vigil: ends before the claim is released.
        lease_client: leaves, where the sweep is split; None where it is not.
        folders: removed at the end if they are empty.
        disk_s: for how long a disk that fails is tried again, in seconds.
        tell: called with the end once it is on disk.

    Attributes:
        stage: how far it is.
        reason: how the run ends; None while it runs.
        exit_code: of a run that is over; None before.
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
        #: What :attr:`exit_code` will be.
        self._code = 0
        #: Since when nothing runs, in seconds since 1970; by when this stage must be through, and when the
        #: last snapshot is asked for again, by the monotonic clock.
        self._since = 0.0
        self._close_by = math.inf
        self._again_at = math.inf
        #: Why the last snapshot could not be written so far.
        self._error = "the disk does not answer"
        #: Whether the journal still takes records.
        self.journal_open = True

    # ------------------------------------------------------------------------------------- from outside

    def begin(self, reason: EndReason, since: float) -> None:
        """The run ends.

        Args:
            reason: how.
            since: when its running trials were to be back, in seconds since 1970.
        """
        self.reason = reason
        self._since = since
        self._close_by = time.monotonic() + max(_LAST_SNAPSHOT_S, self._disk_s)
        self.stage = Stage.JOURNAL

    def step(self, now: float, settled: bool) -> bool:
        """See to the stage; True when it is through.

        Args:
            now: the monotonic clock.
            settled: whether everything is synced and acknowledged.
        """
        return self._steps[self.stage](now, settled)

    def left_share(self, code: int | None) -> None:
        """The other members know that this one has left; `code` is the whole sweep's end, None while it has
        none.
        """
        if code is not None:
            self._code = code
        if self.stage is Stage.SHARE:
            self._begin_to_leave()

    def end(self, reason: EndReason, code: int) -> None:
        """Nothing is left to do: the run is over with this exit code."""
        self.reason = reason
        self._end_with(code)

    def give_up_disk(self) -> None:
        """End at once: what the journal has is all that will be there."""
        self._let_journal_go()
        self._vigil.end()
        self._snapshotter.kill()
        self.end(EndReason.DISK, EndReason.DISK.exit_code)

    def let_go(self) -> None:
        """The sweep is another master's: let go of everything and touch nothing."""
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
            # A snapshot that was asked for before.
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
            # What it brings with it decides how the run ends.
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
        # One that hangs here leaves a claim that is nobody's; everything is on disk.
        if self._snapshotter.poll() is None and now < self._close_by:
            return False
        self._end_with(self._code)
        return True

    def _lose_last_snapshot(self) -> None:
        log.error(
            "the last snapshot could not be written (%s); the journal keeps everything: mend that and run "
            "again",
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
