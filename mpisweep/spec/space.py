"""The search space: what is varied, and over which domain.

A parameter is an integer range, a float range or a choice.  Each of them answers the same questions: how
many grid points it has, which value the *i*-th one is, whether it holds a value, and how it maps to and from
the unit interval, which is where random and quasi-random searches live.  A space is their product; on a grid
the last parameter runs fastest.

Everything here is immutable and free of I/O.  What a user gets wrong becomes a :class:`SpaceError` that says
what was found and what would be right; the caller adds where.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from mpisweep.records import Value

__all__ = [
    "Choice",
    "Configuration",
    "FloatRange",
    "IntegerRange",
    "Parameter",
    "SearchSpace",
    "SpaceError",
    "Value",
    "parse_parameter",
    "parse_quick",
    "parse_quick_value",
]

Configuration = dict[str, Value]

#: More grid points of real numbers than this are a slip of the pen.
_POINTS_AT_MOST = 1_000_000
#: A text stands in every record of a trial that has it.
_TEXT_CHARS = 1 << 16

_RANGE_KEYS = ("from", "to", "step", "scale", "points", "memory")
_LIST_KEYS = ("values", "memory")
#: What is a number on a command line.  Digits behind a leading zero are a name, as in 007, and so are underscores.
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|nan)", re.IGNORECASE)
_PADDED = re.compile(r"[+-]?0[0-9]+")
_DIGITS_AT_MOST = 400
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
#: How the memory that a trial needs can go with a parameter's value.
MEMORY_WORDS = ("increasing", "decreasing")
#: Relative slack within which a float counts as a grid point, or as within a range.
_SLACK = 1e-9
#: What sums of numbers of some size are wrong by at most, relative to that size.
_ROUNDING = 1e-12


class SpaceError(ValueError):
    """A parameter that makes no sense; the message says what was found and what would be right."""


@dataclass(frozen=True)
class IntegerRange:
    """Integers from `low` to `high`, both included.

    Attributes:
        step: distance of neighbouring values on a linear scale.
        log: whether equal ratios, and not equal differences, are equally likely.
        points: on a log scale, how many values a grid takes.
        memory: ``increasing`` where a trial needs the more memory the larger the value is, ``decreasing`` where
            the less; empty where nothing is said.  Two parameters that differ in this alone are equal.
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
        """How many grid points there are."""
        if self.points is not None:
            return len(self._log_values)
        return (self.high - self.low) // self.step + 1

    def at(self, index: int) -> int:
        """The grid point `index`."""
        return self._log_values[index] if self.points is not None else self.low + index * self.step

    def index(self, value: Value) -> int | None:
        """Which grid point `value` is, or None."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            return None
        if self.points is not None:
            return self._log_values.index(value) if value in self._log_values else None
        steps, rest = divmod(value - self.low, self.step)
        return None if rest else steps

    def contains(self, value: Value) -> bool:
        """Whether `value` may be taken."""
        return self.index(value) is not None

    def from_unit(self, unit: float) -> int:
        """The value at `unit`, a number in [0, 1)."""
        if not self.log:
            return self.at(min(int(unit * _known(self.count)), _known(self.count) - 1))
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        value = min(max(round(math.exp(low + unit * (high - low))), self.low), self.high)
        if self.points is not None:
            return min(self._log_values, key=lambda v: abs(math.log(v / value)))
        return value

    def to_unit(self, value: Value) -> float:
        """Where `value` lies in [0, 1); :meth:`from_unit` takes it back."""
        if not self.log:
            return (_known(self.index(value)) + 0.5) / _known(self.count)
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return (math.log(float(value)) - low) / (high - low)

    def describe(self) -> str:
        """For people, e.g. ``integers from 1 to 700``."""
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
        """How many grid points there are; None when the range is continuous."""
        return None if self._values is None else len(self._values)

    def at(self, index: int) -> float:
        """The grid point `index`."""
        assert self._values is not None, f"{self.name} is continuous"
        return self._values[index]

    def index(self, value: Value) -> int | None:
        """Which grid point `value` is, or None."""
        if self._values is None or isinstance(value, (bool, str)):
            return None
        near = (index for index, point in enumerate(self._values) if math.isclose(point, value, rel_tol=_SLACK))
        return next(near, None)

    def contains(self, value: Value) -> bool:
        """Whether `value` may be taken."""
        if isinstance(value, (bool, str)):
            return False
        if self._values is not None:
            return self.index(value) is not None
        return self.low <= value <= self.high

    def from_unit(self, unit: float) -> float:
        """The value at `unit`, a number in [0, 1)."""
        if self._values is not None:
            return self._values[min(int(unit * len(self._values)), len(self._values) - 1)]
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return min(max(math.exp(low + unit * (high - low)), self.low), self.high)
        return min(max(self.low + unit * (self.high - self.low), self.low), self.high)

    def to_unit(self, value: Value) -> float:
        """Where `value` lies in [0, 1]; :meth:`from_unit` takes it back."""
        if self._values is not None:
            return (_known(self.index(value)) + 0.5) / len(self._values)
        number = float(value)
        if self.log:
            return math.log(number / self.low) / math.log(self.high / self.low)
        return (number - self.low) / (self.high - self.low)

    def describe(self) -> str:
        """For people, e.g. ``numbers from 0.0001 to 0.1 on a log scale``."""
        count = "" if self._values is None else f"{len(self._values)} "
        scale = " on a log scale" if self.log else ""
        return f"{count}numbers from {self.low:g} to {self.high:g}{scale}"


@dataclass(frozen=True)
class Choice:
    """One of some values, in no order; `memory` as in :class:`IntegerRange`, for numbers."""

    name: str
    values: tuple[Value, ...]
    memory: str = field(default="", compare=False)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.values)

    def at(self, index: int) -> Value:
        """The value `index`."""
        return self.values[index]

    def index(self, value: Value) -> int | None:
        """Which one `value` is, or None; True is not 1."""
        for index, known in enumerate(self.values):
            if known == value and isinstance(known, bool) == isinstance(value, bool):
                return index
        return None

    def contains(self, value: Value) -> bool:
        """Whether `value` may be taken."""
        return self.index(value) is not None

    def from_unit(self, unit: float) -> Value:
        """The value at `unit`, a number in [0, 1)."""
        return self.values[min(int(unit * len(self.values)), len(self.values) - 1)]

    def to_unit(self, value: Value) -> float:
        """The middle of the part of [0, 1) that belongs to `value`."""
        return (_known(self.index(value)) + 0.5) / len(self.values)

    def describe(self) -> str:
        """For people, e.g. ``'sgd', 'adamw'``."""
        return ", ".join(repr(value) for value in self.values)


Parameter = IntegerRange | FloatRange | Choice


@dataclass(frozen=True)
class SearchSpace:
    """The product of the parameters."""

    parameters: tuple[Parameter, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters, in order."""
        return tuple(parameter.name for parameter in self.parameters)

    @cached_property
    def memory(self) -> dict[str, str]:
        """The parameters whose value says how much memory a trial needs, and ``increasing`` or ``decreasing``."""
        return {parameter.name: parameter.memory for parameter in self.parameters if parameter.memory}

    @cached_property
    def size(self) -> int | None:
        """How many grid points there are; None when a parameter is continuous."""
        counts = [parameter.count for parameter in self.parameters]
        return None if None in counts else math.prod(_known(count) for count in counts)

    def point(self, index: int) -> Configuration:
        """The grid point `index`; the last parameter runs fastest."""
        values: list[Value] = []
        for parameter in reversed(self.parameters):
            index, position = divmod(index, _known(parameter.count))
            values.append(parameter.at(position))
        return dict(zip(self.names, reversed(values), strict=True))

    def index(self, configuration: Mapping[str, Value]) -> int | None:
        """Which grid point this is, or None."""
        index = 0
        for parameter in self.parameters:
            position = parameter.index(configuration[parameter.name])
            if position is None:
                return None
            index = index * _known(parameter.count) + position
        return index

    def contains(self, configuration: Mapping[str, Value]) -> bool:
        """Whether every parameter is there and holds its value."""
        return all(p.name in configuration and p.contains(configuration[p.name]) for p in self.parameters)

    def from_unit(self, vector: Sequence[float]) -> Configuration:
        """The configuration at a point of the unit cube, shape (parameters,)."""
        return {p.name: p.from_unit(float(unit)) for p, unit in zip(self.parameters, vector, strict=True)}

    def to_unit(self, configuration: Mapping[str, Value]) -> list[float]:
        """Where the configuration lies in the unit cube, shape (parameters,)."""
        return [p.to_unit(configuration[p.name]) for p in self.parameters]


