"""Which rank of a node uses what: a GPU, a share of one, several, or a set of CPU cores; and whether rank 0
works.

Rules
-----
* A node's devices are those that the batch system leaves visible to its ranks.  Where all ranks see the same
  GPUs, worker *i* gets the *i*-th; where the launcher has given each rank GPUs of its own, each keeps its
  own.
* ``devices_per_trial = 0.5`` lets two workers share a GPU, ``2`` gives each worker two.  More workers than
  that leaves room for are an error, and so is a rank that sees no GPU where others of its node see some.
* Cores: where the MPI launcher has bound the ranks of a node to different cores, each keeps its own.  Where
  they may all use the same ones, these are divided into contiguous sets of equal size.
* Rank 0 hosts a worker exactly when a device of its node would idle otherwise: when its node does not have
  more ranks than places for workers.  ``--master works`` and ``--master idle`` override that.

Pure, but for :func:`this_node`: every rank of a node works the same layout out of the same facts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from mpisweep.devices.gpus import Gpu, environment_for, visible_gpus
from mpisweep.records import DeviceShare

__all__ = ["LayoutError", "Node", "default_workers", "lay_out", "this_node"]

#: CPU-only workers that plain `mpisweep run` starts at most; more cores make the sets larger.
#: Each holds its own copy of the model and the libraries, a gigabyte or so with torch.
_CPU_WORKERS_AT_MOST = 16


class LayoutError(ValueError):
    """Ranks and devices do not fit together; the message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Node:
    """What one process can see of its node."""

    cores: tuple[int, ...]
    gpus: tuple[Gpu, ...]
    #: Main memory; 0 where that is not known.
    memory_bytes: int = 0


def this_node() -> Node:
    """Look at the cores and GPUs that this process may use; may start a program, so before MPI."""
    if hasattr(os, "sched_getaffinity"):
        cores = tuple(sorted(os.sched_getaffinity(0)))
    else:
        cores = tuple(range(os.cpu_count() or 1))
    return Node(cores, visible_gpus(), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def default_workers(node: Node, devices_per_trial: float = 1) -> int:
    """How many workers `mpisweep run` starts on this machine: one a GPU or share of one, else one a core, up
    to 16.
    """
    if node.gpus:
        return max(1, _places(len(node.gpus), devices_per_trial))
    return min(len(node.cores), _CPU_WORKERS_AT_MOST)


def lay_out(
    nodes: Sequence[Node],
    *,
    has_master: bool,
    policy: str = "auto",
    devices_per_trial: float = 1,
    memory_bytes: int | None = None,
    host: str,
) -> list[DeviceShare | None]:
    """What each rank of a node may use; None for a master that does not work.

    Args:
        nodes: the node as each of its ranks sees it, in the order of the ranks.
        has_master: whether the first of them is the master.
        policy: ``works``, ``idle``, or ``auto`` for the rule of this module.
        devices_per_trial: GPUs that a trial gets: 1, a whole number, or 1 over one.
        memory_bytes: main memory that a trial process may have; None for no limit.
        host: name of the node, for messages.

    Raises:
        LayoutError: when there are not enough devices for so many workers.
    """
    idle = (
        has_master
        and policy != "works"
        and (policy == "idle" or len(nodes) > _room(nodes, devices_per_trial))
    )
    workers = list(nodes)[int(idle) :]
    gpus = _gpus_of_workers(workers, devices_per_trial, host)
    core_sets = [node.cores for node in workers]
    shares: list[DeviceShare | None] = [None] * int(idle)
    for worker, own in enumerate(gpus):
        cores = _own_cores(worker, core_sets)
        kind = _kind(own, devices_per_trial, memory_bytes, workers[worker].memory_bytes)
        if own:
            label = f"{own[0].name} #{','.join(gpu.selector for gpu in own)}"
            shares.append(DeviceShare("cuda:0", label, cores, environment_for(own), kind))
        else:
            shares.append(DeviceShare("cpu", f"cpu {_ranges(cores)}", cores, kind=kind))
    return shares


def _kind(gpus: Sequence[Gpu], devices_per_trial: float, memory_bytes: int | None, node_bytes: int) -> str:
    """What a trial has of devices and memory, in words."""
    share = f"1/{round(1 / devices_per_trial)} of " if devices_per_trial < 1 else ""
    count = f"{len(gpus)} x " if len(gpus) > 1 else ""
    device = f"{share}{count}{gpus[0].name}" if gpus else "cpu"
    # That of a node is shared by its workers; still, where there is more of it more fits.
    main = memory_bytes or (0 if gpus else node_bytes)
    return f"{device} with {main / 2**30:.3g} GiB of main memory" if main else device


def _places(gpus: int, devices_per_trial: float) -> int:
    """How many workers so many GPUs have room for."""
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


def _gpus_of_workers(workers: Sequence[Node], devices_per_trial: float, host: str) -> list[tuple[Gpu, ...]]:
    with_gpus = sum(bool(node.gpus) for node in workers)
    if with_gpus == 0:
        return [()] * len(workers)
    if with_gpus < len(workers):
        raise LayoutError(
            f"{len(workers) - with_gpus} of the {len(workers)} workers on {host} see no GPU and the others "
            "do; ask the batch system for a GPU for each rank, or start fewer ranks"
        )
    given: list[tuple[Gpu, ...]] = []
    # Ranks that see the same GPUs divide them; their numbers follow one another.
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
        share = "" if devices_per_trial == 1 else f" with devices_per_trial = {devices_per_trial:g}"
        raise LayoutError(
            f"{host} has {count} GPU{'s' * (count != 1)} and {len(workers)} workers{share}; start at most "
            f"{room} rank{'s' * (room != 1)} there, or one more if rank 0 is not to work (--master idle); "
            "to share GPUs, say devices_per_trial = 0.5 in the sweep file"
        )
    return given


def _own_gpus(index: int, gpus: tuple[Gpu, ...], devices_per_trial: float) -> tuple[Gpu, ...]:
    """The GPUs of a worker among those that see the same ones; none where they do not suffice."""
    if devices_per_trial >= 1:
        count = round(devices_per_trial)
        own = gpus[index * count : (index + 1) * count]
        return own if len(own) == count else ()
    # One after another, so that the first workers do not share while a GPU idles.
    return (gpus[index % len(gpus)],)


def _own_cores(worker: int, core_sets: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    own = core_sets[worker]
    if any(cores != own for cores in core_sets):
        return own
    workers = len(core_sets)
    if workers > len(own):
        return (own[worker % len(own)],)
    first, last = worker * len(own) // workers, (worker + 1) * len(own) // workers
    return own[first:last]


def _ranges(cores: Sequence[int]) -> str:
    """``0-3,8`` for (0, 1, 2, 3, 8)."""
    parts: list[list[int]] = []
    for core in cores:
        if parts and core == parts[-1][-1] + 1:
            parts[-1].append(core)
        else:
            parts.append([core])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
