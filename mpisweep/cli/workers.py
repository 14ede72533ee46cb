"""Arguments for the number of workers and the role of rank 0, and the placement of ranks."""

from __future__ import annotations

import argparse

from mpisweep.batch.jobfacts import Allocation
from mpisweep.batch.placement import Placement, place
from mpisweep.cli.arguments import at_least_1
from mpisweep.devices.gpus import Gpu
from mpisweep.devices.nodes import LayoutError, Node, default_workers, lay_out, this_node
from mpisweep.processes.kernel import this_host
from mpisweep.progress import counted
from mpisweep.rank.transport import expected_rank
from mpisweep.spec import RANKS, Spec

__all__ = ["add_workers", "check_fit", "master_policy", "place_workers", "usual_node", "workers_here"]


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add ``-n`` and ``--master``."""
    parser.add_argument(
        "-n",
        "--workers",
        type=at_least_1,
        metavar="N",
        help="number of workers on all nodes together (default: one per GPU; else as many as the job "
        "requested; else one per core, up to 16 per node)",
    )
    parser.add_argument(
        "--master",
        choices=("auto", "works", "idle"),
        default="auto",
        help="let rank 0 run trials too (default: only if a device would be idle)",
    )


def master_policy(options: argparse.Namespace) -> str:
    """The policy for rank 0; with -n it is a worker, even if there are fewer cores."""
    is_started_by_us = options.workers and expected_rank() is None
    return "works" if is_started_by_us and options.master == "auto" else str(options.master)


def workers_here(options: argparse.Namespace, spec: Spec) -> int:
    """Number of workers requested, or this node's default."""
    return options.workers or default_workers(this_node(), spec.devices_per_trial)


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
            memory_bytes=spec.limits.memory_bytes,
            host=host,
        )
