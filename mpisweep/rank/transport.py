"""Messages between ranks: send, receive, leave together.  The only module that uses MPI.

If MPI survives the death of a rank (ULFM: ``mpirun --with-ft ulfm``), the transport acknowledges the death to
MPI and reports it.  The communicator stays as it is, since messages between survivors still go through.
Nothing collective is called again, so that no rank waits for another.

Nothing here waits.  Sending is ``Isend``; receiving is a matched probe that finds a message or does not.
A list of messages travels as one MPI message, pickled: both ends are processes of the same run, and nothing
read from a file is ever unpickled.  A message of a rank to itself does not go through MPI.

:func:`connect` imports mpi4py and initialises MPI, not this module: the fork server must have been forked
before.
"""

from __future__ import annotations

import os
import pickle
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from mpisweep.errors import UserError
from mpisweep.messages import Message
from mpisweep.processes.kernel import HOSTS_VARIABLE, this_host
from mpisweep.rank.exchange import Exchange, LoneExchange, MpiExchange, survives_deaths
from mpisweep.rank.signals import end_if_stuck

if TYPE_CHECKING:
    from mpi4py.MPI import Comm, Request

__all__ = ["Transport", "TransportError", "connect", "expected_rank", "in_pieces", "is_first_rank"]

#: Anything that can be pickled, which ranks exchange.
Fact = TypeVar("Fact")

_TAG = 7
#: Longest pickled list: a worker sends a new master all reports of its trials, which may exceed MPI's limit.
_PIECE_BYTES = 16 << 20
#: Most messages that one call receives, so that a rank's other duties get their turn.
_RECEIVE_AT_MOST = 256
#: How often in a row MPI may refuse to receive although no further rank died, in turns of the loop.
_FAILURES_AT_MOST = 1000
#: How long a rank waits for its sends if it leaves in a hurry, in seconds.
_LEAVE_S = 2.0
#: How long it waits for its sends, and for MPI_Finalize, if it leaves with all others, in seconds.
_LEAVE_TOGETHER_S = 10.0
#: How long a rank waits for its own end after MPI_Abort, in seconds.
_ABORT_S = 5.0
#: Variables with rank and size, set by Open MPI (and Fujitsu MPI); MPICH, Intel MPI and Slurm's PMI; MVAPICH;
#: PMIx (srun --mpi=pmix), which sets no size of its own.
_LAUNCHERS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "SLURM_NTASKS"),
)


class TransportError(UserError, RuntimeError):
    """The ranks cannot exchange messages; the text is one sentence for the user."""


def expected_rank() -> int | None:
    """The rank that an MPI launcher gave this process; None without a launcher."""
    rank, _ = _expected()
    return rank


def is_first_rank() -> bool:
    """Whether this process is rank 0, or was started without an MPI launcher."""
    return expected_rank() in (0, None)


def _expected() -> tuple[int | None, int | None]:
    for rank, size in _LAUNCHERS:
        if rank in os.environ:
            return int(os.environ[rank]), int(os.environ[size]) if size in os.environ else None
    return None, None


class Transport(Protocol):
    """The messages of one rank.

    Attributes:
        rank: this rank.
        size: number of ranks.
        node_ranks: the ranks of this node, in order, including this one.
        host: name of this node.
    """

    rank: int
    size: int
    node_ranks: tuple[int, ...]
    host: str

    def send(self, rank: int, messages: Sequence[Message]) -> None:
        """Send messages, in order, to a rank; return at once."""

    def receive(self) -> list[tuple[int, list[Message]]]:
        """Receive what has arrived: senders and their messages."""

    def lost(self) -> list[int]:
        """The ranks that MPI found dead since the last call."""

    def share_on_node(self, fact: Fact) -> list[Fact]:
        """Exchange facts on this node, in the order of `node_ranks`; all its ranks must call it.

        Raises:
            TransportError: when one of them is lost meanwhile.
        """

    def gather(self, fact: Fact) -> list[Fact] | None:
        """Gather the facts of all ranks on rank 0, None elsewhere; all ranks must call it."""

    def exchange(self) -> Exchange:
        """Exchange facts and chunks with all other ranks, before the first message is sent."""

    def leave(self, *, together: bool) -> bool:
        """Leave MPI once everything sent is on its way; no call may follow.

        Args:
            together: whether every other rank is leaving too, or dead.

        Returns:
            False if MPI could not be left, because it would wait for a rank that may hang: this process must
            exit without exit handlers.
        """

    def abort(self, exit_code: int = 1) -> None:
        """End every rank at once, whatever it is doing."""


