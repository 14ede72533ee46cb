"""The sampler protocol, and the base class of searches that draw proposals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Protocol, Self, TypeVar

from mpisweep.blocks import EndedBlock
from mpisweep.records import Value
from mpisweep.spec import Spec
from mpisweep.spec.expression import ExpressionError
from mpisweep.spec.space import Configuration, SearchSpace
from mpisweep.spec.wording import Wording

__all__ = [
    "MISSES_AT_MOST", "PATIENCE", "AddingSearch", "DistinctSampler", "NeverTrueError", "Sampler",
    "with_sizes",
]  # fmt: skip

#: Proposals per wanted configuration, after which the rest of a small space is taken in order.
PATIENCE = 50
#: Proposals in a row that violate a constraint, after which a search gives up drawing.
MISSES_AT_MOST = 100_000
#: A finite space up to this size is then searched point by point.
_SMALL = 1_000_000


class Sampler(Protocol):
    """A sequence of configurations, in the order of trial numbers.

    Obligations: the same arguments give the same sequence; no configuration repeats; more trials extend the
    sequence without changing its beginning.
    """

    def __len__(self) -> int:
        """Number of configurations."""

    def __getitem__(self, index: int) -> Configuration:
        """The configuration `index`."""


class AddingSearch(Sampler, Protocol):
    """A sampler that adds configurations as results come in, in the scheduler's own process.

    What it proposes follows from the trials and their ends alone, so that a search that is rebuilt from the
    results file proposes the same.
    """

    def add(self, number: int, configuration: Mapping[str, object]) -> None:
        """Register a trial."""

    def tell(self, block: EndedBlock) -> None:
        """Learn from trials that ended."""

    def ask(self) -> list[Configuration]:
        """Propose configurations; empty while earlier ones run, or when the search is done."""


class _Sized(Protocol):
    """A search over sizes."""

    @property
    def sizes(self) -> int:
        """Number of sizes to choose from."""


_SizedT = TypeVar("_SizedT", bound=_Sized)


def with_sizes(spec: Spec, make: Callable[[], _SizedT], what: str) -> _SizedT:
    """Create a search over sizes.

    Args:
        spec: the sweep, for messages.
        make: creates the search.
        what: a size in words.

    Raises:
        SpecError: if a constraint has no value, or the constraints leave no size.
    """
    wording = Wording(spec.source)
    try:
        made = make()
    except ExpressionError as error:
        wording.fail("where", str(error))
    if not made.sizes:
        texts = ", ".join(repr(constraint.text) for constraint in spec.space.constraints)
        wording.fail("where", f"no {what} satisfies {texts}")
    return made


class NeverTrueError(ValueError):
    """No proposal satisfies the constraints; the message is the end of a sentence."""


class DistinctSampler(ABC):
    """The first distinct configurations of a sequence of proposals that satisfy the constraints.

    A subclass implements :meth:`proposals`, using :attr:`space` and :attr:`seed`.

    Args:
        space: the space to sample.
        seed: seed of the sweep.
        trials: number of configurations; fewer if the space runs out of them.

    Raises:
        NeverTrueError: if the constraints hold for less than one in :data:`MISSES_AT_MOST` proposals.
        ExpressionError: if a condition or constraint has no value.
    """

    def __init__(self, space: SearchSpace, seed: int, trials: int) -> None:
        self.space = space
        self.seed = seed
        wanted = trials if space.size is None else min(trials, space.size)
        found: dict[tuple[Value | None, ...], Configuration] = {}
        for proposal in self._until_exhausted(wanted):
            found.setdefault(tuple(map(proposal.get, space.names)), proposal)
            if len(found) == wanted:
                break
        if wanted and not found:
            raise NeverTrueError(f"no point of the space satisfies {_constraints_text(space)}")
        self._configurations = list(found.values())

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """Create the sampler of a sweep.

        Raises:
            SpecError: if the constraints leave nothing, or next to nothing.
        """
        assert spec.trials is not None, "the sweep file was checked"
        try:
            return cls(spec.space, spec.seed, spec.trials)
        except (NeverTrueError, ExpressionError) as error:
            # A wording always raises.
            Wording(spec.source).fail("where" if spec.space.constraints else "parameters", str(error))

    def __len__(self) -> int:
        """See :class:`Sampler`."""
        return len(self._configurations)

    def __getitem__(self, index: int) -> Configuration:
        """See :class:`Sampler`."""
        return self._configurations[index]

    @abstractmethod
    def proposals(self) -> Iterator[Configuration]:
        """Yield endless proposals; they may repeat, and may violate constraints."""

    def _until_exhausted(self, wanted: int) -> Iterator[Configuration]:
        """Yield a limited number of proposals, then the points of a finite space in order."""
        yield from islice(self._allowed(), PATIENCE * wanted)
        size = self.space.size or 0
        for index in range(size if self.space.is_product else min(size, _SMALL)):
            point = self.space.point(index)
            if self.space.broken_constraint(point) is None:
                yield point

    def _allowed(self) -> Iterator[Configuration]:
        """Yield the proposals that satisfy the constraints; ends if they are too rare in a small space."""
        misses = 0
        for proposal in self.proposals():
            if self.space.broken_constraint(proposal) is None:
                misses = 0
                yield proposal
                continue
            misses += 1
            if misses == MISSES_AT_MOST:
                if self.space.size is not None and self.space.size <= _SMALL:
                    return
                rules = _constraints_text(self.space)
                raise NeverTrueError(
                    f"{rules} was not true for {MISSES_AT_MOST:,} random points in a row; set narrower ranges"
                )


def _constraints_text(space: SearchSpace) -> str:
    return " and ".join(repr(constraint.text) for constraint in space.constraints)
