"""The facts of a sweep as frozen data.

Every other module uses these types.  Nothing here acts: no clock, no file, no message.
Times of day are Unix seconds (UTC); durations are seconds of a monotonic clock and say so in their names.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple

from mpisweep.dataclass import dataclass, field

__all__ = [
    "ENDED_WELL",
    "EXCLUDED",
    "AttemptEnd",
    "Direction",
    "EndReason",
    "FailureCause",
    "Request",
    "RequestKind",
    "Slot",
    "TrialState",
    "Value",
]

#: Prefix of the message of a trial that completed without its objective.
ENDED_WELL = "it completed, but"
#: Prefix of the message of an infeasible trial that a constraint excludes; any other needs too much memory.
EXCLUDED = "where:"

#: Type of a parameter's value.
Value = int | float | str | bool


class TrialState(IntEnum):
    """State of a trial; the last five are ends.  The results file uses the same numbers."""

    WAITING = 0
    RUNNING = 1
    COMPLETE = 2
    PRUNED = 3
    FAILED = 4
    INFEASIBLE = 5
    #: A user asked that it should not run; a retry undoes that.
    SKIPPED = 6

    @property
    def is_end(self) -> bool:
        """Whether the trial has ended; the next run reconsiders infeasible trials."""
        return self >= TrialState.COMPLETE

    @property
    def label(self) -> str:
        """The word in files and tables, e.g. ``complete``."""
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
        """The word in files and tables; empty if nothing failed."""
        return "" if self is FailureCause.NONE else self.name.lower()


class AttemptEnd(IntEnum):
    """How an attempt at a trial ended; only an attempt that ``ENDED`` set the trial's state."""

    #: It has not ended yet.
    RUNNING = 0
    #: The trial has ended, and its state is the result of this attempt.
    ENDED = 1
    #: The sweep was stopped first; the trial runs again.
    INTERRUPTED = 2
    #: Its worker left, had no process for it, or has a process that cannot be killed; the trial runs again
    #: while retries are left.
    LOST = 3
    #: Reclaimed before it began, so that an idle worker could run it.
    RECLAIMED = 4
    #: Failed on a device that was quarantined for it; the trial runs again elsewhere.
    SUSPECT = 5
    #: Ran out of memory, or met a device error, in a process that had run other trials before, or ran out of
    #: memory beside others on its GPU; the trial runs again in a fresh process, alone on that GPU.
    NOT_FRESH = 6
    #: Ran out of memory on this kind of device; the trial waits for another kind.
    TOO_LARGE = 7

    @property
    def label(self) -> str:
        """The word in files and tables."""
        return self.name.lower()


class EndReason(StrEnum):
    """Why a run of the program ended; the results file holds the value."""

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
    SEARCH = "stopped because the search failed"
    TARGET = "stopped because the objective reached stop.target"
    PATIENCE = "stopped because no trial has improved the objective for stop.patience trials"
    DEVICE_HOURS = "stopped because stop.device_hours are used up"
    PILOT = "its pilot trials have ended"
    DISK = "stopped because the disk did not take the results"
    SUPERSEDED = "superseded by another run"

    @property
    def exit_code(self) -> int:
        """0: as the sweep file asks; 3: stopped and resumable; 4: no result that could be ranked."""
        if self in (EndReason.COMPLETE, EndReason.PILOT) or self.is_rule:
            return 0
        return 4 if self in (EndReason.NOTHING_COMPLETED, EndReason.NOTHING_FINITE, EndReason.ALIKE) else 3

    @property
    def is_final(self) -> bool:
        """Whether every trial has ended."""
        return self in (EndReason.COMPLETE, EndReason.NOTHING_COMPLETED, EndReason.NOTHING_FINITE)

    @property
    def is_rule(self) -> bool:
        """Whether a rule of [stop] ended the search; the same command then ends at once."""
        return self in (EndReason.TARGET, EndReason.PATIENCE, EndReason.DEVICE_HOURS)

    @staticmethod
    def of_all(*, completed: bool, measured: bool, finite: bool) -> EndReason:
        """The end of a sweep whose trials have all ended.

        Args:
            completed: whether a trial completed or was pruned, or the sweep has no trials.
            measured: whether a trial reported any metric, or the sweep file says how to find metrics.
            finite: whether any trial has a finite objective.
        """
        if not completed:
            return EndReason.NOTHING_COMPLETED
        # A sweep that measures nothing runs for the files that its trials write.
        return EndReason.COMPLETE if finite or not measured else EndReason.NOTHING_FINITE

    @property
    def is_passing(self) -> bool:
        """Whether the launcher starts the ranks again, because the missing workers may be back then."""
        return self in (EndReason.NO_WORKERS, EndReason.TOO_FEW)


class RequestKind(StrEnum):
    """What a user asks of a sweep that exists; the word is that of the command."""

    RETRY = "retry"
    SKIP = "skip"
    FIRST = "first"
    ADD = "add"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a user; see :mod:`mpisweep.results.requests`.

    Attributes:
        name: unique, and later requests have larger names.
        trials: number of each trial, and its last attempt when the user asked.  A retry of another attempt
            than the last one does nothing, so that the same request twice is one retry.
        configurations: of an addition: the searched parameters of each.
        asked_at: in seconds since 1970.
        by: who asked, and where.
    """

    name: str
    kind: RequestKind
    trials: tuple[tuple[int, int], ...] = ()
    configurations: tuple[dict[str, Value], ...] = field(default=(), hash=False)
    asked_at: float = 0.0
    by: str = ""


class Direction(StrEnum):
    """Whether a smaller or a larger objective is better."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric by which trials are ranked."""

    name: str
    direction: Direction

    @property
    def sign(self) -> float:
        """What to multiply its values by so that smaller is better."""
        return 1.0 if self.direction is Direction.MINIMIZE else -1.0


class Slot(NamedTuple):
    """One trial process of one rank; it runs one trial at a time.

    A tuple rather than a dataclass because it is a dictionary key on the scheduler's hot path.
    """

    rank: int
    #: Index among the rank's slots.
    place: int


@dataclass(frozen=True, slots=True)
class DeviceShare:
    """The devices and cores of one slot, and their labels for figures and tables."""

    #: ``cpu`` or ``cuda:0``: the device as the trial process sees it.
    device: str
    #: The same for people and files, e.g. ``NVIDIA H100 80GB HBM3 #2`` or ``cpu 0-3``.
    label: str
    #: CPU cores of the slot, by their numbers on the node.
    cores: tuple[int, ...]
    #: Environment variables for the trial process, e.g. ``(("CUDA_VISIBLE_DEVICES", "2"),)``.
    environment: tuple[tuple[str, str], ...] = ()
    #: Share of device and memory, e.g. ``1/2 of NVIDIA H100 80GB HBM3``; a trial that fits on one slot fits
    #: on every slot of the same kind.
    kind: str = ""
    #: Number of GPUs, also a share of one; 0 on a CPU.
    gpu_count: float = 0.0
    #: The identities of these GPUs; NVIDIA's are UUIDs.
    gpus: tuple[str, ...] = ()
    #: Whether it may have all of its GPU, which trials share as measured.
    is_packed: bool = False
