"""What a trial process tells its worker, or what becomes known about it: :data:`TrialEvent`."""

from __future__ import annotations

from typing import NamedTuple

from mpisweep.records import AttemptEnd

__all__ = ["Back", "Broke", "Met", "Result", "Returned", "TrialEvent"]


class Result(NamedTuple):
    """An EndedBlock to be delivered."""

    body: bytes


class Back(NamedTuple):
    """A ReportBlock of a trial to be passed on."""

    number: int
    attempt: int
    body: bytes


class Returned(NamedTuple):
    """Trials given back; an answer to :meth:`~mpisweep.processes.trialprocess.TrialProcess.taken_back` may be
    empty.
    """

    numbers: tuple[int, ...]
    attempts: tuple[int, ...]
    end: AttemptEnd


class Met(NamedTuple):
    """Where the ranks of a trial meet, from its rank 0."""

    number: int
    attempt: int
    address: str


class Broke(NamedTuple):
    """The slot has failed, and not what it ran; see :class:`mpisweep.messages.Broken`."""

    trial: tuple[int, int] | None
    why: str
    is_gone: bool


TrialEvent = Result | Back | Returned | Met | Broke
