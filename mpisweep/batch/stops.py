"""Requests to stop at the launcher: the first asks the ranks to stop, the second kills them.

mpirun never receives SIGTERM or SIGINT from the launcher, because it would kill the ranks half a second
later.  A request to stop cleanly is SIGUSR1, which mpirun forwards to the ranks, or SIGXCPU if the batch
system has sent that: it leaves the ranks less time.

Grid Engine's warning, SIGUSR2, reaches the job's shell and the launcher, which passes it on as SIGUSR1.

At the elapse limit several signals come at once: PJM sends SIGXCPU to every process, and the job script
passes on SIGUSR1.  The handler of another signal may interrupt a handler anywhere, so a handler takes no
lock, and makes each change in a single step.
"""

from __future__ import annotations

import contextlib
import queue
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from types import FrameType

from mpisweep.processes.kernel import end_family, exit_of

__all__ = ["Stops"]

#: Batch systems may repeat these; they never mean "at once".
_POLITE = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
#: Interval of asking the ranks to stop until they do, in seconds.
_INSIST_S = 1.0
#: Interval at which the main thread runs handlers that nothing made it run, in seconds.
_LOOK_S = 0.5


class Stops:
    """Handles signals to the launcher.

    Args:
        passes_hurry_on: whether SIGXCPU reaches the ranks; launchers other than Open MPI's die of it.
    """

    def __init__(self, *, passes_hurry_on: bool) -> None:
        self._passes_hurry_on = passes_hurry_on
        #: Received signals.
        self._heard: list[int] = []
        self._ranks: subprocess.Popen[bytes] | None = None
        self._request = signal.SIGUSR1
        #: Wakes the thread that insists.  A handler may interrupt `put`; it could not interrupt `Event.set`,
        #: which takes a lock.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()

    @property
    def asked(self) -> int:
        """Number of requests to stop; from the second one on the end is wanted at once."""
        # A copy: the next signal may come while this is counted.
        return sum(place == 0 or number not in _POLITE for place, number in enumerate(self._heard[:]))

    @property
    def at_once(self) -> bool:
        """Whether the end is wanted at once."""
        return self.asked > 1

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Take signals as requests to stop, within the context."""
        handled = [signal.SIGINT, signal.SIGTERM, *_POLITE]
        # It is a warning under Grid Engine only; ignore it if the caller did.
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
        """Pass requests on to these ranks, within the context."""
        self._ranks = ranks
        threading.Thread(target=self._insist, args=(ranks,), daemon=True).start()
        if self.at_once:
            # A request came while they were starting.
            end_family(ranks.pid)
        try:
            yield
        finally:
            self._ranks = None

    def await_end(self, ranks: subprocess.Popen[bytes]) -> int:
        """Wait for the end of the ranks; returns their exit code.

        Of two signals that come at once, the kernel may deliver the second to another thread.  Then nothing
        interrupts the main thread, which alone runs handlers; so it wakes up by itself.
        """
        with exit_of(ranks.pid) as ended:
            if ended is None:
                while True:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        return ranks.wait(_LOOK_S)
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            while not poll.poll(1000 * _LOOK_S):
                pass
        return ranks.wait()

    def wait(self, seconds: float) -> None:
        """Wait until the time is up or a stop is requested."""
        until = time.monotonic() + seconds
        while not self.asked and (left_s := until - time.monotonic()) > 0:
            time.sleep(min(0.1, left_s))

    def _insist(self, ranks: subprocess.Popen[bytes]) -> None:
        """Repeat the request to stop: a rank that is still starting Python misses the first one."""
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
