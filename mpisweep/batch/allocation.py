"""The allocation of this job: batch system, nodes, end, and wait in the queue.

The environment is read first, which costs nothing.  What it does not say the batch system's commands are
asked, with a time limit; whatever they do or print, the sweep runs.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

from mpisweep.batch.answers import answer_of
from mpisweep.batch.jobfacts import NO_SYSTEM, Allocation, JobTimes
from mpisweep.batch.registry import batch_system, recognise, unusable_plugins
from mpisweep.dataclass import replace

__all__ = ["this_allocation", "warn_of_unknown_end", "with_end", "wrongly_started"]

#: Time limit of a batch system's command, in seconds, and of one that only tells the wait in the queue.
_ASK_S = 20.0
_ASK_WAIT_S = 5.0

log = logging.getLogger(__name__)


def this_allocation(environment: Mapping[str, str] = os.environ, known: str = "") -> Allocation:
    """Read the allocation from the environment of this process.

    Args:
        environment: of this process.
        known: name of the system that a launcher has recognised; empty to find out.
    """
    system = batch_system(known) if known else recognise(environment)
    # Ranks that were reached by a remote shell may lack the variables of the job.
    if system is None or not system.job_id(environment):
        return Allocation(NO_SYSTEM, "")
    found = system.allocation(environment, _text_of)
    times = JobTimes(found.started_at, found.ends_at).sane(time.time())
    return replace(
        found, started_at=times.started_at, ends_at=times.ends_at,
        ends_by=found.ends_by if times.ends_at is not None else "",
    )  # fmt: skip


def with_end(
    allocation: Allocation, environment: Mapping[str, str] = os.environ, *, also_wait: bool = False
) -> Allocation:
    """Ask the batch system's commands when the allocation ends; call it before MPI.

    It starts processes.  Outside of jobs it warns of plugins that could not be asked.

    Args:
        allocation: from :func:`this_allocation`.
        environment: of this process.
        also_wait: whether to ask also for the wait in the queue if only that is unknown.
    """
    system = batch_system(allocation.system)
    if system is None:
        for why in unusable_plugins():
            log.warning("batch systems: %s", why)
        return allocation
    # The user's own formats and language do not matter here.
    plain = {**environment, **system.plain_output, "LC_ALL": "C"}
    for question in system.questions(allocation.job_id):
        is_end_known = allocation.ends_at is not None
        if is_end_known and not (also_wait and allocation.queue_wait_s is None):
            break
        answer = answer_of(question, _ASK_WAIT_S if is_end_known else _ASK_S, plain)
        text = "" if answer is None else answer.stdout
        times = system.answer(text, allocation.job_id, time.time()).sane(time.time())
        allocation = replace(
            allocation,
            started_at=times.started_at if allocation.started_at is None else allocation.started_at,
            queued_at=times.queued_at if allocation.queued_at is None else allocation.queued_at,
            ends_at=allocation.ends_at if is_end_known else times.ends_at,
            ends_by=allocation.ends_by if is_end_known or times.ends_at is None else question[0],
        )
    return allocation


def warn_of_unknown_end(allocation: Allocation) -> None:
    """Warn, within a job, that its end is unknown, and say what helps."""
    system = batch_system(allocation.system)
    if system is not None:
        log.warning(
            "the end of %s job %s is unknown; set %s, so that the sweep stops before it and no running trial "
            "is lost",
            system.title,
            allocation.job_id,
            system.how_to_say,
        )


def wrongly_started(environment: Mapping[str, str] = os.environ) -> str:
    """One sentence if the batch system has started copies of this launcher as ranks; else empty."""
    system = recognise(environment)
    return system.wrongly_started(environment) if system else ""


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace") if path else ""
    except (OSError, ValueError):
        return ""
