"""Devices and cores of each rank, for a run and for ``mpisweep check --devices``.

Under mpirun or srun every rank looks at its node, and those of a node agree.  ``check`` does the same, runs
nothing, and rank 0 prints the table.  Without a launcher it shows the layout of this machine, with as many
workers as ``mpisweep run`` would start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mpisweep.devices.nodes import LayoutError, Node, default_workers, lay_out, this_node
from mpisweep.rank.options import RankOptions
from mpisweep.rank.transport import Transport, connect, expected_rank
from mpisweep.records import DeviceShare
from mpisweep.spec import RANKS, Spec

__all__ = ["RankDevices", "layout_lines", "rank_devices", "share_of_rank"]


def share_of_rank(
    transport: Transport, node: Node, spec: Spec, options: RankOptions
) -> tuple[DeviceShare | None, str]:
    """Find out what this rank's worker may use of its node; all ranks must call it.

    Returns:
        The share, None if this rank hosts no worker; and, on rank 0, why nothing can run, else empty.
    """
    share: DeviceShare | None = None
    problem = ""
    shares = transport.share_on_node(node)
    try:
        share = lay_out(
            shares,
            has_master=transport.node_ranks[0] == 0,
            policy=options.master if transport.size > 1 else "works",
            devices_per_trial=spec.devices_per_trial,
            packs=spec.packs,
            memory_bytes=spec.limits.memory_bytes,
            host=transport.host,
        )[transport.node_ranks.index(transport.rank)]
    except LayoutError as error:
        problem = str(error)
    problems = transport.gather(problem)
    if problems is None:
        return share, ""
    workers = transport.size - (options.master == "idle")
    if workers < spec.most_ranks:
        problems.append(
            f"{spec.source}: {RANKS}: trials have up to {spec.most_ranks} ranks, but there "
            f"are {workers} workers; start more ranks"
        )
    found = dict.fromkeys(filter(None, [options.refusal, *problems]))
    return share, "; ".join(found)


class RankDevices(NamedTuple):
    """The host of a rank, and its share of the devices; None for a master only."""

    host: str
    share: DeviceShare | None


def rank_devices(spec: Spec, *, policy: str, workers: int | None) -> list[RankDevices]:
    """Find the devices of each rank, in order; under a launcher all ranks must call it.

    Args:
        spec: the sweep.
        policy: of ``--master``.
        workers: number to assume without a launcher; None for as many as would be started.

    Returns:
        One entry per rank; empty on all ranks but rank 0.

    Raises:
        LayoutError: when the ranks do not fit the devices.
        TransportError: when the ranks cannot talk to each other.
    """
    node = this_node()
    if expected_rank() is None:
        count = workers or default_workers(node, spec.devices_per_trial)
        ranks = count + (policy == "idle")
        shares = lay_out(
            [node] * ranks, has_master=True, policy=policy if ranks > 1 else "works",
            devices_per_trial=spec.devices_per_trial, packs=spec.packs, host="this machine",
        )  # fmt: skip
        return [RankDevices("this machine", share) for share in shares]
    transport = connect()
    try:
        shares = lay_out(
            transport.share_on_node(node),
            has_master=transport.node_ranks[0] == 0,
            policy=policy if transport.size > 1 else "works",
            devices_per_trial=spec.devices_per_trial,
            packs=spec.packs,
            host=transport.host,
        )
        mine: tuple[str, DeviceShare | str | None] = (
            transport.host, shares[transport.node_ranks.index(transport.rank)]
        )  # fmt: skip
    except LayoutError as error:
        mine = (transport.host, str(error))
    everybody = transport.gather(mine)
    transport.leave(together=True)
    if everybody is None:
        return []
    problems = dict.fromkeys(share for _, share in everybody if isinstance(share, str))
    if problems:
        raise LayoutError("; ".join(problems))
    return [RankDevices(host, share) for host, share in everybody if not isinstance(share, str)]


def layout_lines(ranks: Sequence[RankDevices]) -> list[str]:
    """Describe the devices of ranks in a table with a heading."""
    rows = [("rank", "host", "device", "cores", "environment of the trial process")]
    for rank, (host, share) in enumerate(ranks):
        if share is None:
            rows.append((str(rank), host, "none: master only", "", ""))
            continue
        variables = " ".join(f"{name}={value}" for name, value in share.environment)
        rows.append((str(rank), host, share.label, str(len(share.cores)), variables))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
