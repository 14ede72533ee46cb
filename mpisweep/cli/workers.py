"""The number of workers, and the placement of ranks."""

from __future__ import annotations

import argparse

from mpisweep.batch.jobfacts import Allocation
from mpisweep.batch.placement import Placement, place
from mpisweep.cli.arguments import master_policy
from mpisweep.devices.gpus import Gpu
from mpisweep.devices.nodes import LayoutError, Node, default_workers, lay_out, this_node
from mpisweep.processes.kernel import this_host
from mpisweep.progress import counted
from mpisweep.spec import RANKS, Spec

__all__ = ["check_fit", "place_workers", "sure_workers", "usual_node"]


def sure_workers(options: argparse.Namespace, spec: Spec) -> tuple[int, int]:
    """Number of trials that surely run at a time, and of GPUs here that they share as measured.

    As many trials as workers are requested, or as are usual on this node; one per GPU if measurements decide.
    """
    if options.workers and not spec.packs:
        return options.workers, 0
    node = this_node()
    workers, gpus = options.workers or default_workers(node, spec.devices_per_trial), len(node.gpus)
    return (min(workers, gpus), gpus) if spec.packs and gpus else (workers, 0)


def usual_node(allocation: Allocation) -> Node:
    """A typical node of the allocation: GPUs from the batch system, else those of this node."""
    node = this_node()
    if allocation.gpus_per_node is None:
        return node
    return Node(
        node.cores, tuple(Gpu(str(number), "GPU", str(number)) for number in range(allocation.gpus_per_node))
    )


def place_workers(options: argparse.Namespace, spec: Spec, allocation: Allocation, node: Node) -> Placement:
    """Place ranks on nodes.

    Raises:
        LayoutError: if a trial has more ranks than there are workers.
    """
    is_idle = options.master == "idle"
    placement = place(
        allocation,
        usual=default_workers(node, spec.devices_per_trial),
        has_gpus=bool(node.gpus),
        workers=options.workers,
        idle_master=is_idle,
    )
    workers = placement.ranks - is_idle
    if workers < spec.most_ranks:
        raise LayoutError(
            f"{spec.source}: {RANKS}: trials have up to {spec.most_ranks} ranks, but there are "
            f"{counted(workers, 'worker')}; set -n {spec.most_ranks}, or run the sweep with more devices"
        )
    return placement


def check_fit(options: argparse.Namespace, spec: Spec, allocation: Allocation, placement: Placement) -> None:
    """Reject more workers than this node has devices for; other nodes cannot be checked here.

    Raises:
        LayoutError: if this node has too few devices.
    """
    if allocation.is_elsewhere:
        return
    host = this_host()
    for index, node in enumerate(placement.nodes):
        if node.host and node.host.partition(".")[0] != host.partition(".")[0]:
            continue
        lay_out(
            [this_node()] * node.ranks,
            has_master=index == 0,
            policy=master_policy(options) if placement.ranks > 1 else "works",
            devices_per_trial=spec.devices_per_trial,
            packs=spec.packs,
            memory_bytes=spec.limits.memory_bytes,
            host=host,
        )