def parse_parameter(name: str, raw: Any) -> Parameter:
    """The parameter that a sweep file describes.

    Args:
        name: of the parameter.
        raw: a list of choices, or a table with ``from`` and ``to``, or one with ``values`` and ``memory``.

    Raises:
        SpaceError: saying what was found and what would be right.
    """
    if isinstance(raw, list):
        return _parse_choice(name, raw)
    if isinstance(raw, dict) and "values" in raw:
        return _parse_values(name, raw)
    if isinstance(raw, dict):
        return _parse_range(name, raw)
    raise SpaceError(
        f"found {raw!r}; expected a range like {{ from = 1, to = 700 }} or a list of choices "
        f"(a value that does not vary belongs under [fixed])"
    )


def parse_quick(name: str, text: str) -> Parameter | Value:
    """What ``-p name=TEXT`` means: ``1:700``, ``1:700:10``, ``1e-4:1e-1:log:points=8``, ``a,b,c``, or one fixed value.

    A range or a list may have ``memory=increasing`` as well, as in ``1:700:memory=increasing``.  What stands in brackets
    is not divided: ``(0.9,0.99),(0.8,0.9)`` is a list of two texts.

    Raises:
        SpaceError: saying what was found and what would be right.
    """
    parts = _divided(text, ",")
    if len(parts) > 1:
        last, says_memory, memory = parts[-1].partition(":memory=")
        choices = _same_kind([*parts[:-1], last])
        return _parse_values(name, {"values": choices, "memory": memory}) if says_memory else _parse_choice(name, choices)
    low, *ends = _divided(text, ":")
    if not ends:
        inside = text.strip()
        if inside.startswith("[") and "," in inside:
            raise SpaceError(f"found {inside!r}; choices are written without brackets, {inside[1:-1]}")
        return _parse_value(text)
    high, *rest = ends
    raw: dict[str, Any] = {"from": _parse_value(low), "to": _parse_value(high)}
    for part in rest:
        if part == "log":
            raw["scale"] = "log"
        elif part.startswith("points=") and part.removeprefix("points=").isdigit():
            raw["points"] = int(part.removeprefix("points="))
        elif part.startswith("memory="):
            raw["memory"] = part.removeprefix("memory=")
        elif "=" in part:
            raise SpaceError(f"found {part!r} after a range; expected a step, 'log', 'points=N' or 'memory=increasing'")
        elif "step" in raw:
            raise SpaceError(f"found {part!r} after a range that has a step; expected FROM:TO:STEP")
        else:
            raw["step"] = _parse_value(part)
    return _parse_range(name, raw, with_step="FROM:TO:STEP", with_points="FROM:TO:log:points=N")


