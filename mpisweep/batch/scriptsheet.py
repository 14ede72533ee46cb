"""Input and findings of a check of a job script."""

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
    """Severity of a finding."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake: its line, what is wrong, and what would be right."""

    line: int
    severity: Severity
    what: str
    right: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts from the files that a script names; None or empty for unknown.

    Attributes:
        longest_s: longest trial so far.
        timeout_s: time limit of a trial.
        problem: why the sweep file cannot be run.
    """

    longest_s: float | None = None
    timeout_s: float | None = None
    problem: str = ""


#: Returns facts for the working folder (empty for where the script is submitted), the sweep and the results
#: file.
LookUp = Callable[[str, str, str], Facts]


@dataclass(frozen=True)
class Sheet:
    """Everything known of a script."""

    script: JobScript
    asked: Asked
    system: BatchSystem
    site: Site | None
    look_up: LookUp

    @property
    def gpus(self) -> int | None:
        """GPUs per node; None for unknown."""
        gives_all = self.system.gives_whole_nodes or bool(self.site and self.site.node_resource)
        if self.asked.gpus is not None or not gives_all:
            return self.asked.gpus
        return self.site.gpus_per_node if self.site and not self.asked.shares_a_node else None

    @cached_property
    def sweeps(self) -> list[tuple[Command, tuple[str, ...]]]:
        """The commands that run a sweep, each with the arguments of its ``mpisweep run``."""
        found = []
        for command in self.script.commands:
            words = list(command.words)
            for at, word in enumerate(words[:-1]):
                if word.rsplit("/", 1)[-1] == "mpisweep" and words[at + 1] == "run":
                    found.append((command, tuple(words[at + 2 :])))
                    break
        return found
