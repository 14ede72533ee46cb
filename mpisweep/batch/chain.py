"""The jobs of a sweep: a small record beside the results file, and the rule by which a chain of jobs ends.

The record, ``NAME.h5.jobs``, is one JSON object a line, only ever appended to: what was submitted, what began
with how many ended trials, and when somebody asked for a stop.  A line that cannot be read is passed over.

A chain is several jobs in a row, each after the other however that ended.  Each of them asks first whether it
is to run (`mpisweep chain`, in its script), and by this rule it is not when

1. somebody has stopped the sweep since the chain was submitted, or
2. every trial has ended, or
3. the last run has ended for good: no trial completed, or the first ones all failed alike, or
4. the last two jobs have begun and not one more trial has ended.

The jobs after it are then cancelled; where that is not possible each of them asks for itself and ends within
seconds.  A chain has the number of jobs that was asked for.  One that goes on until the sweep is complete has
one job waiting at a time, which the running one submits when it begins, and at most :data:`LINKS_AT_MOST`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

__all__ = [
    "LINKS_AT_MOST",
    "Began",
    "Record",
    "Standing",
    "Stopped",
    "Submitted",
    "jobs_file",
    "note",
    "read_record",
    "why_over",
]

#: So many jobs at most, one after another, without anybody having a look.
LINKS_AT_MOST = 100
#: So many jobs in a row may end without any trial having ended in them: one may have had a bad node.
_FRUITLESS = 2


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job was given to the batch system.

    Attributes:
        chain: names the chain, alike in all of its jobs; empty for a job alone.
        link: which of the chain, from 1.
        links: how many there will be; 0 for until the sweep is complete.
        options: that the command that submits it must have at its site.
    """

    job_id: str
    system: str
    script: str
    folder: str
    at: float
    chain: str = ""
    link: int = 1
    links: int = 1
    options: str = ""


@dataclass(frozen=True, slots=True)
class Began:
    """A job of a chain has begun, when so many trials had ended."""

    job_id: str
    ended: int
    at: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """Somebody has asked for a stop."""

    at: float


_KINDS: dict[str, type[Submitted] | type[Began] | type[Stopped]] = {
    "submitted": Submitted, "began": Began, "stopped": Stopped,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """What the record holds, in its order."""

    submitted: tuple[Submitted, ...] = ()
    began: Mapping[str, Began] = field(default_factory=dict)
    stopped_at: float = 0.0

    def find(self, job_id: str) -> Submitted | None:
        """The submission of a job; None for one that was submitted by hand."""
        return next((job for job in reversed(self.submitted) if job.job_id == job_id), None)

    def chain(self, name: str) -> list[Submitted]:
        """The jobs of a chain, in their order."""
        return sorted((job for job in self.submitted if name and job.chain == name), key=lambda job: job.link)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the sweep is.

    Attributes:
        ended: trials that have ended.
        trials: all that are known; 0 before the first run.
        hopeless: why running again is of no use; empty when it may be.
    """

    ended: int = 0
    trials: int = 0
    hopeless: str = ""


def why_over(record: Record, job_id: str, standing: Standing) -> str:
    """Why the chain of a job ends with it, before it has begun; empty when it is to run.

    A job that is in no chain, or the first of one, runs.
    """
    job = record.find(job_id)
    if job is None or not job.chain:
        return ""
    if record.stopped_at > min(link.at for link in record.chain(job.chain)):
        return "the sweep was stopped with `mpisweep stop`"
    if job.link == 1:
        return ""
    if standing.trials and standing.ended == standing.trials:
        return f"all {standing.trials:,} trials have ended"
    if standing.hopeless:
        return f"the last run has ended for good: {standing.hopeless}"
    counts = [
        record.began[link.job_id].ended
        for link in record.chain(job.chain)
        if link.job_id in record.began and link.link < job.link
    ]
    fruitless = 0
    for before, after in pairwise([*counts, standing.ended]):
        fruitless = 0 if after > before else fruitless + 1
    if fruitless >= _FRUITLESS:
        return f"no trial has ended in the last {fruitless} jobs; a trial may need more time than a job has"
    return ""


# ------------------------------------------------------------------------------------- on disk


def jobs_file(results: Path) -> Path:
    """Where the jobs of a sweep are noted."""
    return results.with_name(results.name + ".jobs")


def note(results: Path, entries: Sequence[Submitted | Began | Stopped]) -> None:
    """Append to the record, durably."""
    names = {kind: name for name, kind in _KINDS.items()}
    lines = "".join(json.dumps({"what": names[type(entry)]} | asdict(entry)) + "\n" for entry in entries)
    # One write: appending on a local file system is atomic, and on NFS two seldom meet here.
    descriptor = os.open(jobs_file(results), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(descriptor, lines.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_record(results: Path) -> Record:
    """What was noted; an empty record where nothing was, or where it cannot be read."""
    try:
        text = jobs_file(results).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Record()
    entries = [entry for line in text.splitlines() if (entry := _entry(line)) is not None]
    return Record(
        tuple(entry for entry in entries if isinstance(entry, Submitted)),
        {entry.job_id: entry for entry in entries if isinstance(entry, Began)},
        max((entry.at for entry in entries if isinstance(entry, Stopped)), default=0.0),
    )


def _entry(line: str) -> Submitted | Began | Stopped | None:
    try:
        raw: Any = json.loads(line)
        kind = _KINDS[raw.pop("what")]
        known = {f.name: f.type for f in fields(kind)}
        wanted = {"str": str, "int": int, "float": (int, float)}
        if not all(isinstance(value, wanted[str(known[name])]) for name, value in raw.items()):  # type: ignore[arg-type]
            return None
        return kind(**raw)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
