"""The sampler protocol, and the base class of searches that draw proposals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from typing import Protocol, Self

from mpisweep.spec import Spec
from mpisweep.spec.space import Configuration, SearchSpace

__all__ = ["PATIENCE", "DistinctSampler", "Sampler"]

#: Proposals per wanted configuration, after which the rest of a small space is taken in order.
PATIENCE = 50


class Sampler(Protocol):
    """A sequence of configurations, in the order of trial numbers.

    Obligations: the same arguments give the same sequence; no configuration repeats; more trials extend the
    sequence without changing its beginning.
    """

    def __len__(self) -> int:
        """Number of configurations."""

    def __getitem__(self, index: int) -> Configuration:
        """The configuration `index`."""


class DistinctSampler(ABC):
    """The first distinct configurations of a sequence of proposals.

    A subclass implements :meth:`proposals`, using :attr:`space` and :attr:`seed`.

    Args:
        space: the space to sample.
        seed: seed of the sweep.
        trials: number of configurations; fewer if the space runs out of them.
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
        """Create the sampler of a sweep."""
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
        """Yield endless proposals; they may repeat."""

    def _until_exhausted(self, wanted: int) -> Iterator[Configuration]:
        """Yield a limited number of proposals, then the points of a finite space in order."""
        yield from islice(self.proposals(), PATIENCE * wanted)
        for index in range(self.space.size or 0):
            yield self.space.point(index)
