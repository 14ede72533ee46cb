"""The rendezvous of the ranks of one trial: its reserved port."""

from __future__ import annotations

import socket

import pytest

from mpisweep.messages import Team
from mpisweep.workloads.rendezvous import reserved

ON_ONE_NODE = Team(0, 2, 0, 2)
ON_TWO_NODES = Team(0, 2, 0, 1, 0, 2)


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.mark.parametrize("team", [ON_ONE_NODE, ON_TWO_NODES])
@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, ""), (socket.AF_INET6, "::")]
)
def test_a_server_can_listen_on_a_reserved_port_that_no_other_socket_gets(team: Team, family, host: str):
    with reserved(team) as address, socket.socket(family) as server:
        with socket.socket(family) as other, pytest.raises(OSError, match="in use"):
            other.bind((host, port_of(address)))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port_of(address)))
        server.listen()
        with (
            socket.create_connection(("127.0.0.1", port_of(address))) as client,
            server.accept()[0] as accepted,
        ):
            accepted.send(b"x")
            assert client.recv(1) == b"x"


def test_a_port_is_free_after_its_trial():
    with reserved(ON_ONE_NODE) as address:
        pass
    with socket.socket() as other:
        other.bind(("127.0.0.1", port_of(address)))
