"""What a check of a job script goes by, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from mpisweep.batch.base import BatchSystem
from mpisweep.batch.directives import Command, JobScript
from mpisweep.batch.head import Asked
from mpisweep.batch.site import Site

__all__ = ["Facts", "Finding", "LookUp", "Severity", "Sheet"]


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake: where it is, what is wrong, and what would be right."""

    line: int
    severity: Severity
    what: str
    right: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the files say that a script names; None and empty for nothing.

    Attributes:
        longest_s: the longest trial so far.
        timeout_s: the time limit of a trial.
        problem: why the sweep file cannot be run.
    """

    longest_s: float | None = None
    timeout_s: float | None = None
    problem: str = ""


#: Given the folder that the script goes to (empty for where it is submitted from), the sweep and the results
#: file.
LookUp = Callable[[str, str, str], Facts]


@dataclass(frozen=True)
class Sheet:
    """What is known of a script."""

    script: JobScript
    asked: Asked
    system: BatchSystem
    site: Site | None
    look_up: LookUp

    @property
    def gpus(self) -> int | None:
        """Of a node; None for unknown."""
        gives_all = self.system.gives_whole_nodes or bool(self.site and self.site.node_resource)
        if self.asked.gpus is not None or not gives_all:
            return self.asked.gpus
        return self.site.gpus_per_node if self.site and not self.asked.shares_a_node else None

    @cached_property
    def sweeps(self) -> list[tuple[Command, tuple[str, ...]]]:
        """The commands that run a sweep, and the arguments of ``mpisweep run`` in them."""
        found = []
        for command in self.script.commands:
            words = list(command.words)
            for at, word in enumerate(words[:-1]):
                if word.rsplit("/", 1)[-1] == "mpisweep" and words[at + 1] == "run":
                    found.append((command, tuple(words[at + 2 :])))
                    break
        return found
