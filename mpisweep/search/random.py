"""Independent, uniformly distributed configurations.

J. Bergstra and Y. Bengio, "Random search for hyper-parameter optimization", JMLR 13, 2012: where only a few
of many parameters matter, this beats a grid of the same size.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from random import Random

from mpisweep.search.base import DistinctSampler
from mpisweep.spec.space import Configuration

__all__ = ["RandomSampler"]


class RandomSampler(DistinctSampler):
    """Proposal *i* depends on the seed and *i* alone; one that came before is left out."""

    def proposals(self) -> Iterator[Configuration]:
        """See :class:`~mpisweep.search.base.DistinctSampler`."""
        for index in count():
            generator = Random(f"{self.seed}:{index}")
            yield self.space.from_unit([generator.random() for _ in self.space.parameters])
