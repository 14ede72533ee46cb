"""Facts about jobs: granted nodes and time, state in the queue.

What a batch system does not say stays unknown: a wrong guess of the end costs more than none.
"""

from __future__ import annotations

from enum import StrEnum

from mpisweep.dataclass import dataclass

__all__ = ["NO_SYSTEM", "AllocatedNode", "Allocation", "JobState", "JobTimes", "QueuedJob"]

#: Name of the batch system outside of jobs.
NO_SYSTEM = "local"
#: A start further in the past, or an end further in the future, is a misreading, in seconds.
_LONGEST_S = 400 * 86400.0
#: Greatest difference between the clocks of a node and of the batch system, in seconds.
_SKEW_S = 300.0


@dataclass(frozen=True, slots=True)
class AllocatedNode:
    """A node of the allocation; `host` is the name for starting ranks there."""

    host: str
    #: Ranks that the job asked for there; None for unknown.
    ranks: int | None = None


@dataclass(frozen=True, slots=True)
class Allocation:
    """The nodes and the time that a job has; ``local`` and empty outside of jobs."""

    system: str
    job_id: str
    #: In the order of rank numbers; empty for unknown.
    nodes: tuple[AllocatedNode, ...] = ()
    #: None for unknown.
    gpus_per_node: int | None = None
    #: Whether this process is on none of the nodes, but on a login node.
    is_elsewhere: bool = False
    #: Machine file for mpirun; empty if there is none, or none is needed.
    node_file: str = ""
    #: Seconds since 1970; None for unknown.
    started_at: float | None = None
    ends_at: float | None = None
    #: Source of the end, e.g. ``squeue``.
    ends_by: str = ""
    #: When the job could first have started; None for unknown.
    queued_at: float | None = None

    @property
    def queue_wait_s(self) -> float | None:
        """How long the job waited in the queue, in seconds; None for unknown."""
        if self.queued_at is None or self.started_at is None:
            return None
        return max(0.0, self.started_at - self.queued_at)

    @property
    def ranks(self) -> int | None:
        """Ranks that the job asked for; None for unknown."""
        asked = [node.ranks for node in self.nodes]
        return sum(ranks for ranks in asked if ranks is not None) if asked and None not in asked else None


@dataclass(frozen=True, slots=True)
class JobTimes:
    """Start and end of a job, in seconds since 1970; None for unknown.

    Attributes:
        started_at: its start.
        ends_at: its end, by its time limit.
        queued_at: when it could first have started: its submission, or later if it was held or followed
            another job.  The wait in the queue is counted from here.
    """

    started_at: float | None = None
    ends_at: float | None = None
    queued_at: float | None = None

    def sane(self, now: float) -> JobTimes:
        """Drop times that are impossible for a running job."""
        started_at, ends_at, queued_at = self.started_at, self.ends_at, self.queued_at
        if started_at is not None and not now - _LONGEST_S < started_at < now + _SKEW_S:
            # The end is computed from it.
            return JobTimes()
        if ends_at is not None and not now - _SKEW_S < ends_at < now + _LONGEST_S:
            ends_at = None
        if started_at is not None and ends_at is not None and ends_at <= started_at:
            ends_at = None
        if queued_at is not None and not now - _LONGEST_S < queued_at < (started_at or now) + _SKEW_S:
            queued_at = None
        return JobTimes(started_at, ends_at, queued_at)


class JobState(StrEnum):
    """State of a job."""

    WAITING = "waiting"
    HELD = "held"
    RUNNING = "running"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job in a listing; `words` describe its state in the batch system's terms."""

    job_id: str
    state: JobState
    words: str
