"""Which points of a grid are configurations: those that conditions and constraints leave.

The axes are nested loops, the last one innermost.  A condition or constraint is evaluated in the outermost
loop in which all that it needs is known, so that one test removes a whole part of the grid.

A parameter that does not exist in a configuration stands at its first value; its other values would repeat
the configuration.

Pure.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mpisweep.records import Value
from mpisweep.spec.expression import Expression
from mpisweep.spec.space import Condition, SearchSpace

__all__ = ["Survivors", "TooManyError", "survivors"]

#: How many points may be looked at for each one that is allowed.
_VISITS_PER_POINT = 10


class TooManyError(ValueError):
    """The grid has more points than allowed; the message is the end of a sentence."""


@dataclass(slots=True)
class Survivors:
    """The points of a grid that are configurations, and how often each rule decided.

    Attributes:
        indices: of the points in the product, ascending.
        true: constraint or condition -> how often it was true.
        false: constraint or condition -> how often it was false.
    """

    indices: array[int] = field(default_factory=lambda: array("q"))
    true: dict[str, int] = field(default_factory=dict)
    false: dict[str, int] = field(default_factory=dict)

    def never(self, rules: Iterable[Expression]) -> list[str]:
        """Texts of the rules that were evaluated and never true."""
        return [rule.text for rule in rules if self.false[rule.text] and not self.true[rule.text]]

    def always(self, rules: Iterable[Expression]) -> list[str]:
        """Texts of the rules that were evaluated and never false."""
        return [rule.text for rule in rules if self.true[rule.text] and not self.false[rule.text]]


def survivors(space: SearchSpace, at_most: int) -> Survivors:
    """Find the points of a grid that are configurations.

    Args:
        space: without continuous parameters.
        at_most: the number of points allowed.

    Raises:
        TooManyError: if there are more, or too many must be looked at to find them.
        ExpressionError: if a rule has no value for a point.
    """
    return _Loops(space, at_most).run()


class _Loops:
    """The nested loops over the axes."""

    def __init__(self, space: SearchSpace, at_most: int) -> None:
        self._at_most = at_most
        self._visits_left = _VISITS_PER_POINT * at_most
        if max((axis.count or 0 for axis in space.axes), default=0) > self._visits_left:
            raise self._too_many()
        self._axes = [(axis.names, [axis.at(i) for i in range(axis.count or 0)]) for axis in space.axes]
        self._conditions: list[list[Condition]] = [[] for _ in space.axes]
        self._constraints: list[list[Expression]] = [[] for _ in space.axes]
        self._place_rules(space)
        self._found = Survivors()
        for rule in (*space.constraints, *(condition.when for condition in space.conditions)):
            self._found.true[rule.text] = self._found.false[rule.text] = 0
        #: Values of the parameters that exist, in the loops so far.
        self._values: dict[str, Value] = {}
        #: Parameter -> its position in its loop.
        self._positions: dict[str, int] = {}

    def _place_rules(self, space: SearchSpace) -> None:
        """Assign each rule to the outermost loop in which it can be evaluated."""
        depth_of = {name: depth for depth, axis in enumerate(space.axes) for name in axis.names}
        # From the loop of `known_at` on it is known whether a parameter exists.
        known_at = dict(depth_of)
        for condition in space.ordered_conditions:
            needed = [known_at[name] for name in (condition.name, *condition.when.names)]
            known_at[condition.name] = max(needed)
            self._conditions[max(needed)].append(condition)
        for constraint in space.constraints:
            self._constraints[max(known_at[name] for name in constraint.names)].append(constraint)

    def run(self) -> Survivors:
        if self._axes:
            self._loop(0, 0)
        else:
            self._found.indices.append(0)
        return self._found

    def _too_many(self) -> TooManyError:
        seen = f"{_VISITS_PER_POINT * self._at_most:,}"
        return TooManyError(f"the constraints must be evaluated for more than {seen} points of the grid")

    def _loop(self, depth: int, before: int) -> None:
        """Run the loop over one axis, and those inside it.

        Args:
            depth: of the axis.
            before: index of the outer loops' positions.
        """
        names, steps = self._axes[depth]
        is_last = depth == len(self._axes) - 1
        conditions, constraints = self._conditions[depth], self._constraints[depth]
        values, positions, indices = self._values, self._positions, self._found.indices
        self._visits_left -= len(steps)
        if self._visits_left < 0:
            raise self._too_many()
        before *= len(steps)
        for position, step in enumerate(steps):
            for name, value in zip(names, step, strict=True):
                values[name] = value
                positions[name] = position
            removed = self._remove_inactive(conditions) if conditions else {}
            if removed is not None and (not constraints or self._all_hold(constraints)):
                if is_last:
                    indices.append(before + position)
                else:
                    self._loop(depth + 1, before + position)
            if removed:
                values.update(removed)
        for name in names:
            del values[name]
        if len(indices) > self._at_most:
            raise TooManyError(f"the grid has more than {self._at_most:,} points")

    def _remove_inactive(self, conditions: Sequence[Condition]) -> dict[str, Value] | None:
        """Remove the values of parameters that do not exist; None if this point repeats another."""
        removed: dict[str, Value] = {}
        for condition in conditions:
            name = condition.name
            if self._holds(condition.when, if_absent=False):
                continue
            if self._positions[name]:
                self._values.update(removed)
                return None
            removed[name] = self._values[name]
            if condition.otherwise is None:
                del self._values[name]
            else:
                self._values[name] = condition.otherwise
        return removed

    def _all_hold(self, constraints: Sequence[Expression]) -> bool:
        return all(self._holds(constraint, if_absent=True) for constraint in constraints)

    def _holds(self, rule: Expression, *, if_absent: bool) -> bool:
        holds = rule.holds(self._values, if_absent=if_absent)
        (self._found.true if holds else self._found.false)[rule.text] += 1
        return holds
