"""The table of everything in a results file, used by writer, reader and documentation.

``python -m mpisweep.results.columns`` prints it as the Markdown of docs/file-format.md.
"""

from __future__ import annotations

from collections.abc import Container
from enum import IntEnum
from typing import Literal

from mpisweep.dataclass import dataclass
from mpisweep.records import AttemptEnd, FailureCause, TrialState

__all__ = [
    "ABSENT",
    "CODE",
    "COLUMNS",
    "CURVE_COLUMNS",
    "FORMAT",
    "FORMAT_VERSION",
    "TABLES",
    "Column",
    "columns_of",
    "markdown",
    "version_of",
]

FORMAT = "mpisweep"
#: The newest version that is read.  A file without skipped trials has version 1, which earlier releases read.
FORMAT_VERSION = 2

#: The attribute of a parameter's column of which some entries are absent: NaN, or empty in a column of text.
#: Its value is the type of the others: ``integer``, ``number``, ``boolean`` or ``string``.
ABSENT = "type"

#: The entry of /environment that holds the last run's /allocations/code.
CODE = "code"

Kind = Literal["integer", "number", "text", "long text", "flag"] | type[IntEnum]


@dataclass(frozen=True, slots=True)
class Column:
    """One dataset: `group`/`name`, one entry per row."""

    group: str
    name: str
    kind: Kind
    description: str
    units: str = ""
    #: Whether files of earlier versions lack it; every row then has the default value.
    added: bool = False


_SINCE_1970 = "s since 1970-01-01 UTC"

