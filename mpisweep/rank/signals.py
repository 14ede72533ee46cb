"""Signals, the alarm against a stuck MPI_Init, and the sleep of a rank's loop."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Iterable

__all__ = ["STOP_SIGNALS", "Sleeper", "drain", "end_if_stuck", "watch_signals"]

#: Signals that ask for a stop.
STOP_SIGNALS = frozenset({int(signal.SIGUSR1), int(signal.SIGUSR2), int(signal.SIGXCPU)})


def watch_signals() -> int:
    """Catch the signals that ask for a stop; returns a descriptor that they make readable.

    These are SIGUSR1, SIGUSR2 (Grid Engine's warning) and SIGXCPU (PJM's elapse limit).
    """
    waker, inner = os.pipe()
    for end in (waker, inner):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(inner, warn_on_full_buffer=False)
    for number in STOP_SIGNALS:
        # SIGUSR2 that is ignored stays ignored: it asks for a stop under Grid Engine only.
        if number != signal.SIGUSR2 or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    return waker


def end_if_stuck(seconds: float | None) -> None:
    """Have the kernel end this process after this time; None cancels that.

    A rank that dies during MPI_Init leaves the others waiting inside MPI_Init, where neither our code nor
    MPI's fault tolerance runs.  When they end, the launcher restarts all of them.  Our code does not run
    during MPI_Finalize or MPI_Abort either.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds or 0.0)


class Sleeper:
    """Sleeps until a file is readable; registers only files that come or go between two sleeps."""

    def __init__(self) -> None:
        self._selector = selectors.PollSelector()
        self._files: frozenset[int] = frozenset()

    def sleep(self, files: Iterable[int], seconds: float) -> frozenset[int]:
        """Sleep until a file is readable or the time is up; returns those that are readable."""
        self._watch(frozenset(files))
        # poll() counts in milliseconds; sleep a shorter time first.
        if 0 < seconds < 1e-3:
            time.sleep(seconds)
            seconds = 0.0
        return frozenset(key.fd for key, _ in self._selector.select(seconds))

    def _watch(self, files: frozenset[int]) -> None:
        if files == self._files:
            return
        for file in self._files - files:
            self._selector.unregister(file)
        for file in files - self._files:
            self._selector.register(file, selectors.EVENT_READ)
        self._files = files


def drain(file: int) -> set[int]:
    """Empty the pipe; returns the numbers of the signals that came."""
    with contextlib.suppress(BlockingIOError):
        return set(os.read(file, 4096))
    return set()
