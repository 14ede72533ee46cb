"""The messages between ranks, with their senders and receivers.

:mod:`mpisweep.rank.transport` carries lists of them::

    master -> all      Lead             this rank is the master of the run: answer Follow and Hello
                       Begun            the sweep is open, and the run has this name
    all -> master      Follow           this rank follows the master of this epoch, and no earlier one
    worker -> master   Hello            host, device and slots of a worker, and the trials that it holds
                       DeviceChecked    the check of its device, before its first trial
                       Ended            a block of ended trials: store it, then acknowledge it
                       Reported         metrics of a running trial
                       ReclaimedTrials  trials without a result: reclaimed, interrupted, or abandoned
                       Broken           a slot could not run an assigned trial, or became unusable
                       RendezvousReady  the address of a trial of several ranks, from its rank 0
                       StopWanted       this rank received a stop signal
    master -> worker   Give             run these after the trials that the slot holds
                       Rendezvous       that address, for the trial's other ranks
                       AbandonTrial     end this attempt: others have the trial, or its other ranks failed
                       PruneTrial       ask this attempt to end soon: its curve is hopeless
                       ReclaimTrials    return all unstarted trials of this slot
                       StopTrials       return all trials; stop running ones, kill them after the grace period
                       Acknowledge      these deliveries are on disk: delete them
                       Kill             end this process on the node: its rank is silent and counts as lost
                       Finish           the sweep has ended: exit with this code
    both               Beat             heartbeat

Messages are values without behaviour.  A message about a trial names its number and its attempt; the
scheduler drops it if it last decided about another attempt.
"""

from __future__ import annotations

from mpisweep.dataclass import dataclass
from mpisweep.records import AttemptEnd

__all__ = [
    "AbandonTrial",
    "Acknowledge",
    "Beat",
    "Begun",
    "Broken",
    "DeviceChecked",
    "Ended",
    "Finish",
    "Follow",
    "Give",
    "Hello",
    "Kill",
    "Lead",
    "Message",
    "PruneTrial",
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
    """First message of a master to every rank, itself included; see ``rank/succession.py``."""

    run: str
    host: str
    process: int
    process_start: int
    epoch: int
    #: When the allocation ends, in seconds since 1970; None if unknown.
    ends_at: float | None = None
    #: Whether a master has opened the sweep, so that its results contain the run.
    has_begun: bool = False


@dataclass(frozen=True, slots=True)
class Begun:
    """The sweep is open; a later master takes over the run of this name."""

    run: str


@dataclass(frozen=True, slots=True)
class Follow:
    """First message of a rank to a master; from then on the rank sends to no other master."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Beat:
    """Heartbeat."""


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker's first message to a master about itself.

    Attributes:
        held: per slot, the trials as (number, attempt) that it runs, will run, or has run without an
            acknowledgement so far.
        process: process id of the rank.
        process_start: start time of that process, which tells it from a later one with the same id.
        environment: per slot, the variables that select its device.
        kind: the devices and memory that a trial has there.
        gone: unusable slots.
        gpus: number of GPUs per slot, also a share of one; 0 on a CPU.
        packed_gpu: identity of the GPU that trials of several workers share as measured; empty for none.
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
    gpus: float = 0.0
    packed_gpu: str = ""


@dataclass(frozen=True, slots=True)
class DeviceChecked:
    """A CheckedRecord for the journal, and for the comparison with other devices."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """An EndedBlock for the journal; `delivery` counts up in each worker."""

    delivery: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Reported:
    """A ReportBlock for the journal."""

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
    """A slot failed, and its trial is not to blame.

    Attributes:
        slot: the slot.
        trial: number and attempt of the trial that was lost; None for none.
        why: the cause.
        is_gone: whether the slot is unusable: a process that cannot be ended may hold its device.
    """

    slot: int
    trial: tuple[int, int] | None
    why: str
    is_gone: bool


@dataclass(frozen=True, slots=True)
class StopWanted:
    """A rank received a stop signal; the master decides whether the sweep stops."""


@dataclass(frozen=True, slots=True)
class RendezvousReady:
    """Host and port for the rendezvous of a trial's ranks, reserved by its rank 0."""

    number: int
    attempt: int
    address: str


@dataclass(frozen=True, slots=True)
class Team:
    """One rank of a trial of several, in torchrun's terms.

    Attributes:
        rank: rank within the trial.
        size: number of ranks of the trial.
        local_rank: rank among the trial's ranks on this node.
        local_size: number of the trial's ranks on this node.
        node: index of this node among the trial's nodes.
        nodes: number of the trial's nodes.
        environment: variables that select the devices of all of the trial's ranks on this node.
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
    """An AssignedBlock of `count` trials for one of the receiver's slots.

    A trial of several ranks is alone in its block, and `team` describes the slot's rank.
    """

    slot: int
    count: int
    body: bytes
    team: Team | None = None


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Rendezvous address for the trial of this slot."""

    slot: int
    number: int
    attempt: int
    address: str


@dataclass(frozen=True, slots=True)
class AbandonTrial:
    """End this attempt within `linger_s` seconds; after that its process is killed."""

    slot: int
    number: int
    attempt: int
    linger_s: float


@dataclass(frozen=True, slots=True)
class PruneTrial:
    """Ask this attempt to end soon; it is pruned then, unless it has ended by itself."""

    slot: int
    number: int
    attempt: int


@dataclass(frozen=True, slots=True)
class ReclaimTrials:
    """Return the unstarted trials of this slot, in one ReclaimedTrials, which may be empty."""

    slot: int


@dataclass(frozen=True, slots=True)
class StopTrials:
    """Return all trials; running ones have `grace_s` seconds to return by themselves."""

    grace_s: float


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """These deliveries are on disk."""

    deliveries: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill a rank that hangs on this node: its trials run elsewhere and need its device freed."""

    host: str
    process: int
    process_start: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Last message of the master; every rank exits with this code."""

    exit_code: int


#: Messages that only a master receives, and messages that only a worker receives.
ToMaster = Hello | DeviceChecked | Ended | Reported | ReclaimedTrials | Broken | RendezvousReady | StopWanted
ToWorker = Give | Rendezvous | AbandonTrial | PruneTrial | ReclaimTrials | StopTrials | Acknowledge
Message = ToMaster | ToWorker | Lead | Begun | Follow | Beat | Kill | Finish
