"""What a batch system is: one class that says all that is particular to it.

A system is one module with one such class and one object of it, which :mod:`mpisweep.batch.registry` names.
Whoever needs to know how jobs are submitted, asked after, written, checked or started asks that object, and
never which system it is.  The attributes come in the order of a job's life: its script, its submission, its
place in the queue, and what a process inside of it finds.

Nothing in a system's module starts a process, asks a clock or opens a file: all of it is tables and pure
functions of texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from mpisweep.batch.head import Asked, Find, Request
from mpisweep.batch.jobfacts import Allocation, JobState, JobTimes, QueuedJob

__all__ = ["BatchSystem"]


class BatchSystem:
    """One batch system.  Subclasses fill the tables, and override what tables cannot say.

    What a subclass leaves empty its system does not have.  `tests/test_allocation.py` has the contract.
    """

    #: As in :class:`mpisweep.batch.jobfacts.Allocation`, and in site files.
    name: ClassVar[str]
    #: As people call it.
    title: ClassVar[str]

    # ------------------------------------------------------------------------------------- its scripts

    #: Begins a directive; empty for a machine whose scripts are run and not submitted.
    marker: ClassVar[str] = ""
    #: Finds a directive, where it takes more than the marker and a space.
    marker_pattern: ClassVar[str] = ""
    #: Whether directives also count behind the first command.
    reads_whole_script: ClassVar[bool] = False
    #: What follows ``#`` in lines that were meant as directives, spelt right or wrong.
    nearly_markers: ClassVar[tuple[str, ...]] = ()
    #: Options without a value.
    flags: ClassVar[frozenset[str]] = frozenset()
    #: Options with a value, which follows after a space or, for those with two dashes, after ``=``.
    valued: ClassVar[frozenset[str]] = frozenset()
    #: Whether the value of an option of one letter may follow without a space.
    glues_values: ClassVar[bool] = True
    #: Options whose value is two words.
    two_valued: ClassVar[frozenset[str]] = frozenset()
    #: Option -> the one that means the same and that :meth:`asked` looks for.
    aliases: ClassVar[Mapping[str, str]] = {}
    #: The option that takes ``name=value[,name=value...]``.
    resource_option: ClassVar[str] = ""
    #: Other options that take such a list.
    list_options: ClassVar[tuple[str, ...]] = ()
    #: Names in the value of :attr:`resource_option`; empty where a site adds its own.
    resources: ClassVar[frozenset[str]] = frozenset()
    #: Whether a script without an interpreter in its first line is refused.
    needs_interpreter: ClassVar[bool] = False
    #: Whether jobs get nodes with all their cores and GPUs without asking for these.
    gives_whole_nodes: ClassVar[bool] = False
    #: An example of the directives by which nodes are asked for, where only a site can say it.
    size_example: ClassVar[str] = ""
    #: The directive that names a project.
    project_option: ClassVar[str] = ""
    #: The options that say how long a job may take, and the first of them as it is written before the time.
    time_options: ClassVar[tuple[str, ...]] = ()
    time_example: ClassVar[str] = ""
    #: A directive that says where the log goes.
    log_example: ClassVar[str] = ""
    #: Any directive, without its marker.
    example: ClassVar[str] = ""
    #: What is not allowed in the name of a job, and how long it may be.
    not_in_names: ClassVar[str] = r"[^A-Za-z0-9._-]"
    name_length: ClassVar[int] = 200
    #: Signals that come to a job's shell as a warning, and what the script's reader is told of them.
    signals: ClassVar[str] = "USR1"
    about_signals: ClassVar[str] = ""
    #: The variable of a job that holds the folder it was submitted from.
    submit_folder: ClassVar[str] = ""
    #: Folders that exist on each node by itself, as variables of a job.
    local_folders: ClassVar[tuple[str, ...]] = ()
    #: The variable of a job that holds how many ranks it has asked for.
    ranks_variable: ClassVar[str] = ""
    #: Whether a job learns from its environment when it ends.
    tells_its_end: ClassVar[bool] = False

    def job_name(self, sweep: str) -> str:
        """A sweep's name as the name of a job: it begins with a letter."""
        safe = re.sub(self.not_in_names, "_", sweep)
        return (safe if safe[:1].isalpha() else f"sweep-{safe}")[: self.name_length]

    def directives(self, request: Request) -> tuple[str, ...]:
        """The head of a script that asks for this, without markers."""
        return ()

    def asked(self, find: Find) -> Asked:
        """What a script's directives ask for."""
        return Asked()

    def time_limit_s(self, text: str) -> float | None:
        """A time limit as the system reads it; a bare number is seconds.  None for what is no time limit."""
        parts = text.split(":")
        if not all(re.fullmatch(r"\d{1,9}", part) for part in parts) or len(parts) > 3:
            return None
        return float(sum(int(part) * 60**power for power, part in enumerate(reversed(parts))))

    def cores_example(self, cores: int, gpus: int) -> str:
        """How so many cores per GPU are asked for on a node with so many GPUs."""
        return f"{cores * gpus} cores per node"

    def first_folder(self, find: Find) -> str:
        """Where a script begins: empty for where it was submitted from, ``~`` for the home folder."""
        return ""

    def container_exports(self, cores: int | None) -> tuple[str, ...]:
        """Lines of bash before ranks with so many cores each are started in containers."""
        return ()

    # ------------------------------------------------------------------------------------- its commands

    #: Takes a script.
    submit: ClassVar[str]
    #: What it prints for a job that was taken, with the id as the first group; None where nothing is
    #: submitted.
    taken: ClassVar[re.Pattern[str] | None] = None
    #: Lists jobs.
    ask: ClassVar[str] = ""
    #: Ends the jobs whose ids come behind it.
    cancel: ClassVar[str] = ""
    #: The system's word for a state -> what it means.
    states: ClassVar[Mapping[str, JobState]] = {}

    def follow_options(self, chained: bool, after: str) -> list[str]:
        """Options for submitting a job that others follow, or that follows `after` however that ends."""
        return []

    def submitted_id(self, output: str) -> str:
        """The job's id in what a submission has printed; empty when no job was taken."""
        found = self.taken.search(output) if self.taken else None
        return found[1] if found else ""

    def listings(self, job_ids: Sequence[str], uid: int, user: str) -> Sequence[tuple[str, ...]]:
        """Commands that list these jobs of a user, the best first; `user` is empty for one without a name."""
        return ()

    def has_answered(self, returncode: int, errors: str) -> bool:
        """Whether a listing is to be believed."""
        return returncode == 0

    def listed(self, text: str) -> list[QueuedJob]:
        """The jobs in a listing, read by its header or its field names: sites change the columns."""
        return []

    def queued(self, job_id: str, word: str, why: str = "") -> QueuedJob:
        """A job in the system's own words; one whose state is not known is listed, and so is not gone."""
        return QueuedJob(job_id, self.states.get(word, JobState.WAITING), f"{word}, {why}" if why else word)

    # ------------------------------------------------------------------------------------- inside of a job

    #: Variables that may hold the job's id, the most exact first.
    job_variables: ClassVar[tuple[str, ...]] = ()
    #: How a user says the walltime here, for the sentence that asks for it.
    how_to_say: ClassVar[str] = "--walltime"
    #: Variables that have the system's commands print what :meth:`answer` reads.
    plain_output: ClassVar[Mapping[str, str]] = {}
    #: Commands that run something on a node of the allocation in place of ssh, the best first.
    remote_shells: ClassVar[tuple[str, ...]] = ()
    #: A command of the system's own that starts ranks where there is no mpirun.
    starter: ClassVar[str] = ""
    #: Whether mpirun starts its daemons through the system: it sees the nodes, passes all variables on, and
    #: the system's signals reach the daemons.
    starts_daemons: ClassVar[bool] = False

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

    def probe(self, host: str) -> list[str]:
        """A command that returns 0 where a node can start a process; empty where a remote shell or ssh does
        it.
        """
        return []

    def wrongly_started(self, environment: Mapping[str, str]) -> str:
        """One sentence where the system has started copies of a launcher in place of ranks; else empty."""
        return ""
