"""The records of messages and journal: each is one JSON text, encoded once at its origin.

The trial process encodes its results; the same bytes go over the pipe, over MPI, into the journal and onto
the disk.  Only the master decodes them on the way, because it decides by them.  So a result is cheap (about
10 microseconds per trial in all) and hard to distort: no second format exists.

A block holds many trials as columns: entry *i* of every list belongs to the same trial.  If a parameter has
the same value for all of them, it can replace the list.  JSON and never pickle: reading files cannot run
code.  Curves are arrays of little-endian 64-bit numbers in base64, a tenth of the cost of printing them.

Who writes what::

    RunRecord       master   first record of every journal segment: the writer and the sweep file
    ImportedBlock   master   trials known from elsewhere, before the first trial of the sweep
    TrialsBlock     master   new trials: their permanent numbers and configurations
    JoinedRecord    master   a worker has joined
    CheckedRecord   trial    the check of a device; the master adds the result of the comparison
    AssignedBlock   master   about to be sent to a slot (also the message itself)
    ReportBlock     trial    one trial's metrics at some steps
    EndedBlock      trial    trials that have ended; the worker writes it for a trial whose process died
    InfeasibleBlock master   trials that do not run because others have shown that they cannot succeed
    UnfinishedBlock master   attempts that ended without giving their trial an end
    LeftRecord      master   a worker left
    QuarantineRecord master  a device gets no more trials, or gets trials again
    SharingRecord   master   how many trials share each GPU of a kind from now on
    RequestRecord   master   a user's request, and what it did
    PredictedRecord master   what the run is expected to take
    ClosedRecord    master   the run closed in order
"""

from __future__ import annotations

import codecs
import json
from typing import Any, ClassVar, get_args

from mpisweep.curves import Curve, curves_from_text, curves_to_text
from mpisweep.dataclass import dataclass, field
from mpisweep.records import Value

__all__ = [
    "AssignedBlock", "BlockError", "CheckedRecord", "ClosedRecord", "Curve", "EndedBlock", "ImportedBlock",
    "InfeasibleBlock", "JoinedRecord", "LeftRecord", "PredictedRecord", "QuarantineRecord", "Record",
    "ReportBlock", "RequestRecord", "RunRecord", "SharingRecord", "TrialsBlock", "UnfinishedBlock", "decode",
    "encode",
]  # fmt: skip


class BlockError(ValueError):
    """Bytes that are not a valid record."""


