"""Independent, uniformly distributed configurations.

J. Bergstra and Y. Bengio, "Random search for hyper-parameter optimization", JMLR 13, 2012: where only a few
of many parameters matter, this beats a grid of the same size.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from random import Random

from mpisweep.search.base import distinct
from mpisweep.space import Configuration, SearchSpace

__all__ = ["RandomSampler"]

#: Proposals for each wanted configuration after which a small space counts as exhausted.
_PATIENCE = 50


class RandomSampler:
    """Proposal *i* depends on the seed and *i* alone; one that came before is left out.

    Args:
        space: what to sample.
        seed: of the sweep.
        trials: how many configurations; fewer when the space does not have as many.
    """

    def __init__(self, space: SearchSpace, seed: int, trials: int) -> None:
        self._space = space
        self._seed = seed
        wanted = trials if space.size is None else min(trials, space.size)
        self._configurations = distinct(self._proposals(wanted), wanted)

    def __len__(self) -> int:
        """See :class:`~mpisweep.search.base.Sampler`."""
        return len(self._configurations)

    def __getitem__(self, index: int) -> Configuration:
        """See :class:`~mpisweep.search.base.Sampler`."""
        return self._configurations[index]

    def _proposals(self, wanted: int) -> Iterator[Configuration]:
        for index in count():
            if self._space.size is not None and index >= _PATIENCE * wanted:
                break
            generator = Random(f"{self._seed}:{index}")
            yield self._space.from_unit([generator.random() for _ in self._space.parameters])
        # A small space whose last points are hard to hit by chance: take them in order.
        for index in range(self._space.size or 0):
            yield self._space.point(index)
