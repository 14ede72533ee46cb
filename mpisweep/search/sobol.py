"""Sobol's quasi-random sequence: as spread out as a grid, and as extendable as random search.

I. M. Sobol, "On the distribution of points in a cube and the approximate evaluation of integrals", 1967, in
scipy's implementation with Owen's scrambling.  The only importer of scipy's engine.
"""

from __future__ import annotations

from collections.abc import Iterator

from scipy.stats import qmc

from mpisweep.search.base import DistinctSampler
from mpisweep.spec.space import Configuration

__all__ = ["SobolSampler"]

#: Points drawn at a time: a power of two, which the sequence is balanced for.
_BLOCK = 256


class SobolSampler(DistinctSampler):
    """The scrambled sequence of the seed; a point that came before is left out."""

    def proposals(self) -> Iterator[Configuration]:
        """See :class:`~mpisweep.search.base.DistinctSampler`."""
        engine = qmc.Sobol(len(self.space.parameters), scramble=True, rng=self.seed)
        while True:
            for point in engine.random(_BLOCK):
                yield self.space.from_unit(point)
