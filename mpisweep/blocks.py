"""The records that travel and rest: each is one JSON text, made once, where its facts are known.

The trial process encodes its results; the very same bytes go over the pipe, over MPI, into the journal and
onto the disk.  Nobody on the way takes them apart except the master, which must decide by them.  That is
what makes a result cheap (the whole line costs some 10 microseconds a trial) and what makes it hard to
distort: there is no second format it could be translated into wrongly.

A block holds many trials as columns, entry *i* of every list belonging to the same trial.  A parameter that
has the same value for all of them may stand as that value alone.  JSON and never pickle: reading a results
file or a journal cannot run code.  Curves are arrays of little-endian 64-bit numbers in base64, which costs
a tenth of printing each number.

Who writes what::

    RunRecord       master   first record of every journal segment: who is writing, and the sweep file
    TrialsBlock     master   new trials: their permanent numbers and configurations
    JoinedRecord    master   a worker has said hello
    AssignedBlock   master   about to be sent to a slot (also the message itself)
    ReportBlock     trial    one trial's metrics at some steps
    EndedBlock      trial    trials that have ended; a worker makes one for a trial that died
    InfeasibleBlock master   trials that are not run because others have shown that they cannot be
    UnfinishedBlock master   attempts that ended without giving their trial an end
    LeftRecord      master   a worker went away
    QuarantineRecord master  a device gets no more trials, or gets some again
    ClosedRecord    master   the run ended in order
"""

from __future__ import annotations

import codecs
import json
import sys
from array import array
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mpisweep.records import Value

__all__ = [
    "AssignedBlock",
    "BlockError",
    "ClosedRecord",
    "Curve",
    "EndedBlock",
    "InfeasibleBlock",
    "JoinedRecord",
    "LeftRecord",
    "QuarantineRecord",
    "Record",
    "ReportBlock",
    "RunRecord",
    "TrialsBlock",
    "UnfinishedBlock",
    "decode",
    "encode",
]


class BlockError(ValueError):
    """Bytes that are no record of ours."""


#: A parameter's values for the trials of a block: one each, or one value that holds for all.
ColumnValues = list[Value] | Value


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of the program on this sweep, as its master sees it."""

    kind: ClassVar[str] = "run"

    run: str
    epoch: int
    host: str
    pid: int
    started_at: float
    ranks: int
    batch_system: str
    job_id: str
    command: list[str]
    version: str
    spec: str
    source: str
    environment: dict[str, str]
    #: The command that started the ranks, and started them again: what a trial has cost is counted over it.
    launch: str = ""
    #: Segment -> up to which offset it counts.  Whatever an earlier master writes after that, because it is
    #: still there although it was given up, is not part of the sweep.  None says nothing about that.
    follows: dict[str, int] | None = None


@dataclass(frozen=True, slots=True)
class TrialsBlock:
    """Trials that the sweep has from now on; ``parameters`` are the searched and the fixed ones."""

    kind: ClassVar[str] = "trials"

    numbers: list[int]
    parameters: dict[str, ColumnValues]
    #: The number of the baseline's trial, in the block that introduces it.
    baseline: int | None = None


@dataclass(frozen=True, slots=True)
class JoinedRecord:
    """A worker that can be given trials."""

    kind: ClassVar[str] = "joined"

    worker: int
    host: str
    device: str
    cores: int
    slots: int
    joined_at: float
    device_kind: str = ""


@dataclass(frozen=True, slots=True)
class AssignedBlock:
    """Trials on their way to one set of slots, in the order in which they are to run."""

    kind: ClassVar[str] = "assigned"

    slots: list[list[int]]
    assigned_at: float
    numbers: list[int]
    attempts: list[int]
    parameters: dict[str, ColumnValues]
    #: Whether the process that runs them must not have run anything before.
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class EndedBlock:
    """Trials that have ended.  ``causes`` and ``messages`` are empty where no trial of the block failed."""

    kind: ClassVar[str] = "ended"

    worker: int
    slot: int
    numbers: list[int]
    attempts: list[int]
    #: :class:`~mpisweep.records.TrialState` values.
    states: list[int]
    started_at: list[float]
    wall_time_s: list[float]
    #: Final value of each metric; None where that trial did not give it.
    metrics: dict[str, list[float | None]]
    #: :class:`~mpisweep.records.FailureCause` values.
    causes: list[int] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    #: Whether the last of them may have failed of what others had left in its process or on its device: it
    #: ran out of memory or met an error of the device, and the process had run others before.
    warm: bool = False


@dataclass(frozen=True, slots=True)
class InfeasibleBlock:
    """Trials that are infeasible, as far as is known, and `why`; empty where that does not hold any more."""

    kind: ClassVar[str] = "inferred"

    numbers: list[int]
    why: str


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric over (a stretch of) one trial: three arrays of equal length.

    ``time`` is seconds since the trial's start.
    """

    step: array[int]
    value: array[float]
    time: array[float]


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """What one attempt at one trial has reported since its last block."""

    kind: ClassVar[str] = "reports"

    worker: int
    number: int
    attempt: int
    curves: dict[str, Curve]
    #: Counts the blocks of an attempt from 0: one that comes twice is seen to.
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class UnfinishedBlock:
    """Attempts that are over although their trials are not; ``end`` is an AttemptEnd value."""

    kind: ClassVar[str] = "unfinished"

    worker: int
    numbers: list[int]
    attempts: list[int]
    end: int
    at: float


