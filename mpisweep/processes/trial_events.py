"""The events of a trial process, for its worker: :data:`TrialEvent`."""

from __future__ import annotations

from mpisweep.dataclass import dataclass
from mpisweep.records import AttemptEnd

__all__ = ["Broke", "Checked", "Reclaimed", "RendezvousOpened", "Reports", "Result", "TrialEvent"]


@dataclass(frozen=True, slots=True)
class Result:
    """An EndedBlock for the master."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Checked:
    """A CheckedRecord of the device, for the master."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Reports:
    """A ReportBlock of a trial, for the master."""

    number: int
    attempt: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """Trials without a result; empty if a reclaim came too late."""

    numbers: tuple[int, ...]
    attempts: tuple[int, ...]
    end: AttemptEnd


@dataclass(frozen=True, slots=True)
class RendezvousOpened:
    """The address at which the ranks of a trial meet, from its rank 0."""

    number: int
    attempt: int
    address: str


@dataclass(frozen=True, slots=True)
class Broke:
    """The slot has failed, not its trial; see :class:`mpisweep.messages.Broken`."""

    trial: tuple[int, int] | None
    why: str
    is_gone: bool


TrialEvent = Result | Checked | Reports | Reclaimed | RendezvousOpened | Broke
