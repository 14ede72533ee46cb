"""What crosses a boundary inside a running sweep, and who tells whom.

Between ranks (lists of these, over :mod:`mpisweep.transport`)::

    worker -> master   Hello          I am here, with so many slots of such a device
                       Ended          a block of trials has ended; keep it, then acknowledge it
                       Reported       metrics of a running trial
                       Returned       trials given back: taken back, or interrupted
                       StopWanted     this rank was asked to stop, by a signal
    master -> worker   Give           run these, after those that the slot already has
                       TakeBack       give back all that this slot has not begun
                       StopTrials     give back all; tell the running ones to stop, and kill them after a grace
                       Acknowledge    these deliveries are on disk: forget them
                       Finish         the sweep has ended, with this exit code

Into the scheduler go *events*; out of it come *decisions*.  Both are values without behaviour, so that they
can be compared, recorded and replayed.  Every message about a trial names its number and its attempt, and
whatever does not match what the scheduler last decided about that trial is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, EndReason, Slot

__all__ = [
    "Acknowledge",
    "Assign",
    "Commit",
    "Decision",
    "End",
    "Ended",
    "Event",
    "Finish",
    "Give",
    "GiveUp",
    "Hello",
    "Message",
    "Reported",
    "Returned",
    "Stop",
    "StopRequested",
    "StopTrials",
    "StopWanted",
    "TakeBack",
    "TimePassed",
    "ToMaster",
    "ToWorker",
    "TrialsEnded",
    "TrialsReturned",
    "Withdraw",
    "WorkerJoined",
    "WorkerLost",
]


# ------------------------------------------------------------------------------------- between ranks


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker's first word."""

    host: str
    device: str
    cores: int
    slots: int


@dataclass(frozen=True, slots=True)
class Ended:
    """An EndedBlock on its way to the journal; `delivery` counts up in each worker."""

    delivery: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Reported:
    """A ReportBlock on its way to the journal."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Returned:
    """Trials that a slot gives back without a result."""

    slot: int
    numbers: tuple[int, ...]
    attempts: tuple[int, ...]
    end: AttemptEnd


@dataclass(frozen=True, slots=True)
class StopWanted:
    """Somebody has asked this rank to stop; the master decides what that means for the sweep."""


@dataclass(frozen=True, slots=True)
class Give:
    """An AssignedBlock for one of the receiver's slots; `count` trials are in it."""

    slot: int
    count: int
    body: bytes


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Give back what this slot has not begun; always answered by one Returned, be it empty."""

    slot: int


@dataclass(frozen=True, slots=True)
class StopTrials:
    """Give back everything; running trials have `grace_s` seconds to return by themselves."""

    grace_s: float


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """These deliveries are safe."""

    deliveries: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """The last word; every rank leaves with this exit code."""

    exit_code: int


#: What only a master receives, and what only a worker does.
ToMaster = Hello | Ended | Reported | Returned | StopWanted
ToWorker = Give | TakeBack | StopTrials | Acknowledge | Finish
Message = ToMaster | ToWorker


# ------------------------------------------------------------------------------------- into the scheduler


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker can be given trials in `slots` slots."""

    rank: int
    slots: int


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker will not be heard of again."""

    rank: int


@dataclass(frozen=True, slots=True)
class TrialsEnded:
    """A slot's trials have ended."""

    block: EndedBlock


@dataclass(frozen=True, slots=True)
class TrialsReturned:
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
class TimePassed:
    """Nothing happened, but it is later."""


Event = WorkerJoined | WorkerLost | TrialsEnded | TrialsReturned | StopRequested | TimePassed


# ------------------------------------------------------------------------------------- out of the scheduler


@dataclass(frozen=True, slots=True)
class Assign:
    """Write these attempts down, then send them to the slot."""

    slot: Slot
    numbers: list[int]
    attempts: list[int]


@dataclass(frozen=True, slots=True)
class Commit:
    """Write these ends down; they are final."""

    block: EndedBlock


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Write down that these attempts are over without an end."""

    rank: int
    numbers: list[int]
    attempts: list[int]
    end: AttemptEnd


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Ask a slot for what it has not begun."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell every worker to stop its trials and to give everything back."""

    grace_s: float


@dataclass(frozen=True, slots=True)
class End:
    """The run is over."""

    reason: EndReason


Decision = Assign | Commit | GiveUp | Withdraw | Stop | End
