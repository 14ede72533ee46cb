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
    """Have SIGUSR1, SIGUSR2 (Grid Engine's warning) and SIGXCPU (PJM's elapse limit) ask for a stop; returns
    a descriptor they make readable.
    """
    waker, inner = os.pipe()
    for end in (waker, inner):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(inner, warn_on_full_buffer=False)
    for number in STOP_SIGNALS:
        # Who has it ignored means so: it is a warning of Grid Engine's, and nothing elsewhere.
        if number != signal.SIGUSR2 or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    return waker


def end_if_stuck(seconds: float | None) -> None:
    """Have the kernel end this process after so long; None calls that off.

    A rank that dies while MPI is being initialised leaves the others waiting for it inside MPI_Init, where no
    code of ours runs, and no fault tolerance of MPI's.  When they end, the launcher starts all of them again.
    Nor does any code of ours run while MPI is left, or aborted.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds or 0.0)


class Sleeper:
    """Sleeps until a file is readable."""

    def __init__(self) -> None:
        self._selector = selectors.PollSelector()
        self._files: frozenset[int] = frozenset()

    def sleep(self, files: Iterable[int], seconds: float) -> frozenset[int]:
        """Until one of the files is readable or the time is up; returns those that are."""
        self._watch(frozenset(files))
        # A poll counts in milliseconds; a shorter sleep is slept before it.
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
    """Empty the pipe; returns the numbers of the signals that were written to it."""
    with contextlib.suppress(BlockingIOError):
        return set(os.read(file, 4096))
    return set()
