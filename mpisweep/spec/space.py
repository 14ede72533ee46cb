"""The search space: parameters, which vary together, and which configurations there are.

A space is a product of *axes*.  An axis is one parameter, or several that vary together (``zip``), or a list
of points, which is the only axis of its space.  On a grid the last axis varies fastest.

Two things remove configurations from the product:

* A *condition* (``when``) says when a parameter exists.  Where it does not hold the parameter is absent from
  the configuration, or has the value of ``else``.  Points of the product that differ in such a parameter
  alone are one configuration, whose grid point is the one with the parameter's first value.
* A *constraint* (``where``) must hold for every configuration.  One that needs the value of an absent
  parameter does not apply.

A configuration maps the names of the parameters that exist in it to their values, in the order of the space.

Everything here is immutable and does no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from mpisweep.dataclass import dataclass
from mpisweep.records import Value
from mpisweep.spec.domains import Choice, FloatRange, IntegerRange, Parameter, SpaceError, ends
from mpisweep.spec.expression import Expression

__all__ = [
    "Axis", "Choice", "Condition", "Configuration", "FloatRange", "IntegerRange", "Parameter", "SearchSpace",
    "SpaceError", "Value", "ends",
]  # fmt: skip

Configuration = dict[str, Value]


@dataclass(frozen=True)
class Axis:
    """Parameters that vary together: entry *i* of each is one step.

    Attributes:
        parameters: with equally many values, if there are several.
        rows: the values of each step, if the parameters' own order does not say it.
    """

    parameters: tuple[Parameter, ...]
    rows: tuple[tuple[Value, ...], ...] | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def count(self) -> int | None:
        """Number of steps; None if the parameter is continuous."""
        return self.parameters[0].count if self.rows is None else len(self.rows)

    def at(self, index: int) -> tuple[Value, ...]:
        """The values of step `index`."""
        if self.rows is not None:
            return self.rows[index]
        return tuple(parameter.at(index) for parameter in self.parameters)

    def index(self, values: Sequence[Value]) -> int | None:
        """The step with these values, or None."""
        if self.rows is not None:
            return self._index_of_row.get(_row_key(values))
        found = {p.index(value) for p, value in zip(self.parameters, values, strict=True)}
        return found.pop() if len(found) == 1 else None

    @cached_property
    def _index_of_row(self) -> dict[tuple[object, ...], int]:
        assert self.rows is not None
        return {_row_key(row): index for index, row in enumerate(self.rows)}

    def from_unit(self, unit: float) -> tuple[Value, ...]:
        """Map `unit`, a number in [0, 1), to the values of a step."""
        if self.rows is not None:
            return self.rows[min(int(unit * len(self.rows)), len(self.rows) - 1)]
        first = self.parameters[0].from_unit(unit)
        if len(self.parameters) == 1:
            return (first,)
        index = self.parameters[0].index(first)
        assert index is not None, "only parameters with a grid vary together"
        return self.at(index)


@dataclass(frozen=True)
class Condition:
    """When a parameter exists.

    Attributes:
        name: of the parameter.
        when: it exists if this holds.
        otherwise: its value in all other configurations; None if it is absent from them.
    """

    name: str
    when: Expression
    otherwise: Value | None = None


@dataclass(frozen=True)
class SearchSpace:
    """The configurations that a sweep may try.

    Attributes:
        parameters: in the order of the sweep file.
        zipped: names of parameters that vary together.
        conditions: when parameters exist; at most one per parameter, see :attr:`ordered_conditions`.
        constraints: hold for every configuration.
        points: the values of the only configurations there are; None if the space is a product.
        optional: parameters that some trials have not asked for (:mod:`mpisweep.spec.suggested`).
    """

    parameters: tuple[Parameter, ...]
    zipped: tuple[tuple[str, ...], ...] = ()
    conditions: tuple[Condition, ...] = ()
    constraints: tuple[Expression, ...] = ()
    points: tuple[tuple[Value, ...], ...] | None = None
    optional: frozenset[str] = frozenset()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in order."""
        return tuple(parameter.name for parameter in self.parameters)

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The factors of the product, in the order of their first parameters."""
        if self.points is not None:
            return (Axis(self.parameters, self.points),)
        group_of = {name: group for group in self.zipped for name in group}
        by_name = {parameter.name: parameter for parameter in self.parameters}
        groups = dict.fromkeys(group_of.get(name, (name,)) for name in self.names)
        return tuple(Axis(tuple(by_name[name] for name in group)) for group in groups)

    @cached_property
    def memory(self) -> dict[str, str]:
        """Parameters on which memory depends -> ``increasing`` or ``decreasing``."""
        return {parameter.name: parameter.memory for parameter in self.parameters if parameter.memory}

    @cached_property
    def size(self) -> int | None:
        """Number of points of the product, without conditions and constraints; None if infinite."""
        counts = [axis.count for axis in self.axes]
        return None if None in counts else math.prod(_known(count) for count in counts)

    @property
    def is_product(self) -> bool:
        """Whether every point of the product is a configuration of its own."""
        return not self.conditions and not self.constraints

    # ------------------------------------------------------------------------------------- rules

    @cached_property
    def absentable(self) -> frozenset[str]:
        """Names of the parameters that some configurations do not have."""
        return self.optional.union(one.name for one in self.conditions if one.otherwise is None)

    @cached_property
    def ordered_conditions(self) -> tuple[Condition, ...]:
        """The conditions, each after those of the parameters that it depends on.

        Raises:
            SpaceError: if parameters depend on each other in a circle.
            ExpressionError: if a condition is invalid.
        """
        of = {condition.name: condition for condition in self.conditions}
        ordered: dict[str, Condition] = {}

        def add(name: str, above: tuple[str, ...]) -> None:
            if name in above:
                circle = [*above[above.index(name) :], name]
                raise SpaceError(f"depends on itself: {' -> '.join(circle)}")
            if name in of and name not in ordered:
                for needed in sorted(of[name].when.names):
                    add(needed, (*above, name))
                ordered[name] = of[name]

        for name in of:
            add(name, ())
        return tuple(ordered.values())

    def complete(self, values: Mapping[str, Value]) -> Configuration:
        """The configuration of a point of the product: without the values of inactive parameters.

        Args:
            values: one for every parameter that exists, others are ignored.

        Raises:
            ExpressionError: if a condition has no value.
        """
        found = {name: values[name] for name in self.names if name in values}
        for condition in self.ordered_conditions:
            if not condition.when.holds(found, if_absent=False):
                if condition.otherwise is None:
                    found.pop(condition.name, None)
                else:
                    found[condition.name] = condition.otherwise
        return found

    def inactive(self, configuration: Mapping[str, Value]) -> frozenset[str]:
        """Parameters whose condition does not hold in a configuration.

        Raises:
            ExpressionError: if a condition has no value.
        """
        found: set[str] = set()
        # What a condition needs is right already: an inactive parameter is absent, or has its other value.
        for condition in self.ordered_conditions:
            if not condition.when.holds(configuration, if_absent=False):
                found.add(condition.name)
        return frozenset(found)

    def broken_constraint(self, configuration: Mapping[str, Value]) -> Expression | None:
        """The first constraint that does not hold for a configuration; None if all hold.

        Raises:
            ExpressionError: if a constraint has no value.
        """
        for constraint in self.constraints:
            if not constraint.holds(configuration, if_absent=True):
                return constraint
        return None

    def contains(self, configuration: Mapping[str, Value]) -> bool:
        """Whether a configuration belongs to the space."""
        inactive = self.inactive(configuration)
        otherwise = {condition.name: condition.otherwise for condition in self.conditions}
        for parameter in self.parameters:
            name = parameter.name
            if name in inactive:
                if configuration.get(name) != otherwise[name]:
                    return False
            elif name not in configuration or not parameter.contains(configuration[name]):
                return False
        for axis in self.axes:
            is_joint = len(axis.parameters) > 1 and not inactive.intersection(axis.names)
            if is_joint and axis.index([configuration[name] for name in axis.names]) is None:
                return False
        return self.broken_constraint(configuration) is None

    # ------------------------------------------------------------------------------------- points

    def raw_point(self, index: int) -> Configuration:
        """Point `index` of the product, inactive parameters included; the last axis varies fastest."""
        if len(self.axes) == len(self.parameters) and self.points is None:
            # One parameter per axis, in order: three times as fast.
            found: list[Value] = []
            for parameter in reversed(self.parameters):
                index, position = divmod(index, _known(parameter.count))
                found.append(parameter.at(position))
            return dict(zip(self.names, reversed(found), strict=True))
        values: dict[str, Value] = {}
        for axis in reversed(self.axes):
            index, position = divmod(index, _known(axis.count))
            values.update(zip(axis.names, axis.at(position), strict=True))
        return {name: values[name] for name in self.names}

    def point(self, index: int) -> Configuration:
        """The configuration of point `index` of the product, which need not satisfy the constraints."""
        values = self.raw_point(index)
        return self.complete(values) if self.conditions else values

    def index(self, configuration: Mapping[str, Value]) -> int | None:
        """The point of the product that stands for this configuration, or None."""
        index = 0
        for axis, position in zip(
            self.axes, self._positions(configuration, self.inactive(configuration)), strict=True
        ):
            if position is None:
                return None
            index = index * _known(axis.count) + position
        return index

    def _positions(self, configuration: Mapping[str, Value], inactive: Iterable[str]) -> list[int | None]:
        """Step on each axis; an inactive parameter has its first value."""
        inactive = set(inactive)
        return [
            0 if inactive.intersection(axis.names)
            else axis.index([configuration[name] for name in axis.names])
            for axis in self.axes
        ]  # fmt: skip

    # ------------------------------------------------------------------------------------- unit cube

    def from_unit(self, vector: Sequence[float]) -> Configuration:
        """Map a point of the unit cube, shape (axes,), to a configuration.

        It need not satisfy the constraints.
        """
        values: dict[str, Value] = {}
        for axis, unit in zip(self.axes, vector, strict=True):
            values.update(zip(axis.names, axis.from_unit(float(unit)), strict=True))
        return self.complete(values)


def _row_key(values: Iterable[Value]) -> tuple[object, ...]:
    """True is not 1 in a list of points."""
    return tuple((value, isinstance(value, bool)) for value in values)


def _known(value: int | None) -> int:
    assert value is not None, "a continuous parameter has no grid points"
    return value
