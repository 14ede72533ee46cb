"""How the ranks of one trial find each other, in the words of torchrun.

Rank 0 of the trial reserves a port that the system chooses, so that no two trials can collide on one, and
tells it to its worker; the master hands it to the others.  Whoever listens there (torch.distributed, most of
the time) does so in the trial's rank 0: mpisweep itself opens no port.

A port is *reserved* by a socket that is bound to it and listens to nobody: the kernel gives it to nobody who
asks for any port, yet lets a program bind it that sets SO_REUSEADDR, as servers do.  Nothing stays of it when
the trial is over (a closed connection would for a minute, and tens of thousands of short trials would use up
a node's ports).
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
    """Where the ranks of this process's trials meet.

    Args:
        line: takes the address, from rank 0.
        orders: bring the address to the others.
        says_ranks: whether the workload asks for the variables also when it is alone.
        own_device_only: whether this process sees no GPU but its own.
    """

    def __init__(self, line: Line, orders: Orders, *, says_ranks: bool, own_device_only: bool) -> None:
        self._line = line
        self._orders = orders
        self._says_ranks = says_ranks
        self._own_device_only = own_device_only

    def around(self, team: Team | None, number: int, attempt: int) -> contextlib.AbstractContextManager[None]:
        """What a trial of several ranks needs around it; nothing for any other."""
        if team is not None:
            return self._meet(team, number, attempt)
        # A program that is made for several ranks asks for the variables also when it is alone.
        return self._meet(_SOLE, number, attempt) if self._says_ranks else _ALONE

    @contextlib.contextmanager
    def _meet(self, team: Team, number: int, attempt: int) -> Iterator[None]:
        """While inside, the environment says how the trial's ranks find each other: rank 0 says where."""
        with contextlib.ExitStack() as inside:
            if team.rank:
                address = self._orders.told_address(number, attempt)
            else:
                address = inside.enter_context(reserved(team))
                if team.size > 1:
                    self._line.send(RENDEZVOUS_READY, address.encode(), number, attempt)
            inside.enter_context(_joined(_variables(team, address, own_device_only=self._own_device_only)))
            yield


@contextlib.contextmanager
def reserved(team: Team) -> Iterator[str]:
    """``HOST:PORT``, where the trial's ranks can meet while inside; on one node it needs no network."""
    host = _LOCALHOST if team.nodes == 1 else socket.gethostname()
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("" if team.nodes > 1 else _LOCALHOST, 0))
        yield f"{host}:{keeper.getsockname()[1]}"


def _variables(team: Team, address: str, *, own_device_only: bool) -> dict[str, str]:
    """The variables that torchrun would set for this rank.

    Args:
        team: which rank it is.
        address: where they meet.
        own_device_only: whether the process sees no GPU but its own, which then has the local rank 0.
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
    """While inside, this process has the variables in its environment."""
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
