"""Parameters and their domains.

A parameter is an integer range, a float range or a choice.  All have the same interface: the number of grid
points, the *i*-th value, whether a value belongs to the domain, and the map to and from the unit interval, in
which random and quasi-random searches draw.

Everything here is immutable and does no I/O; :mod:`~mpisweep.spec.parameters` parses parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property

from mpisweep.dataclass import dataclass, field
from mpisweep.records import Value

__all__ = ["Choice", "FloatRange", "IntegerRange", "Parameter", "SpaceError", "ends"]

#: Relative tolerance within which a float equals a grid point.
_SLACK = 1e-9
#: Bound of the rounding error of a sum, relative to its largest term.
_ROUNDING = 1e-12


class SpaceError(ValueError):
    """Invalid parameter; the message says what was found and what is expected."""


@dataclass(frozen=True)
class IntegerRange:
    """Integers from `low` to `high`, both included.

    Attributes:
        step: distance between neighbouring values on a linear scale.
        log: whether equal ratios, not equal differences, are equally likely.
        points: number of grid points on a log scale.
        memory: ``increasing`` if larger values need more memory, ``decreasing`` if less; empty if unknown.
            Ignored in comparisons.
    """

    name: str
    low: int
    high: int
    step: int = 1
    log: bool = False
    points: int | None = None
    memory: str = field(default="", compare=False)

    @cached_property
    def _log_values(self) -> tuple[int, ...]:
        assert self.points is not None
        return tuple(sorted({round(v) for v in _log_points(self.low, self.high, self.points)}))

    @property
    def count(self) -> int | None:
        """Number of grid points."""
        if self.points is not None:
            return len(self._log_values)
        return (self.high - self.low) // self.step + 1

    def at(self, index: int) -> int:
        """The grid point `index`."""
        return self._log_values[index] if self.points is not None else self.low + index * self.step

    def index(self, value: Value) -> int | None:
        """Index of the grid point `value`, or None."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            return None
        if self.points is not None:
            return self._log_values.index(value) if value in self._log_values else None
        steps, rest = divmod(value - self.low, self.step)
        return None if rest else steps

    def contains(self, value: Value) -> bool:
        """Whether `value` belongs to the domain."""
        return self.index(value) is not None

    def from_unit(self, unit: float) -> int:
        """Map `unit`, a number in [0, 1), to a value."""
        if not self.log:
            return self.at(min(int(unit * _known(self.count)), _known(self.count) - 1))
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        value = min(max(round(math.exp(low + unit * (high - low))), self.low), self.high)
        if self.points is not None:
            return min(self._log_values, key=lambda v: abs(math.log(v / value)))
        return value

    def to_unit(self, value: Value) -> float:
        """Map `value` to [0, 1); the inverse of :meth:`from_unit`."""
        if not self.log:
            return (_known(self.index(value)) + 0.5) / _known(self.count)
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return (math.log(float(value)) - low) / (high - low)

    def describe(self) -> str:
        """Describe the range, e.g. ``integers from 1 to 700``."""
        step = f" in steps of {self.step}" if self.step != 1 else ""
        scale = " on a log scale" if self.log else ""
        return f"integers from {self.low} to {self.high}{step}{scale}"


