"""What a trial process tells its worker, or what becomes known about it: :data:`TrialEvent`."""

from __future__ import annotations

from typing import NamedTuple

from mpisweep.records import AttemptEnd

__all__ = ["Broke", "Reclaimed", "RendezvousOpened", "Reports", "Result", "TrialEvent"]


class Result(NamedTuple):
    """An EndedBlock to be delivered."""

    body: bytes


class Reports(NamedTuple):
    """A ReportBlock of a trial to be passed on."""

    number: int
    attempt: int
    body: bytes


class Reclaimed(NamedTuple):
    """Trials without a result; empty in answer to a reclaim that came too late."""

    numbers: tuple[int, ...]
    attempts: tuple[int, ...]
    end: AttemptEnd


class RendezvousOpened(NamedTuple):
    """The address at which the ranks of a trial meet, from its rank 0."""

    number: int
    attempt: int
    address: str


class Broke(NamedTuple):
    """The slot has failed, and not what it ran; see :class:`mpisweep.messages.Broken`."""

    trial: tuple[int, int] | None
    why: str
    is_gone: bool


TrialEvent = Result | Reports | Reclaimed | RendezvousOpened | Broke
