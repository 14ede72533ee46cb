"""Grid search: every configuration of the space, or of a list, the last parameter fastest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

from mpisweep.search.survivors import Survivors, TooManyError, survivors
from mpisweep.spec import Spec
from mpisweep.spec.expression import ExpressionError
from mpisweep.spec.space import Configuration, SearchSpace
from mpisweep.spec.wording import Wording

__all__ = ["GridSampler"]


class GridSampler:
    """The points of the product of the parameters' values that are configurations.

    Args:
        space: a space without continuous parameters.
        indices: the points of the product that are configurations, ascending; None for all.
        warnings: what is odd about the space, one sentence each.
    """

    def __init__(
        self, space: SearchSpace, indices: Sequence[int] | None = None, warnings: Sequence[str] = ()
    ) -> None:
        assert space.size is not None, "a grid needs finitely many points"
        self.warnings = warnings
        self._space = space
        self._indices = range(space.size) if indices is None else indices

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """Create the sampler of a sweep.

        Raises:
            SpecError: if conditions and constraints leave no point, or too many.
        """
        if spec.space.is_product:
            return cls(spec.space)
        wording = Wording(spec.source)
        try:
            found = survivors(spec.space, spec.max_points)
        except ExpressionError as error:
            wording.fail("where" if spec.space.constraints else "parameters", str(error))
        except TooManyError as error:
            raised = wording.set("max_points", "N")
            wording.fail("parameters", f"{error}; set narrower ranges, or a larger {raised}")
        _check_rules(wording, spec.space, found)
        return cls(spec.space, found.indices, list(_warnings(spec.space, found)))

    def __len__(self) -> int:
        """See :class:`~mpisweep.search.base.Sampler`."""
        return len(self._indices)

    def __getitem__(self, index: int) -> Configuration:
        """See :class:`~mpisweep.search.base.Sampler`."""
        return self._space.point(self._indices[index])


def _check_rules(wording: Wording, space: SearchSpace, found: Survivors) -> None:
    """Refuse rules that leave nothing."""
    others = " that satisfies the constraints before it" if len(space.constraints) > 1 else ""
    for text in found.never(space.constraints):
        wording.fail("where", f"{text!r} is never true: no point{others} satisfies it")
    if not found.indices:
        wording.fail(
            "where", "no point satisfies all of " + ", ".join(repr(c.text) for c in space.constraints)
        )
    for condition in space.conditions:
        if found.never([condition.when]):
            wording.fail(
                f"parameters.{condition.name}",
                f"'when' is {condition.when.text!r}, which is never true; remove the parameter",
            )


def _warnings(space: SearchSpace, found: Survivors) -> Iterator[str]:
    """Rules that change nothing."""
    for condition in space.conditions:
        if found.always([condition.when]):
            yield f"parameters.{condition.name}: 'when' is {condition.when.text!r}, which is always true"
    for text in found.always(space.constraints):
        yield f"where: {text!r} is always true: it excludes no point"