@dataclass(frozen=True, slots=True)
class LeftRecord:
    """A worker that will not be heard of again in this run."""

    kind: ClassVar[str] = "left"

    worker: int
    left_at: float
    why: str


@dataclass(frozen=True, slots=True)
class QuarantineRecord:
    """A worker gets no more trials because of its device, or gets some again (``why`` is empty)."""

    kind: ClassVar[str] = "quarantine"

    worker: int
    at: float
    why: str


@dataclass(frozen=True, slots=True)
class ClosedRecord:
    """The orderly end of a run; ``why`` is an EndReason value."""

    kind: ClassVar[str] = "closed"

    closed_at: float
    why: str


Record = (
    RunRecord
    | TrialsBlock
    | JoinedRecord
    | AssignedBlock
    | EndedBlock
    | InfeasibleBlock
    | ReportBlock
    | UnfinishedBlock
    | LeftRecord
    | QuarantineRecord
    | ClosedRecord
)

_TYPES: dict[str, type[Any]] = {
    record.kind: record
    for record in (
        RunRecord,
        TrialsBlock,
        JoinedRecord,
        AssignedBlock,
        EndedBlock,
        InfeasibleBlock,
        ReportBlock,
        UnfinishedBlock,
        LeftRecord,
        QuarantineRecord,
        ClosedRecord,
    )
}
_FIELDS: dict[str, tuple[str, ...]] = {kind: tuple(made.__slots__) for kind, made in _TYPES.items()}
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False)


def encode(record: Record) -> bytes:
    """The record's JSON text, UTF-8."""
    fields: dict[str, Any] = {"kind": record.kind}
    for name in _FIELDS[record.kind]:
        fields[name] = getattr(record, name)
    if isinstance(record, ReportBlock):
        fields["curves"] = _curves_to_text(record.curves)
    return _ENCODER.encode(fields).encode("utf-8", _SHOWN)


def _show(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(f"\\\\u{ord(lone):04x}" for lone in error.object[error.start : error.end]), error.end


#: A lone surrogate (a name with undecodable bytes in a message) costs no result, here or where the text is
#: written: it becomes its escape as plain text, which a JSON text has with two backslashes.
_SHOWN = "mpisweep.show"
codecs.register_error(_SHOWN, _show)


def decode(body: bytes) -> Record:
    """The record that :func:`encode` made into `body`.

    Raises:
        BlockError: for anything else.
    """
    try:
        fields = json.loads(body.decode("utf-8"))
        made = _TYPES[fields.pop("kind")]
        if made is ReportBlock:
            fields["curves"] = _curves_from_text(fields["curves"])
        record: Record = made(**fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BlockError(f"{body[:60]!r}... is no record: {error}") from error
    return record


def _curves_to_text(curves: Mapping[str, Curve]) -> dict[str, list[str]]:
    return {
        metric: [_array_to_text(curve.step), _array_to_text(curve.value), _array_to_text(curve.time)]
        for metric, curve in curves.items()
    }


def _curves_from_text(curves: Mapping[str, list[str]]) -> dict[str, Curve]:
    return {
        metric: Curve(_array_from_text("q", step), _array_from_text("d", value), _array_from_text("d", time))
        for metric, (step, value, time) in curves.items()
    }


def _array_to_text(numbers: array[Any]) -> str:
    return b64encode(_little_endian(numbers).tobytes()).decode("ascii")


def _array_from_text(typecode: str, text: str) -> array[Any]:
    numbers: array[Any] = array(typecode)
    numbers.frombytes(b64decode(text, validate=True))
    return _little_endian(numbers)


def _little_endian(numbers: array[Any]) -> array[Any]:
    if sys.byteorder == "little":
        return numbers
    swapped = array(numbers.typecode, numbers)
    swapped.byteswap()
    return swapped