def parse_quick_value(text: str) -> Value:
    """What ``--baseline name=TEXT`` means: one value.

    Raises:
        SpaceError: for a range or a list.
    """
    if len(_divided(text, ",")) > 1 or len(_divided(text, ":")) > 1:
        raise SpaceError(f"found {text!r}; expected one value")
    return _parse_value(text)


def _divided(text: str, separator: str) -> list[str]:
    """The text at its separators that stand in no brackets.

    Raises:
        SpaceError: when a bracket has no partner.
    """
    parts, open_brackets = [""], ""
    for character in text:
        if character in _BRACKETS:
            open_brackets += character
        elif character in _BRACKETS.values():
            if not open_brackets or _BRACKETS[open_brackets[-1]] != character:
                raise SpaceError(f"found {character!r} without its opening bracket in {text!r}; expected brackets in pairs")
            open_brackets = open_brackets[:-1]
        if character == separator and not open_brackets:
            parts.append("")
        else:
            parts[-1] += character
    if open_brackets:
        raise SpaceError(f"found {open_brackets[-1]!r} without its closing bracket in {text!r}; expected brackets in pairs")
    return parts


def _parse_value(text: str) -> Value:
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        # Python refuses to read an integer of thousands of digits; as infinity it is refused by us.
        return int(text) if len(text) < _DIGITS_AT_MOST else float(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def _same_kind(parts: list[str]) -> list[Value]:
    """The values of a list: where one is a text for its leading zeros, as in 008,009,010,100, the others are texts too."""
    if any(_PADDED.fullmatch(part.strip()) for part in parts):
        return [part.strip() for part in parts]
    return [_parse_value(part) for part in parts]


def _parse_choice(name: str, raw: list[Any]) -> Choice:
    if not raw:
        raise SpaceError("found an empty list; expected at least one choice")
    for value in raw:
        if not isinstance(value, (int, float, str, bool)):
            raise SpaceError(f"found {value!r} among the choices; expected numbers, strings or booleans")
        if isinstance(value, float) and not math.isfinite(value):
            raise SpaceError(f"found {value!r} among the choices; expected finite numbers")
        _check_fits(value, "among the choices")
        if isinstance(value, str) and len(value) > _TEXT_CHARS:
            raise SpaceError(f"found a text of {len(value):,} characters among the choices; expected at most {_TEXT_CHARS:,}")
    if len({isinstance(v, bool) for v in raw}) > 1 or len({isinstance(v, str) for v in raw}) > 1:
        raise SpaceError(f"found {raw!r}; expected choices of one kind: all numbers, all strings or all booleans")
    if len(set(raw)) < len(raw):
        twice = next(value for value in raw if raw.count(value) > 1)
        raise SpaceError(f"found {twice!r} more than once; expected every choice once")
    if any(isinstance(value, float) for value in raw):
        raw = [float(value) for value in raw]
    return Choice(name, tuple(raw))


def _parse_values(name: str, raw: dict[str, Any]) -> Choice:
    """A list that says how the memory goes with its values."""
    for key in raw:
        if key not in _LIST_KEYS:
            raise SpaceError(f"found the key {key!r} beside 'values'; expected {' and '.join(_LIST_KEYS)}")
    if not isinstance(raw["values"], list):
        raise SpaceError(f"'values' is {raw['values']!r}; expected a list like [16, 64, 256]")
    choice = _parse_choice(name, raw["values"])
    if any(isinstance(value, (bool, str)) for value in choice.values):
        raise SpaceError(f"'memory' goes with numbers, and 'values' is {raw['values']!r}")
    if "memory" not in raw:
        raise SpaceError("found 'values' without 'memory'; where nothing is to be said of memory a plain list will do")
    return replace(choice, memory=_memory(raw))


def _memory(raw: dict[str, Any]) -> str:
    word = raw.get("memory", "")
    if "memory" in raw and word not in MEMORY_WORDS:
        raise SpaceError(f"'memory' is {word!r}; expected {' or '.join(map(repr, MEMORY_WORDS))}")
    return str(word)


def _parse_range(
    name: str, raw: dict[str, Any], *, with_step: str = "'step'", with_points: str = "'points'"
) -> IntegerRange | FloatRange:
    """A range; `with_step` and `with_points` are how the user would ask for them."""
    for key in raw:
        if key not in _RANGE_KEYS:
            raise SpaceError(f"found the key {key!r}; a range has {', '.join(_RANGE_KEYS)}")
    for key in ("from", "to"):
        if key not in raw:
            raise SpaceError(f"{key!r} is missing; expected a range like {{ from = 1, to = 700 }}")
    for key in ("from", "to", "step"):
        value = raw.get(key, 0)
        _check_fits(value, f"as {key!r}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise SpaceError(f"{key!r} is {value!r}; expected a finite number")
    low, high = raw["from"], raw["to"]
    if low > high:
        raise SpaceError(f"'from' is {low!r} and 'to' is {high!r}; 'from' must not exceed 'to'")
    scale = raw.get("scale", "linear")
    if scale not in ("linear", "log"):
        raise SpaceError(f"'scale' is {scale!r}; expected 'linear' or 'log'")
    log = scale == "log"
    if log and low <= 0:
        raise SpaceError(f"'from' is {low!r} on a log scale; it must be greater than 0")
    if log and "step" in raw:
        raise SpaceError(f"found 'step' on a log scale; use {with_points} for the number of grid points there")
    points = raw.get("points")
    if points is not None:
        if isinstance(points, bool) or not isinstance(points, int) or points < 1:
            raise SpaceError(f"'points' is {points!r}; expected an integer of at least 1")
        if points > _POINTS_AT_MOST:
            raise SpaceError(f"'points' is {_short(points)}; expected at most {_POINTS_AT_MOST:,}")
        if "step" in raw:
            raise SpaceError("found both 'step' and 'points'; expected one of them")
    step = raw.get("step")
    if step is not None and step <= 0:
        raise SpaceError(f"'step' is {step!r}; it must be greater than 0")
    memory = _memory(raw)
    if not math.isfinite(float(high) - float(low)):
        raise SpaceError(f"'from' is {low!r} and 'to' is {high!r}; they are too far apart for a number of 64 bits")
    if all(isinstance(value, int) for value in (low, high, 1 if step is None else step)):
        if points is not None and not log:
            raise SpaceError(f"found 'points' in a linear range of integers; use {with_step} there")
        return IntegerRange(name, low, high, 1 if step is None else step, log, points, memory)
    if step is not None and not (float(high) - float(low)) / float(step) < _POINTS_AT_MOST:
        raise SpaceError(f"'step' is {step!r}, which gives more than {_POINTS_AT_MOST:,} points; expected a larger one")
    return FloatRange(name, float(low), float(high), None if step is None else float(step), log, points, memory)


def _check_fits(value: object, where: str) -> None:
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise SpaceError(f"found {_short(value)} {where}; expected integers of at most 64 bits")


def _short(value: int) -> str:
    """A number for a message; Python refuses to print one of thousands of digits."""
    return f"{value:,}" if value.bit_length() <= 128 else f"an integer of {value.bit_length()} bits"


def _log_points(low: float, high: float, points: int) -> list[float]:
    if points == 1:
        return [low]
    ratio = math.log(high / low) / (points - 1)
    inner = [low * math.exp(i * ratio) for i in range(1, points - 1)]
    return [low, *inner, high]


def _tidy(value: float, scale: float = 0.0) -> float:
    """The shortest number within rounding error, that of numbers as large as `scale`: 0.3 and not 0.30000000000000004."""
    return 0.0 if abs(value) < _ROUNDING * scale else float(f"{value:.12g}")


def _distinct(values: Iterable[float]) -> tuple[float, ...]:
    """Without those that rounding has made equal."""
    return tuple(dict.fromkeys(values))


def _known(value: int | None) -> int:
    assert value is not None, "a continuous parameter has no grid points"
    return value
