"""Slurm.

Sources: the manual pages of sbatch (OUTPUT ENVIRONMENT VARIABLES), squeue and scontrol.  Versions before 23
set no SLURM_JOB_END_TIME.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product

from mpisweep.batch.base import BatchSystem
from mpisweep.batch.head import Asked, Find, Request, places
from mpisweep.batch.jobfacts import AllocatedNode, Allocation, JobState, JobTimes, QueuedJob
from mpisweep.batch.texts import clock, moment, positive, whole, words

__all__ = ["SLURM", "Slurm", "expand_counts", "expand_hosts"]


#: A longer list of hosts is a misreading.
_HOSTS_AT_MOST = 100_000
_LISTED = re.compile(r"(?:[^,\[\]]|\[[^\[\]]*\])+")
_PART = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?\Z", re.ASCII)
_REPEATED = re.compile(r"(\d{1,7})(?:\(x(\d{1,6})\))?\Z", re.ASCII)
_FIELD = re.compile(r"(?:^|\s)(JobId|EligibleTime|StartTime|EndTime)=(\S+)")


class Slurm(BatchSystem):
    """See the module.  The options are those of ``sbatch --help``, Slurm 22.05."""

    name = "slurm"
    title = "Slurm"

    marker = "#SBATCH"
    nearly_markers = ("SBATCH", "SBACTH", "SBTACH", "SBATH")
    flags = words(
        "--contiguous --hold -H --ignore-pbs --no-requeue --overcommit -O --oversubscribe -s --parsable "
        "--quiet -Q --reboot --requeue --spread-job --test-only --use-min-nodes --verbose -v --wait -W "
        "--exclusive --nice --propagate --get-user-env --no-kill -k -h --help -V --version "
        "--kill-on-invalid-dep"
    )
    valued = words(
        "--account -A --acctg-freq --array -a --batch --bb --bbf --begin -b --chdir -D --cluster-constraint "
        "--clusters -M --comment --constraint -C --container --core-spec -S --cores-per-socket --cpu-freq "
        "--cpus-per-gpu --cpus-per-task -c --deadline --delay-boot --dependency -d --distribution -m "
        "--error -e --exclude -x --exclusive --export --export-file --extra-node-info -B --get-user-env "
        "--gid --gpu-bind --gpu-freq --gpus -G --gpus-per-node --gpus-per-socket --gpus-per-task --gres "
        "--gres-flags --hint --input -i --job-name -J --kill-on-invalid-dep --licenses -L --mail-type "
        "--mail-user --mcs-label --mem --mem-bind --mem-per-cpu --mem-per-gpu --mincpus --network --nice "
        "--no-kill --nodefile -F --nodelist -w --nodes -N --ntasks -n --ntasks-per-core --ntasks-per-gpu "
        "--ntasks-per-node --ntasks-per-socket --open-mode --output -o --partition -p --power --prefer "
        "--priority --profile --propagate --qos -q --reservation --signal --sockets-per-node --switches "
        "--thread-spec --threads-per-core --time -t --time-min --tmp --tres-per-task --uid --wait-all-nodes "
        "--wckey --wrap"
    )
    needs_interpreter = True
    project_option = "--account={project}"
    mail_options = ("--mail-type=END,FAIL", "--mail-user={address}")
    time_options = ("--time", "-t")
    time_example = "--time="
    log_example = "--output=NAME.%j.log"
    example = "--constraint=a100"
    about_signals = (
        "--signal makes Slurm send SIGUSR1 to this shell only.  The shell asks the sweep to stop cleanly "
        "and waits for it; the sweep watches the clock in any case."
    )
    submit_folder = "SLURM_SUBMIT_DIR"
    local_folders = ("SLURM_TMPDIR", "TMPDIR")
    tells_its_end = True

    submit = "sbatch"
    taken = re.compile(r"^Submitted batch job (\d+)", re.MULTILINE)
    ask = "squeue"
    cancel = "scancel"
    states = {
        "PENDING": JobState.WAITING,
        "REQUEUED": JobState.WAITING,
        "REQUEUE_HOLD": JobState.HELD,
        "SPECIAL_EXIT": JobState.HELD,
        **dict.fromkeys(
            (
                "RUNNING",
                "CONFIGURING",
                "COMPLETING",
                "RESIZING",
                "SIGNALING",
                "STAGE_OUT",
                "SUSPENDED",
                "STOPPED",
            ),
            JobState.RUNNING,
        ),
    }

    job_variables = ("SLURM_JOB_ID", "SLURM_JOBID")
    plain_output = {"SLURM_TIME_FORMAT": "standard"}
    starter = "srun"
    starts_daemons = True

    def directives(self, request: Request) -> tuple[str, ...]:
        """See :class:`BatchSystem`."""
        size = [
            f"--nodes={request.nodes}",
            f"--ntasks-per-node={request.ranks_per_node}",
            *([f"--cpus-per-task={request.cores}"] if request.cores else []),
            *([f"--gpus-per-node={request.gpus}"] if request.gpus else []),
        ]
        return (
            f"--job-name={request.name}",
            *request.site,
            *([f"--partition={request.group}"] if request.group else []),
            *([request.project] if request.project else []),
            *([request.size] if request.size else size),
            f"--time={clock(request.elapse_s)}",
            # Without it the loss of a node ends the whole job.
            *(["--no-kill"] if request.nodes > 1 else []),
            *request.container,
            f"--signal=B:USR1@{request.warn_s}",
            f"--output={request.name}.%j.log",
            *request.own,
        )

    def asked(self, find: Find) -> Asked:
        """See :class:`BatchSystem`."""
        node, tasks, each = find("--nodes", "-N"), find("--ntasks", "-n"), find("--ntasks-per-node")
        nodes = whole(node.value.rpartition("-")[2]) if node else None
        ranks = whole(tasks.value) if tasks else None
        if ranks is None and each and whole(each.value):
            ranks = (nodes or 1) * int(each.value)
        gpus = _asked_gpus(find, nodes, ranks)
        by_node, gres = find("--gpus-per-node"), find("--gres")
        by_task, total = find("--gpus-per-task"), find("--gpus", "-G")
        each_core, by_gpu = find("--cpus-per-task", "-c"), find("--cpus-per-gpu")
        cores = None
        if by_gpu and gpus and (count := whole(by_gpu.value)) is not None:
            cores = count * gpus
        elif (
            ranks
            and find("--exclusive") is None
            and (count := whole(each_core.value) if each_core else 1) is not None
        ):
            cores = count * ranks // (nodes or 1)
        time, group = find("--time", "-t"), find("--partition", "-p")
        project, log = find("--account", "-A"), find("--output", "-o")
        return Asked(
            nodes=nodes,
            gpus=gpus,
            ranks=ranks,
            cores=cores,
            elapse_s=self.time_limit_s(time.value) if time else None,
            group=group.value if group else "",
            project=project.value if project else "",
            log=log.value if log else "",
            lines=places(
                nodes=node, gpus=by_node or gres or total or by_task, ranks=tasks or each,
                cores=by_gpu or each_core or tasks or each, elapse=time, group=group,
                project=project, log=log,
            ),
        )  # fmt: skip

    def time_limit_s(self, text: str) -> float | None:
        """See :class:`BatchSystem`: with days, and a bare number is minutes."""
        days, dash, rest = text.rpartition("-")
        if not dash:
            limit_s = super().time_limit_s(text)
            return limit_s if limit_s is None or ":" in text else 60 * limit_s
        parts = rest.split(":")
        if not all(re.fullmatch(r"\d{1,9}", part, re.ASCII) for part in (days, *parts)) or len(parts) > 3:
            return None
        hours, minutes, seconds = [*map(int, parts), 0, 0][:3]
        return float(86400 * int(days) + 3600 * hours + 60 * minutes + seconds)

    def cores_example(self, cores: int, gpus: int) -> str:
        """See :class:`BatchSystem`."""
        return f"--cpus-per-task={cores}"

    def container_exports(self, cores: int | None) -> tuple[str, ...]:
        """See :class:`BatchSystem`."""
        if not cores:
            return ()
        return (
            "# srun ignores the job's --cpus-per-task (Slurm 22.05 and later).",
            f"export SRUN_CPUS_PER_TASK={cores}",
        )

    def follow_options(self, chained: bool, after: str) -> list[str]:
        """See :class:`BatchSystem`."""
        return [f"--dependency=afterany:{after}"] if after else []

    def listings(self, job_ids: Sequence[str], uid: int, user: str) -> Sequence[tuple[str, ...]]:
        """See :class:`BatchSystem`."""
        return (("squeue", "--noheader", "--user", str(uid), "--format", "%i %T %r"),)

    def listed(self, text: str) -> list[QueuedJob]:
        """See :class:`BatchSystem`."""
        found: list[QueuedJob] = []
        for line in text.splitlines():
            job_id, _, rest = line.strip().partition(" ")
            word, _, why = rest.partition(" ")
            if word:
                found.append(
                    self.queued(job_id, word, "" if why.strip("() ") in ("", "None") else why.strip("() "))
                )
        return found

    def allocation(self, environment: Mapping[str, str], read: Callable[[str], str]) -> Allocation:
        """See :class:`BatchSystem`."""
        # Within a job step SLURM_NODELIST is that of the step.
        hosts = expand_hosts(environment.get("SLURM_JOB_NODELIST") or environment.get("SLURM_NODELIST", ""))
        # If the job did not ask for tasks, this variable counts CPUs.
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
            # The shell of salloc may stay on the login node; processes that Slurm starts know their node.
            is_elsewhere=bool(hosts) and "SLURMD_NODENAME" not in environment,
            started_at=times.started_at,
            ends_at=times.ends_at,
            ends_by="" if times.ends_at is None else "SLURM_JOB_END_TIME",
        )

    def questions(self, job_id: str) -> Sequence[tuple[str, ...]]:
        """See :class:`BatchSystem`."""
        return (
            ("scontrol", "show", "job", job_id),
            (self.ask, "--noheader", "--jobs", job_id, "--format", "%A|%S|%e"),
        )

    def answer(self, text: str, job_id: str, now: float) -> JobTimes:
        """See :class:`BatchSystem`."""
        for line in text.splitlines():
            fields = line.strip().split("|")
            # The last task of an array has the id of the array, so its other tasks are listed, too.
            if len(fields) == 3 and fields[0] == job_id:
                return JobTimes(_time(fields[1]), _time(fields[2]))
        facts: dict[str, str] = {}
        for name, value in _FIELD.findall(text):
            if name == "JobId":
                if facts.get("JobId") == job_id:
                    break
                facts = {}
            facts[name] = value
        if facts.get("JobId") != job_id:
            return JobTimes()
        return JobTimes(*(_time(facts.get(name, "")) for name in ("StartTime", "EndTime", "EligibleTime")))

    def probe(self, host: str) -> list[str]:
        """See :class:`BatchSystem`."""
        return [
            "srun",
            "--overlap",
            "--mpi=none",
            "--nodes=1",
            "--ntasks=1",
            "--quiet",
            f"--nodelist={host}",
            "true",
        ]

    def wrongly_started(self, environment: Mapping[str, str]) -> str:
        """See :class:`BatchSystem`."""
        copies = positive(environment.get("SLURM_STEP_NUM_TASKS")) or 1
        if copies == 1:
            return ""
        return (
            f"srun has started {copies} copies of this without MPI; leave out srun, because `mpisweep run` "
            "starts the ranks itself, or choose an MPI that both know, e.g. srun --mpi=pmix"
        )


SLURM = Slurm()


def _asked_gpus(find: Find, nodes: int | None, ranks: int | None) -> int | None:
    """GPUs per node, by each way to ask for them."""
    by_node, gres = find("--gpus-per-node"), find("--gres")
    by_task, total = find("--gpus-per-task"), find("--gpus", "-G")
    gpus = whole(by_node.value.rpartition(":")[2]) if by_node else None
    if gpus is None and gres and (found := re.search(r"gpu(?::[^:,]+)?:(\d+)", gres.value)):
        gpus = int(found[1])
    if gpus is None and total and (count := whole(total.value.rpartition(":")[2])) is not None:
        gpus = count // (nodes or 1)
    if gpus is None and by_task and ranks and (count := whole(by_task.value.rpartition(":")[2])) is not None:
        gpus = count * ranks // (nodes or 1)
    return gpus


def expand_hosts(listed: str) -> tuple[str, ...]:
    """Expand ``n[1-3,07],x`` to ``n1 n2 n3 n07 x``; empty if it is not a list of hosts."""
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
    """Expand ``2(x3),1`` to ``2 2 2 1``; empty if it is not a list of counts."""
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