COLUMNS: tuple[Column, ...] = (
    Column("trials", "number", "integer", "number of the trial, equal to the row"),
    Column("trials", "state", TrialState, "state of the trial"),
    Column("trials", "cause", FailureCause, "why it failed; none for trials that did not"),
    Column(
        "trials",
        "diverged",
        "flag",
        "whether it is complete or pruned, with a missing, NaN or infinite objective",
    ),
    Column(
        "trials",
        "message",
        "long text",
        "of a failed trial: end of its traceback, or the signal; of an infeasible one: why it was not run; "
        "of others: a remark",
    ),
    Column("trials", "attempt", "integer", "number of attempts at the trial"),
    Column("trials", "worker", "integer", "row in /workers of the worker that ran it last; -1 if none"),
    Column("trials", "host", "text", "node that ran it last"),
    Column("trials", "device", "text", "device that ran it last"),
    Column(
        "trials",
        "report_blocks",
        "integer",
        "number of report blocks of the last attempt in /curves, without gaps",
    ),
    Column("trials", "started_at", "number", "start of the last attempt", _SINCE_1970),
    Column("trials", "ended_at", "number", "started_at plus wall_time", _SINCE_1970),
    Column("trials", "wall_time", "number", "duration by a monotonic clock", "s"),
    Column(
        "trials",
        "device_energy",
        "number",
        "energy of its GPUs during the last attempt, over all ranks; NaN if unknown",
        "J",
        added=True,
    ),
    Column(
        "trials",
        "device_power",
        "number",
        "mean power of its GPUs: device_energy by wall_time",
        "W",
        added=True,
    ),
    Column("trials", "device_memory", "number", "largest share of its GPU's memory that it held", added=True),
    Column(
        "trials", "device_busy", "number", "part of its last seconds in which its GPU computed", added=True
    ),
    Column("trials", "device_trials", "number", "mean number of trials that shared its GPU", added=True),
    Column(
        "trials",
        "end_order",
        "integer",
        "counts the trials in the order in which their ends were recorded, from 0; -1 before",
        added=True,
    ),
    Column(
        "trials",
        "proposed_after",
        "integer",
        "number of ends that a learning search knew when it proposed the trial; -1 for any other trial",
        added=True,
    ),
    Column(
        "trials",
        "configuration",
        "integer",
        "number of the configuration, from 0 in order of first appearance; -1 if lost to damage",
        added=True,
    ),
    Column(
        "trials",
        "repeat",
        "integer",
        "which repeat of its configuration the trial is, from 0; -1 if lost to damage",
        added=True,
    ),
    Column(
        "trials",
        "pruned_at",
        "integer",
        "step of the last report of a pruned trial's objective; -1 for any other trial",
        added=True,
    ),
    Column("attempts", "trial", "integer", "number of the trial"),
    Column("attempts", "attempt", "integer", "counts from 1 in each trial"),
    Column("attempts", "worker", "integer", "row of /workers"),
    Column("attempts", "slot", "integer", "index of the worker's slot"),
    Column("attempts", "assigned_at", "number", "when the master assigned it to the worker", _SINCE_1970),
    Column("attempts", "ended_at", "number", "when it ended", _SINCE_1970),
    Column("attempts", "end", AttemptEnd, "how it ended; only an attempt that ended gave its trial a state"),
    Column(
        "ranks",
        "trial",
        "integer",
        "number of a trial of several ranks; its rank 0 is in /attempts",
        added=True,
    ),
    Column("ranks", "attempt", "integer", "number of the attempt", added=True),
    Column("ranks", "rank", "integer", "rank within the trial, from 1", added=True),
    Column("ranks", "worker", "integer", "row in /workers of the worker that ran this rank", added=True),
    Column("ranks", "slot", "integer", "index of the worker's slot", added=True),
    Column(
        "imported",
        "source",
        "text",
        "file or Optuna storage of a trial known from elsewhere, which a learning search was told first",
        added=True,
    ),
    Column("imported", "configuration", "long text", "its searched parameters, as JSON", added=True),
    Column("imported", "objective", "number", "its objective", added=True),
    Column("imported", "wall_time", "number", "its duration; NaN if unknown", "s", added=True),
    Column(
        "suggested",
        "trial",
        "integer",
        "number of an ended trial of an objective of Optuna, in the order of ends; the last row counts",
        added=True,
    ),
    Column("suggested", "params", "long text", "the parameters that it asked for, as JSON", added=True),
    Column(
        "suggested",
        "distributions",
        "long text",
        "what each of them was drawn from, in Optuna's JSON, as JSON",
        added=True,
    ),
    Column("suggested", "user_attrs", "long text", "what it set with set_user_attr, as JSON", added=True),
    Column(
        "requests",
        "request",
        "text",
        "name of a user's request; names sort by the time at which it was made",
        added=True,
    ),
    Column("requests", "what", "text", "retry, skip, first, add or stop", added=True),
    Column("requests", "by", "text", "who made it, and on which host", added=True),
    Column("requests", "asked_at", "number", "when it was made", _SINCE_1970, added=True),
    Column("requests", "applied_at", "number", "when it was applied", _SINCE_1970, added=True),
    Column("requests", "trials", "long text", "numbers of the trials that it changed, as JSON", added=True),
    Column(
        "requests",
        "attempts",
        "long text",
        "last attempt of each of these trials at that time, as JSON",
        added=True,
    ),
    Column(
        "requests",
        "failures",
        "long text",
        "of a retry: how each of these attempts had failed, as JSON",
        added=True,
    ),
    Column("requests", "refused", "long text", "what was refused, and why; empty for nothing", added=True),
    Column("sharing", "at", "number", "when this number of trials per GPU began", _SINCE_1970, added=True),
    Column("sharing", "device_kind", "text", "the GPUs, as in /workers", added=True),
    Column("sharing", "trials", "integer", "how many trials shared each of them from then on", added=True),
    Column("sharing", "gain", "number", "trials per hour of a GPU, relative to one at a time", added=True),
    Column("workers", "allocation", "integer", "row of /allocations"),
    Column("workers", "rank", "integer", "MPI rank"),
    Column("workers", "host", "text", "node"),
    Column("workers", "device", "text", "devices or cores of the worker"),
    Column("workers", "device_kind", "text", "share of device and memory per trial", added=True),
    Column("workers", "cores", "integer", "CPU cores"),
    Column("workers", "slots", "integer", "number of trials at a time"),
    Column(
        "workers",
        "gpus",
        "number",
        "GPUs per trial, also a share of one; 0 on a CPU",
        added=True,
    ),
    Column("workers", "joined_at", "number", "when it was ready", _SINCE_1970),
    Column("workers", "left_at", "number", "when it left; NaN if it did not", _SINCE_1970),
    Column("workers", "busy_time", "number", "sum of its trials' wall times", "s"),
    Column("workers", "trials_done", "integer", "trials that ended there"),
    Column(
        "workers",
        "matmul_rate",
        "number",
        "rate of a short matrix product before its first trial; NaN if not measured",
        "TFLOP/s",
        added=True,
    ),
    Column(
        "workers",
        "memory_free",
        "integer",
        "memory of its GPU that was free then; -1 if unknown",
        "B",
        added=True,
    ),
    Column(
        "workers",
        "ecc_errors",
        "integer",
        "uncorrected ECC errors of its GPU since its driver was loaded; -1 if unknown",
        added=True,
    ),
    Column(
        "workers",
        "sm_clock",
        "integer",
        "clock of its GPU right after the product; -1 if unknown",
        "MHz",
        added=True,
    ),
    Column(
        "workers",
        "device_check",
        "text",
        "what the check found wrong with its device, compared with its peers; empty for nothing",
        added=True,
    ),
    Column("workers", "quarantine", "text", "why it got no more trials; empty if it was not quarantined"),
    Column("allocations", "run", "text", "name of this run of the program"),
    Column("allocations", "host", "text", "node of the master"),
    Column(
        "allocations", "batch_system", "text", "pjm, slurm, pbs, gridengine, the name of a plugin, or local"
    ),
    Column("allocations", "job_id", "text", "job id of the batch system; empty without one"),
    Column("allocations", "ranks", "integer", "MPI ranks"),
    Column("allocations", "started_at", "number", "start of the run", _SINCE_1970),
    Column(
        "allocations",
        "ended_at",
        "number",
        "end of the run; NaN while it runs and after a crash",
        _SINCE_1970,
    ),
    Column(
        "allocations",
        "launch",
        "text",
        "the command that started this run and restarted it after a loss",
    ),
    Column("allocations", "end", "text", "why it ended; empty while it runs and after a crash"),
    Column(
        "allocations",
        "closing_time",
        "number",
        "from the end of its last trial, or of the grace period, until everything was on disk; "
        "NaN after a crash",
        "s",
        added=True,
    ),
    Column(
        "allocations", "deadline", "number", "end of its walltime; NaN if unknown", _SINCE_1970, added=True
    ),
    Column(
        "allocations",
        "queue_wait",
        "number",
        "how long its job waited in the queue before it started; NaN if unknown and outside of jobs",
        "s",
        added=True,
    ),
    Column(
        "allocations",
        "predicted_time",
        "number",
        "expected time from its start to the end of its last trial; NaN if nothing was known",
        "s",
        added=True,
    ),
    Column(
        "allocations",
        "predicted_bound",
        "number",
        "the time that it was expected to stay below with 95%",
        "s",
        added=True,
    ),
    Column(
        "allocations",
        "predicted_after",
        "integer",
        "number of its trials that had ended when that was stated; -1 if it was not",
        added=True,
    ),
    Column(
        "allocations",
        "code",
        "long text",
        "the user's source files that its trials ran, each with its SHA-256, as JSON; "
        "empty for built-in workloads",
        added=True,
    ),
)

