"""PBS Professional, OpenPBS and Torque.

Sources: the reference guides of PBS Professional (qstat, qsub) and Torque.  The two print jobs alike and call the
start differently: ``stime`` and ``start_time``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from mpisweep.batch.base import (
    AllocatedNode,
    Allocation,
    BatchSystem,
    JobTimes,
    duration_s,
    first_word,
    moment,
    positive,
)
from mpisweep.batch.dialect import PBS

__all__ = ["Pbs"]

_JOB = re.compile(r"Job Id:\s*(\S+)")
_NUMBER = re.compile(r"\d+(?:\[\d*\])?")


class Pbs(BatchSystem):
    """See the module."""

    dialect = PBS
    job_variables = ("PBS_JOBID",)
    remote_shells = ("pbs_tmrsh",)

    def allocation(self, environment: Mapping[str, str], read: Callable[[str], str]) -> Allocation:
        """See :class:`BatchSystem`."""
        file = environment.get("PBS_NODEFILE", "")
        # One line a rank that was asked for (mpiprocs, ppn), all of a node one after another or not.
        counts: dict[str, int] = {}
        for host in filter(None, map(first_word, read(file).splitlines() if file else ())):
            counts[host] = counts.get(host, 0) + 1
        return Allocation(
            self.name,
            self.job_id(environment),
            tuple(AllocatedNode(host, count) for host, count in counts.items()),
            gpus_per_node=_gpus(read(environment.get("PBS_GPUFILE", "")), len(counts)),
            node_file=file if counts else "",
        )

    def questions(self, job_id: str) -> Sequence[tuple[str, ...]]:
        """See :class:`BatchSystem`."""
        return ((self.dialect.ask, "-f", job_id),)

    def answer(self, text: str, job_id: str, now: float) -> JobTimes:
        """See :class:`BatchSystem`."""
        facts = _record(text, job_id)
        started_at = moment(facts.get("stime") or facts.get("start_time") or "", "%a %b %d %H:%M:%S %Y")
        limit_s = duration_s(facts.get("Resource_List.walltime", ""))
        if started_at is not None and limit_s is not None:
            return JobTimes(started_at, started_at + limit_s)
        # Torque says what is left; what PBS says is used may be minutes old, and is of no use.
        left_s = positive(facts.get("Walltime.Remaining"))
        return JobTimes(started_at, None if left_s is None else now + left_s)


def _record(text: str, job_id: str) -> dict[str, str]:
    """The attributes of one job in what ``qstat -f`` prints."""
    number = _NUMBER.match(job_id)
    facts: dict[str, str] = {}
    ours = False
    last = ""
    for line in text.splitlines():
        if found := _JOB.match(line.strip()):
            if ours:
                break
            other = _NUMBER.match(found[1])
            ours = number is not None and other is not None and number[0] == other[0]
        elif ours and line.startswith("\t") and last:
            # The rest of a long value.
            facts[last] += line.strip()
        elif ours and " = " in line:
            last, _, value = (part.strip() for part in line.partition(" = "))
            facts[last] = value.strip()
    return facts


def _gpus(listed: str, nodes: int) -> int | None:
    """Torque's file of GPUs has a line for each, e.g. ``n1-gpu0``."""
    gpus = len({line.strip() for line in listed.splitlines() if line.strip()})
    return gpus // nodes if nodes and gpus >= nodes else None
