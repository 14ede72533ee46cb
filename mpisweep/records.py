"""What is known about a sweep, as plain frozen data.

Every other module speaks in these words.  Nothing here does anything: no clock, no file, no message.
Times of day are Unix seconds (UTC); durations are seconds of a monotonic clock and say so in their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple

__all__ = [
    "ENDED_WELL",
    "AttemptEnd",
    "Direction",
    "EndReason",
    "FailureCause",
    "Slot",
    "TrialState",
    "Value",
]

#: How the message of a trial begins that is complete without its objective.
ENDED_WELL = "it has ended well, but"

#: What a parameter can be.
Value = int | float | str | bool


class TrialState(IntEnum):
    """Where a trial stands.  The last four are ends; the numbers are those of the results file's enum."""

    WAITING = 0
    RUNNING = 1
    COMPLETE = 2
    PRUNED = 3
    FAILED = 4
    INFEASIBLE = 5

    @property
    def is_end(self) -> bool:
        """Whether the trial has ended; the next run looks at infeasible trials again."""
        return self >= TrialState.COMPLETE

    @property
    def label(self) -> str:
        """The word that files and tables use, e.g. ``complete``."""
        return self.name.lower()


class FailureCause(IntEnum):
    """Why a failed trial failed."""

    NONE = 0
    EXCEPTION = 1
    OUT_OF_MEMORY = 2
    CRASH = 3
    TIMEOUT = 4
    LOST = 5

    @property
    def label(self) -> str:
        """The word that files and tables use; empty where nothing failed."""
        return "" if self is FailureCause.NONE else self.name.lower()


class AttemptEnd(IntEnum):
    """How one attempt at a trial ended; only an attempt that ``ENDED`` gave the trial its state."""

    #: It has not ended yet.
    RUNNING = 0
    #: The trial has ended, and its state is the result of this attempt.
    ENDED = 1
    #: The sweep was stopped first; the trial runs again.
    INTERRUPTED = 2
    #: Its worker went away, or had no process for it, or one that cannot be ended; the trial runs again while
    #: retries are left.
    LOST = 3
    #: Taken back before it had begun, so that an idle worker could have it.
    RECLAIMED = 4
    #: Failed on a device that was quarantined for it; the trial runs again elsewhere.
    SUSPECT = 5
    #: Ran out of memory, or met an error of its device, in a process that had run others before it; the trial
    #: runs again in a fresh one.
    NOT_FRESH = 6
    #: Ran out of memory on its kind of device; the trial waits for one of another kind.
    TOO_LARGE = 7

    @property
    def label(self) -> str:
        """The word that files and tables use."""
        return self.name.lower()


class EndReason(StrEnum):
    """Why a run of the program ended; the value is what the results file says."""

    COMPLETE = "complete"
    NOTHING_COMPLETED = "no trial completed"
    NOTHING_FINITE = "no completed trial has a finite objective"
    SIGNAL = "stopped by a signal"
    REQUEST = "stopped on request"
    WALLTIME = "stopped before the walltime"
    SHARE = "its share of the sweep is done"
    NO_WORKERS = "no workers were left"
    NO_DEVICES = "no usable devices were left"
    TOO_FEW = "too few workers were left for the trials that wait"
    ALIKE = "stopped because the first trials all failed alike"
    DISK = "stopped because the disk did not take the results"
    SUPERSEDED = "superseded by another run"

    @property
    def exit_code(self) -> int:
        """0 every trial has ended; 3 stopped and resumable; 4 nothing came of it that could be ranked."""
        if self is EndReason.COMPLETE:
            return 0
        return 4 if self in (EndReason.NOTHING_COMPLETED, EndReason.NOTHING_FINITE, EndReason.ALIKE) else 3

    @property
    def is_final(self) -> bool:
        """Whether every trial has ended."""
        return self in (EndReason.COMPLETE, EndReason.NOTHING_COMPLETED, EndReason.NOTHING_FINITE)

    @staticmethod
    def of_all(*, completed: bool, measured: bool, finite: bool) -> EndReason:
        """How a sweep ends of which every trial has ended.

        Args:
            completed: whether a trial has completed or was pruned, or there are none.
            measured: whether a trial has reported any metric, or the sweep file says how metrics are found.
            finite: whether the objective of a trial is finite.
        """
        if not completed:
            return EndReason.NOTHING_COMPLETED
        # A sweep that measures nothing is run for the files that its trials leave.
        return EndReason.COMPLETE if finite or not measured else EndReason.NOTHING_FINITE

    @property
    def is_passing(self) -> bool:
        """Whether the launcher starts the ranks again: all of them may be there then."""
        return self in (EndReason.NO_WORKERS, EndReason.TOO_FEW)


class Direction(StrEnum):
    """Whether a smaller or a larger objective is better."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


class Slot(NamedTuple):
    """A place where one trial at a time runs: one trial process of one rank.

    A tuple rather than a dataclass because it is a dictionary key on the scheduler's hot path.
    """

    rank: int
    #: Which of the rank's slots.
    place: int


@dataclass(frozen=True, slots=True)
class DeviceShare:
    """What one slot may use, and how figures and tables call it."""

    #: ``cpu`` or ``cuda:0``: the device as the trial process sees it.
    device: str
    #: The same for people and files, e.g. ``NVIDIA H100 80GB HBM3 #2`` or ``cpu 0-3``.
    label: str
    #: CPU cores of the slot, by their numbers on the node.
    cores: tuple[int, ...]
    #: What the trial process gets in its environment, e.g. ``(("CUDA_VISIBLE_DEVICES", "2"),)``.
    environment: tuple[tuple[str, str], ...] = ()
    #: What a trial has of devices and memory, e.g. ``1/2 of NVIDIA H100 80GB HBM3``: on equal kinds equal
    #: trials fit.
    kind: str = ""
