"""Slurm.

Sources: the manual pages of sbatch (OUTPUT ENVIRONMENT VARIABLES), squeue and scontrol.  Versions before 23 set no
SLURM_JOB_END_TIME.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product

from mpisweep.batch.base import AllocatedNode, Allocation, BatchSystem, JobTimes, moment, positive
from mpisweep.batch.dialect import SLURM

__all__ = ["Slurm", "copies_without_mpi", "expand_counts", "expand_hosts"]

#: A list of hosts that is longer is a misunderstanding.
_HOSTS_AT_MOST = 100_000
_LISTED = re.compile(r"(?:[^,\[\]]|\[[^\[\]]*\])+")
_PART = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?\Z", re.ASCII)
_REPEATED = re.compile(r"(\d{1,7})(?:\(x(\d{1,6})\))?\Z", re.ASCII)
_FIELD = re.compile(r"(?:^|\s)(JobId|StartTime|EndTime)=(\S+)")


class Slurm(BatchSystem):
    """See the module."""

    dialect = SLURM
    job_variables = ("SLURM_JOB_ID", "SLURM_JOBID")

    def allocation(self, environment: Mapping[str, str], read: Callable[[str], str]) -> Allocation:
        """See :class:`BatchSystem`."""
        # SLURM_NODELIST is that of a job step, inside of one.
        hosts = expand_hosts(environment.get("SLURM_JOB_NODELIST") or environment.get("SLURM_NODELIST", ""))
        # Without an order for tasks this variable counts whatever Slurm made of the nodes' CPUs.
        ordered = "SLURM_NTASKS" in environment or "SLURM_NTASKS_PER_NODE" in environment
        counts = expand_counts(environment.get("SLURM_TASKS_PER_NODE", "")) if ordered else ()
        ranks: Sequence[int | None] = counts if len(counts) == len(hosts) else [None] * len(hosts)
        times = JobTimes(*(
            float(stated) if (stated := positive(environment.get(name))) else None
            for name in ("SLURM_JOB_START_TIME", "SLURM_JOB_END_TIME")
        ))  # fmt: skip
        return Allocation(
            self.name,
            self.job_id(environment),
            tuple(AllocatedNode(host, count) for host, count in zip(hosts, ranks, strict=True)),
            gpus_per_node=_gpus(environment),
            # salloc can leave its shell where it is; what Slurm itself starts knows its node.
            is_elsewhere=bool(hosts) and "SLURMD_NODENAME" not in environment,
            started_at=times.started_at,
            ends_at=times.ends_at,
            ends_by="" if times.ends_at is None else "SLURM_JOB_END_TIME",
        )

    def questions(self, job_id: str) -> Sequence[tuple[str, ...]]:
        """See :class:`BatchSystem`."""
        return (
            (self.dialect.ask, "--noheader", "--jobs", job_id, "--format", "%A|%S|%e"),
            ("scontrol", "show", "job", job_id),
        )

    def answer(self, text: str, job_id: str, now: float) -> JobTimes:
        """See :class:`BatchSystem`."""
        for line in text.splitlines():
            fields = line.strip().split("|")
            # The id of an array's last task is also that of the whole array: its other tasks are listed too.
            if len(fields) == 3 and fields[0] == job_id:
                return JobTimes(_time(fields[1]), _time(fields[2]))
        facts: dict[str, str] = {}
        for name, value in _FIELD.findall(text):
            if name == "JobId" and facts.get("JobId") == job_id:
                break
            facts[name] = value
        if facts.get("JobId") != job_id:
            return JobTimes()
        return JobTimes(_time(facts.get("StartTime", "")), _time(facts.get("EndTime", "")))


def copies_without_mpi(environment: Mapping[str, str]) -> int:
    """How many copies of this process srun has started without telling them of MPI; 1 where it did not start it."""
    return positive(environment.get("SLURM_STEP_NUM_TASKS")) or 1


def expand_hosts(listed: str) -> tuple[str, ...]:
    """``n[1-3,07],x`` as ``n1 n2 n3 n07 x``; nothing where it is no list of hosts."""
    hosts: list[str] = []
    for entry in _LISTED.findall(listed):
        choices: list[Sequence[str]] = []
        at = 0
        for part in _PART.finditer(entry):
            numbers = _numbers(part[1])
            if not numbers:
                return ()
            choices += [[entry[at : part.start()]], numbers]
            at = part.end()
        choices.append([entry[at:]])
        count = 1
        for choice in choices:
            count *= len(choice)
        if len(hosts) + count > _HOSTS_AT_MOST:
            return ()
        hosts += map("".join, product(*choices))
    return tuple(hosts)


def expand_counts(listed: str) -> tuple[int, ...]:
    """``2(x3),1`` as ``2 2 2 1``; nothing where it is no list of counts."""
    counts: list[int] = []
    for entry in listed.split(","):
        found = _REPEATED.match(entry.strip())
        if found is None or len(counts) + int(found[2] or 1) > _HOSTS_AT_MOST or int(found[1]) == 0:
            return ()
        counts += [int(found[1])] * int(found[2] or 1)
    return tuple(counts)


def _numbers(ranges: str) -> list[str]:
    numbers: list[str] = []
    for part in ranges.split(","):
        found = _RANGE.match(part.strip())
        if found is None:
            return []
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or len(numbers) + last - first >= _HOSTS_AT_MOST:
            return []
        numbers += [str(number).zfill(len(found[1])) for number in range(first, last + 1)]
    return numbers


def _gpus(environment: Mapping[str, str]) -> int | None:
    for name in ("SLURM_GPUS_ON_NODE", "SLURM_GPUS_PER_NODE"):
        # ``4``, or ``a100:4``.
        count = positive(environment.get(name, "").rpartition(":")[2])
        if count is not None:
            return count
    listed = environment.get("SLURM_JOB_GPUS", "")
    return len(listed.split(",")) if listed else None


def _time(text: str) -> float | None:
    return moment(text, "%Y-%m-%dT%H:%M:%S")
