"""The jobs of a sweep: submit one, find waiting and running ones, cancel those that wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mpisweep.batch.chain import Record, Stopped, Submitted, jobs_file, note, read_record
from mpisweep.batch.jobfacts import JobState, QueuedJob
from mpisweep.batch.queue import ask
from mpisweep.batch.registry import batch_system
from mpisweep.batch.submit import SubmitError, cancel, submit
from mpisweep.progress import counted

__all__ = ["cancel_jobs", "cancel_waiting", "describe_jobs", "jobs_as_json", "submit_link", "was_submitted"]


def submit_link(results: Path, link: Submitted, after: str) -> str:
    """Submit a job and add it to the record.

    Args:
        results: the results file.
        link: the job, without its id.
        after: id of the job that it follows; empty for none.

    Returns:
        Its id.

    Raises:
        SubmitError: if the batch system refused it, or took it and the record cannot be written.
    """
    system = batch_system(link.system)
    if system is None:
        raise SubmitError(_unknown(link.system))
    at = time.time()
    job_id = submit(
        system,
        Path(link.script),
        folder=Path(link.folder),
        chained=link.links != 1,
        after=after,
        options=link.options.split(),
    )
    try:
        note(results, [replace(link, job_id=job_id, at=at)])
    except OSError as error:
        raise SubmitError(
            f"{system.title} job {job_id} was submitted, but {jobs_file(results)} cannot be written: "
            f"{error.strerror}; `mpisweep stop` and `status` do not know of it"
        ) from error
    return job_id


def cancel_jobs(system: str, job_ids: Sequence[str]) -> str:
    """Cancel jobs of the batch system of this name.

    Returns:
        Empty if that was done, else why not.
    """
    found = batch_system(system)
    return _unknown(system) if found is None else cancel(found, job_ids)


def _unknown(system: str) -> str:
    return f"no usable package has the batch system {system!r}"


def _asked(record: Record) -> dict[str, list[QueuedJob] | None]:
    """Ask each batch system about the jobs submitted to it; None for one that gives no answer."""
    found: dict[str, list[QueuedJob] | None] = {}
    for name in dict.fromkeys(job.system for job in record.submitted):
        system = batch_system(name)
        answer = (
            ask(system, [job.job_id for job in record.submitted if job.system == name]) if system else None
        )
        found[name] = (
            None if answer is None else [job for job in answer.values() if job.state is not JobState.GONE]
        )
    return found


def _why_unknown(system: str) -> str:
    """Why nothing is known of the jobs of a batch system."""
    found = batch_system(system)
    return f"{found.ask} does not answer" if found else _unknown(system)


def _title(system: str) -> str:
    found = batch_system(system)
    return found.title if found else system


def describe_jobs(results: Path) -> list[str]:
    """Describe the waiting and running jobs of a sweep; empty if none was submitted here."""
    record = read_record(results)
    lines: list[str] = []
    for system, jobs in _asked(record).items():
        if jobs is None:
            last = [job.job_id for job in record.submitted if job.system == system][-1]
            lines.append(f"  {_why_unknown(system)}; the last job submitted was {last}")
        elif not jobs:
            lines.append(f"  no {_title(system)} job of this sweep is waiting or running")
        else:
            lines += [f"  {_title(system)} job {job.job_id}: {job.state} ({job.words})" for job in jobs]
    return lines


def jobs_as_json(results: Path) -> list[dict[str, str]] | None:
    """The same for programs; None if a batch system gave no answer."""
    asked = _asked(read_record(results))
    if None in asked.values():
        return None
    return [
        {"system": system, "job": job.job_id, "state": str(job.state), "words": job.words}
        for system, jobs in asked.items()
        for job in jobs or ()
    ]


def was_submitted(results: Path) -> bool:
    """Whether jobs of this sweep were submitted here."""
    return jobs_file(results).exists()


def cancel_waiting(results: Path, record: Record, say: Callable[[str], None] = print) -> list[str]:
    """Cancel waiting jobs, add the stop to the record, and return the names of running jobs.

    Args:
        results: the results file.
        record: its jobs.
        say: receives a sentence on what was cancelled, and on what could not be.
    """
    if not record.submitted:
        return []
    try:
        note(results, [Stopped(time.time())])
    except OSError as error:
        say(
            f"{jobs_file(results)}: cannot be written: {error.strerror}; jobs that begin later do not know "
            "of the stop"
        )
    running: list[str] = []
    for system, jobs in _asked(record).items():
        if jobs is None:
            say(f"{results}: {_why_unknown(system)}; jobs that begin later will find the sweep stopped")
            continue
        waiting = [job.job_id for job in jobs if job.state in (JobState.WAITING, JobState.HELD)]
        if waiting:
            words = cancel_jobs(system, waiting)
            say(
                f"{results}: {counted(len(waiting), 'waiting job')} "
                f"{'not cancelled: ' + words if words else 'cancelled'}"
            )
        running += [f"{_title(system)} job {job.job_id}" for job in jobs if job.state is JobState.RUNNING]
    return running
