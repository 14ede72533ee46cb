"""Requests to stop, as they reach the launcher: one polite request to the ranks, then an impolite one.

mpirun never gets a TERM or INT of ours, because it would kill the ranks within half a second of one.  A
polite stop is SIGUSR1, which it forwards to the ranks, or SIGXCPU where the batch system has sent us that: it
leaves the ranks less time.

Grid Engine's warning, SIGUSR2, comes to the job's shell and to the launcher alike; it is passed on as
SIGUSR1.

At the elapse limit signals come thick and fast: PJM sends SIGXCPU to every process, and the job script passes
on SIGUSR1.  A handler may be interrupted by the handler of another signal at any place, so it takes no lock,
and what it changes it changes in a single step.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from types import FrameType

from mpisweep.processes.kernel import end_family

__all__ = ["Stops"]

#: Batch systems send them more than once and never mean "at once".
_POLITE = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
#: How often the ranks are asked to stop until they do, in seconds.
_INSIST_S = 1.0


class Stops:
    """Signals to the launcher while it is watching them.

    Args:
        passes_hurry_on: whether SIGXCPU reaches the ranks; other launchers than Open MPI's die of it.
    """

    def __init__(self, *, passes_hurry_on: bool) -> None:
        self._passes_hurry_on = passes_hurry_on
        #: The signals that have come.
        self._heard: list[int] = []
        self._ranks: subprocess.Popen[bytes] | None = None
        self._request = signal.SIGUSR1
        #: Something is put into it to wake the thread that insists: unlike an Event's, its lock may be held
        #: already.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()

    @property
    def asked(self) -> int:
        """How often a stop was asked for; from the second time on it is meant at once."""
        # A copy: the next signal may come while this is counted.
        return sum(place == 0 or number not in _POLITE for place, number in enumerate(self._heard[:]))

    @property
    def at_once(self) -> bool:
        """Whether nobody wants to wait for an orderly end any more."""
        return self.asked > 1

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """While inside, signals are requests to stop."""
        handled = [signal.SIGINT, signal.SIGTERM, *_POLITE]
        # Who has it ignored means so: it is a warning of Grid Engine's, and nothing elsewhere.
        if signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN:
            handled.remove(signal.SIGUSR2)
        before = [signal.signal(number, self._on_signal) for number in handled]
        try:
            yield
        finally:
            for number, handler in zip(handled, before, strict=True):
                signal.signal(number, handler)

    @contextlib.contextmanager
    def passed_on_to(self, ranks: subprocess.Popen[bytes]) -> Iterator[None]:
        """While inside, requests reach these ranks."""
        self._ranks = ranks
        threading.Thread(target=self._insist, args=(ranks,), daemon=True).start()
        if self.at_once:
            # It came while they were being started.
            end_family(ranks.pid)
        try:
            yield
        finally:
            self._ranks = None

    def wait(self, seconds: float) -> None:
        """Until the time is up or somebody asks for a stop."""
        until = time.monotonic() + seconds
        while not self.asked and (left_s := until - time.monotonic()) > 0:
            time.sleep(min(0.1, left_s))

    def _insist(self, ranks: subprocess.Popen[bytes]) -> None:
        """Repeat the polite request: a rank that is still starting Python does not hear the first one."""
        while ranks.poll() is None:
            with contextlib.suppress(queue.Empty):
                self._wake.get(timeout=_INSIST_S)
            if self.asked == 1 and ranks.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    ranks.send_signal(self._request)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._heard.append(number)
        if number == signal.SIGXCPU and self._passes_hurry_on:
            self._request = signal.SIGXCPU
        ranks = self._ranks
        if ranks is None:
            return
        if self.at_once:
            end_family(ranks.pid)
        else:
            self._wake.put(None)
