"""Fujitsu's PJM (Technical Computing Suite): Flow, Wisteria, Genkai, Fugaku.

No variable has the elapse limit.  ``pjstat`` prints a table whose columns differ between sites, so it is read
by its header; ``pjstat -s`` prints a record.  Dates in the table have no year.  If neither has the limit
(some sites print the elapsed time instead), it is unknown.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from mpisweep.batch.base import BatchSystem
from mpisweep.batch.head import Asked, Find, Request, places
from mpisweep.batch.jobfacts import AllocatedNode, Allocation, JobState, JobTimes, QueuedJob
from mpisweep.batch.texts import clock, duration_s, first_word, moment, positive, whole, words

__all__ = ["PJM", "Pjm"]


_DATE = re.compile(r"(?:(\d{4})/)?(\d{1,2})/(\d{1,2})\Z", re.ASCII)
#: A mark may follow, e.g. ``<`` for a backfilled job.
_TIME = re.compile(r"(\d{1,2}:\d{2}:\d{2})\W?\Z", re.ASCII)
_SECONDS = re.compile(r"\((\d{1,9})\)\s*\Z", re.ASCII)
_LIMITS = ("ELAPSE_LIM", "ELAPSE_LIMIT")
#: Years to go back for a date without a year; 29 February may need eight.
_YEARS_BACK = 9
_DAY_S = 86400.0


class Pjm(BatchSystem):
    """See the module.  The options are those of pjsub in users' guides and public scripts."""

    name = "pjm"
    title = "PJM"

    marker = "#PJM"
    nearly_markers = ("PJM",)
    flags = words(
        "-j -s -S -X -w -h --help -i --interact --bulk --step --restart --norestart --no-check-directory "
        "--mswk --spath-extend --no-stging"
    )
    valued = words(
        "-L --rsc-list --mpi -N --name -g --gname -o --out -e --err -m --mail-list -x -p -P -z --sparam --fs "
        "--at --appname --comment --llio --net-route --rscunit --custom-resource --stgin --stgout "
        "--stg-transfiles -r -C --dir-prefix --vset"
    )
    aliases = {"--rsc-list": "-L"}
    resource_option = "-L"
    list_options = ("--mpi",)
    resources = words(
        "node vnode vnode-core vnode-mem node-mem core-mem rscunit rscgrp rscunit-mode elapse gpu gpus "
        "jobenv freq proc-core proc-crproc proc-data proc-filesize proc-lockm proc-msgq proc-openfd "
        "proc-psig proc-stack proc-vmem throttling_state issue_state ex_pipe_state eco_state "
        "retention_state node-ssd noncont"
    )
    gives_whole_nodes = True
    project_option = "-g {project}"
    mail_options = ("-m b,e", "--mail-list {address}")
    time_options = ("-L elapse",)
    time_example = "-L elapse="
    log_example = "-o NAME.%j.log"
    example = "-m e"
    name_length = 63
    signals = "XCPU USR1"
    about_signals = (
        "At the elapse limit PJM sends SIGXCPU to every process of the job, including this shell, and "
        "SIGKILL ten seconds later; pjdel sends SIGTERM.  The shell asks the sweep to stop cleanly and "
        "waits for it; the sweep watches the clock in any case."
    )
    submit_folder = "PJM_O_WORKDIR"
    local_folders = ("PJM_LOCALDIR", "PJM_LOCALTMP", "PJM_JOBDIR", "PJM_SSD_DIR", "TMPDIR")
    ranks_variable = "PJM_MPI_PROC"

    submit = "pjsub"
    # With and without a full stop after INFO.
    taken = re.compile(r"^\[INFO\.?\] PJM 0000 pjsub Job (\S+) submitted\.", re.MULTILINE)
    ask = "pjstat"
    cancel = "pjdel"
    states = {
        **dict.fromkeys(("ACC", "QUE"), JobState.WAITING),
        "HLD": JobState.HELD,
        **dict.fromkeys(("RNA", "RNP", "RUN", "RNE", "RNO", "SPP", "SPD", "RSM"), JobState.RUNNING),
        **dict.fromkeys(("EXT", "CCL", "ERR", "RJT"), JobState.GONE),
        # Sites with words instead.
        "QUEUED": JobState.WAITING,
        "RUNNING": JobState.RUNNING,
    }

    job_variables = ("PJM_SUBJOBID", "PJM_JOBID")
    how_to_say = "--walltime to the elapse limit of the job"
    remote_shells = ("pjrsh",)

    def directives(self, request: Request) -> tuple[str, ...]:
        """See :class:`BatchSystem`."""
        cores = request.cores_per_node
        # A whole node comes with all its cores, and a GPU of a shared node with its share of them.
        size = {
            "node": [f"-L node={request.nodes}"],
            "gpu": [f"-L gpu={request.gpus}"],
            "vnode": [f"-L vnode={request.nodes}", *([f"-L vnode-core={cores}"] if cores else [])],
        }
        return (
            f"-N {request.name}",
            *request.site,
            *([f"-L rscgrp={request.group}"] if request.group else []),
            *([request.size] if request.size else size[request.unit]),
            f"--mpi proc={request.ranks}",
            f"-L elapse={clock(request.elapse_s)}",
            *([request.project] if request.project else []),
            *request.container,
            "-j",
            "-S",
            f"-o {request.name}.%j.log",
            *request.own,
        )

    def asked(self, find: Find) -> Asked:
        """See :class:`BatchSystem`."""
        node, gpu = find("-L node", "-L vnode"), find("-L gpu", "-L gpus")
        proc, each = find("--mpi proc"), find("--mpi max-proc-per-node")
        elapse, group = find("-L elapse"), find("-L rscgrp")
        project, log = find("-g", "--gname"), find("-o", "--out", "-j")
        shape = node.value.partition(":")[0].split("x") if node else []
        nodes = math.prod(int(part) for part in shape) if shape and all(map(whole, shape)) else None
        ranks = whole(proc.value) if proc else None
        if ranks is None and each and nodes and whole(each.value):
            ranks = nodes * int(each.value)
        return Asked(
            nodes=1 if gpu and node is None else nodes,
            gpus=whole(gpu.value) if gpu else None,
            ranks=ranks,
            elapse_s=self.time_limit_s(elapse.value.rpartition("-")[2]) if elapse else None,
            group=group.value if group else "",
            project=project.value if project else "",
            log=(log.value or log.option) if log else "",
            shares_a_node=gpu is not None and node is None,
            lines=places(
                nodes=node or gpu,
                gpus=gpu,
                ranks=proc or each,
                elapse=elapse,
                group=group,
                project=project,
                log=log,
            ),
        )

    def follow_options(self, chained: bool, after: str) -> list[str]:
        """See :class:`BatchSystem`.

        PJM calls such jobs the sub jobs of a step job.  ``sd`` is the condition for deleting them: a script
        exits with 0 if nothing is left to do, and PJM then deletes the sub jobs after it.
        """
        if not chained:
            return []
        if not after:
            return ["--step"]
        step_job, _, number = after.partition("_")
        return [
            "--step",
            "--sparam",
            f"jid={step_job},sn={int(number or 0) + 1},sd=ec==0:after:{int(number or 0)}",
        ]

    def listings(self, job_ids: Sequence[str], uid: int, user: str) -> Sequence[tuple[str, ...]]:
        """See :class:`BatchSystem`."""
        # -E lists the sub jobs of step jobs, too; some sites' pjstat does not have it.
        return (("pjstat", "-E"), ("pjstat",))

    def listed(self, text: str) -> list[QueuedJob]:
        """See :class:`BatchSystem`."""
        found: list[QueuedJob] = []
        header: list[str] = []
        for line in text.splitlines():
            row = line.split()
            upper = [word.upper() for word in row]
            if "JOB_ID" in upper and ("ST" in upper or "STATUS" in upper):
                header = upper
                continue
            if not header or not row or not row[0][0].isdigit():
                continue
            at = header.index("ST" if "ST" in header else "STATUS")
            # Only columns up to the state can be counted: a date after it may be two words.
            if header.index("JOB_ID") < len(row) and at < len(row):
                found.append(self.queued(row[header.index("JOB_ID")], row[at].upper()))
        return found

    def allocation(self, environment: Mapping[str, str], read: Callable[[str], str]) -> Allocation:
        """See :class:`BatchSystem`."""
        file = environment.get("PJM_O_NODEINF", "")
        hosts = tuple(dict.fromkeys(filter(None, map(first_word, read(file).splitlines()))))
        granted = _granted(
            hosts, positive(environment.get("PJM_MPI_PROC")), positive(environment.get("PJM_PROC_BY_NODE"))
        )
        return Allocation(
            self.name,
            self.job_id(environment),
            tuple(AllocatedNode(host, ranks) for host, ranks in zip(hosts, granted, strict=True)),
            node_file=file if hosts else "",
        )

    def questions(self, job_id: str) -> Sequence[tuple[str, ...]]:
        """See :class:`BatchSystem`."""
        return ((self.ask, job_id), (self.ask, "-s", job_id))

    def answer(self, text: str, job_id: str, now: float) -> JobTimes:
        """See :class:`BatchSystem`."""
        lines = text.splitlines()
        for number, line in enumerate(lines):
            header = line.split()
            if "JOB_ID" in header and "START_DATE" in header:
                return _from_table(header, lines[number + 1 :], job_id, now)
        return _from_record(lines, job_id)


PJM = Pjm()


def _granted(hosts: Sequence[str], ranks: int | None, at_most: int | None) -> list[int | None]:
    """Spread the ranks over the hosts, the remainder first; unknown if a host gets none."""
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
        # A name can be any number of words, so columns are counted from the date.
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
    started_at = _moment(facts.get("JOB START DATE", ""))
    # A later sub job of a step job also waits for the one before it.
    follows = job_id.partition("_")[2] not in ("", "0")
    queued_at = None if follows else _moment(facts.get("ACCEPT DATE", ""))
    stated = facts.get("ELAPSE TIME (LIMIT)", "")
    seconds = _SECONDS.search(stated)
    limit_s = float(seconds[1]) if seconds else duration_s(first_word(stated))
    ends_at = None if started_at is None or limit_s is None else started_at + limit_s
    return JobTimes(started_at, ends_at, queued_at)


def _moment(text: str) -> float | None:
    return moment(text.rstrip("<>@() "), "%Y/%m/%d %H:%M:%S")
