"""The base class of batch systems: everything particular to a system is in one class.

A system is one module with one such class and one object of it, which an entry point registers
(:mod:`mpisweep.plugins`).  Code that submits, lists, writes, checks or starts jobs asks that object,
and never which system it is.  The attributes come in the order of a job's life: its script, its submission,
its place in the queue, and the environment of a process in it.

A system's module starts no process, reads no clock and opens no file: it is tables and pure functions of
text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from mpisweep.batch.head import Asked, Find, Request
from mpisweep.batch.jobfacts import Allocation, JobState, JobTimes, QueuedJob

__all__ = ["BatchSystem"]


class BatchSystem:
    """One batch system; subclasses fill the tables and override methods.

    An attribute left empty means that the system has no such thing.  `tests/test_allocation.py` has the
    contract.
    """

    #: As in :class:`mpisweep.batch.jobfacts.Allocation`, and in site files.
    name: ClassVar[str]
    #: Its name in messages.
    title: ClassVar[str]

    # ------------------------------------------------------------------------------------- its scripts

    #: Prefix of directives; empty for a machine whose scripts are run and not submitted.
    marker: ClassVar[str] = ""
    #: Pattern of directives; empty for the marker and a space.
    marker_pattern: ClassVar[str] = ""
    #: Whether directives after the first command count.
    reads_whole_script: ClassVar[bool] = False
    #: Words after ``#`` in lines that look like directives, spelt right or wrong.
    nearly_markers: ClassVar[tuple[str, ...]] = ()
    #: Options without a value.
    flags: ClassVar[frozenset[str]] = frozenset()
    #: Options with a value, after a space or, for those with two dashes, after ``=``.
    valued: ClassVar[frozenset[str]] = frozenset()
    #: Whether the value of a one-letter option may follow without a space.
    glues_values: ClassVar[bool] = True
    #: Options whose value is two words.
    two_valued: ClassVar[frozenset[str]] = frozenset()
    #: Option -> its synonym that :meth:`asked` looks for.
    aliases: ClassVar[Mapping[str, str]] = {}
    #: The option that takes ``name=value[,name=value...]``.
    resource_option: ClassVar[str] = ""
    #: Other options that take such a list.
    list_options: ClassVar[tuple[str, ...]] = ()
    #: Names in the value of :attr:`resource_option`; empty if sites add their own.
    resources: ClassVar[frozenset[str]] = frozenset()
    #: Whether the system refuses a script without an interpreter in its first line.
    needs_interpreter: ClassVar[bool] = False
    #: Whether jobs get all cores and GPUs of their nodes without asking for them.
    gives_whole_nodes: ClassVar[bool] = False
    #: Example of a directive that asks for nodes, if only a site can say it.
    size_example: ClassVar[str] = ""
    #: Template of the directive for a project.
    project_option: ClassVar[str] = ""
    #: Templates of the directives that mail an address when a job ends; empty if it cannot.
    mail_options: ClassVar[tuple[str, ...]] = ()
    #: Options for the time limit, and the first of them as written before the time.
    time_options: ClassVar[tuple[str, ...]] = ()
    time_example: ClassVar[str] = ""
    #: Example of a directive for the log.
    log_example: ClassVar[str] = ""
    #: Any directive, without its marker.
    example: ClassVar[str] = ""
    #: Pattern of characters not allowed in a job's name, and its greatest length.
    not_in_names: ClassVar[str] = r"[^A-Za-z0-9._-]"
    name_length: ClassVar[int] = 200
    #: Signals that warn a job's shell, and a comment about them for readers of the script.
    signals: ClassVar[str] = "USR1"
    about_signals: ClassVar[str] = ""
    #: Variable with the folder that the job was submitted from.
    submit_folder: ClassVar[str] = ""
    #: Variables with node-local folders.
    local_folders: ClassVar[tuple[str, ...]] = ()
    #: Variable with the number of ranks that the job asked for.
    ranks_variable: ClassVar[str] = ""
    #: Whether the environment of a job says when it ends.
    tells_its_end: ClassVar[bool] = False

    def job_name(self, sweep: str) -> str:
        """Make a job's name, which begins with a letter, from a sweep's."""
        safe = re.sub(self.not_in_names, "_", sweep)
        return (safe if safe[:1].isalpha() else f"sweep-{safe}")[: self.name_length]

    def directives(self, request: Request) -> tuple[str, ...]:
        """Write the directives for a request, without markers."""
        return ()

    def asked(self, find: Find) -> Asked:
        """Read the request from a script's directives."""
        return Asked()

    def time_limit_s(self, text: str) -> float | None:
        """Read a time limit as the system does; a bare number is seconds.  None if it is not valid."""
        parts = text.split(":")
        if not all(re.fullmatch(r"\d{1,9}", part) for part in parts) or len(parts) > 3:
            return None
        return float(sum(int(part) * 60**power for power, part in enumerate(reversed(parts))))

    def cores_example(self, cores: int, gpus: int) -> str:
        """Say how to ask for a number of cores per GPU on a node with a number of GPUs."""
        return f"{cores * gpus} cores per node"

    def first_folder(self, find: Find) -> str:
        """The folder a job starts in: empty for where it was submitted, ``~`` for the home folder."""
        return ""

    def container_exports(self, cores: int | None) -> tuple[str, ...]:
        """Lines of bash before starting ranks of a number of cores each in containers."""
        return ()

    # ------------------------------------------------------------------------------------- its commands

    #: Submits a script.
    submit: ClassVar[str]
    #: Pattern of its answer when it accepts a job, with the id as the first group; None if nothing is
    #: submitted.
    taken: ClassVar[re.Pattern[str] | None] = None
    #: Lists jobs.
    ask: ClassVar[str] = ""
    #: Cancels the jobs whose ids follow it.
    cancel: ClassVar[str] = ""
    #: The system's word for a state -> the state.
    states: ClassVar[Mapping[str, JobState]] = {}

    def follow_options(self, chained: bool, after: str) -> list[str]:
        """Options to submit a job of a chain, which starts when the job `after` has ended, however."""
        return []

    def submitted_id(self, output: str) -> str:
        """Read the job's id from the output of the submission; empty if the job was refused."""
        found = self.taken.search(output) if self.taken else None
        return found[1] if found else ""

    def listings(self, job_ids: Sequence[str], uid: int, user: str) -> Sequence[tuple[str, ...]]:
        """Commands that list these jobs of a user, the best first; `user` may be empty."""
        return ()

    def has_answered(self, returncode: int, errors: str) -> bool:
        """Whether a listing can be trusted."""
        return returncode == 0

    def listed(self, text: str) -> list[QueuedJob]:
        """Read the jobs from a listing by header or field names: sites change the columns."""
        return []

    def queued(self, job_id: str, word: str, why: str = "") -> QueuedJob:
        """A job as the system prints it; one with an unknown state is listed, so it is not gone."""
        return QueuedJob(job_id, self.states.get(word, JobState.WAITING), f"{word}, {why}" if why else word)

    # ------------------------------------------------------------------------------------- within a job

    #: Variables with the job's id, the most exact first.
    job_variables: ClassVar[tuple[str, ...]] = ()
    #: The option for the walltime, in the sentence that asks for it.
    how_to_say: ClassVar[str] = "--walltime"
    #: Variables that make the system's commands print what :meth:`answer` reads.
    plain_output: ClassVar[Mapping[str, str]] = {}
    #: Commands to use instead of ssh to run a command on a node, the best first.
    remote_shells: ClassVar[tuple[str, ...]] = ()
    #: The system's command that starts ranks if there is no mpirun.
    starter: ClassVar[str] = ""
    #: Whether mpirun starts its daemons through the system: it sees the nodes, passes on all variables, and
    #: the daemons receive the system's signals.
    starts_daemons: ClassVar[bool] = False

    def job_id(self, environment: Mapping[str, str]) -> str:
        """The id of the job that this process belongs to; empty outside of jobs."""
        return next((environment[name] for name in self.job_variables if environment.get(name)), "")

    def allocation(self, environment: Mapping[str, str], read: Callable[[str], str]) -> Allocation:
        """Read the allocation from the environment.

        Args:
            environment: of a process for which :meth:`job_id` is not empty.
            read: returns the text of a file; empty if it cannot be read.
        """
        return Allocation(self.name, self.job_id(environment))

    def questions(self, job_id: str) -> Sequence[tuple[str, ...]]:
        """Commands whose output may say when the job ends and how long it waited, the best first."""
        return ()

    def answer(self, text: str, job_id: str, now: float) -> JobTimes:
        """Read the times from the output of any of these commands; never raises.

        Args:
            text: the output.
            job_id: as in the command.
            now: seconds since 1970, for dates without a year.
        """
        return JobTimes()

    def probe(self, host: str) -> list[str]:
        """A command that exits with 0 if a node can start a process; empty for a remote shell."""
        return []

    def wrongly_started(self, environment: Mapping[str, str]) -> str:
        """One sentence if the system has started copies of a launcher instead of ranks; else empty."""
        return ""
