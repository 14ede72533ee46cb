"""What the scheduler decides: values without behaviour.  The master carries them out in the order given."""

from __future__ import annotations

from dataclasses import dataclass

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, EndReason, Slot, Value

__all__ = [
    "Assign",
    "Commit",
    "Decision",
    "End",
    "GiveUp",
    "Infer",
    "Introduce",
    "Lease",
    "LetGo",
    "Quarantine",
    "Stop",
    "Withdraw",
]


@dataclass(frozen=True, slots=True)
class Assign:
    """Write these attempts down, then send them to the slot; a trial of several ranks to all of its slots."""

    slots: tuple[Slot, ...]
    numbers: list[int]
    attempts: list[int]
    #: Whether the process that runs them must not have run anything before.
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Commit:
    """Write these ends down; they are final."""

    block: EndedBlock


@dataclass(frozen=True, slots=True)
class Introduce:
    """The sweep has these trials from now on: write them down before anything else is said of them."""

    numbers: list[int]
    configurations: list[dict[str, Value]]


@dataclass(frozen=True, slots=True)
class Infer:
    """Write down that these trials are infeasible, and why; none of them runs."""

    numbers: list[int]
    why: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Write down that these attempts are over without an end."""

    rank: int
    numbers: list[int]
    attempts: list[int]
    end: AttemptEnd


@dataclass(frozen=True, slots=True)
class LetGo:
    """Tell a slot to let go of a trial that is not its own any more within so many seconds."""

    slot: Slot
    number: int
    attempt: int
    linger_s: float


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Ask a slot for what it has not begun."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell every worker, or that of one rank, to stop its trials and to give everything back."""

    grace_s: float
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Tell that this slot's device gets no more trials, or gets some again (`why` is empty)."""

    slot: Slot
    why: str


@dataclass(frozen=True, slots=True)
class Lease:
    """Ask for more trials of a sweep that several allocations share, the longest or the shortest first."""

    shortest: bool
    #: How many ranks each may need; None for any number.
    ranks: int | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The run is over."""

    reason: EndReason


Decision = Assign | Commit | Introduce | Infer | GiveUp | LetGo | Withdraw | Stop | Quarantine | Lease | End
