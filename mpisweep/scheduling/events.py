"""What the scheduler is told: values without behaviour, so that they can be compared, recorded and replayed.

An event about a trial names its number and its attempt; what does not match what was last decided about that
trial is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, EndReason, Slot

__all__ = [
    "Event",
    "NothingToLease",
    "ShareEvent",
    "SlotBroken",
    "StopRequested",
    "TimePassed",
    "TrialsEnded",
    "TrialsGranted",
    "TrialsReclaimed",
    "TrialsRevoked",
    "WorkerJoined",
    "WorkerLost",
]


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker on node `host` can be given trials in `slots` slots; those in `held` it has already.

    `kind` says what a trial has of devices and memory there; slots in `gone` are of no use any more.
    """

    rank: int
    slots: int
    held: tuple[tuple[tuple[int, int], ...], ...] = ()
    host: str = ""
    kind: str = ""
    gone: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker will not be heard of again."""

    rank: int


@dataclass(frozen=True, slots=True)
class SlotBroken:
    """A slot has failed, and not what it ran: see :class:`mpisweep.messages.Broken`."""

    slot: Slot
    trial: tuple[int, int] | None
    why: str
    is_gone: bool


@dataclass(frozen=True, slots=True)
class TrialsEnded:
    """A slot's trials have ended."""

    block: EndedBlock


@dataclass(frozen=True, slots=True)
class TrialsReclaimed:
    """A slot gave trials back."""

    slot: Slot
    numbers: tuple[int, ...]
    attempts: tuple[int, ...]
    end: AttemptEnd


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody, or the walltime, wants the sweep to stop in order."""

    reason: EndReason


@dataclass(frozen=True, slots=True)
class TrialsGranted:
    """Of a sweep that several allocations share, this one may run these.

    Attributes:
        attempts: how often each was tried by others.
        losses: how often each was lost together with a whole allocation.
    """

    numbers: tuple[int, ...]
    attempts: tuple[int, ...]
    losses: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TrialsRevoked:
    """Others have taken these over: what becomes of them here counts no longer."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NothingToLease:
    """Everything has ended or is held by others; `sure` when those have just been heard of."""

    sure: bool


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing happened, but it is later."""


#: About a share of a sweep; see :mod:`mpisweep.scheduling.leasing`.
ShareEvent = TrialsGranted | TrialsRevoked | NothingToLease

Event = (
    WorkerJoined | WorkerLost | SlotBroken
    | TrialsEnded | TrialsReclaimed | StopRequested
    | ShareEvent | TimePassed
)  # fmt: skip
