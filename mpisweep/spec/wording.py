"""How messages speak of a sweep: in the words of the file it came from, or of the flags that were typed."""

from __future__ import annotations

from typing import NoReturn

from mpisweep.spec.keys import RANKS
from mpisweep.spec.model import SpecError

__all__ = ["COMMAND_LINE", "Wording"]

#: The source of a sweep that was given by flags: what is wrong with it is told in the words of flags.
COMMAND_LINE = "command line"

#: Tables of a sweep file whose entries are flags, NAME=... each.
_FLAGS = {"parameters": "-p", "fixed": "-p", "baseline": "--baseline", "metrics": "--metric"}


class Wording:
    """Knows how messages call a sweep and its keys.

    Args:
        source: the sweep file, or :data:`COMMAND_LINE`.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.is_typed = source == COMMAND_LINE

    def fail(self, key: str, problem: str) -> NoReturn:
        """Raise the SpecError that says what is wrong with a key."""
        key = self._place(key)
        text = f"{key}: {problem}" if key else problem
        # Keys and values are the user's, and may hold anything; a message is one line.
        raise SpecError(f"{self.source}: {' '.join(text.splitlines())}")

    def set(self, key: str, value: str | int) -> str:
        """How the user would say that a key has a value."""
        if self.is_typed:
            return f"--{key.replace('_', '-')} {value}"
        return f'{key} = "{value}"' if isinstance(value, str) and value != "N" else f"{key} = {value}"

    def _place(self, key: str) -> str:
        """Where the user has said it: the key in the file, or the flag."""
        table, _, name = key.partition(".")
        if not self.is_typed or table in ("", "workload", RANKS):
            return "after --" if self.is_typed and key == "workload.command" else key
        if table == "limits":
            return f"--{name}"
        flag = _FLAGS.get(table, f"--{table.replace('_', '-')}")
        return f"{flag} {name}" if name else flag