@dataclass(frozen=True)
class FloatRange:
    """Real numbers from `low` to `high`, both included; with `step` or `points`, a grid of them.

    `memory` as in :class:`IntegerRange`.
    """

    name: str
    low: float
    high: float
    step: float | None = None
    log: bool = False
    points: int | None = None
    memory: str = field(default="", compare=False)

    @cached_property
    def _values(self) -> tuple[float, ...] | None:
        if self.low == self.high:
            return (self.low,)
        if self.step is not None:
            steps = int((self.high - self.low) / self.step * (1 + _SLACK) + _SLACK)
            return self._linear(self.step, steps + 1)
        if self.points is None:
            return None
        if self.log:
            return _distinct(_tidy(v) for v in _log_points(self.low, self.high, self.points))
        return self._linear((self.high - self.low) / max(1, self.points - 1), self.points)

    def _linear(self, gap: float, count: int) -> tuple[float, ...]:
        scale = max(abs(self.low), abs(self.high))
        return _distinct([self.low, *(_tidy(self.low + i * gap, scale) for i in range(1, count))])

    @property
    def count(self) -> int | None:
        """Number of grid points; None if the range is continuous."""
        return None if self._values is None else len(self._values)

    def at(self, index: int) -> float:
        """The grid point `index`."""
        assert self._values is not None, f"{self.name} is continuous"
        return self._values[index]

    def index(self, value: Value) -> int | None:
        """Index of the grid point `value`, or None."""
        if self._values is None or isinstance(value, (bool, str)):
            return None
        near = (
            index for index, point in enumerate(self._values) if math.isclose(point, value, rel_tol=_SLACK)
        )
        return next(near, None)

    def contains(self, value: Value) -> bool:
        """Whether `value` belongs to the domain."""
        if isinstance(value, (bool, str)):
            return False
        if self._values is not None:
            return self.index(value) is not None
        return self.low <= value <= self.high

    def from_unit(self, unit: float) -> float:
        """Map `unit`, a number in [0, 1), to a value."""
        if self._values is not None:
            return self._values[min(int(unit * len(self._values)), len(self._values) - 1)]
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return min(max(math.exp(low + unit * (high - low)), self.low), self.high)
        return min(max(self.low + unit * (self.high - self.low), self.low), self.high)

    def to_unit(self, value: Value) -> float:
        """Map `value` to [0, 1]; the inverse of :meth:`from_unit`."""
        if self._values is not None:
            return (_known(self.index(value)) + 0.5) / len(self._values)
        number = float(value)
        if self.log:
            return math.log(number / self.low) / math.log(self.high / self.low)
        return (number - self.low) / (self.high - self.low)

    def describe(self) -> str:
        """Describe the range, e.g. ``numbers from 0.0001 to 0.1 on a log scale``."""
        count = "" if self._values is None else f"{len(self._values)} "
        scale = " on a log scale" if self.log else ""
        return f"{count}numbers from {self.low:g} to {self.high:g}{scale}"


@dataclass(frozen=True)
class Choice:
    """A choice among values without order; `memory` as in :class:`IntegerRange`, for numbers."""

    name: str
    values: tuple[Value, ...]
    memory: str = field(default="", compare=False)

    @property
    def count(self) -> int:
        """Number of values."""
        return len(self.values)

    def at(self, index: int) -> Value:
        """The value `index`."""
        return self.values[index]

    def index(self, value: Value) -> int | None:
        """Index of `value`, or None; True is not 1."""
        for index, known in enumerate(self.values):
            if known == value and isinstance(known, bool) == isinstance(value, bool):
                return index
        return None

    def contains(self, value: Value) -> bool:
        """Whether `value` belongs to the domain."""
        return self.index(value) is not None

    def from_unit(self, unit: float) -> Value:
        """Map `unit`, a number in [0, 1), to a value."""
        return self.values[min(int(unit * len(self.values)), len(self.values) - 1)]

    def to_unit(self, value: Value) -> float:
        """The middle of the part of [0, 1) that maps to `value`."""
        return (_known(self.index(value)) + 0.5) / len(self.values)

    def describe(self) -> str:
        """Describe the choices, e.g. ``'sgd', 'adamw'``."""
        return ", ".join(repr(value) for value in self.values)


Parameter = IntegerRange | FloatRange | Choice


def _log_points(low: float, high: float, points: int) -> list[float]:
    if points == 1:
        return [low]
    ratio = math.log(high / low) / (points - 1)
    inner = [low * math.exp(i * ratio) for i in range(1, points - 1)]
    return [low, *inner, high]


def _tidy(value: float, scale: float = 0.0) -> float:
    """Round to 12 digits, 0.3 for 0.30000000000000004; 0 within the rounding error of `scale`."""
    return 0.0 if abs(value) < _ROUNDING * scale else float(f"{value:.12g}")


def _distinct(values: Iterable[float]) -> tuple[float, ...]:
    """Remove values that rounding has made equal."""
    return tuple(dict.fromkeys(values))


def _known(value: int | None) -> int:
    assert value is not None, "a continuous parameter has no grid points"
    return value


def ends(parameter: Parameter) -> list[Value]:
    """The smallest and largest value of a range; all values of a choice."""
    return list(parameter.values) if isinstance(parameter, Choice) else [parameter.low, parameter.high]