class LoneTransport:
    """A single rank without MPI, which sends messages to itself."""

    def __init__(self) -> None:
        self.rank = 0
        self.size = 1
        self.node_ranks: tuple[int, ...] = (0,)
        self.host = this_host()
        self._own: list[Message] = []

    def send(self, rank: int, messages: Sequence[Message]) -> None:
        """See :class:`Transport`."""
        assert rank == 0, f"there is no rank {rank}"
        self._own.extend(messages)

    def receive(self) -> list[tuple[int, list[Message]]]:
        """See :class:`Transport`."""
        if not self._own:
            return []
        messages, self._own = self._own, []
        return [(0, messages)]

    def share_on_node(self, fact: Fact) -> list[Fact]:
        """See :class:`Transport`."""
        return [fact]

    def gather(self, fact: Fact) -> list[Fact] | None:
        """See :class:`Transport`."""
        return [fact]

    def lost(self) -> list[int]:
        """See :class:`Transport`."""
        return []

    def exchange(self) -> Exchange:
        """See :class:`Transport`."""
        return LoneExchange()

    def leave(self, *, together: bool) -> bool:
        """See :class:`Transport`."""
        return True

    def abort(self, exit_code: int = 1) -> None:
        """See :class:`Transport`."""
        os._exit(exit_code)


