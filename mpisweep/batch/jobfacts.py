"""What is known of a job: the nodes and the time it was granted, where it is in the queue, and when it ends.
Values only.

What a batch system does not say stays unknown: an end that is guessed wrong costs more than none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["NO_SYSTEM", "AllocatedNode", "Allocation", "JobState", "JobTimes", "QueuedJob"]

#: Stands for the name of a batch system where there is none.
NO_SYSTEM = "local"
#: A job that began longer ago, or ends later than this from now, is a misunderstanding, in seconds.
_LONGEST_S = 400 * 86400.0
#: So much may the clock of a node be before or after that of the batch system, in seconds.
_SKEW_S = 300.0


@dataclass(frozen=True, slots=True)
class AllocatedNode:
    """A node of the allocation, by the name under which ranks are started there."""

    host: str
    #: Ranks that the job asked for there; None where it did not say.
    ranks: int | None = None


@dataclass(frozen=True, slots=True)
class Allocation:
    """What the batch system has granted; ``local``, and nothing known, outside of one."""

    system: str
    job_id: str
    #: In the order in which ranks are numbered; empty where the system names none.
    nodes: tuple[AllocatedNode, ...] = ()
    #: GPUs of each node; None where the system does not say.
    gpus_per_node: int | None = None
    #: Whether this process runs on none of the nodes: on a login node that holds the allocation.
    is_elsewhere: bool = False
    #: File that lists the nodes for mpirun; empty where there is none, or none is needed.
    node_file: str = ""
    #: Seconds since 1970; None where nobody says so.
    started_at: float | None = None
    ends_at: float | None = None
    #: What has said when it ends, e.g. ``squeue``.
    ends_by: str = ""

    @property
    def ranks(self) -> int | None:
        """Ranks that the job asked for; None where it did not say."""
        asked = [node.ranks for node in self.nodes]
        return sum(ranks for ranks in asked if ranks is not None) if asked and None not in asked else None


@dataclass(frozen=True, slots=True)
class JobTimes:
    """When a job began and ends, in seconds since 1970; None where that was not said."""

    started_at: float | None = None
    ends_at: float | None = None

    def sane(self, now: float) -> JobTimes:
        """The same without what cannot be, for a job that is running now."""
        started_at, ends_at = self.started_at, self.ends_at
        if started_at is not None and not now - _LONGEST_S < started_at < now + _SKEW_S:
            # An end that was reckoned from it is no better.
            return JobTimes()
        if ends_at is not None and not now - _SKEW_S < ends_at < now + _LONGEST_S:
            ends_at = None
        if started_at is not None and ends_at is not None and ends_at <= started_at:
            ends_at = None
        return JobTimes(started_at, ends_at)


class JobState(StrEnum):
    """Where a job is."""

    WAITING = "waiting"
    HELD = "held"
    RUNNING = "running"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job as its batch system sees it; `words` are the system's own for its state."""

    job_id: str
    state: JobState
    words: str
