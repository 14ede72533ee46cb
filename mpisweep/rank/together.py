"""Waiting for other ranks and for disks before the first message, for none of them for ever.

While a rank waits it goes on turning: it detects lost ranks and sends heartbeats to its fork server, which
kills it when it hangs.  What waits for a disk does so in a thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from mpisweep.processes.forkserver import ForkServer
from mpisweep.rank.exchange import Exchange
from mpisweep.rank.signals import STOP_SIGNALS, drain
from mpisweep.rank.transport import TransportError

__all__ = ["STOPPED", "End", "EndedError", "Together", "Watch"]

Answer = TypeVar("Answer")

STOPPED = 3
#: Shortest and longest sleep while nothing moves, in seconds.
_NAP_FIRST_S = 50e-6
_NAP_AT_MOST_S = 4e-3
#: Interval of heartbeats to the fork server, in seconds.
_BEAT_S = 1.0


@dataclass(frozen=True, slots=True)
class End:
    """The run ends before it has begun."""

    exit_code: int
    why: str


class EndedError(Exception):
    """The run ends before it has begun; every rank knows."""

    def __init__(self, end: End) -> None:
        super().__init__(end.why)
        self.exit_code = end.exit_code


class Together:
    """The waiting of one rank.

    Args:
        exchange: with the other ranks.
        size: number of ranks.
        server: the fork server of this rank.

    Attributes:
        waker: a signal makes it readable.
        stop_wanted: whether a stop was requested.
    """

    def __init__(self, exchange: Exchange, size: int, server: ForkServer) -> None:
        self._exchange = exchange
        self._size = size
        self._server = server
        self.waker = -1
        self.stop_wanted = False
        self._next_beat = 0.0
        self._nap_s = 0.0

    def turn(self, happened: bool = False) -> None:
        """Do what is due while this rank waits, and sleep if nothing has happened."""
        self._exchange.check()
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + _BEAT_S
            self._server.beat()
        self._nap_s = 0.0 if happened else min(max(2 * self._nap_s, _NAP_FIRST_S), _NAP_AT_MOST_S)
        if self._nap_s:
            time.sleep(self._nap_s)

    def beside(self, work: Callable[[], Answer]) -> Answer:
        """Do what waits for a disk in a thread, and wait for it."""
        answers: list[Answer] = []
        failures: list[BaseException] = []

        def do() -> None:
            try:
                answers.append(work())
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=do, daemon=True)
        thread.start()
        while thread.is_alive():
            self.turn()
        if failures:
            raise failures[0]
        return answers[0]

    def heard(self, rank: int) -> Any:
        """Wait for a fact from a rank."""
        while (fact := self._exchange.heard(rank)) is None:
            self.turn()
        return fact

    def from_first(self) -> Any:
        """Wait for rank 0.

        Raises:
            EndedError: when it ends the run.
        """
        fact = self.heard(0)
        if isinstance(fact, End):
            raise EndedError(fact)
        return fact

    def tell_all(self, fact: object) -> None:
        """Send a fact to every other rank, from rank 0."""
        for rank in range(1, self._size):
            self._exchange.tell(rank, fact)

    def end_all(self, end: End) -> NoReturn:
        """On rank 0: end the run on all ranks."""
        self.tell_all(end)
        raise EndedError(end)

    def has_stopped(self) -> bool:
        """Whether a stop was requested."""
        self.stop_wanted = bool(drain(self.waker) & STOP_SIGNALS) or self.stop_wanted
        return self.stop_wanted

    def end_if_stopped(self) -> None:
        """On rank 0: end the run on all ranks if a stop was requested."""
        if self.has_stopped():
            self.end_all(End(STOPPED, "stopped while the data was staged"))


class Watch:
    """Ends all ranks when something stands still for too long.

    Time in which this process did not run does not count.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._seen: object = None
        self._still_s = 0.0
        self._looked = time.monotonic()

    def look(self, now_seen: object, what: str) -> None:
        """Look at a value that changes with every progress.

        Raises:
            TransportError: when it has not changed for too long.
        """
        passed_s = time.monotonic() - self._looked
        self._looked += passed_s
        self._still_s += min(passed_s, _BEAT_S)
        if now_seen != self._seen:
            self._seen, self._still_s = now_seen, 0.0
        if self._still_s > self._patience_s:
            raise TransportError(f"{what} for {self._patience_s:g} s")
