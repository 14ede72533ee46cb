"""Sobol's quasi-random sequence: as spread out as a grid, and as extendable as random search.

I. M. Sobol, "On the distribution of points in a cube and the approximate evaluation of integrals", 1967, in
scipy's implementation with Owen's scrambling.  The only importer of scipy's engine.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from scipy.stats import qmc

from mpisweep.search.base import distinct
from mpisweep.space import Configuration, SearchSpace

__all__ = ["SobolSampler"]

#: Points drawn at a time: a power of two, which the sequence is balanced for.
_BLOCK = 256
#: As in random search.
_PATIENCE = 50


class SobolSampler:
    """The scrambled sequence of the seed; a point that came before is left out.

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
        engine = qmc.Sobol(len(self._space.parameters), scramble=True, rng=self._seed)
        blocks = -(-_PATIENCE * wanted // _BLOCK) if self._space.size is not None else -(-wanted // _BLOCK) + 1
        for _ in range(blocks):
            with warnings.catch_warnings():
                # The balance of a prefix is the reader's concern; blocks as such are powers of two.
                warnings.simplefilter("ignore", UserWarning)
                points = engine.random(_BLOCK)
            for point in points:
                yield self._space.from_unit(point)
        for index in range(self._space.size or 0):
            yield self._space.point(index)
