"""The jobs of a sweep: submit one, find those that wait and run, cancel those that wait."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from mpisweep.batch.chain import Record, Stopped, Submitted, jobs_file, note, read_record
from mpisweep.batch.jobfacts import JobState, QueuedJob
from mpisweep.batch.queue import ask
from mpisweep.batch.registry import SCRIPTED
from mpisweep.batch.submit import SubmitError, cancel, submit
from mpisweep.progress import counted

__all__ = ["cancel_waiting", "describe_jobs", "jobs_as_json", "submit_link", "was_submitted"]


def submit_link(results: Path, link: Submitted, after: str) -> str:
    """Submit one job, which begins when the job `after` has ended unless that is empty, and note it; returns
    its id.

    Raises:
        SubmitError: when it was not taken, or was taken and cannot be noted.
    """
    at = time.time()
    job_id = submit(
        SCRIPTED[link.system],
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
            f"{SCRIPTED[link.system].title} job {job_id} was submitted, but {jobs_file(results)} cannot be "
            f"written: {error.strerror}; `mpisweep stop` and `status` do not know of it"
        ) from error
    return job_id


def _asked(record: Record) -> dict[str, list[QueuedJob] | None]:
    """What each batch system says of the jobs that were given to it, those left out that are gone."""
    found: dict[str, list[QueuedJob] | None] = {}
    for system in dict.fromkeys(job.system for job in record.submitted if job.system in SCRIPTED):
        answer = ask(SCRIPTED[system], [job.job_id for job in record.submitted if job.system == system])
        found[system] = (
            None if answer is None else [job for job in answer.values() if job.state is not JobState.GONE]
        )
    return found


def describe_jobs(results: Path) -> list[str]:
    """Lines for people: the jobs of a sweep that wait or run; empty when none was submitted here."""
    record = read_record(results)
    lines: list[str] = []
    for system, jobs in _asked(record).items():
        title = SCRIPTED[system].title
        if jobs is None:
            last = [job.job_id for job in record.submitted if job.system == system][-1]
            lines.append(f"  {SCRIPTED[system].ask} does not answer; the last job submitted was {last}")
        elif not jobs:
            lines.append(f"  no {title} job of it waits or runs")
        else:
            lines += [f"  {title} job {job.job_id}: {job.state} ({job.words})" for job in jobs]
    return lines


def jobs_as_json(results: Path) -> list[dict[str, str]] | None:
    """The same for programs; None when a batch system did not answer."""
    asked = _asked(read_record(results))
    if None in asked.values():
        return None
    return [
        {"system": system, "job": job.job_id, "state": str(job.state), "words": job.words}
        for system, jobs in asked.items()
        for job in jobs or ()
    ]


def was_submitted(results: Path) -> bool:
    """Whether jobs of this sweep were submitted from here."""
    return jobs_file(results).exists()


def cancel_waiting(results: Path, record: Record) -> list[str]:
    """Cancel what waits, note the stop, and name what runs."""
    if not record.submitted:
        return []
    try:
        note(results, [Stopped(time.time())])
    except OSError as error:
        print(
            f"{jobs_file(results)}: cannot be written: {error.strerror}; jobs that begin later do not know "
            "of the stop"
        )
    running: list[str] = []
    for system, jobs in _asked(record).items():
        if jobs is None:
            print(
                f"{results}: {SCRIPTED[system].ask} does not answer; jobs that begin later will find that "
                "the sweep was stopped"
            )
            continue
        waiting = [job.job_id for job in jobs if job.state in (JobState.WAITING, JobState.HELD)]
        if waiting:
            words = cancel(SCRIPTED[system], waiting)
            print(
                f"{results}: {counted(len(waiting), 'waiting job')} "
                f"{'not cancelled: ' + words if words else 'cancelled'}"
            )
        running += [
            f"{SCRIPTED[system].title} job {job.job_id}" for job in jobs if job.state is JobState.RUNNING
        ]
    return running
