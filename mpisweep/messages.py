"""What ranks say to each other, and who says it to whom.

Lists of these travel over :mod:`mpisweep.rank.transport`::

    master -> all      Lead           I am the master of this run; say that you follow, and hello
                       Begun          the sweep is open, and the run has this name
    all -> master      Follow         I obey the master of this epoch, and none before it any more
    worker -> master   Hello          I am here, with so many slots of such a device, and hold these trials
                       Ended          a block of trials has ended; keep it, then acknowledge it
                       Reported       metrics of a running trial
                       ReclaimedTrials  trials without a result: reclaimed, interrupted, or abandoned
                       Broken         a slot could not run a trial that it was given, or is of no use any more
                       RendezvousReady  the address of a trial of several ranks, from its rank 0
                       StopWanted     this rank was asked to stop, by a signal
    master -> worker   Give           run these, after those that the slot already has
                       Rendezvous     that address, to the trial's other ranks
                       AbandonTrial   end this attempt: others have the trial, or its other ranks failed
                       ReclaimTrials  return all that this slot has not begun
                       StopTrials     return all; ask the running trials to stop, kill them after a grace
                       Acknowledge    these deliveries are on disk: forget them
                       Kill           end this process of your node: its rank is silent and counts as lost
                       Finish         the sweep has ended, with this exit code
    both               Beat           I am still here

Messages are values without behaviour.  Each that is about a trial names its number and its attempt, and what
does not match what the scheduler last decided about that trial is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpisweep.records import AttemptEnd

__all__ = [
    "AbandonTrial",
    "Acknowledge",
    "Beat",
    "Begun",
    "Broken",
    "Ended",
    "Finish",
    "Follow",
    "Give",
    "Hello",
    "Kill",
    "Lead",
    "Message",
    "ReclaimTrials",
    "ReclaimedTrials",
    "Rendezvous",
    "RendezvousReady",
    "Reported",
    "StopTrials",
    "StopWanted",
    "Team",
    "ToMaster",
    "ToWorker",
]


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
class ReclaimedTrials:
    """Trials that a slot returns without a result."""

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
        is_gone: whether the slot is of no use any more: a process that cannot be ended may have its device.
    """

    slot: int
    trial: tuple[int, int] | None
    why: str
    is_gone: bool


@dataclass(frozen=True, slots=True)
class StopWanted:
    """Somebody has asked this rank to stop; the master decides what that means for the sweep."""


@dataclass(frozen=True, slots=True)
class RendezvousReady:
    """The host and port at which the ranks of a trial meet; its rank 0 has reserved them."""

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
class Rendezvous:
    """The address at which the trial of this slot meets its other ranks."""

    slot: int
    number: int
    attempt: int
    address: str


@dataclass(frozen=True, slots=True)
class AbandonTrial:
    """Leave this trial within `linger_s` seconds; then its process is killed."""

    slot: int
    number: int
    attempt: int
    linger_s: float


@dataclass(frozen=True, slots=True)
class ReclaimTrials:
    """Return what this slot has not begun; answered by one ReclaimedTrials, which may be empty."""

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
ToMaster = Hello | Ended | Reported | ReclaimedTrials | Broken | RendezvousReady | StopWanted
ToWorker = Give | Rendezvous | AbandonTrial | ReclaimTrials | StopTrials | Acknowledge
Message = ToMaster | ToWorker | Lead | Begun | Follow | Beat | Kill | Finish
