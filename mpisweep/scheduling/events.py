"""The events that the scheduler handles: values that tests compare, record and replay.

An event about a trial names its number and its attempt; the scheduler drops an event whose attempt is not the
one that it last assigned.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, EndReason, Request, Slot, Value

__all__ = [
    "DeviceSuspected",
    "Event",
    "NothingToLease",
    "Proposed",
    "ProposedRound",
    "PruneAdvised",
    "RequestsMade",
    "RoundsProposed",
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
    """A worker on node `host` joined with `slots` slots, and holds the trials in `held`.

    `kind` names the devices and memory that a trial has there; the slots in `gone` are unusable.  Each slot
    has `cores` CPU cores and `gpus` GPUs, possibly a share of one.  If trials share its GPU as measured,
    `packed_gpu` identifies that.
    """

    rank: int
    slots: int
    held: tuple[tuple[tuple[int, int], ...], ...] = ()
    host: str = ""
    kind: str = ""
    gone: tuple[int, ...] = ()
    cores: float = 1.0
    gpus: float = 0.0
    packed_gpu: str = ""


@dataclass(frozen=True, slots=True)
class DeviceSuspected:
    """A worker's device is far below its peers and must get no trials; an empty `why` ends that."""

    rank: int
    why: str


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker was declared dead."""

    rank: int


@dataclass(frozen=True, slots=True)
class SlotBroken:
    """A slot failed, and its trial is not to blame; see :class:`mpisweep.messages.Broken`."""

    slot: Slot
    trial: tuple[int, int] | None
    why: str
    is_gone: bool


@dataclass(frozen=True, slots=True)
class TrialsEnded:
    """Trials of a slot ended."""

    block: EndedBlock


@dataclass(frozen=True, slots=True)
class TrialsReclaimed:
    """A slot returned trials without a result."""

    slot: Slot
    numbers: tuple[int, ...]
    attempts: tuple[int, ...]
    end: AttemptEnd


@dataclass(frozen=True, slots=True)
class StopRequested:
    """A user, or the walltime, asks for an orderly stop."""

    reason: EndReason


@dataclass(frozen=True, slots=True)
class TrialsGranted:
    """Trials of a shared sweep that this allocation may run from now on.

    Attributes:
        attempts: number of attempts by other members, per trial.
        losses: number of allocations that each trial was lost with.
    """

    numbers: tuple[int, ...]
    attempts: tuple[int, ...]
    losses: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TrialsRevoked:
    """Other members took these trials over: results from here no longer count."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NothingToLease:
    """Every trial has ended or is held by others; `sure` if those were just seen alive."""

    sure: bool


@dataclass(frozen=True, slots=True)
class Proposed:
    """A learning search answered a request.

    Attributes:
        configurations: new configurations, complete.
        widths: number of ranks that each needs.
        known: number of ends that the search knew.
        seconds: how long it took.
        is_exhausted: whether it has no more; also if it failed.
    """

    configurations: tuple[dict[str, Value], ...]
    widths: tuple[int, ...]
    known: int
    seconds: float
    is_exhausted: bool = False


@dataclass(frozen=True, slots=True)
class ProposedRound:
    """What one member of a shared sweep has proposed.

    Attributes:
        configurations: new configurations, complete.
        widths: number of ranks that each needs.
        known: number of ends that the search knew.
        is_ours: whether this allocation may run their trials.
    """

    configurations: tuple[dict[str, Value], ...]
    widths: tuple[int, ...]
    known: int
    is_ours: bool


@dataclass(frozen=True, slots=True)
class RoundsProposed:
    """The learning search of a shared sweep answered: all rounds since the last answer.

    Attributes:
        rounds: in their order; others' rounds come before this allocation's own.
        seconds: how long the last one took.
        is_exhausted: whether there are no more; also if the search failed.
    """

    rounds: tuple[ProposedRound, ...]
    seconds: float
    is_exhausted: bool = False


@dataclass(frozen=True, slots=True)
class PruneAdvised:
    """The pruner finds this attempt hopeless; the worker of this rank has reported it."""

    number: int
    attempt: int
    rank: int


@dataclass(frozen=True, slots=True)
class RequestsMade:
    """Users made these requests, in this order.

    The configurations of an addition are new ones and complete; each is run `repeats` times.  `widths` has
    the number of ranks that each of them needs, by the name of the request.
    """

    requests: tuple[Request, ...]
    widths: dict[str, tuple[int, ...]] = field(default_factory=dict)
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Time passed without another event."""


#: Events of a shared sweep; see :mod:`mpisweep.scheduling.leasing`.
ShareEvent = TrialsGranted | TrialsRevoked | NothingToLease

Event = (
    WorkerJoined | DeviceSuspected | WorkerLost | SlotBroken
    | TrialsEnded | TrialsReclaimed | StopRequested
    | ShareEvent | Proposed | RoundsProposed | PruneAdvised | RequestsMade | TimePassed
)  # fmt: skip