class MpiTransport:
    """Ranks of an MPI communicator."""

    def __init__(self, comm: Comm, node_comm: Comm) -> None:
        self.rank = comm.Get_rank()
        self.size = comm.Get_size()
        self.node_ranks = tuple(node_comm.allgather(self.rank))
        self.host = this_host()
        from mpi4py import MPI

        self._error = MPI.Exception
        self._comm = comm
        self._node_comm = node_comm
        self._own: list[Message] = []
        self._dead: set[int] = set()
        self._newly_dead: list[int] = []
        #: Rank -> incomplete sends to it, in order, with their buffers.
        self._sends: dict[int, deque[tuple[Request, bytes]]] = {}
        #: How often in a row receiving has failed although nobody had died.
        self._failures = 0

    def send(self, rank: int, messages: Sequence[Message]) -> None:
        """See :class:`Transport`."""
        if rank == self.rank:
            self._own.extend(messages)
            return
        if rank in self._dead:
            return
        for piece in in_pieces(messages):
            data = pickle.dumps(piece, protocol=pickle.HIGHEST_PROTOCOL)
            try:
                request = self._comm.Isend(data, dest=rank, tag=_TAG)
                self._sends.setdefault(rank, deque()).append((request, data))
            except self._error:
                self._look_for_dead()

    def receive(self) -> list[tuple[int, list[Message]]]:
        """See :class:`Transport`."""
        self._forget_complete_sends()
        arrived: list[tuple[int, list[Message]]] = []
        if self._own:
            arrived.append((self.rank, self._own))
            self._own = []
        while len(arrived) < _RECEIVE_AT_MOST:
            try:
                found = self._next()
            except self._error:
                # It fails until every death is acknowledged.
                self._look_for_dead()
                self._failures += 1
                if self._failures > _FAILURES_AT_MOST:
                    raise TransportError(
                        "MPI does not receive any more, although every death was acknowledged"
                    ) from None
                return arrived
            self._failures = 0
            if found is None:
                return arrived
            arrived.append(found)
        return arrived

    def lost(self) -> list[int]:
        """See :class:`Transport`."""
        newly_dead, self._newly_dead = self._newly_dead, []
        return newly_dead

    def share_on_node(self, fact: Fact) -> list[Fact]:
        """See :class:`Transport`."""
        try:
            said: list[Fact] = self._node_comm.allgather(fact)
        except Exception as error:
            raise TransportError("a rank was lost while the ranks were starting") from error
        if survives_deaths() and self._comm.Get_failed().Get_size():
            # The facts of a dead rank are garbage.
            raise TransportError("a rank was lost while the ranks were starting")
        return said

    def gather(self, fact: Fact) -> list[Fact] | None:
        """See :class:`Transport`."""
        said: list[Fact] | None = self._comm.gather(fact)
        return said

    def exchange(self) -> Exchange:
        """See :class:`Transport`."""
        return MpiExchange(self._comm)

    def leave(self, *, together: bool) -> bool:
        """See :class:`Transport`."""
        from mpi4py import MPI

        # A send to a rank that died since may never complete, and MPI may not report it.
        until = time.monotonic() + (_LEAVE_TOGETHER_S if together else _LEAVE_S)
        while self._sends and time.monotonic() < until:
            self._forget_complete_sends()
            time.sleep(1e-3)
        if self._sends or not together:
            return False
        # MPI_Finalize has been seen to wait for the dead for ever.  It holds Python's lock: the kernel alone
        # can end it.  Everything is on disk by now, and a launcher that restarts the ranks finds it complete.
        end_if_stuck(_LEAVE_TOGETHER_S)
        MPI.Finalize()
        end_if_stuck(None)
        return True

    def abort(self, exit_code: int = 1) -> None:
        """See :class:`Transport`."""
        # After a death MPI_Abort has been seen neither to return nor to end any rank.
        end_if_stuck(_ABORT_S)
        self._comm.Abort(exit_code)

    def _next(self) -> tuple[int, list[Message]] | None:
        from mpi4py import MPI

        status = MPI.Status()
        message = self._comm.Improbe(tag=_TAG, status=status)
        if message is None:
            return None
        data = bytearray(status.Get_count(MPI.BYTE))
        message.Recv([data, MPI.BYTE])
        return status.Get_source(), pickle.loads(data)

    def _forget_complete_sends(self) -> None:
        """Free the buffers of complete and failed sends, each rank's by themselves."""
        for rank, sends in list(self._sends.items()):
            while sends:
                try:
                    if not sends[0][0].Test():
                        break
                except self._error:
                    self._look_for_dead()
                sends.popleft()
            if not sends:
                del self._sends[rank]

    def _look_for_dead(self) -> None:
        """Acknowledge deaths to MPI, which otherwise refuses to receive from any rank.

        Raises:
            TransportError: when MPI has failed although no further rank died.
        """
        from mpi4py import MPI

        failed = self._comm.Get_failed()
        self._comm.Ack_failed(self.size)
        dead = set(MPI.Group.Translate_ranks(failed, range(failed.Get_size()), self._comm.Get_group()))
        if not dead:
            raise TransportError("MPI has failed although no rank has died")
        self._newly_dead += sorted(dead - self._dead)
        self._dead |= dead


def in_pieces(messages: Sequence[Message], at_most: int = _PIECE_BYTES) -> Iterator[list[Message]]:
    """Cut the messages, in order, into lists of up to about `at_most` bytes or of one message."""
    piece: list[Message] = []
    size = 0
    for message in messages:
        body = len(getattr(message, "body", b""))
        if piece and size + body > at_most:
            yield piece
            piece, size = [], 0
        piece.append(message)
        size += body
    if piece:
        yield piece


def connect() -> Transport:
    """Initialise MPI if an MPI launcher started this process; otherwise make a lone transport.

    Raises:
        TransportError: when the launcher belongs to a different MPI than mpi4py.
    """
    rank, size = _expected()
    if rank is None:
        return LoneTransport()
    import mpi4py

    mpi4py.rc.initialize = False
    from mpi4py import MPI

    MPI.Init_thread(MPI.THREAD_FUNNELED)
    world = MPI.COMM_WORLD
    if size is not None and world.Get_size() != size:
        library = MPI.Get_library_version().splitlines()[0].split(",")[0]
        raise TransportError(
            f"the launcher has started {size} ranks, but this rank finds {world.Get_size()}: "
            f"mpi4py uses {library}, and mpirun belongs to another MPI; use the mpirun of the same MPI"
        )
    if HOSTS_VARIABLE in os.environ:
        hosts = world.allgather(this_host())
        return MpiTransport(world.Dup(), world.Split(hosts.index(this_host())))
    return MpiTransport(world.Dup(), world.Split_type(MPI.COMM_TYPE_SHARED))
