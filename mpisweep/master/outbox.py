"""Messages of the master that wait until their records are on disk.

* An assignment is sent once its record is written: a successor must find every held trial in the journal.
* An acknowledgement is sent once the record of the result is synced: the worker then deletes the result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from mpisweep.messages import Acknowledge, Message

__all__ = ["Outbox"]


class Outbox:
    """Messages that wait for the disk; tokens are the journal's and increase.

    Args:
        send: sends messages to a rank.
    """

    def __init__(self, send: Callable[[int, Sequence[Message]], None]) -> None:
        self._send = send
        #: (token, rank, message) and (token, rank, delivery); tokens never decrease.
        self._after_write: deque[tuple[int, int, Message]] = deque()
        self._after_sync: deque[tuple[int, int, int]] = deque()
        #: Trial of several ranks -> (rank, delivery) of its ranks' ends, until it has an end.
        self._undecided: dict[int, list[tuple[int, int]]] = {}

    @property
    def owes_acknowledgements(self) -> bool:
        """Whether a recorded result waits for its acknowledgement."""
        return bool(self._after_sync)

    def send_written(self, token: int, rank: int, message: Message) -> None:
        """Send a message once the record of this token is written."""
        self._after_write.append((token, rank, message))

    def send_in_turn(self, rank: int, message: Message) -> None:
        """Send a message after all earlier ones to this rank, which may still wait for the disk."""
        if any(receiver == rank for _, receiver, _ in self._after_write):
            self._after_write.append((self._after_write[-1][0], rank, message))
        else:
            self._send(rank, [message])

    def acknowledge(self, token: int, rank: int, delivery: int) -> None:
        """Acknowledge a delivery once the record of this token is synced."""
        self._after_sync.append((token, rank, delivery))

    def hold(self, number: int, rank: int, delivery: int) -> None:
        """Hold a delivery of a trial of several ranks, to be acknowledged when the trial has an end."""
        self._undecided.setdefault(number, []).append((rank, delivery))

    def decide(self, numbers: Iterable[int], token: int) -> None:
        """Acknowledge held deliveries of trials whose end or return this token's record contains."""
        if not self._undecided:
            return
        for number in numbers:
            for rank, delivery in self._undecided.pop(number, ()):
                self.acknowledge(token, rank, delivery)

    def release(self, written: int, synced: int) -> bool:
        """Send messages whose records are on disk, in order per rank; True if any was sent.

        Args:
            written: token of the last written record.
            synced: token of the last synced record; -1 while nothing may be acknowledged.
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
