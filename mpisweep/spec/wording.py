"""Names of keys in messages: the key in the file, or the flag on the command line."""

from __future__ import annotations

from typing import NoReturn

from mpisweep.spec.keys import RANKS
from mpisweep.spec.model import SpecError

__all__ = ["COMMAND_LINE", "Wording"]

#: Source of a sweep given by flags; messages then name flags.
COMMAND_LINE = "command line"

#: Tables of a sweep file whose entries are given as FLAG NAME=...
_FLAGS = {"parameters": "-p", "fixed": "-p", "baseline": "--baseline", "metrics": "--metric"}


class Wording:
    """How messages name a sweep and its keys.

    Args:
        source: the sweep file, or :data:`COMMAND_LINE`.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.is_typed = source == COMMAND_LINE

    def fail(self, key: str, problem: str) -> NoReturn:
        """Raise a SpecError about a key."""
        key = self._place(key)
        text = f"{key}: {problem}" if key else problem
        # Keys and values may contain newlines; a message is one line.
        raise SpecError(f"{self.source}: {' '.join(text.splitlines())}")

    def set(self, key: str, value: str | int) -> str:
        """The line or flag that sets a key to a value."""
        if self.is_typed:
            return f"--{key.replace('_', '-')} {value}"
        return f'{key} = "{value}"' if isinstance(value, str) and value != "N" else f"{key} = {value}"

    def _place(self, key: str) -> str:
        """Name a key as the user wrote it: the key in the file, or the flag."""
        table, _, name = key.partition(".")
        if not self.is_typed or table in ("", "workload", RANKS):
            return "after --" if self.is_typed and key == "workload.command" else key
        if table in ("limits", "stop"):
            return f"--{name.replace('_', '-')}"
        flag = _FLAGS.get(table, f"--{table.replace('_', '-')}")
        return f"{flag} {name}" if name else flag
