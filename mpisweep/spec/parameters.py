"""Parse a parameter: an entry of [parameters], or the text of ``-p``.

Invalid input raises a :class:`~mpisweep.spec.space.SpaceError` that says what was found and what is expected;
the caller adds where.
"""

from __future__ import annotations

import math
import re
from typing import Any

from mpisweep.dataclass import replace
from mpisweep.records import Value
from mpisweep.spec.domains import Choice, FloatRange, IntegerRange, Parameter, SpaceError
from mpisweep.spec.keys import (
    INTEGER_AT_MOST,
    MEMORY_WORDS,
    POINTS_AT_MOST,
    TEXT_CHARS,
    key_of,
    names_of,
    right_place,
)

__all__ = ["parse_parameter", "parse_quick", "parse_quick_value", "parse_value"]

#: Numbers on a command line.  With a leading zero (007) or underscores it is a string.
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(
    r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|nan)", re.IGNORECASE
)
_PADDED = re.compile(r"[+-]?0[0-9]+")
_DIGITS_AT_MOST = 400
_BRACKETS = {"(": ")", "[": "]", "{": "}"}


def parse_parameter(name: str, raw: Any) -> Parameter:
    """Parse an entry of [parameters].

    Args:
        name: name of the parameter.
        raw: a list of choices, a table with ``from`` and ``to``, or a table with ``values`` and ``memory``.

    Raises:
        SpaceError: if it is invalid.
    """
    if isinstance(raw, list):
        return _parse_choice(name, raw)
    if isinstance(raw, dict) and "values" in raw:
        return _parse_values(name, raw)
    if isinstance(raw, dict):
        return _parse_range(name, raw)
    raise SpaceError(
        f"found {raw!r}; expected a range such as {{ from = 1, to = 700 }} or a list of choices "
        f"(a single value belongs in [fixed])"
    )


def parse_quick(name: str, text: str) -> Parameter | Value:
    """Parse the text of ``-p name=TEXT``: a range, a list, or one fixed value.

    Examples: ``1:700``, ``1:700:10``, ``1e-4:1e-1:log:points=8``, ``a,b,c``, ``300``.  A range or a list can
    end with ``:memory=increasing``.  Separators in brackets do not count: ``(0.9,0.99),(0.8,0.9)`` is a list
    of two strings.

    Raises:
        SpaceError: if it is invalid.
    """
    parts = _split(text, ",")
    if len(parts) > 1:
        last, says_memory, memory = parts[-1].partition(":memory=")
        choices = _same_kind([*parts[:-1], last])
        if says_memory:
            return _parse_values(name, {"values": choices, "memory": memory})
        return _parse_choice(name, choices)
    low, *ends = _split(text, ":")
    if not ends:
        inside = text.strip()
        if inside.startswith("[") and "," in inside:
            raise SpaceError(f"found {inside!r}; write choices without brackets: {inside[1:-1]}")
        return parse_value(text)
    high, *rest = ends
    raw: dict[str, Any] = {"from": parse_value(low), "to": parse_value(high)}
    for part in rest:
        if part == "log":
            raw["scale"] = "log"
        elif part.startswith("points=") and part.removeprefix("points=").isdigit():
            raw["points"] = int(part.removeprefix("points="))
        elif part.startswith("memory="):
            raw["memory"] = part.removeprefix("memory=")
        elif "=" in part:
            raise SpaceError(
                f"found {part!r} after a range; expected a step, 'log', 'points=N' or 'memory=increasing'"
            )
        elif "step" in raw:
            raise SpaceError(f"found {part!r} after a range that has a step; expected FROM:TO:STEP")
        else:
            raw["step"] = parse_value(part)
    return _parse_range(name, raw, with_step="FROM:TO:STEP", with_points="FROM:TO:log:points=N")


def parse_quick_value(text: str) -> Value:
    """Parse the text of ``--baseline name=TEXT``: one value.

    Raises:
        SpaceError: if it is a range or a list.
    """
    if len(_split(text, ",")) > 1 or len(_split(text, ":")) > 1:
        raise SpaceError(f"found {text!r}; expected one value")
    return parse_value(text)


def _split(text: str, separator: str) -> list[str]:
    """Split text at the separators outside of brackets.

    Raises:
        SpaceError: if brackets are not paired.
    """
    parts, open_brackets = [""], ""
    for character in text:
        if character in _BRACKETS:
            open_brackets += character
        elif character in _BRACKETS.values():
            if not open_brackets or _BRACKETS[open_brackets[-1]] != character:
                raise SpaceError(
                    f"found {character!r} without its opening bracket in {text!r}; expected brackets in pairs"
                )
            open_brackets = open_brackets[:-1]
        if character == separator and not open_brackets:
            parts.append("")
        else:
            parts[-1] += character
    if open_brackets:
        raise SpaceError(
            f"found {open_brackets[-1]!r} without its closing bracket in {text!r}; expected brackets in pairs"
        )
    return parts


