"""Searches: which configurations a sweep tries.  One idea a file."""

from __future__ import annotations

from mpisweep.search.base import Sampler
from mpisweep.search.grid import GridSampler
from mpisweep.search.largest_batch import LargestBatch
from mpisweep.search.random import RandomSampler
from mpisweep.spec import Spec

__all__ = ["GridSampler", "LargestBatch", "RandomSampler", "Sampler", "make_sampler"]


def make_sampler(spec: Spec) -> Sampler:
    """The sampler that the sweep file names."""
    if spec.search == "grid":
        return GridSampler(spec.space)
    if spec.search == "largest_batch":
        return LargestBatch(spec.space, spec.objective, spec.direction)
    assert spec.trials is not None
    if spec.search == "random":
        return RandomSampler(spec.space, spec.seed, spec.trials)
    # scipy takes a second to import; a rank that needs none of it should not wait for it.
    from mpisweep.search.sobol import SobolSampler

    return SobolSampler(spec.space, spec.seed, spec.trials)
