"""What ``mpisweep.run`` and ``mpisweep.submit`` raise."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpisweep.results.load import Sweep

__all__ = ["InputError", "SweepError"]


class InputError(ValueError):
    """The sweep, an option or a file is wrong: one sentence, the command's own (exit code 2)."""


class SweepError(RuntimeError):
    """A run or a job without results.

    Attributes:
        exit_code: of the command: 4 if no trial completed, or none has a finite objective.
        sweep: the sweep with its failed trials; None without a results file.
    """

    def __init__(self, message: str, exit_code: int, sweep: Sweep | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.sweep = sweep