def parse_value(text: str) -> Value:
    """Parse the text of a value: an integer, a number, true or false; anything else is a string."""
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        # Python refuses integers of thousands of digits; as infinity the range check rejects it.
        return int(text) if len(text) < _DIGITS_AT_MOST else float(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def _same_kind(parts: list[str]) -> list[Value]:
    """Parse a list; if one item has a leading zero (008,009,100), all are strings."""
    if any(_PADDED.fullmatch(part.strip()) for part in parts):
        return [part.strip() for part in parts]
    return [parse_value(part) for part in parts]


def _parse_choice(name: str, raw: list[Any]) -> Choice:
    if not raw:
        raise SpaceError("found an empty list; expected at least one choice")
    for value in raw:
        if not isinstance(value, (int, float, str, bool)):
            raise SpaceError(f"found {value!r} among the choices; expected numbers, strings or booleans")
        if isinstance(value, float) and not math.isfinite(value):
            raise SpaceError(f"found {value!r} among the choices; expected finite numbers")
        _check_integer(value, "among the choices")
        if isinstance(value, str) and len(value) > TEXT_CHARS:
            raise SpaceError(
                f"found a string of {len(value):,} characters among the choices; "
                f"expected at most {TEXT_CHARS:,}"
            )
    if len({isinstance(v, bool) for v in raw}) > 1 or len({isinstance(v, str) for v in raw}) > 1:
        raise SpaceError(
            f"found {raw!r}; expected choices of one kind: all numbers, all strings or all booleans"
        )
    if len(set(raw)) < len(raw):
        twice = next(value for value in raw if raw.count(value) > 1)
        raise SpaceError(f"found {twice!r} more than once; expected every choice once")
    if any(isinstance(value, float) for value in raw):
        raw = [float(value) for value in raw]
    return Choice(name, tuple(raw))


def _parse_values(name: str, raw: dict[str, Any]) -> Choice:
    """Parse a list with ``memory``."""
    for key in raw:
        if key not in names_of("list"):
            raise SpaceError(
                f"found the key {key!r} beside 'values'; expected {' and '.join(names_of('list'))}"
            )
    if not isinstance(raw["values"], list):
        raise SpaceError(f"'values' is {raw['values']!r}; expected a list such as [16, 64, 256]")
    choice = _parse_choice(name, raw["values"])
    if any(isinstance(value, (bool, str)) for value in choice.values):
        raise SpaceError(f"'values' is {raw['values']!r}; with 'memory' all values must be numbers")
    if "memory" not in raw:
        raise SpaceError("found 'values' without 'memory'; write a plain list instead")
    return replace(choice, memory=_memory(raw))


def _memory(raw: dict[str, Any]) -> str:
    word = raw.get("memory", "")
    if "memory" in raw and word not in MEMORY_WORDS:
        raise SpaceError(f"'memory' is {word!r}; expected {' or '.join(map(repr, MEMORY_WORDS))}")
    return str(word)


def _parse_range(
    name: str, raw: dict[str, Any], *, with_step: str = "'step'", with_points: str = "'points'"
) -> IntegerRange | FloatRange:
    """Parse a range; messages call its step `with_step` and its points `with_points`."""
    _check_ends(raw)
    low, high = raw["from"], raw["to"]
    scale = raw.get("scale", key_of("scale", "range").default)
    if scale not in key_of("scale", "range").values:
        raise SpaceError(f"'scale' is {scale!r}; expected 'linear' or 'log'")
    log = scale == "log"
    if log and low <= 0:
        raise SpaceError(f"'from' is {low!r} on a log scale; expected a number above 0")
    if log and "step" in raw:
        raise SpaceError(f"found 'step' on a log scale; set {with_points} instead")
    points = _points(raw)
    step = raw.get("step")
    if step is not None and step <= 0:
        raise SpaceError(f"'step' is {step!r}; expected a number above 0")
    memory = _memory(raw)
    if not math.isfinite(float(high) - float(low)):
        raise SpaceError(f"'from' is {low!r} and 'to' is {high!r}; their difference must fit a 64-bit number")
    if all(isinstance(value, int) for value in (low, high, 1 if step is None else step)):
        if points is not None and not log:
            raise SpaceError(f"found 'points' in a linear range of integers; set {with_step} instead")
        return IntegerRange(name, low, high, 1 if step is None else step, log, points, memory)
    if step is not None and not (float(high) - float(low)) / float(step) < POINTS_AT_MOST:
        raise SpaceError(
            f"'step' is {step!r}, which gives more than {POINTS_AT_MOST:,} points; expected a larger one"
        )
    return FloatRange(
        name, float(low), float(high), None if step is None else float(step), log, points, memory
    )


def _check_ends(raw: dict[str, Any]) -> None:
    """Check that a range has valid keys, and finite numbers in order."""
    for key in raw:
        if key not in names_of("range"):
            place = right_place(key, "range")
            wanted = f"it belongs {place}" if place else f"a range has {', '.join(names_of('range'))}"
            raise SpaceError(f"found the key {key!r}; {wanted}")
    for key in ("from", "to"):
        if key not in raw:
            raise SpaceError(f"{key!r} is missing; expected a range such as {{ from = 1, to = 700 }}")
    for key in ("from", "to", "step"):
        value = raw.get(key, 0)
        _check_integer(value, f"as {key!r}")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise SpaceError(f"{key!r} is {value!r}; expected a finite number")
    low, high = raw["from"], raw["to"]
    if low > high:
        raise SpaceError(f"'from' is {low!r} and 'to' is {high!r}; 'from' must not exceed 'to'")


def _points(raw: dict[str, Any]) -> int | None:
    points = raw.get("points")
    if points is None:
        return None
    if isinstance(points, bool) or not isinstance(points, int) or points < 1:
        raise SpaceError(f"'points' is {points!r}; expected an integer of at least 1")
    if points > POINTS_AT_MOST:
        raise SpaceError(f"'points' is {_integer_text(points)}; expected at most {POINTS_AT_MOST:,}")
    if "step" in raw:
        raise SpaceError("found both 'step' and 'points'; expected one of them")
    return points


def _check_integer(value: object, where: str) -> None:
    if isinstance(value, int) and not -INTEGER_AT_MOST - 1 <= value <= INTEGER_AT_MOST:
        raise SpaceError(f"found {_integer_text(value)} {where}; expected integers of at most 64 bits")


def _integer_text(value: int) -> str:
    """Format an integer for a message; Python refuses to print thousands of digits."""
    return f"{value:,}" if value.bit_length() <= 128 else f"an integer of {value.bit_length()} bits"
