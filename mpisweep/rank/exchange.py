"""Facts and chunks between ranks while they start.

They have tags of their own, beside the messages of :mod:`mpisweep.rank.transport`.  All ranks depend on each
other here, so a lost one ends all of them: :meth:`Exchange.check` finds it, and the launcher restarts the
ranks.  Nothing waits.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mpi4py.MPI import Comm, Request

    from mpisweep.staged.relay import Pending

__all__ = ["Exchange", "ExchangeError", "LoneExchange", "MpiExchange", "survives_deaths"]

#: Beside the tag of messages.
_FACT_TAG = 8
_CHUNK_TAG = 9
#: Interval of detecting lost ranks, in seconds.
_LOOK_S = 0.5
#: Open MPI sets it to 1 if it survives the death of a rank.
_SURVIVES = "OMPI_MCA_mpi_ft_enable"
_LOST = "a rank was lost while the data was staged"


def survives_deaths() -> bool:
    """Whether MPI survives the death of a rank, and reports it."""
    return os.environ.get(_SURVIVES) == "1"


class ExchangeError(Exception):
    """A rank was lost, or MPI has failed."""


class Exchange(Protocol):
    """Facts and chunks between this rank and others."""

    def tell(self, rank: int, fact: object) -> None:
        """Send anything that can be pickled; return at once."""

    def heard(self, rank: int) -> Any:
        """The next fact from a rank; None if none has arrived."""

    def send(self, rank: int, chunk: memoryview) -> Pending:
        """See :class:`mpisweep.staged.relay.Wire`."""

    def receive(self, rank: int, into: memoryview) -> Pending:
        """See :class:`mpisweep.staged.relay.Wire`."""

    def check(self) -> None:
        """Detect lost ranks, from time to time.

        Raises:
            ExchangeError: when there is one.
        """


class LoneExchange:
    """The exchange of a single rank, which has nobody to talk to."""

    def tell(self, rank: int, fact: object) -> None:
        """See :class:`Exchange`."""
        raise AssertionError("there is no other rank")

    def heard(self, rank: int) -> Any:
        """See :class:`Exchange`."""
        raise AssertionError("there is no other rank")

    def send(self, rank: int, chunk: memoryview) -> Pending:
        """See :class:`Exchange`."""
        raise AssertionError("there is no other rank")

    def receive(self, rank: int, into: memoryview) -> Pending:
        """See :class:`Exchange`."""
        raise AssertionError("there is no other rank")

    def check(self) -> None:
        """See :class:`Exchange`."""


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    """Report any failure of MPI as :class:`ExchangeError`."""
    try:
        yield
    except Exception as error:
        raise ExchangeError(_LOST) from error


class _Transfer:
    """A request of MPI."""

    def __init__(self, request: Request) -> None:
        self._request = request

    @_reported()
    def is_done(self) -> bool:
        """See :class:`mpisweep.staged.relay.Pending`."""
        return bool(self._request.Test())


class MpiExchange:
    """The exchange over a communicator, with tags of its own."""

    def __init__(self, comm: Comm) -> None:
        self._comm = comm
        #: Facts on their way.
        self._told: list[Request] = []
        self._look_at = 0.0

    @_reported()
    def tell(self, rank: int, fact: object) -> None:
        """See :class:`Exchange`."""
        self._told.append(self._comm.isend(fact, rank, _FACT_TAG))

    @_reported()
    def heard(self, rank: int) -> Any:
        """See :class:`Exchange`."""
        message = self._comm.improbe(rank, _FACT_TAG)
        return None if message is None else message.recv()

    @_reported()
    def send(self, rank: int, chunk: memoryview) -> Pending:
        """See :class:`Exchange`."""
        return _Transfer(self._comm.Isend(chunk, rank, _CHUNK_TAG))

    @_reported()
    def receive(self, rank: int, into: memoryview) -> Pending:
        """See :class:`Exchange`."""
        return _Transfer(self._comm.Irecv(into, rank, _CHUNK_TAG))

    @_reported()
    def check(self) -> None:
        """See :class:`Exchange`."""
        self._told = [request for request in self._told if not request.test()[0]]
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_S
        if survives_deaths() and self._comm.Get_failed().Get_size():
            raise ExchangeError(_LOST)
