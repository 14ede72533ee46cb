"""Searches: which configurations a sweep tries.  One search per file."""

from __future__ import annotations

from typing import cast

from mpisweep.search.base import AddingSearch, DistinctSampler, Sampler
from mpisweep.search.largest_batch import LargestBatch
from mpisweep.search.learning import LearningSearch
from mpisweep.spec import Spec
from mpisweep.spec.searches import load_search

__all__ = ["AddingSearch", "DistinctSampler", "LargestBatch", "LearningSearch", "Sampler", "make_sampler"]


def make_sampler(spec: Spec) -> Sampler:
    """Create the sampler of the sweep's search.

    Raises:
        SpecError: if the search cannot be loaded.
    """
    # Loaded only now: sobol imports scipy, and a rank that does not need it saves a second.
    return cast(Sampler, load_search(spec).from_spec(spec))
