"""What a master has to say, until the journal has come so far that it may be said.

* An assignment leaves once its record is written: a successor that reads the journal must know of everything
  that workers hold.
* An acknowledgement leaves once the record of the result is synced: the worker forgets it then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from mpisweep.messages import Acknowledge, Message

__all__ = ["Outbox"]


class Outbox:
    """Messages that wait for the disk.  Tokens are those of the journal: the higher, the later.

    Args:
        send: sends messages to a rank.
    """

    def __init__(self, send: Callable[[int, Sequence[Message]], None]) -> None:
        self._send = send
        #: (token, rank, message) and (token, rank, delivery); tokens never fall.
        self._after_write: deque[tuple[int, int, Message]] = deque()
        self._after_sync: deque[tuple[int, int, int]] = deque()
        #: Trial of several ranks -> what its ranks have delivered of it, until it has an end.
        self._undecided: dict[int, list[tuple[int, int]]] = {}

    @property
    def owes_acknowledgements(self) -> bool:
        """Whether a result waits to be acknowledged that counts."""
        return bool(self._after_sync)

    def send_written(self, token: int, rank: int, message: Message) -> None:
        """Send it once the record of this token is written."""
        self._after_write.append((token, rank, message))

    def send_in_turn(self, rank: int, message: Message) -> None:
        """Send it behind all that this rank is sent, some of which may still wait for the disk."""
        if any(receiver == rank for _, receiver, _ in self._after_write):
            self._after_write.append((self._after_write[-1][0], rank, message))
        else:
            self._send(rank, [message])

    def acknowledge(self, token: int, rank: int, delivery: int) -> None:
        """Acknowledge a delivery once the record of this token is synced."""
        self._after_sync.append((token, rank, delivery))

    def hold(self, number: int, rank: int, delivery: int) -> None:
        """A rank has delivered what it knows of a trial of several ranks: acknowledged once the trial has an
        end.
        """
        self._undecided.setdefault(number, []).append((rank, delivery))

    def decide(self, numbers: Iterable[int], token: int) -> None:
        """These trials have an end, or are given up: the record of that has this token."""
        if not self._undecided:
            return
        for number in numbers:
            for rank, delivery in self._undecided.pop(number, ()):
                self.acknowledge(token, rank, delivery)

    def release(self, written: int, synced: int) -> bool:
        """Send what may leave, to each rank in order; True if anything left.

        Args:
            written: the last token of which the record is written.
            synced: the last one of which it is synced; -1 while nothing may be acknowledged.
        """
        out: dict[int, list[Message]] = {}
        while self._after_write and self._after_write[0][0] <= written:
            _, rank, message = self._after_write.popleft()
            out.setdefault(rank, []).append(message)
        deliveries: dict[int, list[int]] = {}
        while self._after_sync and self._after_sync[0][0] <= synced:
            _, rank, delivery = self._after_sync.popleft()
            deliveries.setdefault(rank, []).append(delivery)
        for rank, acknowledged in deliveries.items():
            out.setdefault(rank, []).append(Acknowledge(tuple(acknowledged)))
        for rank, messages in out.items():
            self._send(rank, messages)
        return bool(out)
