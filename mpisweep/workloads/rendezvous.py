"""The rendezvous of one trial's ranks, with the variables of torchrun.

Rank 0 of the trial reserves a port that the system chooses, so that no two trials collide on one, and sends
it to its worker; the master forwards it to the other ranks.  The listener on that port (usually
torch.distributed) is in the trial's rank 0: mpisweep itself opens no port.

A port is *reserved* by a socket that is bound to it and does not listen: the kernel gives it to no program
that asks for any port, yet a program that sets SO_REUSEADDR, as servers do, can bind it.  The port is free at
once after the trial (a closed connection would hold it for a minute, and tens of thousands of short trials
would use up a node's ports).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from mpisweep.messages import Team
from mpisweep.processes.channel import RENDEZVOUS_READY, Line
from mpisweep.workloads.orders import Orders

__all__ = ["TrialRendezvous", "reserved"]

_LOCALHOST = "127.0.0.1"
_ALONE: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
_SOLE = Team(0, 1, 0, 1)


class TrialRendezvous:
    """Gives this process's trials the address at which their ranks meet.

    Args:
        line: to the worker, for rank 0's address.
        orders: from the worker, with the address for other ranks.
        says_ranks: whether the workload needs the variables even for one rank.
        own_device_only: whether this process sees only its own GPU.
    """

    def __init__(self, line: Line, orders: Orders, *, says_ranks: bool, own_device_only: bool) -> None:
        self._line = line
        self._orders = orders
        self._says_ranks = says_ranks
        self._own_device_only = own_device_only

    def around(self, team: Team | None, number: int, attempt: int) -> contextlib.AbstractContextManager[None]:
        """The context for a trial of several ranks; an empty one for other trials."""
        if team is not None:
            return self._rendezvous(team, number, attempt)
        # A program made for several ranks reads the variables even when it runs alone.
        return self._rendezvous(_SOLE, number, attempt) if self._says_ranks else _ALONE

    @contextlib.contextmanager
    def _rendezvous(self, team: Team, number: int, attempt: int) -> Iterator[None]:
        """While inside, set the variables with which the trial's ranks find each other."""
        with contextlib.ExitStack() as inside:
            if team.rank:
                address = self._orders.wait_for_address(number, attempt)
            else:
                address = inside.enter_context(reserved(team))
                if team.size > 1:
                    self._line.send(RENDEZVOUS_READY, address.encode(), number, attempt)
            inside.enter_context(_joined(_variables(team, address, own_device_only=self._own_device_only)))
            yield


@contextlib.contextmanager
def reserved(team: Team) -> Iterator[str]:
    """While inside, reserve ``HOST:PORT`` for the trial's ranks; one node needs no network."""
    host = _LOCALHOST if team.nodes == 1 else socket.gethostname()
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("" if team.nodes > 1 else _LOCALHOST, 0))
        yield f"{host}:{reservation.getsockname()[1]}"


def _variables(team: Team, address: str, *, own_device_only: bool) -> dict[str, str]:
    """The variables that torchrun would set for this rank.

    Args:
        team: the rank within its trial.
        address: of the rendezvous.
        own_device_only: whether the process sees only its own GPU, so that its local rank is 0.
    """
    host, _, port = address.rpartition(":")
    local_rank, local_size = (0, 1) if own_device_only else (team.local_rank, team.local_size)
    return {
        "RANK": str(team.rank),
        "WORLD_SIZE": str(team.size),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(local_size),
        "GROUP_RANK": str(team.node),
        "GROUP_WORLD_SIZE": str(team.nodes),
        "ROLE_NAME": "default",
        "ROLE_RANK": str(team.rank),
        "ROLE_WORLD_SIZE": str(team.size),
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
        "TORCHELASTIC_RUN_ID": "mpisweep",
    }


@contextlib.contextmanager
def _joined(found: dict[str, str]) -> Iterator[None]:
    """While inside, set these environment variables."""
    before = {name: os.environ.get(name) for name in found}
    os.environ.update(found)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
