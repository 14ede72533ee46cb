"""Random search: independent, uniformly distributed configurations.

J. Bergstra and Y. Bengio, "Random search for hyper-parameter optimization", JMLR 13, 2012: if only a few of
many parameters matter, it beats a grid of the same size.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from random import Random

from mpisweep.search.base import DistinctSampler
from mpisweep.spec.space import Configuration

__all__ = ["RandomSampler"]


class RandomSampler(DistinctSampler):
    """Random search; proposal *i* depends only on the seed and *i*, duplicates are skipped."""

    def proposals(self) -> Iterator[Configuration]:
        """See :class:`~mpisweep.search.base.DistinctSampler`."""
        for index in count():
            generator = Random(f"{self.seed}:{index}")
            yield self.space.from_unit([generator.random() for _ in self.space.axes])
