"""One key of a sweep file: the values that it may have, and how to read them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeGuard

from mpisweep.dataclass import dataclass
from mpisweep.records import Value
from mpisweep.spec.units import parse_bytes, parse_duration

__all__ = [
    "AUTO", "DEVICES_AT_MOST", "INTEGER_AT_MOST", "NAME", "PACKED_AT_MOST", "Key", "closest", "nearest",
    "one_of",
]  # fmt: skip

#: Upper bound of GPUs per node, and of workers per GPU.
DEVICES_AT_MOST = 64
#: The value of devices_per_trial by which trials share GPUs as measured, and the most that share one.
AUTO = "auto"
PACKED_AT_MOST = 8
#: The largest integer that a results file can store.
INTEGER_AT_MOST = 2**63 - 1
#: Pattern of a sweep's name, which is a file name.
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"

Kind = Literal[
    "text", "name", "choice", "integer", "number", "flag", "duration", "size", "devices", "table",
    # Parsed where they are used; listed here for the documentation and the schema.
    "texts", "choices", "workload", "command", "template", "variables", "values", "value", "conditions",
    "groups", "points", "repeats", "imports", "after",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        table: its table; empty for the top of the file.
        default: as written in a sweep file; None for no default.
        meaning: one line for the documentation and for editors.
        unit: unit of a plain number.
        low: the smallest integer allowed; a number must be above it.
        high: the largest number allowed, if below 64 bits.
        values: the values of a choice.
        usual: the default in words, if `default` does not express it.
        since: the first version with this key.
    """

    table: str
    name: str
    kind: Kind
    default: Value | None
    meaning: str
    unit: str = ""
    low: int | None = None
    high: int | None = None
    values: tuple[str, ...] = ()
    usual: str = ""
    is_required: bool = False
    since: str = "0.1.0"

    @property
    def path(self) -> str:
        """Name of the key in messages."""
        return f"{self.table}.{self.name}" if self.table else self.name

    def problem(self, value: object) -> str | None:
        """Why `value` is invalid, as the end of a sentence; None if it is valid."""
        match self.kind:
            case "text":
                fits, wanted = _is_text(value), "a string"
            case "name":
                fits = _is_text(value) and re.fullmatch(NAME, str(value)) is not None
                wanted = (
                    "letters, digits, '.', '_' and '-', as in a file name" if _is_text(value) else "a string"
                )
            case "choice":
                fits, wanted = value in self.values, one_of(value, self.values)
            case "texts":
                fits = _is_text(value) or (
                    _is_list(value) and all(map(_is_text, value)) and len(set(value)) == len(value)
                )
                wanted = "a string, or a list of different strings"
            case "choices":
                fits = value in self.values or (_is_list(value) and all(one in self.values for one in value))
                listed = f"one of {', '.join(self.values)}, or a list of these"
                wanted = one_of(value, self.values) if isinstance(value, str) else listed
            case "integer":
                low = self.low or 0
                fits = (
                    isinstance(value, int) and not isinstance(value, bool) and low <= value <= INTEGER_AT_MOST
                )
                wanted = f"an integer of at least {low}"
            case "number":
                fits = _is_number(value, self.low)
                wanted = "a finite number" if self.low is None else f"a finite number above {self.low}"
            case "flag":
                fits, wanted = isinstance(value, bool), "true or false"
            case "duration":
                fits, wanted = parse_duration(value) is not None, 'a duration such as "10m" or 600'
            case "size":
                fits, wanted = parse_bytes(value) is not None, 'a size such as "4GiB" or "500MB"'
            case "devices":
                fits, wanted = (
                    _devices(value) is not None,
                    '1, 2, ... GPUs, a share such as 0.5 or 0.25, or "auto"',
                )
            case "table":
                fits, wanted = isinstance(value, dict), f"a table, [{self.path}]"
            case _:
                raise AssertionError(f"{self.path} is checked where it is used")
        return None if fits else f"is {value!r}; expected {wanted}"

    def read(self, value: Any) -> Any:
        """Convert a valid value: a duration to seconds, a size to bytes."""
        match self.kind:
            case "duration":
                return parse_duration(value)
            case "size":
                return parse_bytes(value)
            case "devices":
                return _devices(value)
            case "table":
                return dict(value)
        return value

    def get(self, table: Mapping[str, Any]) -> Any:
        """The converted value in a valid table, or the default."""
        if self.name in table:
            return self.read(table[self.name])
        return None if self.default is None else self.read(self.default)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_number(value: object, low: int | None) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return False
    return low is None or value > low


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and len(value) > 0


def _devices(value: object) -> float | None:
    """An integer number of GPUs, or 1/integer; shares may be rounded, such as 0.33.

    For :data:`AUTO` it is the smallest share that a trial may get.
    """
    if value == AUTO:
        return 1 / PACKED_AT_MOST
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if 1 <= value <= DEVICES_AT_MOST and value == round(value):
        return float(value)
    if 1 / DEVICES_AT_MOST <= value < 1 and abs(1 / value - round(1 / value)) < 0.05:
        return float(1 / round(1 / value))
    return None


def closest(name: object, known: Iterable[str]) -> str:
    """The known name that is most similar; empty if none is."""
    import difflib

    return next(iter(difflib.get_close_matches(str(name), list(known), n=1)), "")


def nearest(name: str, known: Iterable[str]) -> str:
    """End a sentence about an unknown name: suggest a similar one, or list all."""
    names = list(known)
    close = closest(name, names)
    return f"did you mean {close!r}?" if close else "known are " + (", ".join(names) or "none")


def one_of(value: object, known: Iterable[str], *, quoted: bool = False) -> str:
    """List the allowed values, and suggest the one most similar to a wrong one."""
    names = list(known)
    close = closest(value, names)
    listed = ", ".join(map(repr, names) if quoted else names)
    return f"one of {listed}" + (f"; did you mean {close!r}?" if close else "")
