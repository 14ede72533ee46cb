"""Asking the batch system for the states of jobs.

Listings are read by header or field names, never by position: sites change the columns.  A system that does
not answer is no error: the states are unknown then.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Mapping, Sequence

from mpisweep.batch.answers import answer_of
from mpisweep.batch.base import BatchSystem
from mpisweep.batch.jobfacts import JobState, QueuedJob

__all__ = ["ask", "parse_answer"]

#: Time limit of a listing, in seconds.
_ASK_S = 20.0


def ask(system: BatchSystem, job_ids: Sequence[str]) -> dict[str, QueuedJob] | None:
    """Ask for the states of jobs; a job that is not listed is gone.

    Returns:
        None if the batch system does not answer.
    """
    if not job_ids:
        return {}
    for command in system.listings(job_ids, os.getuid(), _user()):
        answer = answer_of(command, _ASK_S)
        if answer is not None and system.has_answered(answer.returncode, answer.stderr):
            listed = parse_answer(system, answer.stdout)
            return {job: _find(listed, job) for job in job_ids}
    return None


def _find(listed: Mapping[str, QueuedJob], job_id: str) -> QueuedJob:
    # A plain pjstat lists the step job and not its sub jobs; PBS may omit the server's name.
    for name in (job_id, job_id.partition("_")[0], job_id.partition(".")[0]):
        if name in listed:
            return QueuedJob(job_id, listed[name].state, listed[name].words)
    return QueuedJob(job_id, JobState.GONE, "")


def parse_answer(system: BatchSystem, text: str) -> dict[str, QueuedJob]:
    """Read a listing."""
    return {job.job_id: job for job in system.listed(text)}


def _user() -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_name
    return ""