#: The groups that are tables.
TABLES = tuple(dict.fromkeys(column.group for column in COLUMNS))

#: Datasets of each /curves/<metric>.
CURVE_COLUMNS: tuple[Column, ...] = (
    Column("curves", "step", "integer", "step of each report"),
    Column("curves", "value", "number", "the metric at that step"),
    Column("curves", "time", "number", "time of the report since its trial's start", "s"),
    Column("curves", "offset", "integer", "entry n: where the reports of trial n begin"),
    Column("curves", "length", "integer", "entry n: number of reports of trial n"),
)


def version_of(states: Container[int]) -> int:
    """The lowest format version that has all these states of trials."""
    return FORMAT_VERSION if TrialState.SKIPPED in states else 1


def columns_of(group: str) -> tuple[Column, ...]:
    """The fixed columns of a group."""
    return tuple(column for column in COLUMNS if column.group == group)


def markdown() -> str:
    """The table in Markdown, for the documentation."""
    lines = ["| dataset | type | units | meaning |", "|---|---|---|---|"]
    for column in COLUMNS:
        lines.append(_row(f"/{column.group}/{column.name}", column))
    for column in CURVE_COLUMNS:
        lines.append(_row(f"/curves/&lt;metric&gt;/{column.name}", column))
    return "\n".join(lines)


def _row(path: str, column: Column) -> str:
    if isinstance(column.kind, str):
        kind = {
            "integer": "int64",
            "number": "float64",
            "text": "string",
            "long text": "string",
            "flag": "bool",
        }[column.kind]
    else:
        kind = "enum: " + ", ".join(member.name.lower() for member in column.kind)
    return f"| `{path}` | {kind} | {column.units} | {column.description} |"


if __name__ == "__main__":
    print(markdown())
