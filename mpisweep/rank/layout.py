"""``mpisweep check --devices``: who would use what, asked of the ranks themselves, and nothing is run.

Under mpirun or srun every rank looks at its node as it would in a sweep, and rank 0 prints the table.
Without a launcher it is the layout of this machine, with as many workers as ``mpisweep run`` would start.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpisweep.devices.nodes import LayoutError, default_workers, lay_out, this_node
from mpisweep.rank.transport import connect, expected_rank
from mpisweep.records import DeviceShare
from mpisweep.spec import Spec

__all__ = ["describe_layout"]


def describe_layout(spec: Spec, *, policy: str, workers: int | None) -> list[str]:
    """Lines for people: one a rank.  Under a launcher all ranks must call it, and all but rank 0 get none.

    Args:
        spec: the sweep.
        policy: of ``--master``.
        workers: how many to assume without a launcher; None for as many as would be started.

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
            devices_per_trial=spec.devices_per_trial, host="this machine",
        )  # fmt: skip
        return _table([("this machine", share) for share in shares])
    transport = connect()
    try:
        shares = lay_out(
            transport.share_on_node(node),
            has_master=transport.node_ranks[0] == 0,
            policy=policy if transport.size > 1 else "works",
            devices_per_trial=spec.devices_per_trial,
            host=transport.host,
        )
        mine: tuple[str, DeviceShare | str | None] = (
            transport.host, shares[transport.node_ranks.index(transport.rank)]
        )  # fmt: skip
    except LayoutError as error:
        mine = (transport.host, str(error))
    everybody = transport.gather(mine)
    transport.leave(0, politely=True)
    if everybody is None:
        return []
    problems = dict.fromkeys(share for _, share in everybody if isinstance(share, str))
    if problems:
        raise LayoutError("; ".join(problems))
    return _table([(host, share) for host, share in everybody if not isinstance(share, str)])


def _table(ranks: Sequence[tuple[str, DeviceShare | None]]) -> list[str]:
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
