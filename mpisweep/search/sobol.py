"""Sobol search: a quasi-random sequence, even like a grid and extendable like random search.

I. M. Sobol, "On the distribution of points in a cube and the approximate evaluation of integrals", 1967, in
scipy's implementation with Owen's scrambling.  The only importer of scipy's engine.
"""

from __future__ import annotations

from collections.abc import Iterator

from scipy.stats import qmc

from mpisweep.search.base import DistinctSampler
from mpisweep.spec.space import Configuration

__all__ = ["SobolSampler"]

#: Points per draw: a power of two, which keeps the sequence balanced.
_BLOCK = 256


class SobolSampler(DistinctSampler):
    """Sobol search; the seed scrambles the sequence, duplicates are skipped."""

    def proposals(self) -> Iterator[Configuration]:
        """See :class:`~mpisweep.search.base.DistinctSampler`."""
        engine = qmc.Sobol(len(self.space.axes), scramble=True, rng=self.seed)
        while True:
            for point in engine.random(_BLOCK):
                yield self.space.from_unit(point)
