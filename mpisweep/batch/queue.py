"""What the batch system knows of jobs: waiting, held, running or gone.

Its answer is read by the header or the field names in it, never by positions: sites change the columns.  A system
that does not answer is no error: then nothing is known.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mpisweep.batch.dialect import PBS, PJM, SLURM, Dialect

__all__ = ["JobState", "QueuedJob", "ask", "parse_answer"]

#: How long a batch system may take over a question, in seconds.
_ASK_S = 20.0


class JobState(StrEnum):
    """Where a job is."""

    WAITING = "waiting"
    HELD = "held"
    RUNNING = "running"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job as its batch system sees it; `words` are the system's own for its state."""

    job_id: str
    state: JobState
    words: str


_STATES: dict[str, dict[str, JobState]] = {
    PJM.name: {
        **dict.fromkeys(("ACC", "QUE"), JobState.WAITING),
        "HLD": JobState.HELD,
        **dict.fromkeys(("RNA", "RNP", "RUN", "RNE", "RNO", "SPP", "SPD", "RSM"), JobState.RUNNING),
        **dict.fromkeys(("EXT", "CCL", "ERR", "RJT"), JobState.GONE),
        # What sites print that show words instead.
        "QUEUED": JobState.WAITING,
        "RUNNING": JobState.RUNNING,
    },
    SLURM.name: {
        "PENDING": JobState.WAITING,
        "REQUEUED": JobState.WAITING,
        "REQUEUE_HOLD": JobState.HELD,
        "SPECIAL_EXIT": JobState.HELD,
        **dict.fromkeys(
            ("RUNNING", "CONFIGURING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT", "SUSPENDED", "STOPPED"),
            JobState.RUNNING,
        ),
    },
    PBS.name: {
        **dict.fromkeys(("Q", "W", "T", "M"), JobState.WAITING),
        "H": JobState.HELD,
        **dict.fromkeys(("R", "E", "B", "S", "U"), JobState.RUNNING),
        **dict.fromkeys(("C", "F", "X"), JobState.GONE),
    },
}  # fmt: skip


def ask(system: Dialect, job_ids: Sequence[str]) -> dict[str, QueuedJob] | None:
    """What the batch system says of these jobs; what it does not list is gone.

    Returns:
        None when it does not answer.
    """
    if not job_ids:
        return {}
    # -E lists the sub jobs of step jobs, too; where a site's pjstat does not take it, the plain one lists step jobs.
    commands = {
        PJM.name: [["pjstat", "-E"], ["pjstat"]],
        SLURM.name: [["squeue", "--noheader", "--user", str(os.getuid()), "--format", "%i %T %r"]],
        PBS.name: [["qstat", "-f", *job_ids]],
    }[system.name]
    for command in commands:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=_ASK_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        # qstat fails when one of several jobs is gone, and still lists the others.
        if done.returncode == 0 or (system is PBS and re.search(r"Unknown Job|has finished", done.stderr)):
            listed = parse_answer(system, done.stdout)
            return {job: _find(listed, job) for job in job_ids}
    return None


def _find(listed: Mapping[str, QueuedJob], job_id: str) -> QueuedJob:
    # A plain pjstat lists the step job and not its sub jobs; PBS may leave out the server's name.
    for name in (job_id, job_id.partition("_")[0], job_id.partition(".")[0]):
        if name in listed:
            return QueuedJob(job_id, listed[name].state, listed[name].words)
    return QueuedJob(job_id, JobState.GONE, "")


def parse_answer(system: Dialect, text: str) -> dict[str, QueuedJob]:
    """The jobs in what pjstat, ``squeue --format '%i %T %r'`` or ``qstat -f`` print."""
    read = {PJM.name: _pjstat, SLURM.name: _squeue, PBS.name: _qstat}[system.name]
    return {job.job_id: job for job in read(text)}


def _job(system: Dialect, job_id: str, word: str, why: str = "") -> QueuedJob:
    # A state that is not known belongs to a job that is listed, and so is not gone.
    state = _STATES[system.name].get(word, JobState.WAITING)
    return QueuedJob(job_id, state, f"{word}, {why}" if why else word)


def _pjstat(text: str) -> list[QueuedJob]:
    found: list[QueuedJob] = []
    header: list[str] = []
    for line in text.splitlines():
        words = line.split()
        upper = [word.upper() for word in words]
        if "JOB_ID" in upper and ("ST" in upper or "STATUS" in upper):
            header = upper
            continue
        if not header or not words or not words[0][0].isdigit():
            continue
        at = header.index("ST" if "ST" in header else "STATUS")
        # Only what stands before the state may be counted: a date after it may be two words.
        if header.index("JOB_ID") < len(words) and at < len(words):
            found.append(_job(PJM, words[header.index("JOB_ID")], words[at].upper()))
    return found


def _squeue(text: str) -> list[QueuedJob]:
    found: list[QueuedJob] = []
    for line in text.splitlines():
        job_id, _, rest = line.strip().partition(" ")
        word, _, why = rest.partition(" ")
        if word:
            found.append(_job(SLURM, job_id, word, "" if why.strip("() ") in ("", "None") else why.strip("() ")))
    return found


def _qstat(text: str) -> list[QueuedJob]:
    found: list[QueuedJob] = []
    for part in re.split(r"^Job Id:\s*", text, flags=re.MULTILINE)[1:]:
        job_id = part.split("\n", 1)[0].strip()
        state = re.search(r"^\s*job_state = (\w)", part, re.MULTILINE)
        comment = re.search(r"^\s*comment = (.+)", part, re.MULTILINE)
        if state:
            found.append(_job(PBS, job_id, state[1], comment[1].strip() if comment else ""))
    return found
