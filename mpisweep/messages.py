"""What crosses a boundary inside a running sweep, and who tells whom.

Between ranks (lists of these, over :mod:`mpisweep.rank.transport`)::

    master -> all      Lead           I am the master of this run; say that you follow, and hello
                       Begun          the sweep is open, and the run has this name
    all -> master      Follow         I obey the master of this epoch, and none before it any more
    worker -> master   Hello          I am here, with so many slots of such a device, and hold these trials
                       Ended          a block of trials has ended; keep it, then acknowledge it
                       Reported       metrics of a running trial
                       Returned       trials given back: taken back, interrupted, or abandoned
                       Broken         a slot could not run a trial that it was given, or is of no use any more
                       Meeting        where the ranks of a trial meet, from the one that is the trial's rank 0
                       StopWanted     this rank was asked to stop, by a signal
    master -> worker   Give           run these, after those that the slot already has
                       Meet           where they meet, to the trial's other ranks
                       Abandon        a trial of several ranks is over, or cannot go on, or others have it: let go of it
                       TakeBack       give back all that this slot has not begun
                       StopTrials     give back all; tell the running ones to stop, and kill them after a grace
                       Acknowledge    these deliveries are on disk: forget them
                       Kill           end this process of your node: its rank is silent and counts as lost
                       Finish         the sweep has ended, with this exit code
    both               Beat           I am still here

Into the scheduler go *events*; out of it come *decisions*.  Both are values without behaviour, so that they
can be compared, recorded and replayed.  Every message about a trial names its number and its attempt, and
whatever does not match what the scheduler last decided about that trial is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, EndReason, Slot, Value

__all__ = [
    "Abandon",
    "Acknowledge",
    "Assign",
    "Beat",
    "Begun",
    "Broken",
    "Commit",
    "Decision",
    "End",
    "Ended",
    "Event",
    "Finish",
    "Follow",
    "Give",
    "GiveUp",
    "Hello",
    "Infer",
    "Introduce",
    "Kill",
    "Lead",
    "Lease",
    "LetGo",
    "Meet",
    "Meeting",
    "Message",
    "NothingToLease",
    "Quarantine",
    "Reported",
    "Returned",
    "ShareEvent",
    "SlotBroken",
    "Stop",
    "StopRequested",
    "StopTrials",
    "StopWanted",
    "TakeBack",
    "Team",
    "TimePassed",
    "ToMaster",
    "ToWorker",
    "TrialsEnded",
    "TrialsGranted",
    "TrialsReturned",
    "TrialsRevoked",
    "Withdraw",
    "WorkerJoined",
    "WorkerLost",
]


# ------------------------------------------------------------------------------------- between ranks


@dataclass(frozen=True, slots=True)
class Lead:
    """The first word of a master to every rank, itself included; see :mod:`mpisweep.rank.succession`."""

    run: str
    host: str
    process: int
    process_start: int
    epoch: int
    #: When the allocation ends, in seconds since 1970, where that is known.
    ends_at: float | None = None
    #: Whether a master has opened the sweep, so that the run is in its results.
    has_begun: bool = False


@dataclass(frozen=True, slots=True)
class Begun:
    """The sweep is open: who becomes master after this one takes over a run of this name."""

    run: str


@dataclass(frozen=True, slots=True)
class Follow:
    """A rank's first word to a master; what it says after that it says to nobody else."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Beat:
    """Nothing but a sign of life."""


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker's first word to a master.

    Attributes:
        held: for each slot the trials, as (number, attempt), that it runs, is yet to run, or has run and has
            no acknowledgement for.
        process: process id of the rank.
        process_start: when that process started, which tells it from a later one with the same number.
        environment: for each slot the variables by which it sees its device.
        kind: what a trial has of devices and memory there.
        gone: slots that are of no use any more.
    """

    host: str
    device: str
    cores: int
    slots: int
    held: tuple[tuple[tuple[int, int], ...], ...] = ()
    process: int = 0
    process_start: int = 0
    environment: tuple[tuple[tuple[str, str], ...], ...] = ()
    kind: str = ""
    gone: tuple[int, ...] = ()


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
class Broken:
    """A slot has failed, and not what it ran; each names the cause in `why`.

    Attributes:
        slot: which.
        trial: number and attempt of the trial that was lost by it; None for none.
        is_gone: whether the slot is of no use any more, because a process that cannot be ended may have its device.
    """

    slot: int
    trial: tuple[int, int] | None
    why: str
    is_gone: bool


@dataclass(frozen=True, slots=True)
class StopWanted:
    """Somebody has asked this rank to stop; the master decides what that means for the sweep."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where the ranks of a trial meet: the host and the port that its rank 0 listens on, if it wants to."""

    number: int
    attempt: int
    address: str


@dataclass(frozen=True, slots=True)
class Team:
    """One rank of a trial of several, in the words of torchrun.

    Attributes:
        rank: this one's.
        size: how many there are.
        local_rank: this one's among those on its node.
        local_size: how many are on its node.
        node: which of the trial's nodes that is.
        nodes: how many there are.
        environment: variables by which a program sees the devices of all of the trial's ranks on this node.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    node: int = 0
    nodes: int = 1
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Give:
    """An AssignedBlock for one of the receiver's slots; `count` trials are in it.

    A trial of several ranks is alone in its block, and `team` says which of them the slot is.
    """

    slot: int
    count: int
    body: bytes
    team: Team | None = None


@dataclass(frozen=True, slots=True)
class Meet:
    """The trial that this slot runs together with others finds them at this address."""

    slot: int
    number: int
    attempt: int
    address: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """A slot has `linger_s` seconds to let go of a trial by itself; then it is made to."""

    slot: int
    number: int
    attempt: int
    linger_s: float


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
class Kill:
    """A rank of this node hangs; its trials run elsewhere, so its device must be let go."""

    host: str
    process: int
    process_start: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The last word; every rank leaves with this exit code."""

    exit_code: int


#: What only a master receives, and what only a worker does.
ToMaster = Hello | Ended | Reported | Returned | Broken | Meeting | StopWanted
ToWorker = Give | Meet | Abandon | TakeBack | StopTrials | Acknowledge
Message = ToMaster | ToWorker | Lead | Begun | Follow | Beat | Kill | Finish


# ------------------------------------------------------------------------------------- into the scheduler


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
    """A slot has failed, and not what it ran: see :class:`Broken`."""

    slot: Slot
    trial: tuple[int, int] | None
    why: str
    is_gone: bool


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

Event = WorkerJoined | WorkerLost | SlotBroken | TrialsEnded | TrialsReturned | StopRequested | ShareEvent | TimePassed


# ------------------------------------------------------------------------------------- out of the scheduler


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
    """Ask for more trials of a sweep that several allocations share, the longest or the shortest ones first."""

    shortest: bool
    #: How many ranks each may need; None for any number.
    ranks: int | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The run is over."""

    reason: EndReason


Decision = Assign | Commit | Introduce | Infer | GiveUp | LetGo | Withdraw | Stop | Quarantine | Lease | End
