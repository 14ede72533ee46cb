"""How the ranks of one trial find each other, in the words of torchrun.

Rank 0 of the trial reserves a port that the system chooses, so that no two trials can collide on one, and tells it
to its worker; the master hands it to the others.  Whoever listens there (torch.distributed, most of the time) does
so in the trial's rank 0: mpisweep itself opens no port.

A port is *reserved* by leaving a closed connection of its own on it: for a minute the kernel gives it to nobody who
asks for any port, yet lets a program bind it that sets SO_REUSEADDR, as servers do.  The technique is that of
Yelp's ephemeral-port-reserve.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from mpisweep.messages import Team

__all__ = ["joined", "reserve_address", "variables"]

_LOCALHOST = "127.0.0.1"


def reserve_address(team: Team) -> str:
    """``HOST:PORT``, where the ranks of this trial can meet; on one node a host that needs no network."""
    host = _LOCALHOST if team.nodes == 1 else socket.gethostname()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("" if team.nodes > 1 else _LOCALHOST, 0))
        listener.listen(1)
        port = listener.getsockname()[1]
        with socket.create_connection((_LOCALHOST, port)) as client:
            accepted, _ = listener.accept()
            # Who closes first keeps the port busy: it is the listener's side that must.
            accepted.close()
            client.recv(1)
    return f"{host}:{port}"


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
