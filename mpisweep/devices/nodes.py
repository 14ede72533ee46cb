"""Assign GPUs, shares of GPUs or CPU cores to the ranks of a node.

Rules
-----
* A node's devices are those visible to its ranks.  If all ranks see the same GPUs, worker *i* gets the
  *i*-th; if the launcher gave each rank its own GPUs, each keeps them.
* With ``devices_per_trial = 0.5`` two workers share a GPU, with ``2`` each worker gets two.  Too many workers
  are an error, and so is a rank that sees no GPU while others of its node see some.
* With ``devices_per_trial = "auto"`` up to eight workers share a GPU, and its cores: the scheduler decides as
  the sweep runs how many of them get trials, so each of them may have the whole GPU.
* If the MPI launcher bound ranks to different cores, each keeps its own.  If all may use the same cores,
  these are divided into contiguous sets of equal size.
* Rank 0 runs trials too if a device of its node would otherwise be idle.  ``--master works`` and
  ``--master idle`` override that.

Pure except :func:`this_node`: every rank of a node computes the same layout from the same facts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby, pairwise

from mpisweep.dataclass import dataclass
from mpisweep.devices.gpus import Gpu, environment_for, visible_gpus
from mpisweep.errors import UserError
from mpisweep.records import DeviceShare

__all__ = ["LayoutError", "Node", "default_workers", "lay_out", "this_node"]

#: Default limit of workers per node without GPUs; with more cores each worker gets more.  Each worker holds
#: its own copy of model and libraries, about 1 GB with torch.
_CPU_WORKERS_AT_MOST = 16


class LayoutError(UserError, ValueError):
    """Ranks and devices do not match; the message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Node:
    """The devices of a node that one process sees."""

    cores: tuple[int, ...]
    gpus: tuple[Gpu, ...]
    #: Main memory; 0 if unknown.
    memory_bytes: int = 0


