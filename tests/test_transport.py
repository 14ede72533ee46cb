"""Messages between ranks when one rank receives nothing, and when MPI fails to receive."""

from __future__ import annotations

from collections import deque
from typing import Any, cast

import pytest

from mpisweep.messages import Beat
from mpisweep.rank.transport import MpiTransport, TransportError


class RefusedError(Exception):
    """The exception that MPI raises."""


class Request:
    """A send request that completes when its receiver accepts messages."""

    def __init__(self, takes: set[int], rank: int) -> None:
        self._takes, self._rank = takes, rank

    def Test(self) -> bool:  # noqa: N802
        return self._rank in self._takes


class World:
    """A communicator of four ranks; only those in `takes` receive messages."""

    def __init__(self) -> None:
        self.takes = {0, 2, 3}

    def Isend(self, data: bytes, dest: int, tag: int) -> Request:  # noqa: N802
        return Request(self.takes, dest)


@pytest.fixture
def transport() -> MpiTransport:
    made = MpiTransport.__new__(MpiTransport)
    made.rank, made.size, made.host, made.node_ranks = 0, 4, "n1", (0,)
    made._error = RefusedError
    made._comm = cast(Any, World())
    made._own, made._dead, made._newly_dead, made._sends, made._failures = [], set(), [], {}, 0
    return made


def test_a_rank_that_receives_nothing_delays_only_its_own_messages(transport, monkeypatch):
    monkeypatch.setattr(transport, "_next", lambda: None)
    transport.send(1, [Beat()])
    for _ in range(1000):
        transport.send(2, [Beat()])
        transport.send(3, [Beat()])
    assert transport.receive() == []
    assert {rank: len(sends) for rank, sends in transport._sends.items()} == {1: 1}
    cast(World, transport._comm).takes.add(1)
    transport.receive()
    assert transport._sends == {}


def test_a_flood_of_messages_does_not_starve_the_loop(transport, monkeypatch):
    waiting = deque([(1, [Beat()])] * 10_000)
    monkeypatch.setattr(transport, "_next", lambda: waiting.popleft() if waiting else None)
    taken = len(transport.receive())
    assert 0 < taken < 1000
    while arrived := transport.receive():
        taken += len(arrived)
    assert taken == 10_000


def test_an_mpi_that_cannot_receive_is_reported_and_not_retried_forever(transport, monkeypatch):
    """A rank has died, and acknowledging the failure does not help."""

    def refuse() -> None:
        raise RefusedError

    monkeypatch.setattr(transport, "_next", refuse)
    monkeypatch.setattr(transport, "_look_for_dead", lambda: transport._dead.add(3))
    # Each call returns, so that heartbeats continue.
    turns = (transport.receive() for _ in range(100_000))
    with pytest.raises(TransportError, match="MPI does not receive any more"):
        any(turns)


def test_one_failure_to_receive_is_retried(transport, monkeypatch):
    answers: list[Any] = [RefusedError(), (1, [Beat()]), None]

    def answer() -> Any:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(transport, "_next", answer)
    monkeypatch.setattr(transport, "_look_for_dead", lambda: None)
    assert transport.receive() == []
    assert transport.receive() == [(1, [Beat()])]