#: A parameter's values for the trials of a block: one each, or one value for all; None where it is absent.
ColumnValues = list[Value | None] | Value | None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of the program on this sweep, as its master records it."""

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
    #: The command that started the ranks and restarted them; the cost of a trial is counted over all of them.
    launch: str = ""
    #: Segment -> offset up to which it counts; records that a superseded master appends later do not.
    follows: dict[str, int] | None = None
    #: When its walltime ends, and how long its job waited in the queue; None if unknown.
    deadline: float | None = None
    queue_wait_s: float | None = None


@dataclass(frozen=True, slots=True)
class TrialsBlock:
    """New trials of the sweep; ``parameters`` are the searched and the fixed ones."""

    kind: ClassVar[str] = "trials"

    numbers: list[int]
    parameters: dict[str, ColumnValues]
    #: The number of the baseline's trial, in the block that adds it.
    baseline: int | None = None
    #: Number of ends that a learning search knew when it proposed them; None for other trials.
    known: int | None = None
    #: Number of each trial's configuration, and which repeat of it the trial is.  Empty: each trial is the
    #: only one of its configuration, which has its number.
    configurations: list[int] = field(default_factory=list)
    repeats: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ImportedBlock:
    """Trials known from elsewhere, one entry each; a sweep imports once."""

    kind: ClassVar[str] = "imported"

    #: File or storage of each.
    sources: list[str]
    #: The searched parameters of each.
    configurations: list[dict[str, Value]]
    objectives: list[float]
    wall_time_s: list[float | None]


@dataclass(frozen=True, slots=True)
class JoinedRecord:
    """A worker that is ready for trials."""

    kind: ClassVar[str] = "joined"

    worker: int
    host: str
    device: str
    cores: int
    slots: int
    joined_at: float
    device_kind: str = ""
    #: GPUs per slot, also a share of one.
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class CheckedRecord:
    """The check of a worker's device before its first trial; None for what was not measured.

    Of several GPUs it holds the lowest rate, memory and clock, and the most errors.
    """

    kind: ClassVar[str] = "checked"

    worker: int
    at: float
    #: Rate of a short matrix product, in TFLOP/s.
    rate: float | None = None
    free_bytes: int | None = None
    #: Uncorrected ECC errors since the driver was loaded.
    errors: int | None = None
    #: Clock of the multiprocessors right after the product.
    clock_mhz: int | None = None
    #: Why the check failed; empty if it did not.
    problem: str = ""
    #: What the comparison with other devices found; empty for nothing.
    finding: str = ""


@dataclass(frozen=True, slots=True)
class AssignedBlock:
    """Trials for one set of slots, in the order in which they run."""

    kind: ClassVar[str] = "assigned"

    slots: list[list[int]]
    assigned_at: float
    numbers: list[int]
    attempts: list[int]
    parameters: dict[str, ColumnValues]
    #: Whether they need a process that has run no trial before.
    fresh: bool = False
    #: Which repeat of its configuration each of them is; empty if all are the first.
    repeats: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EndedBlock:
    """Trials that have ended; ``causes`` and ``messages`` are empty if none of them failed."""

    kind: ClassVar[str] = "ended"

    worker: int
    slot: int
    numbers: list[int]
    attempts: list[int]
    #: :class:`~mpisweep.records.TrialState` values.
    states: list[int]
    started_at: list[float]
    wall_time_s: list[float]
    #: Final value of each metric; None if that trial did not report it.
    metrics: dict[str, list[float | None]]
    #: :class:`~mpisweep.records.FailureCause` values.
    causes: list[int] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    #: Whether earlier trials in its process may have caused the last failure, of memory or of the device.
    warm: bool = False
    #: Energy of each trial's GPUs in joules, None if unknown; empty if none of them is known.
    energy_j: list[float | None] = field(default_factory=list)
    #: Step of each pruned trial's last report, -1 for others; empty if none was pruned.
    pruned_at: list[int] = field(default_factory=list)
    #: What each objective of Optuna has asked for (:mod:`mpisweep.spec.suggested`); empty for none.
    suggested: list[dict[str, Any] | None] = field(default_factory=list)
    #: Use of each trial's GPU, None if unknown; each list is empty if none of them is known.  The largest
    #: share of its memory that the trial's process held, the part of the time in which it computed, for
    #: whomever, and the mean number of trials that shared it.
    gpu_memory: list[float | None] = field(default_factory=list)
    gpu_busy: list[float | None] = field(default_factory=list)
    gpu_trials: list[float | None] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class InfeasibleBlock:
    """Trials that are infeasible for now, and `why`; an empty `why` revokes it."""

    kind: ClassVar[str] = "inferred"

    numbers: list[int]
    why: str


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """The reports of one attempt at one trial since its last block."""

    kind: ClassVar[str] = "reports"

    worker: int
    number: int
    attempt: int
    curves: dict[str, Curve]
    #: Counts the blocks of an attempt from 0, so that readers skip duplicates.
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class UnfinishedBlock:
    """Attempts that ended although their trials have not; ``end`` is an AttemptEnd value."""

    kind: ClassVar[str] = "unfinished"

    worker: int
    numbers: list[int]
    attempts: list[int]
    end: int
    at: float


@dataclass(frozen=True, slots=True)
class LeftRecord:
    """A worker that left this run."""

    kind: ClassVar[str] = "left"

    worker: int
    left_at: float
    why: str


@dataclass(frozen=True, slots=True)
class QuarantineRecord:
    """A worker gets no more trials because of its device; an empty ``why`` ends that."""

    kind: ClassVar[str] = "quarantine"

    worker: int
    at: float
    why: str


@dataclass(frozen=True, slots=True)
class SharingRecord:
    """How many trials share each GPU of a kind from now on, as measured."""

    kind: ClassVar[str] = "sharing"

    at: float
    device_kind: str
    trials: int
    #: Trials per hour of a GPU, relative to one trial at a time.
    gain: float


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """A user's request and all that it did; one record, so that it is applied whole and once."""

    kind: ClassVar[str] = "request"

    #: Its name, by which a later record of the same request is ignored.
    request: str
    #: A :class:`~mpisweep.records.RequestKind` value.
    what: str
    by: str
    asked_at: float
    applied_at: float
    #: The trials to which it was applied, and the last attempt of each.
    numbers: list[int]
    attempts: list[int]
    #: To which trials it was not applied, and why; empty for none.
    refused: str = ""
    #: Of an addition: as in a TrialsBlock.
    parameters: dict[str, ColumnValues] = field(default_factory=dict)
    configurations: list[int] = field(default_factory=list)
    repeats: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PredictedRecord:
    """What this run is expected to take, from its start to the end of its last trial."""

    kind: ClassVar[str] = "predicted"

    #: Median, and the time that it stays below with 95%.
    time_s: float
    bound_s: float
    #: Number of its trials that had ended by then.
    after: int


@dataclass(frozen=True, slots=True)
class ClosedRecord:
    """The orderly end of a run; ``why`` is an EndReason value."""

    kind: ClassVar[str] = "closed"

    closed_at: float
    why: str


Record = (
    RunRecord | ImportedBlock | TrialsBlock | JoinedRecord | CheckedRecord
    | AssignedBlock | EndedBlock | InfeasibleBlock | ReportBlock | UnfinishedBlock
    | LeftRecord | QuarantineRecord | SharingRecord | RequestRecord | PredictedRecord | ClosedRecord
)  # fmt: skip

_TYPES: dict[str, type[Any]] = {made.kind: made for made in get_args(Record)}
_FIELDS: dict[str, tuple[str, ...]] = {kind: tuple(made.__slots__) for kind, made in _TYPES.items()}
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False)


def encode(record: Record) -> bytes:
    """Encode a record as JSON text in UTF-8."""
    fields: dict[str, Any] = {"kind": record.kind}
    for name in _FIELDS[record.kind]:
        fields[name] = getattr(record, name)
    if isinstance(record, ReportBlock):
        fields["curves"] = curves_to_text(record.curves)
    return _ENCODER.encode(fields).encode("utf-8", _SHOWN)


def _show(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(f"\\\\u{ord(lone):04x}" for lone in error.object[error.start : error.end]), error.end


#: Error handler for lone surrogates (from undecodable bytes in a message): it writes the escape as plain
#: text, with two backslashes inside JSON, so that no result is lost.
_SHOWN = "mpisweep.show"
codecs.register_error(_SHOWN, _show)


def decode(body: bytes) -> Record:
    """Decode a record that :func:`encode` encoded.

    Raises:
        BlockError: if `body` is anything else.
    """
    try:
        fields = json.loads(body.decode("utf-8"))
        made = _TYPES[fields.pop("kind")]
        if made is ReportBlock:
            fields["curves"] = curves_from_text(fields["curves"])
        record: Record = made(**fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BlockError(f"{body[:60]!r}... is not a valid record: {error}") from error
    return record
