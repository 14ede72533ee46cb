"""What the scheduler decides: values without behaviour.  The master carries them out in the order given."""

from __future__ import annotations

from dataclasses import dataclass

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, EndReason, Slot, Value

__all__ = [
    "Abandon",
    "AddTrials",
    "Assign",
    "Commit",
    "Decision",
    "End",
    "GiveUp",
    "MarkInfeasible",
    "Quarantine",
    "Reclaim",
    "RequestLease",
    "Stop",
]


@dataclass(frozen=True, slots=True)
class Assign:
    """Record these attempts, then send them to the slot; a trial of several ranks to all its slots."""

    slots: tuple[Slot, ...]
    numbers: list[int]
    attempts: list[int]
    #: Whether the process that runs them must not have run anything before.
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Commit:
    """Record these ends; they are final."""

    block: EndedBlock


@dataclass(frozen=True, slots=True)
class AddTrials:
    """Record these new trials, before anything else refers to them."""

    numbers: list[int]
    configurations: list[dict[str, Value]]


@dataclass(frozen=True, slots=True)
class MarkInfeasible:
    """Record that these trials are infeasible, and why; none of them runs."""

    numbers: list[int]
    why: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Record that these attempts are over without an end."""

    rank: int
    numbers: list[int]
    attempts: list[int]
    end: AttemptEnd


@dataclass(frozen=True, slots=True)
class Abandon:
    """Have a slot leave a trial that is no longer its own within so many seconds."""

    slot: Slot
    number: int
    attempt: int
    linger_s: float


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Reclaim what a slot has not begun."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Stop:
    """Have every worker, or that of one rank, stop its trials and return the rest."""

    grace_s: float
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Record that this slot's device gets no more trials, or gets some again (empty `why`)."""

    slot: Slot
    why: str


@dataclass(frozen=True, slots=True)
class RequestLease:
    """Ask for more trials of a sweep that several allocations share, the longest or the shortest first."""

    shortest: bool
    #: How many ranks each may need; None for any number.
    ranks: int | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The run is over."""

    reason: EndReason


Decision = (
    Assign
    | Commit
    | AddTrials
    | MarkInfeasible
    | GiveUp
    | Abandon
    | Reclaim
    | Stop
    | Quarantine
    | RequestLease
    | End
)
