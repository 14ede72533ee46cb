"""Parse ``[hooks]``: programs that the launcher starts around a sweep and after trials."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mpisweep.dataclass import dataclass
from mpisweep.spec.commandline import CommandError, parse_arguments
from mpisweep.spec.keys import key_of, keys_of, names_of, unknown_key

if TYPE_CHECKING:
    from mpisweep.spec.wording import Wording

__all__ = ["HOOK_NAMES", "Hooks", "parse_hooks"]

#: The keys that are commands, in the order in which they run.
HOOK_NAMES = ("before_sweep", "after_trial", "after_sweep")
_EXAMPLE = "python notify.py"


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of a sweep, each a program and its arguments; empty for none.

    Attributes:
        timeout_s: seconds after which a call is killed.
        trials_per_call: most trials of one call of `after_trial`.
        backlog_s: seconds after the last trial for which calls of `after_trial` may go on.
    """

    before_sweep: tuple[str, ...] = ()
    after_trial: tuple[str, ...] = ()
    after_sweep: tuple[str, ...] = ()
    timeout_s: float = 30.0
    trials_per_call: int = 1
    backlog_s: float = 60.0

    @property
    def commands(self) -> dict[str, tuple[str, ...]]:
        """Name of each hook that is set -> its program and arguments."""
        return {name: getattr(self, name) for name in HOOK_NAMES if getattr(self, name)}

    @property
    def texts(self) -> list[str]:
        """Each hook that is set, as typed in a shell, and its timeout."""
        each = f", {self.trials_per_call:,} trials per call" if self.trials_per_call > 1 else ""
        return [
            f"{name}: {shlex.join(command)} (at most {self.timeout_s:g} s"
            f"{each if name == 'after_trial' else ''})"
            for name, command in self.commands.items()
        ]


def parse_hooks(wording: Wording, raw: Mapping[str, Any]) -> Hooks:
    """Parse the hooks of a sweep file.

    Raises:
        SpecError: if they are invalid.
    """
    table = raw.get("hooks", {})
    if problem := key_of("hooks").problem(table):
        wording.fail("hooks", problem)
    commands: dict[str, tuple[str, ...]] = {}
    for name, value in table.items():
        if name not in names_of("hooks"):
            wording.fail(f"hooks.{name}", unknown_key(name, "hooks"))
        if name in HOOK_NAMES:
            try:
                commands[name] = parse_arguments(f"hooks.{name}", value, _EXAMPLE)
            except CommandError as error:
                wording.fail(error.key, error.problem)
        elif problem := key_of(name, "hooks").problem(value):
            wording.fail(f"hooks.{name}", problem)
    if table and not commands:
        wording.fail("hooks", f"has no command; expected one of {', '.join(HOOK_NAMES)}")
    timeout_s, trials_per_call, backlog_s = (
        key.get(table) for key in keys_of("hooks") if key.name not in HOOK_NAMES
    )
    return Hooks(**commands, timeout_s=timeout_s, trials_per_call=trials_per_call, backlog_s=backlog_s)
