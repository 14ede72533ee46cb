"""The number of ranks per node: pure.

Rules
-----
* ``-n`` is the number of workers in the whole allocation, spread evenly; the first nodes get the remainder.
* Otherwise GPUs decide: each node gets as many workers as its GPUs have room for.
* Without GPUs each node gets as many as the job asked for; if it asked for none, as many as this machine
  would get alone.
* ``--master idle`` adds a rank on the first node.
* A node that no longer answers is left out with its ranks.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from mpisweep.batch.jobfacts import AllocatedNode, Allocation

__all__ = ["NodeRanks", "Placement", "place"]


@dataclass(frozen=True, slots=True)
class NodeRanks:
    """The number of ranks on a node; the host is empty for this machine outside of a job."""

    host: str
    ranks: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Ranks on nodes, in the order of rank numbers."""

    nodes: tuple[NodeRanks, ...]
    #: Whether these are all nodes of the allocation.
    everywhere: bool = True

    @property
    def ranks(self) -> int:
        """Number of ranks."""
        return sum(node.ranks for node in self.nodes)

    @property
    def ranks_per_node(self) -> int | None:
        """Ranks per node, if equal on all nodes; else None."""
        each = {node.ranks for node in self.nodes}
        return each.pop() if len(each) == 1 else None

    def only(self, hosts: Container[str]) -> Placement:
        """Keep only these hosts."""
        kept = tuple(node for node in self.nodes if node.host in hosts)
        return Placement(kept, everywhere=self.everywhere and len(kept) == len(self.nodes))


def place(
    allocation: Allocation, *, usual: int, has_gpus: bool, workers: int | None, idle_master: bool
) -> Placement:
    """Compute the ranks per node.

    Args:
        allocation: the nodes; if it has none, all ranks run on this machine.
        usual: workers per node by its devices.
        has_gpus: whether these are GPUs.
        workers: total number that the user wants; None for as many as there is room for.
        idle_master: whether rank 0 runs no trials.
    """
    nodes = allocation.nodes or (AllocatedNode(""),)
    if workers is None:
        counts = [usual if has_gpus or node.ranks is None else node.ranks for node in nodes]
    else:
        each, rest = divmod(workers, len(nodes))
        counts = [each + (index < rest) for index in range(len(nodes))]
    counts[0] += idle_master
    used = tuple(NodeRanks(node.host, count) for node, count in zip(nodes, counts, strict=True) if count)
    return Placement(used, everywhere=len(used) == len(nodes))
