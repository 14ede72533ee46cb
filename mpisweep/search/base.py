"""What a sampler is, and what the sampling ones share."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Protocol

from mpisweep.space import Configuration

__all__ = ["Sampler", "distinct"]


class Sampler(Protocol):
    """A sequence of configurations, in the order of their numbers.

    Obligations: the same arguments give the same sequence; no configuration comes twice; asking for more
    trials continues the sequence and does not change its beginning.
    """

    def __len__(self) -> int:
        """How many configurations there are."""

    def __getitem__(self, index: int) -> Configuration:
        """The configuration `index`."""


def distinct(proposals: Iterable[Configuration], count: int) -> list[Configuration]:
    """The first `count` different ones of `proposals`, or all when there are fewer."""
    return list(islice({tuple(c.values()): c for c in _until_enough(proposals, count)}.values(), count))


def _until_enough(proposals: Iterable[Configuration], count: int) -> Iterable[Configuration]:
    seen: set[tuple[object, ...]] = set()
    for configuration in proposals:
        key = tuple(configuration.values())
        if key in seen:
            continue
        seen.add(key)
        yield configuration
        if len(seen) >= count:
            return
