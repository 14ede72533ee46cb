"""How many ranks go onto which node: pure.

Rules
-----
* ``-n`` counts the workers of the whole allocation; they are spread evenly, the first nodes getting the rest.
* Otherwise GPUs decide: every node gets as many workers as its GPUs have room for.
* Where there are no GPUs, every node gets as many as the job asked the batch system for; where it asked for
  none, as many as this machine would get on its own.
* ``--master idle`` puts one rank more on the first node.
* A node that does not answer any more is left out, and its ranks with it.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from mpisweep.batch.jobfacts import AllocatedNode, Allocation

__all__ = ["NodeRanks", "Placement", "place"]


@dataclass(frozen=True, slots=True)
class NodeRanks:
    """So many ranks on one node; the host is empty for this machine outside of an allocation."""

    host: str
    ranks: int


@dataclass(frozen=True, slots=True)
class Placement:
    """Ranks on nodes, in the order in which they are numbered."""

    nodes: tuple[NodeRanks, ...]
    #: Whether these are all nodes that the batch system has granted.
    everywhere: bool = True

    @property
    def ranks(self) -> int:
        """How many ranks there are."""
        return sum(node.ranks for node in self.nodes)

    @property
    def ranks_per_node(self) -> int | None:
        """The same number for every node, where it is."""
        each = {node.ranks for node in self.nodes}
        return each.pop() if len(each) == 1 else None

    def only(self, hosts: Container[str]) -> Placement:
        """What is left of it on these hosts."""
        kept = tuple(node for node in self.nodes if node.host in hosts)
        return Placement(kept, everywhere=self.everywhere and len(kept) == len(self.nodes))


def place(
    allocation: Allocation, *, usual: int, has_gpus: bool, workers: int | None, idle_master: bool
) -> Placement:
    """Work out the ranks of every node.

    Args:
        allocation: the nodes; where it names none, the ranks all run on this machine.
        usual: workers for one node by its devices.
        has_gpus: whether those are GPUs.
        workers: how many the user wants in all; None for as many as there is room for.
        idle_master: whether rank 0 takes no part in the work.
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
