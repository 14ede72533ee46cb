"""What a sampler is, and what those that sample share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from typing import Protocol, Self

from mpisweep.spec import Spec
from mpisweep.spec.space import Configuration, SearchSpace

__all__ = ["PATIENCE", "DistinctSampler", "Sampler"]

#: Proposals for each wanted configuration after which what is left of a small space is taken in order.
PATIENCE = 50


class Sampler(Protocol):
    """A sequence of configurations, in the order of their numbers.

    Obligations: the same arguments give the same sequence; no configuration comes twice; asking for more
    trials continues the sequence and does not change its beginning.
    """

    def __len__(self) -> int:
        """How many configurations there are."""

    def __getitem__(self, index: int) -> Configuration:
        """The configuration `index`."""


class DistinctSampler(ABC):
    """The first different ones of a sequence of proposals.

    A subclass, built in or a plugin's, writes :meth:`proposals` by :attr:`space` and :attr:`seed`.

    Args:
        space: what to sample.
        seed: of the sweep.
        trials: how many configurations; fewer when the space does not seem to have as many.
    """

    def __init__(self, space: SearchSpace, seed: int, trials: int) -> None:
        self.space = space
        self.seed = seed
        wanted = trials if space.size is None else min(trials, space.size)
        found: dict[tuple[object, ...], Configuration] = {}
        for proposal in self._until_exhausted(wanted):
            if len(found) == wanted:
                break
            found.setdefault(tuple(proposal.values()), proposal)
        self._configurations = list(found.values())

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """The sampler of a sweep."""
        assert spec.trials is not None, "the sweep file was checked"
        return cls(spec.space, spec.seed, spec.trials)

    def __len__(self) -> int:
        """See :class:`Sampler`."""
        return len(self._configurations)

    def __getitem__(self, index: int) -> Configuration:
        """See :class:`Sampler`."""
        return self._configurations[index]

    @abstractmethod
    def proposals(self) -> Iterator[Configuration]:
        """Endless proposals, which may repeat themselves."""

    def _until_exhausted(self, wanted: int) -> Iterator[Configuration]:
        """So many proposals, and then the points of a finite space in order."""
        yield from islice(self.proposals(), PATIENCE * wanted)
        for index in range(self.space.size or 0):
            yield self.space.point(index)
