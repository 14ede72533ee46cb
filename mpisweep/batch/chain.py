"""The jobs of a sweep: their record beside the results file, and the rule of chains.

The record, ``NAME.h5.jobs``, is append-only, one JSON object per line: each submission, each start of a job
with the number of ended trials, and each request to stop.  Lines that cannot be read are skipped.

A chain is several jobs in a row, each of which starts when the one before has ended, however.  Each job first
runs `mpisweep chain`, and has nothing to do if

1. the sweep was stopped with `mpisweep stop` since the chain was submitted, or
2. every trial has ended, or
3. the last run cannot be resumed: no trial completed, or the first ones all failed alike, or a rule of [stop]
   ended the search, or
4. two jobs in a row have begun and no trial has ended in them.

It then cancels the jobs after it; if that fails, each of them checks for itself and ends within seconds.  A
chain has a fixed number of jobs, or it lasts until the sweep is complete: then the running job submits the
next one when it begins, and the chain has up to :data:`LINKS_AT_MOST` jobs.
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

#: Most jobs in a chain that lasts until the sweep is complete.
LINKS_AT_MOST = 100
#: Jobs in a row without an ended trial that end a chain: a single one may have had a bad node.
_FRUITLESS = 2


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job was submitted.

    Attributes:
        chain: identifies the chain; empty for a single job.
        link: position in the chain, from 1.
        links: length of the chain; 0 for until the sweep is complete.
        options: of the submit command, as the site needs them.
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
    """The start of a job of a chain, and the number of trials that had ended by then."""

    job_id: str
    ended: int
    at: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """A stop was requested."""

    at: float


_KINDS: dict[str, type[Submitted] | type[Began] | type[Stopped]] = {
    "submitted": Submitted, "began": Began, "stopped": Stopped,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """The content of the record, in its order."""

    submitted: tuple[Submitted, ...] = ()
    began: Mapping[str, Began] = field(default_factory=dict)
    stopped_at: float = 0.0

    def find(self, job_id: str) -> Submitted | None:
        """The submission of a job; None if it was submitted by hand."""
        return next((job for job in reversed(self.submitted) if job.job_id == job_id), None)

    def chain(self, name: str) -> list[Submitted]:
        """The jobs of a chain, in order."""
        return sorted((job for job in self.submitted if name and job.chain == name), key=lambda job: job.link)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the sweep is.

    Attributes:
        ended: number of ended trials.
        trials: number of known trials; 0 before the first run.
        over: why running again is pointless although trials are left; empty if it is not.
    """

    ended: int = 0
    trials: int = 0
    over: str = ""


def why_over(record: Record, job_id: str, standing: Standing) -> str:
    """Say why a job of a chain has nothing to do; empty if it should run.

    A job in no chain runs, and so does the first job of a chain unless the sweep was stopped.
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
    if standing.over:
        return standing.over
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
    """The path of the record of a sweep's jobs."""
    return results.with_name(results.name + ".jobs")


def note(results: Path, entries: Sequence[Submitted | Began | Stopped]) -> None:
    """Append entries to the record, durably."""
    names = {kind: name for name, kind in _KINDS.items()}
    lines = "".join(json.dumps({"what": names[type(entry)]} | asdict(entry)) + "\n" for entry in entries)
    # One write: appending is atomic on local file systems, and rarely concurrent on NFS.
    descriptor = os.open(jobs_file(results), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(descriptor, lines.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_record(results: Path) -> Record:
    """Read the record; empty if there is none or it cannot be read."""
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