def this_node() -> Node:
    """Find the cores and GPUs that this process may use; call it before MPI_Init."""
    if hasattr(os, "sched_getaffinity"):
        cores = tuple(sorted(os.sched_getaffinity(0)))
    else:
        cores = tuple(range(os.cpu_count() or 1))
    return Node(cores, visible_gpus(), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def default_workers(node: Node, devices_per_trial: float = 1) -> int:
    """Default number of workers on a node: one per GPU or share of one, else per core up to 16."""
    if node.gpus:
        return max(1, _places(len(node.gpus), devices_per_trial))
    return min(len(node.cores), _CPU_WORKERS_AT_MOST)


def lay_out(
    nodes: Sequence[Node],
    *,
    has_master: bool,
    policy: str = "auto",
    devices_per_trial: float = 1,
    packs: bool = False,
    memory_bytes: int | None = None,
    host: str,
) -> list[DeviceShare | None]:
    """Assign devices to each rank of a node; None for a master that runs no trials.

    Args:
        nodes: the node as each of its ranks sees it, in rank order.
        has_master: whether the first rank is the master.
        policy: ``works``, ``idle``, or ``auto`` for the rule above.
        devices_per_trial: GPUs per trial: an integer, or 1/integer to share a GPU.
        packs: whether it is the smallest share, and trials share GPUs as measured.
        memory_bytes: main memory per trial process; None for no limit.
        host: name of the node, for messages.

    Raises:
        LayoutError: if there are not enough devices for the workers.
    """
    idle = (
        has_master
        and policy != "works"
        and (policy == "idle" or len(nodes) > _room(nodes, devices_per_trial))
    )
    workers = list(nodes)[int(idle) :]
    gpus = _gpus_of_workers(workers, devices_per_trial, host, packs)
    own_cores = _own_cores([node.cores for node in workers])
    shares: list[DeviceShare | None] = [None] * int(idle)
    for worker, (own, cores) in enumerate(zip(gpus, own_cores, strict=True)):
        kind = _kind(own, 1 if packs else devices_per_trial, memory_bytes, workers[worker].memory_bytes)
        if own:
            label = f"{own[0].name} #{','.join(gpu.selector for gpu in own)}"
            identities = tuple(gpu.identity for gpu in own)
            count = min(devices_per_trial, float(len(own)))
            if packs:
                beside = [other for other, theirs in enumerate(gpus) if theirs == own]
                count = 1 / len(beside)
                cores = tuple(sorted({core for other in beside for core in own_cores[other]}))
            shares.append(
                DeviceShare("cuda:0", label, cores, environment_for(own), kind, count, identities, packs)
            )
        else:
            shares.append(DeviceShare("cpu", f"cpu {_ranges(cores)}", cores, kind=kind))
    return shares


def _kind(gpus: Sequence[Gpu], devices_per_trial: float, memory_bytes: int | None, node_bytes: int) -> str:
    """Describe the devices and memory of a trial."""
    share = f"1/{round(1 / devices_per_trial)} of " if devices_per_trial < 1 else ""
    count = f"{len(gpus)} x " if len(gpus) > 1 else ""
    device = f"{share}{count}{gpus[0].name}" if gpus else "cpu"
    # Workers share the node's memory; it still tells larger nodes from smaller ones.
    main = memory_bytes or (0 if gpus else node_bytes)
    return f"{device} with {main / 2**30:.3g} GiB of main memory" if main else device


def _places(gpus: int, devices_per_trial: float) -> int:
    """Number of workers for which the GPUs suffice."""
    if devices_per_trial >= 1:
        return gpus // round(devices_per_trial)
    return gpus * round(1 / devices_per_trial)


def _room(nodes: Sequence[Node], devices_per_trial: float) -> int:
    different = {gpu.identity for node in nodes for gpu in node.gpus}
    return (
        _places(len(different), devices_per_trial)
        if different
        else len({c for node in nodes for c in node.cores})
    )


def _gpus_of_workers(
    workers: Sequence[Node], devices_per_trial: float, host: str, packs: bool
) -> list[tuple[Gpu, ...]]:
    with_gpus = sum(bool(node.gpus) for node in workers)
    if with_gpus == 0:
        return [()] * len(workers)
    if with_gpus < len(workers):
        raise LayoutError(
            f"{len(workers) - with_gpus} of the {len(workers)} workers on {host} see no GPU but the others "
            "do; request one GPU per rank, or start fewer ranks"
        )
    given: list[tuple[Gpu, ...]] = []
    # Consecutive ranks that see the same GPUs divide them.
    for _, group in groupby(workers, key=lambda node: tuple(gpu.identity for gpu in node.gpus)):
        same = list(group)
        given += [_own_gpus(index, node.gpus, devices_per_trial) for index, node in enumerate(same)]
    users: dict[str, int] = {}
    for own in given:
        for gpu in own:
            users[gpu.identity] = users.get(gpu.identity, 0) + 1
    at_most = max(1, round(1 / devices_per_trial))
    if any(not own for own in given) or max(users.values()) > at_most:
        count = len({gpu.identity for node in workers for gpu in node.gpus})
        room = _places(count, devices_per_trial)
        stated = '"auto"' if packs else f"{devices_per_trial:g}"
        share = "" if devices_per_trial == 1 else f" with devices_per_trial = {stated}"
        raise LayoutError(
            f"{host} has {count} GPU{'s' * (count != 1)} and {len(workers)} workers{share}; start up to "
            f"{room} rank{'s' * (room != 1)} there, one more if rank 0 runs no trials (--master idle); "
            "to share GPUs, set devices_per_trial = 0.5 in the sweep file"
        )
    return given


def _own_gpus(index: int, gpus: tuple[Gpu, ...], devices_per_trial: float) -> tuple[Gpu, ...]:
    """Choose a worker's GPUs among those it shares with others; none if they do not suffice."""
    if devices_per_trial >= 1:
        count = round(devices_per_trial)
        own = gpus[index * count : (index + 1) * count]
        return own if len(own) == count else ()
    # Round robin, so that no GPU is shared while another is idle.
    return (gpus[index % len(gpus)],)


def _own_cores(core_sets: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The cores of each worker: what its batch system gave it, or its part of what all see."""
    if len(set(core_sets)) != 1:
        return list(core_sets)
    own, workers = core_sets[0], len(core_sets)
    if workers > len(own):
        return [(own[worker % len(own)],) for worker in range(workers)]
    ends = [worker * len(own) // workers for worker in range(workers + 1)]
    return [own[first:last] for first, last in pairwise(ends)]


def _ranges(cores: Sequence[int]) -> str:
    """Format cores: ``0-3,8`` for (0, 1, 2, 3, 8)."""
    parts: list[list[int]] = []
    for core in cores:
        if parts and core == parts[-1][-1] + 1:
            parts[-1].append(core)
        else:
            parts.append([core])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
