"""Fujitsu's PJM (Technical Computing Suite): Flow, Wisteria, Genkai, Fugaku.

The elapse limit is in no variable.  ``pjstat`` prints a table whose columns differ from site to site, so its header
says what is what; ``pjstat -s`` prints a record.  A date in the table has no year.  Where neither says the limit
(some sites print the time that has passed in its place) it is not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

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
from mpisweep.batch.dialect import PJM

__all__ = ["Pjm"]

_DATE = re.compile(r"(?:(\d{4})/)?(\d{1,2})/(\d{1,2})\Z", re.ASCII)
#: A mark may follow, e.g. ``<`` for a job that was started out of its turn.
_TIME = re.compile(r"(\d{1,2}:\d{2}:\d{2})\W?\Z", re.ASCII)
_SECONDS = re.compile(r"\((\d{1,9})\)\s*\Z", re.ASCII)
_LIMITS = ("ELAPSE_LIM", "ELAPSE_LIMIT")
#: Years to go back for a date without one; the 29th of February may need eight.
_YEARS_BACK = 9
_DAY_S = 86400.0


class Pjm(BatchSystem):
    """See the module."""

    dialect = PJM
    job_variables = ("PJM_SUBJOBID", "PJM_JOBID")
    how_to_say = "--walltime as the elapse limit of the job"
    remote_shells = ("pjrsh",)

    def allocation(self, environment: Mapping[str, str], read: Callable[[str], str]) -> Allocation:
        """See :class:`BatchSystem`."""
        file = environment.get("PJM_O_NODEINF", "")
        hosts = tuple(dict.fromkeys(filter(None, map(first_word, read(file).splitlines() if file else ()))))
        granted = _granted(hosts, positive(environment.get("PJM_MPI_PROC")), positive(environment.get("PJM_PROC_BY_NODE")))
        return Allocation(
            self.name,
            self.job_id(environment),
            tuple(AllocatedNode(host, ranks) for host, ranks in zip(hosts, granted, strict=True)),
            node_file=file if hosts else "",
        )

    def questions(self, job_id: str) -> Sequence[tuple[str, ...]]:
        """See :class:`BatchSystem`."""
        return ((self.dialect.ask, job_id), (self.dialect.ask, "-s", job_id))

    def answer(self, text: str, job_id: str, now: float) -> JobTimes:
        """See :class:`BatchSystem`."""
        lines = text.splitlines()
        for number, line in enumerate(lines):
            header = line.split()
            if "JOB_ID" in header and "START_DATE" in header:
                return _from_table(header, lines[number + 1 :], job_id, now)
        return _from_record(lines, job_id)


def _granted(hosts: Sequence[str], ranks: int | None, at_most: int | None) -> list[int | None]:
    """So many ranks over the hosts, the first ones getting the rest; unknown where not every host gets one."""
    if ranks is None or not hosts or ranks < len(hosts):
        return [None] * len(hosts)
    each, rest = divmod(ranks, len(hosts))
    if at_most is not None and each + bool(rest) > at_most:
        return [at_most] * len(hosts)
    return [each + (index < rest) for index in range(len(hosts))]


def _from_table(header: Sequence[str], lines: Sequence[str], job_id: str, now: float) -> JobTimes:
    place = header.index("START_DATE")
    limit = next((header.index(name) - place for name in _LIMITS if name in header), None)
    job = header.index("JOB_ID")
    for line in lines:
        words = line.split()
        # A date is two words.
        if words[job + (job > place) :][:1] != [job_id]:
            continue
        # A name can be any number of words: what counts is where a column lies from the date.
        for at in range(len(words) - 2, -1, -1):
            date, time = _DATE.match(words[at]), _TIME.match(words[at + 1])
            if date is None or time is None:
                continue
            started_at = _with_year(date, time[1], now)
            column = -1 if limit is None else at + limit + (limit > 0)
            limit_s = duration_s(words[column]) if 0 <= column < len(words) and ":" in words[column] else None
            if limit is None or limit_s is not None:
                ends_at = None if started_at is None or limit_s is None else started_at + limit_s
                return JobTimes(started_at, ends_at)
    return JobTimes()


def _with_year(date: re.Match[str], time: str, now: float) -> float | None:
    year, month, day = date.groups()
    this_year = datetime.fromtimestamp(now).year
    for candidate in [int(year)] if year else range(this_year + 1, this_year - _YEARS_BACK, -1):
        found = moment(f"{candidate:04d}/{month}/{day} {time}", "%Y/%m/%d %H:%M:%S")
        if found is not None and (year or found < now + _DAY_S):
            return found
    return None


def _from_record(lines: Sequence[str], job_id: str) -> JobTimes:
    facts: dict[str, str] = {}
    for line in lines:
        name, _, value = (part.strip() for part in line.partition(":"))
        if name == "JOB ID" and facts.get("JOB ID") == job_id:
            break
        facts[name] = value
    if facts.get("JOB ID") != job_id:
        return JobTimes()
    started_at = moment(facts.get("JOB START DATE", "").rstrip("<>@() "), "%Y/%m/%d %H:%M:%S")
    stated = facts.get("ELAPSE TIME (LIMIT)", "")
    seconds = _SECONDS.search(stated)
    limit_s = float(seconds[1]) if seconds else duration_s(first_word(stated))
    return JobTimes(started_at, None if started_at is None or limit_s is None else started_at + limit_s)
