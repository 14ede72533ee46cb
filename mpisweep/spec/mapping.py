"""A sweep given as Python values: the text of a sweep file with the same meaning."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from mpisweep.spec.keys import IDENTIFIER, keys_of
from mpisweep.spec.units import toml_value
from mpisweep.spec.wording import Wording

__all__ = ["sweep_text", "toml_key", "toml_text", "with_inline"]

_IDENTIFIER = re.compile(IDENTIFIER)


def sweep_text(keys: Mapping[str, object], wording: Wording) -> str:
    """Write the keys of a sweep as TOML.

    Besides what TOML has, a value may be a tuple, a path, a number or an array of numpy, or a Python range of
    integers, which is the range ``{ from, to, step }`` without its end, as in Python.

    Args:
        keys: key -> value; top-level keys that are None are left out.
        wording: names the sweep in messages.

    Raises:
        SpecError: if a value has no place in a sweep file.
    """
    tables = {key.name for key in keys_of("") if key.kind == "table"}
    head: list[str] = []
    below: list[str] = []
    for name, value in keys.items():
        if value is None:
            continue
        plain = _plain(value, str(name), wording)
        if name in tables and isinstance(plain, dict):
            lines = (f"{toml_key(key)} = {toml_text(entry)}" for key, entry in plain.items())
            below += ["", f"[{name}]", *lines]
        else:
            head.append(f"{toml_key(str(name))} = {toml_text(plain)}")
    return "\n".join([*head, *below]) + "\n"


def _plain(value: Any, place: str, wording: Wording) -> Any:
    """Convert a value to what TOML has: a dict, a list, a text, a number or a truth value."""
    if isinstance(value, (bool, int, float, str)) and type(value).__module__ == "builtins":
        return value
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                wording.fail(place, f"has the key {name!r}; expected names as strings")
        return {name: _plain(entry, f"{place}.{name}", wording) for name, entry in value.items()}
    if isinstance(value, range):
        return _range(value, place, wording)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        # Numbers and arrays of numpy, which is not imported for this.
        return _plain(value.tolist(), place, wording)
    if isinstance(value, (str, int, float)):
        # Enumerations and other subclasses.
        return _plain(value.value if hasattr(value, "value") else _base(value), place, wording)
    if not isinstance(value, Sequence) or isinstance(value, (bytes, bytearray)):
        expected = "a number, a string, true or false, a list, a range or a table"
        wording.fail(place, f"is {value!r}; expected {expected}")
    return [_plain(entry, f"{place}[{index}]", wording) for index, entry in enumerate(value)]


def _base(value: str | float) -> str | int | float:
    return str(value) if isinstance(value, str) else int(value) if isinstance(value, int) else float(value)


def _range(value: range, place: str, wording: Wording) -> dict[str, int]:
    if not value or value.step < 0:
        wording.fail(place, f"is {value!r}; expected an ascending range that is not empty")
    step = {} if value.step == 1 else {"step": value.step}
    return {"from": value[0], "to": value[-1]} | step


def toml_text(value: Any) -> str:
    """A value, a list or a table as TOML in one line."""
    if isinstance(value, dict):
        entries = (f"{toml_key(name)} = {toml_text(entry)}" for name, entry in value.items())
        return "{ " + ", ".join(entries) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml_text, value)) + "]"
    return toml_value(value)


def toml_key(name: str) -> str:
    """A key as TOML, quoted where it must be."""
    return name if _IDENTIFIER.fullmatch(name) else toml_value(name)


def with_inline(
    wording: Wording, text: str, raw: Mapping[str, Any], key: str, table: Mapping[str, Any]
) -> str:
    """Put a table in place of the name of the file that it was read from, in a sweep file.

    Args:
        wording: names the sweep in messages.
        text: of the sweep file.
        raw: its keys.
        key: the key at the top whose value is the file's name.
        table: the content of that file.

    Raises:
        SpecError: if the line that names the file cannot be told.
    """
    line = re.compile(
        rf"""^[ \t]*["']?{key}["']?[ \t]*=[ \t]*("[^"\n]*"|'[^'\n]*')[ \t]*(#.*)?$""", re.MULTILINE
    )
    found = line.search(text)
    inline = f"{text[: found.start()]}{key} = {toml_text(dict(table))}{text[found.end() :]}" if found else ""
    if not found or tomllib.loads(inline) != {**raw, key: table}:
        wording.fail(key, f'is written in an unusual way; expected a line {key} = "FILE"')
    return inline
