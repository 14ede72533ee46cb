"""A thread of the master that does what must be done again and again on the disk: keep the claim, look for a
stop file.

What it has seen are attributes that the master reads; it decides nothing.  A disk that hangs holds up this
thread and nobody else, and :attr:`Vigil.confirmed_at` says since when.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

from mpisweep.results.claim import Claim, FollowedError, RunOverError, remove_through
from mpisweep.results.holder import STALE_S

__all__ = ["Vigil"]

#: How often the disk is looked at, in seconds, unless the silence is short.
_EVERY_S = 0.5


class Vigil:
    """Keeps a claim.

    Args:
        claim: to keep.
        stop_file: a file whose appearance asks for a stop; it is removed.
        silence_s: a master that gives no sign of life for so long is followed by another one.

    Attributes:
        confirmed_at: a time, by the monotonic clock, at which the claim was held.
        lost: why it is held no longer.
        stop_seen: whether the stop file was there.
        lease_s: a claim that was held is still held after so many seconds.
    """

    def __init__(self, claim: Claim, stop_file: Path, silence_s: float) -> None:
        self._claim = claim
        self._stop_file = stop_file
        #: Nobody takes over from a master that was seen alive more recently than this; half of it is for the
        #: clocks.
        self.lease_s = min(STALE_S, silence_s) / 2
        self._every_s = min(_EVERY_S, self.lease_s / 4)
        self._end = threading.Event()
        self.confirmed_at = time.monotonic()
        self.lost: RunOverError | FollowedError | None = None
        self.stop_seen = False
        self._thread = threading.Thread(target=self._run, name="vigil", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look no more; waits for nothing."""
        self._end.set()

    def _run(self) -> None:
        while not self._end.wait(self._every_s):
            now = time.monotonic()
            try:
                self._claim.beat()
                self.confirmed_at = now
                self._look_for_stop_file()
            except (RunOverError, FollowedError) as error:
                self.lost = error
                return
            except OSError:
                # The journal is on the same disk and says so; until it answers again nothing is confirmed.
                continue

    def _look_for_stop_file(self) -> None:
        if self._stop_file.exists():
            self.stop_seen = True
            with contextlib.suppress(OSError):
                remove_through(self._claim.token, self._stop_file)
