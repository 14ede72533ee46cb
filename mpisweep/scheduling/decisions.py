"""The decisions of the scheduler: values without behaviour.

The master carries them out in the order given.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, EndReason, Slot, Value

__all__ = [
    "Abandon",
    "AddRepeats",
    "AddTrials",
    "ApplyRequest",
    "Assign",
    "Commit",
    "Decision",
    "End",
    "GiveUp",
    "MarkInfeasible",
    "Propose",
    "Prune",
    "Quarantine",
    "Reclaim",
    "RequestLease",
    "Share",
    "Stop",
]


@dataclass(frozen=True, slots=True)
class Assign:
    """Record these attempts, then send them to the slots, which are several for a wide trial."""

    slots: tuple[Slot, ...]
    numbers: list[int]
    attempts: list[int]
    #: Whether they need a process that has run nothing before.
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Commit:
    """Record these ends, which are final."""

    block: EndedBlock


@dataclass(frozen=True, slots=True)
class AddTrials:
    """Record the trials of new configurations, before anything else refers to them."""

    numbers: list[int]
    configurations: list[dict[str, Value]]
    #: Number of ends that a learning search knew when it proposed them; None for other searches.
    known: int | None = None
    #: How often each configuration is run; the numbers go through all of them, repeat by repeat.
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class AddRepeats:
    """Record more trials of known configurations, before anything else refers to them."""

    numbers: list[int]
    #: Number of each trial's configuration, and which repeat of it the trial is.
    configurations: list[int]
    repeats: list[int]


@dataclass(frozen=True, slots=True)
class ApplyRequest:
    """Record a user's request and what it did; then nobody needs its file any more."""

    #: Its name.
    request: str
    #: The trials that it changed or added, and their last attempts.
    numbers: list[int]
    attempts: list[int]
    #: To which trials it was not applied, and why; empty for none.
    refused: str = ""
    #: The configurations that it adds, each run `repeats` times; the numbers go through all of them, repeat
    #: by repeat.
    configurations: list[dict[str, Value]] = field(default_factory=list)
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class MarkInfeasible:
    """Record that these trials are infeasible, and why; none of them runs."""

    numbers: list[int]
    why: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Record that these attempts are over without a result."""

    rank: int
    numbers: list[int]
    attempts: list[int]
    end: AttemptEnd


@dataclass(frozen=True, slots=True)
class Abandon:
    """Have a slot leave a trial, which it must no longer run, within `linger_s` seconds."""

    slot: Slot
    number: int
    attempt: int
    linger_s: float


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Reclaim the trials that a slot has not begun."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Stop:
    """Have all workers, or the worker of one rank, stop their trials and return the rest."""

    grace_s: float
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Record that this slot's device is quarantined, or released (empty `why`)."""

    slot: Slot
    why: str


@dataclass(frozen=True, slots=True)
class Share:
    """Record how many trials share each GPU of a kind from now on."""

    kind: str
    trials: int
    #: Trials per hour of a GPU, relative to one trial at a time.
    gain: float
    #: What one more trial per GPU gained over this, which was too little; None if this gained enough.
    step: float | None


@dataclass(frozen=True, slots=True)
class RequestLease:
    """Ask for more trials of a shared sweep, the longest or the shortest first."""

    shortest: bool
    #: Maximum number of ranks per trial; None for no limit.
    ranks: int | None = None


@dataclass(frozen=True, slots=True)
class Propose:
    """Ask the learning search for this many configurations."""

    count: int


@dataclass(frozen=True, slots=True)
class Prune:
    """Have a slot ask its trial to return soon, because its curve is hopeless."""

    slot: Slot
    number: int
    attempt: int


@dataclass(frozen=True, slots=True)
class End:
    """The run is over."""

    reason: EndReason


Decision = (
    Assign
    | Commit
    | AddTrials
    | AddRepeats
    | ApplyRequest
    | MarkInfeasible
    | GiveUp
    | Abandon
    | Reclaim
    | Stop
    | Quarantine
    | Share
    | RequestLease
    | Propose
    | Prune
    | End
)
