"""PBS Professional, OpenPBS and Torque.

Sources: the reference guides of PBS Professional (qstat, qsub) and Torque.  Both print jobs alike, except
for the name of the start: ``stime`` and ``start_time``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from mpisweep.batch.base import BatchSystem
from mpisweep.batch.head import Asked, Directive, Find, Request, places
from mpisweep.batch.jobfacts import AllocatedNode, Allocation, JobState, JobTimes, QueuedJob
from mpisweep.batch.texts import clock, duration_s, first_word, moment, positive, whole, words

__all__ = ["PBS", "Pbs"]


_JOB = re.compile(r"Job Id:\s*(\S+)")
_NUMBER = re.compile(r"\d+(?:\[\d*\])?")


class Pbs(BatchSystem):
    """See the module.  The options are those of qsub of OpenPBS and PBS Professional."""

    name = "pbs"
    title = "PBS"

    marker = "#PBS"
    nearly_markers = ("PBS",)
    flags = words("-f -h -I -V -X -x -z --version")
    valued = words("-a -A -c -C -e -G -j -J -k -l -m -M -N -o -p -P -q -r -R -S -u -v -W")
    resource_option = "-l"
    project_option = "-P {project}"
    mail_options = ("-m ae", "-M {address}")
    time_options = ("-l walltime",)
    time_example = "-l walltime="
    log_example = "-j oe"
    example = "-l place=scatter:excl"
    # A full stop is not allowed.
    not_in_names = r"[^A-Za-z0-9_-]"
    name_length = 230
    about_signals = (
        "PBS sends no warning before the time limit; at the limit, and at qdel, it sends SIGTERM and some "
        "seconds later SIGKILL.  The shell asks the sweep to stop cleanly and waits for it; the sweep "
        "watches the clock in any case."
    )
    submit_folder = "PBS_O_WORKDIR"
    local_folders = ("PBS_JOBDIR", "TMPDIR")

    submit = "qsub"
    taken = re.compile(r"^(\d+(?:\.[\w.-]+)?)\s*$", re.MULTILINE)
    ask = "qstat"
    cancel = "qdel"
    states = {
        **dict.fromkeys(("Q", "W", "T", "M"), JobState.WAITING),
        "H": JobState.HELD,
        **dict.fromkeys(("R", "E", "B", "S", "U"), JobState.RUNNING),
        **dict.fromkeys(("C", "F", "X"), JobState.GONE),
    }

    job_variables = ("PBS_JOBID",)
    remote_shells = ("pbs_tmrsh",)

    def directives(self, request: Request) -> tuple[str, ...]:
        """See :class:`BatchSystem`."""
        cores = request.cores_per_node or request.ranks_per_node
        gpus = f":ngpus={request.gpus}" if request.gpus else ""
        return (
            f"-N {request.name}",
            *request.site,
            *([f"-q {request.group}"] if request.group else []),
            *([request.project] if request.project else []),
            request.size
            or f"-l select={request.nodes}:ncpus={cores}{gpus}:mpiprocs={request.ranks_per_node}",
            f"-l walltime={clock(request.elapse_s)}",
            *request.container,
            "-j oe",
            *request.own,
        )

    def asked(self, find: Find) -> Asked:
        """See :class:`BatchSystem`."""
        select, walltime = find("-l select"), find("-l walltime")
        group, project = find("-q"), find("-P", "-A") or find("-W")
        log = find("-o", "-j", "-k")
        nodes: int | None = None
        gpus: int | None = None
        ranks: int | None = None
        cores: int | None = None
        if select:
            for chunk in select.value.split("+"):
                count, *parts = chunk.split(":")
                values = dict(part.partition("=")[::2] for part in parts)
                many = whole(count) or 1
                nodes = (nodes or 0) + many
                if "ngpus" in values:
                    # A chunk that asks for no cores gets one.
                    cores = whole(values.get("ncpus", "1"))
                    gpus = max(gpus or 0, whole(values["ngpus"]) or 0)
                if "mpiprocs" in values:
                    ranks = (ranks or 0) + many * (whole(values["mpiprocs"]) or 1)
        return Asked(
            nodes=nodes,
            gpus=gpus,
            ranks=ranks,
            cores=cores,
            elapse_s=self.time_limit_s(walltime.value) if walltime else None,
            group=group.value if group else "",
            project=_project(project),
            log=log.value if log else "",
            lines=places(
                nodes=select,
                gpus=select,
                ranks=select,
                cores=select,
                elapse=walltime,
                group=group,
                project=project,
                log=log,
            ),
        )

    def cores_example(self, cores: int, gpus: int) -> str:
        """See :class:`BatchSystem`."""
        return f"ncpus={cores * gpus}"

    def first_folder(self, find: Find) -> str:
        """See :class:`BatchSystem`: PBS starts a job in the home folder."""
        return "~"

    def follow_options(self, chained: bool, after: str) -> list[str]:
        """See :class:`BatchSystem`."""
        return ["-W", f"depend=afterany:{after}"] if after else []

    def listings(self, job_ids: Sequence[str], uid: int, user: str) -> Sequence[tuple[str, ...]]:
        """See :class:`BatchSystem`."""
        return (("qstat", "-f", *job_ids),)

    def has_answered(self, returncode: int, errors: str) -> bool:
        """See :class:`BatchSystem`; qstat fails if one of several jobs is gone, and lists the rest."""
        return returncode == 0 or re.search(r"Unknown Job|has finished", errors) is not None

    def listed(self, text: str) -> list[QueuedJob]:
        """See :class:`BatchSystem`."""
        found: list[QueuedJob] = []
        for part in re.split(r"^Job Id:\s*", text, flags=re.MULTILINE)[1:]:
            job_id = part.split("\n", 1)[0].strip()
            state = re.search(r"^\s*job_state = (\w)", part, re.MULTILINE)
            comment = re.search(r"^\s*comment = (.+)", part, re.MULTILINE)
            if state:
                found.append(self.queued(job_id, state[1], comment[1].strip() if comment else ""))
        return found

    def allocation(self, environment: Mapping[str, str], read: Callable[[str], str]) -> Allocation:
        """See :class:`BatchSystem`."""
        file = environment.get("PBS_NODEFILE", "")
        # One line per rank (mpiprocs, ppn); lines of a node may be apart.
        counts: dict[str, int] = {}
        for host in filter(None, map(first_word, read(file).splitlines())):
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
        return ((self.ask, "-f", job_id),)

    def answer(self, text: str, job_id: str, now: float) -> JobTimes:
        """See :class:`BatchSystem`."""
        facts = _record(text, job_id)
        started_at = _moment(facts.get("stime") or facts.get("start_time") or "")
        # The time at which it became eligible: a job that follows another one is not before that has ended.
        queued_at = _moment(facts.get("etime", ""))
        limit_s = duration_s(facts.get("Resource_List.walltime", ""))
        if started_at is not None and limit_s is not None:
            return JobTimes(started_at, started_at + limit_s, queued_at)
        # Torque prints the time left; the time used, as PBS prints it, may be minutes old.
        left_s = positive(facts.get("Walltime.Remaining"))
        return JobTimes(started_at, None if left_s is None else now + left_s, queued_at)


PBS = Pbs()


def _moment(text: str) -> float | None:
    return moment(text, "%a %b %d %H:%M:%S %Y")


def _project(found: Directive | None) -> str:
    """The project, the account or, at some sites, the group of the job."""
    if found is None or found.option != "-W":
        return found.value if found else ""
    group = re.search(r"(?:^|,)group_list=([^,]+)", found.value)
    return group[1] if group else ""


def _record(text: str, job_id: str) -> dict[str, str]:
    """Read the attributes of one job from ``qstat -f``."""
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
            # Continuation of a long value.
            facts[last] += line.strip()
        elif ours and " = " in line:
            last, _, value = (part.strip() for part in line.partition(" = "))
            facts[last] = value.strip()
    return facts


def _gpus(listed: str, nodes: int) -> int | None:
    """GPUs per node by Torque's file, which has a line for each, e.g. ``n1-gpu0``."""
    gpus = len({line.strip() for line in listed.splitlines() if line.strip()})
    return gpus // nodes if nodes and gpus >= nodes else None
