"""Becoming master: the steps of a rank before its first decision.

1. It sends Lead to all ranks, with an epoch above every epoch that it has received.
2. It waits until every rank that is not lost has answered Follow.  From then on no rank accepts an
   acknowledgement from a superseded master: every acknowledged result is on disk by now.
3. A thread fences the superseded masters, reads the files and syncs them (:mod:`mpisweep.master.opening`).
   Meanwhile the rank's loop continues and keeps the messages to the master.  The thread also imports what
   only a master needs: most ranks never do.

The first master of a run waits for no rank.  A failing disk is retried for as long as in a running sweep.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from mpisweep.dataclass import dataclass
from mpisweep.messages import ToMaster
from mpisweep.records import EndReason

if TYPE_CHECKING:
    from mpisweep.master.opening import Opened

__all__ = ["AlreadyCompleteError", "DiskFailedError", "Leading", "Mastership", "RunEndedError"]

#: Pause before a failed disk is retried, in seconds.
_AGAIN_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mastership:
    """Identity of a master.

    Attributes:
        run: name of the run.
        epoch: epoch of this master, see :mod:`mpisweep.rank.succession`.
        is_first: whether it is the run's first master.
        has_begun: whether an earlier master has announced that the sweep is open.
    """

    run: str
    epoch: int
    is_first: bool
    has_begun: bool = False


class DiskFailedError(Exception):
    """The files of a running sweep were unusable for too long."""


class RunEndedError(Exception):
    """The run of this master is over; :attr:`reason` is its end."""

    def __init__(self, reason: EndReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class AlreadyCompleteError(Exception):
    """There is nothing to split: every trial has ended, or a rule of [stop] holds."""

    def __init__(self, exit_code: int, why: str = "every trial has ended") -> None:
        super().__init__(why)
        self.exit_code = exit_code


class Leading:
    """One rank that is becoming master.

    Args:
        awaited: the ranks that must answer Follow first.
        open_sweep: opens the sweep; blocks on the disk.
        disk_s: how long a failing disk is retried, in seconds; 0 for never.

    Attributes:
        kept: messages for the future master, in order of arrival: (sender, messages), or (lost rank, why).
        outcome: the open sweep, or why it could not be opened; None before.
    """

    def __init__(self, awaited: Iterable[int], open_sweep: Callable[[], Opened], disk_s: float) -> None:
        self._awaited = set(awaited)
        self._open_sweep = open_sweep
        self._disk_s = disk_s
        self._thread: threading.Thread | None = None
        self._wanted = True
        self._give_up_at = math.inf
        self._ours, self._theirs = os.pipe()
        self.kept: list[tuple[int, Sequence[ToMaster] | str]] = []
        self.outcome: Opened | BaseException | None = None
        self._open_if_all_follow()

    def fileno(self) -> int:
        """For select(); readable when there is an outcome."""
        return self._ours

    def follow(self, rank: int) -> None:
        """Note that a rank follows."""
        self._awaited.discard(rank)
        self._open_if_all_follow()

    def keep(self, rank: int, messages: Sequence[ToMaster]) -> None:
        """Keep a rank's messages for the future master."""
        self.kept.append((rank, messages))

    def lose(self, rank: int, why: str) -> None:
        """Note that a rank is lost."""
        self.kept.append((rank, why))
        self.follow(rank)

    def keep_time(self, now: float) -> None:
        """End the opening with an error if the disk does not answer for too long."""
        # The margin lets the thread report the disk's own error first.
        if self.outcome is None and now >= self._give_up_at + _AGAIN_S:
            self._wanted = False
            self.outcome = DiskFailedError("the disk does not answer")

    def close(self) -> None:
        """Release the pipe; the outcome was taken, or another rank is master."""
        self._wanted = False
        os.close(self._ours)

    def drop(self) -> None:
        """Abandon the opened sweep, now or once it is open, because another rank is master."""
        self.close()
        if self.outcome is not None and not isinstance(self.outcome, BaseException):
            self.outcome.journal.abandon()

    def _open_if_all_follow(self) -> None:
        if not self._awaited and self._thread is None:
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
        elif not isinstance(outcome, BaseException):
            outcome.journal.abandon()
        # close() closes the other end.
        os.close(self._theirs)

    def _open_until_it_works(self) -> Opened:
        until = time.monotonic() + self._disk_s
        is_logged = False
        while True:
            try:
                return self._open_sweep()
            except OSError as error:
                if not self._disk_s or not self._wanted:
                    raise
                if time.monotonic() >= until:
                    raise DiskFailedError(str(error)) from error
                if not is_logged:
                    log.error("the files of the sweep cannot be used (%s); retrying", error)
                is_logged = True
            time.sleep(_AGAIN_S)
