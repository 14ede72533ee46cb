"""A thread of the master that renews the claim and looks for files of users.

It sets attributes that the master reads, and decides nothing.  A disk that hangs blocks only this thread, and
:attr:`Vigil.confirmed_at` shows since when.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

from mpisweep.master.request_watch import RequestWatch
from mpisweep.results.claim import Claim, FollowedError, RunOverError, remove_through
from mpisweep.results.holder import STALE_S

__all__ = ["Vigil"]

#: Interval of the checks, in seconds, unless the silence is short.
_EVERY_S = 0.5


class Vigil:
    """Renews a claim in a thread.

    Args:
        claim: the claim.
        stop_file: a file that requests a stop when it appears; it is removed.
        silence_s: a master without a heartbeat for this long is replaced, in seconds.
        requests: looks for users' requests; None if this run takes none.

    Attributes:
        confirmed_at: the last time, by the monotonic clock, at which the claim was held.
        lost: why the claim is no longer held; None while it is.
        stop_seen: whether the stop file has appeared.
        lease_s: how long the claim is certainly held after `confirmed_at`, in seconds.
    """

    def __init__(
        self, claim: Claim, stop_file: Path, silence_s: float, requests: RequestWatch | None = None
    ) -> None:
        self._claim = claim
        self._requests = requests
        self._stop_file = stop_file
        #: No rank takes over while the last heartbeat is younger than twice this; half is margin for clocks.
        self.lease_s = min(STALE_S, silence_s) / 2
        self._every_s = min(_EVERY_S, self.lease_s / 4)
        self._wake = threading.Event()
        self._has_ended = False
        self.confirmed_at = time.monotonic()
        self.lost: RunOverError | FollowedError | None = None
        self.stop_seen = False
        self._thread = threading.Thread(target=self._run, name="vigil", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop the thread without waiting for it."""
        self._has_ended = True
        self._wake.set()

    def hurry(self) -> None:
        """Have the thread look now."""
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait(self._every_s)
            self._wake.clear()
            if self._has_ended:
                return
            now = time.monotonic()
            try:
                self._claim.beat()
                self.confirmed_at = now
                self._look_for_stop_file()
                if self._requests is not None:
                    self._requests.look()
            except (RunOverError, FollowedError) as error:
                self.lost = error
                return
            except OSError:
                # The journal, on the same disk, reports the failure; until it recovers nothing is confirmed.
                continue

    def _look_for_stop_file(self) -> None:
        if self._stop_file.exists():
            self.stop_seen = True
            with contextlib.suppress(OSError):
                remove_through(self._claim.token, self._stop_file)
