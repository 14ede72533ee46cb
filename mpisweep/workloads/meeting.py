"""How the ranks of one trial find each other, in the words of torchrun.

Rank 0 of the trial reserves a port that the system chooses, so that no two trials can collide on one, and tells it
to its worker; the master hands it to the others.  Whoever listens there (torch.distributed, most of the time) does
so in the trial's rank 0: mpisweep itself opens no port.

A port is *reserved* by a socket that is bound to it and listens to nobody: the kernel gives it to nobody who asks for
any port, yet lets a program bind it that sets SO_REUSEADDR, as servers do.  Nothing stays of it when the trial is over
(a closed connection would for a minute, and tens of thousands of short trials would use up a node's ports).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from mpisweep.messages import Team

__all__ = ["joined", "reserved", "variables"]

_LOCALHOST = "127.0.0.1"


@contextlib.contextmanager
def reserved(team: Team) -> Iterator[str]:
    """``HOST:PORT``, where the ranks of this trial can meet while inside; on one node a host that needs no network."""
    host = _LOCALHOST if team.nodes == 1 else socket.gethostname()
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("" if team.nodes > 1 else _LOCALHOST, 0))
        yield f"{host}:{keeper.getsockname()[1]}"


def variables(team: Team, address: str, *, own_device_only: bool) -> dict[str, str]:
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
def joined(found: dict[str, str]) -> Iterator[None]:
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
