"""Becoming master: what a rank does between its first word as one and its first decision.

1. It says Lead to everybody, under an epoch above all that it has heard of.
2. It waits until every rank that is not lost has said that it follows.  From then on nobody takes an
   acknowledgement from a master before this one: whatever one of those has acknowledged is on disk by now.
3. A thread fences those masters, reads what is on disk and syncs it (:mod:`mpisweep.master.opening`).  The
   rank's loop goes on meanwhile, and what the others say to their master is kept for it.

The first master of a run has nobody to wait for.  A disk that fails is tried again for as long as a running
sweep would try it.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from mpisweep.master.opening import Opened
from mpisweep.messages import ToMaster

__all__ = ["DiskFailedError", "Leading"]

#: Pause before a disk that has failed is tried again, in seconds.
_AGAIN_S = 1.0

log = logging.getLogger(__name__)


class DiskFailedError(Exception):
    """The files of a running sweep could not be used for too long."""


class Leading:
    """One rank on its way.

    Args:
        unheard: the ranks that have to say first that they follow.
        open_sweep: opens the sweep; it waits for the disk.
        disk_s: for how long an opening that fails for the disk is tried again, in seconds; 0 for never.

    Attributes:
        kept: what the master that there will be has missed, in order: messages and their senders, or ranks
            that were lost, and why.
        outcome: the open sweep, or why there is none; None while that is not known.
    """

    def __init__(self, unheard: Iterable[int], open_sweep: Callable[[], Opened], disk_s: float) -> None:
        self._unheard = set(unheard)
        self._open_sweep = open_sweep
        self._disk_s = disk_s
        self._thread: threading.Thread | None = None
        self._wanted = True
        self._give_up_at = math.inf
        self._ours, self._theirs = os.pipe()
        self.kept: list[tuple[int, Sequence[ToMaster] | str]] = []
        self.outcome: Opened | BaseException | None = None
        self._go_on()

    def fileno(self) -> int:
        """For select(); readable when there is an outcome."""
        return self._ours

    def follow(self, rank: int) -> None:
        """A rank follows."""
        self._unheard.discard(rank)
        self._go_on()

    def keep(self, rank: int, messages: Sequence[ToMaster]) -> None:
        """A rank has said this to its master."""
        self.kept.append((rank, messages))

    def lose(self, rank: int, why: str) -> None:
        """A rank is lost."""
        self.kept.append((rank, why))
        self.follow(rank)

    def keep_time(self, now: float) -> None:
        """Take a disk that does not answer for one that has failed for too long."""
        # The thread itself gives up a little earlier where the disk answers.
        if self.outcome is None and now >= self._give_up_at + _AGAIN_S:
            self._wanted = False
            self.outcome = DiskFailedError("the disk does not answer")

    def close(self) -> None:
        """The outcome was taken, or somebody else is master."""
        self._wanted = False
        os.close(self._ours)

    def drop(self) -> None:
        """Somebody else is master: what is opened is let go of, now or when it is there."""
        self.close()
        if isinstance(self.outcome, Opened):
            self.outcome.journal.abandon()

    def _go_on(self) -> None:
        if not self._unheard and self._thread is None:
            self._give_up_at = time.monotonic() + self._disk_s if self._disk_s else math.inf
            self._thread = threading.Thread(target=self._run, name="opening", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        outcome: Opened | BaseException
        try:
            outcome = self._open_until_it_works()
        except BaseException as error:
            outcome = error
        if self._wanted:
            self.outcome = outcome
            self._wanted = False
        elif isinstance(outcome, Opened):
            outcome.journal.abandon()
        # The other end is closed once nobody is interested.
        os.close(self._theirs)

    def _open_until_it_works(self) -> Opened:
        until = time.monotonic() + self._disk_s
        complained = False
        while True:
            try:
                return self._open_sweep()
            except OSError as error:
                if not self._disk_s or not self._wanted:
                    raise
                if time.monotonic() >= until:
                    raise DiskFailedError(str(error)) from error
                if not complained:
                    log.error(
                        "the files of the sweep cannot be used (%s); trying again until they can", error
                    )
                complained = True
            time.sleep(_AGAIN_S)
