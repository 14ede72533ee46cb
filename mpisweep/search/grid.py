"""Grid search: every point of the space, the last parameter fastest."""

from __future__ import annotations

from typing import Self

from mpisweep.spec import Spec
from mpisweep.spec.space import Configuration, SearchSpace

__all__ = ["GridSampler"]


class GridSampler:
    """The full product of the parameters' values.

    Args:
        space: a space without continuous parameters.
    """

    def __init__(self, space: SearchSpace) -> None:
        assert space.size is not None, "a grid needs finitely many points"
        self._space = space
        self._size = space.size

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """Create the sampler of a sweep."""
        return cls(spec.space)

    def __len__(self) -> int:
        """See :class:`~mpisweep.search.base.Sampler`."""
        return self._size

    def __getitem__(self, index: int) -> Configuration:
        """See :class:`~mpisweep.search.base.Sampler`."""
        return self._space.point(index)
