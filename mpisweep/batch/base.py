"""What a batch system is to a sweep: a table of environment names, and pure functions of its own command's output.

Nothing in here, and in the systems' own modules, starts a process or asks a clock; :mod:`mpisweep.batch.allocation`
does that.  What a system does not say stays unknown: an end that is guessed wrong costs more than none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from mpisweep.batch.dialect import Dialect

__all__ = ["AllocatedNode", "Allocation", "BatchSystem", "JobTimes", "duration_s", "first_word", "moment", "positive"]

#: A job that began longer ago, or ends later than this from now, is a misunderstanding, in seconds.
_LONGEST_S = 400 * 86400.0
#: So much may the clock of a node be before or after that of the batch system, in seconds.
_SKEW_S = 300.0
_DURATION = re.compile(r"(?:(?:(\d{1,5})-)?(\d{1,6}):)?(\d{1,4}):(\d{2})(?:\.\d+)?\Z", re.ASCII)
#: A time of day that was not cut off.
_TIME = re.compile(r"(?<!\d)\d{1,2}:\d{2}:\d{2}(?!\d)", re.ASCII)
_NUMBER = re.compile(r"\d{1,12}\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class AllocatedNode:
    """A node of the allocation, by the name under which ranks are started there."""

    host: str
    #: Ranks that the job asked for there; None where it did not say.
    ranks: int | None = None


@dataclass(frozen=True, slots=True)
class Allocation:
    """What the batch system has granted; ``local``, and nothing known, outside of one."""

    system: str
    job_id: str
    #: In the order in which ranks are numbered; empty where the system names none.
    nodes: tuple[AllocatedNode, ...] = ()
    #: GPUs of each node; None where the system does not say.
    gpus_per_node: int | None = None
    #: Whether this process runs on none of the nodes: on a login node that holds the allocation.
    is_elsewhere: bool = False
    #: File that lists the nodes for mpirun; empty where there is none, or none is needed.
    node_file: str = ""
    #: Seconds since 1970; None where nobody says so.
    started_at: float | None = None
    ends_at: float | None = None
    #: What has said when it ends, e.g. ``squeue``.
    ends_by: str = ""

    @property
    def ranks(self) -> int | None:
        """Ranks that the job asked for; None where it did not say."""
        asked = [node.ranks for node in self.nodes]
        return sum(ranks for ranks in asked if ranks is not None) if asked and None not in asked else None


@dataclass(frozen=True, slots=True)
class JobTimes:
    """When a job began and ends, in seconds since 1970; None where that was not said."""

    started_at: float | None = None
    ends_at: float | None = None

    def sane(self, now: float) -> JobTimes:
        """The same without what cannot be, for a job that is running now."""
        started_at, ends_at = self.started_at, self.ends_at
        if started_at is not None and not now - _LONGEST_S < started_at < now + _SKEW_S:
            # An end that was reckoned from it is no better.
            return JobTimes()
        if ends_at is not None and not now - _SKEW_S < ends_at < now + _LONGEST_S:
            ends_at = None
        if started_at is not None and ends_at is not None and ends_at <= started_at:
            ends_at = None
        return JobTimes(started_at, ends_at)


class BatchSystem:
    """One batch system as a job in it sees it.  Subclasses fill the table, and override what the table cannot say."""

    #: The same system as those see it who write scripts and submit them; its names and commands are there.
    dialect: ClassVar[Dialect]
    #: Variables that may hold the job's id, the most exact first.
    job_variables: ClassVar[tuple[str, ...]] = ()
    #: How a user says the walltime here, for the sentence that asks for it.
    how_to_say: ClassVar[str] = "--walltime"
    #: Commands that run something on a node of the allocation in place of ssh, the best first.
    remote_shells: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """As in :class:`Allocation`."""
        return self.dialect.name

    @property
    def title(self) -> str:
        """How people call it."""
        return self.dialect.title

    def job_id(self, environment: Mapping[str, str]) -> str:
        """Id of the job that this process belongs to; empty outside of one."""
        return next((environment[name] for name in self.job_variables if environment.get(name)), "")

    def allocation(self, environment: Mapping[str, str], read: Callable[[str], str]) -> Allocation:
        """What the environment says.

        Args:
            environment: of this process, in which :meth:`job_id` is not empty.
            read: returns the text of a file; empty where it cannot be read.
        """
        return Allocation(self.name, self.job_id(environment))

    def questions(self, job_id: str) -> Sequence[tuple[str, ...]]:
        """Commands that may say when the job ends, the best first."""
        return ()

    def answer(self, text: str, job_id: str, now: float) -> JobTimes:
        """What the output of such a command says, whichever it was; never raises.

        Args:
            text: the output.
            job_id: as the command was given it.
            now: seconds since 1970, for dates without a year.
        """
        return JobTimes()


def duration_s(text: str) -> float | None:
    """Seconds of ``[[days-]hours:]minutes:seconds``, or of plain seconds; None for anything else."""
    text = text.strip()
    if _NUMBER.match(text):
        return float(text)
    found = _DURATION.match(text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((24.0 * days + hours) * 60 + minutes) * 60 + seconds


def moment(text: str, *formats: str) -> float | None:
    """Seconds since 1970 of a local time in one of the formats; None for anything else."""
    for layout in formats if _TIME.search(text) else ():
        try:
            return datetime.strptime(text.strip(), layout).timestamp()
        except (ValueError, OverflowError, OSError):
            continue
    return None


def positive(text: str | None) -> int | None:
    """A whole number above 0; None for anything else."""
    return int(text) if text and _NUMBER.match(text) and int(text) > 0 else None


def first_word(line: str) -> str:
    """The line up to its first white space."""
    return line.split(maxsplit=1)[0] if line.strip() else ""
