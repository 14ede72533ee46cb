"""The events of a trial process, for its worker: :data:`TrialEvent`."""

from __future__ import annotations

from typing import NamedTuple

from mpisweep.records import AttemptEnd

__all__ = ["Broke", "Checked", "Reclaimed", "RendezvousOpened", "Reports", "Result", "TrialEvent"]


class Result(NamedTuple):
    """An EndedBlock for the master."""

    body: bytes


class Checked(NamedTuple):
    """A CheckedRecord of the device, for the master."""

    body: bytes


class Reports(NamedTuple):
    """A ReportBlock of a trial, for the master."""

    number: int
    attempt: int
    body: bytes


class Reclaimed(NamedTuple):
    """Trials without a result; empty if a reclaim came too late."""

    numbers: tuple[int, ...]
    attempts: tuple[int, ...]
    end: AttemptEnd


class RendezvousOpened(NamedTuple):
    """The address at which the ranks of a trial meet, from its rank 0."""

    number: int
    attempt: int
    address: str


class Broke(NamedTuple):
    """The slot has failed, not its trial; see :class:`mpisweep.messages.Broken`."""

    trial: tuple[int, int] | None
    why: str
    is_gone: bool


TrialEvent = Result | Checked | Reports | Reclaimed | RendezvousOpened | Broke
