"""Searches: which configurations a sweep tries.  One idea a file."""

from __future__ import annotations

from typing import cast

from mpisweep.plugins import SEARCHES, PluginError, find_plugin
from mpisweep.search.base import DistinctSampler, Sampler
from mpisweep.search.largest_batch import LargestBatch
from mpisweep.spec import Spec, SpecError

__all__ = ["DistinctSampler", "LargestBatch", "Sampler", "make_sampler"]


def make_sampler(spec: Spec) -> Sampler:
    """The sampler of the search that the sweep file names.

    Raises:
        SpecError: when the search is a plugin's that cannot be used.
    """
    try:
        plugin = find_plugin(SEARCHES, spec.search)
        if plugin is None:
            raise PluginError(f"there is no search {spec.search!r}; install the package that it comes with")
        # Imported here: scipy, which one of them is made of, takes a second that a rank without it should not
        # wait.
        found = plugin.load(method="from_spec")
    except PluginError as error:
        raise SpecError(f"{spec.source}: search: {error}") from error
    return cast(Sampler, found.from_spec(spec))
