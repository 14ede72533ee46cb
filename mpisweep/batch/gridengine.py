"""Grid Engine: Altair (Univa) Grid Engine as on TSUBAME 4, and Son of Grid Engine.

Sources: the manual pages qsub(1), qstat(1), qdel(1), sge_types(1), queue_conf(5) and sge_pe(5), and public
job scripts.

* There is no option for nodes: a site asks for them by a resource (``-l node_f=2``) or a parallel
  environment (``-pe mpi 8``), and its file says which.
* ``#$`` lines count anywhere in a script.
* No variable has the start or the limit (``h_rt``) of a job.  ``qstat -j`` prints both: the start in a line
  of its own (Altair) or in its XML.
* It prints the time of submission and not when a job could first have started, so the wait in the queue of
  a job that follows another one is unknown.
* SIGKILL ends a job at its limit and at qdel.  With ``-notify``, SIGUSR2 comes some seconds before
  (``notify`` of the queue), and SIGUSR1 before a suspension; the shell and its children receive both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from mpisweep.batch.base import BatchSystem
from mpisweep.batch.head import Asked, Find, Request, places
from mpisweep.batch.jobfacts import AllocatedNode, Allocation, JobState, JobTimes, QueuedJob
from mpisweep.batch.texts import clock, moment, positive, whole, words

__all__ = ["GRID_ENGINE", "GridEngine"]

#: A job in ``qstat -xml``.
_LISTED = re.compile(r"<job_list\b.*?</job_list>", re.DOTALL)
_TASK = re.compile(r"[1-9]\d*\Z", re.ASCII)
#: Lines of ``qstat -j``: the job, its resources with the limit, and the start of a task.
_NUMBER = re.compile(r"job_number:\s+(\d+)\s*\Z", re.ASCII)
_HARD = re.compile(r"hard[ _]resource_list:\s+(.*)")
_SUBMITTED = re.compile(r"submission_time:\s+(\S+ \d{1,2}:\d{2}:\d{2})(?:\.\d+)?\s*\Z", re.ASCII)
#: A job that follows others waits for them, too; the line stays when they have ended.
_FOLLOWS = "jid_predecessor_list"
_START = re.compile(r"start_time\s+(\d+):\s+(\S+ \d{1,2}:\d{2}:\d{2})(?:\.\d+)?\s*\Z", re.ASCII)
#: The same in its XML.
_XML_NUMBER = re.compile(r"<JB_job_number>(\d{1,12})</JB_job_number>", re.ASCII)
_XML_HARD = re.compile(r"<JB_hard_resource_list>.*?</JB_hard_resource_list>", re.DOTALL)
_XML_LIMIT = re.compile(
    r"<CE_name>h_rt</CE_name>(?:(?!<CE_name>).)*?<CE_stringval>([^<]*)</CE_stringval>", re.DOTALL
)
_XML_TASK = re.compile(r"<JAT_task_number>(\d{1,9})</JAT_task_number>", re.ASCII)
_XML_SUBMITTED = re.compile(r"<JB_submission_time>(\d{1,15})</JB_submission_time>", re.ASCII)
_XML_FOLLOWS = re.compile(r"<JB_jid_(?:request|predecessor)_list>\s*<")
_XML_START = re.compile(r"<JAT_start_time>(\d{1,15})</JAT_start_time>", re.ASCII)
#: Larger times are in milliseconds, as Altair's are, and not in seconds.
_MILLISECONDS_FROM = 10**11
#: The dates of Altair, and of Son of Grid Engine with a locale.
_DATES = ("%m/%d/%Y %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:%M:%S")


class GridEngine(BatchSystem):
    """See the module."""

    name = "gridengine"
    title = "Grid Engine"

    marker = "#$"
    # A comment may begin with a variable.
    marker_pattern = r"#\$\s*-"
    nearly_markers = ("$",)
    reads_whole_script = True
    glues_values = False
    flags = words("-clear -cwd -hard -help -notify -soft -terse -verify -version -V -h -nostdin")
    valued = words(
        "-a -ac -adds -ar -A -b -binding -c -ckpt -C -dc -dl -e -g -hold_jid -hold_jid_ad -i -j -js -jsv -l "
        "-m -M -masterq -mbind -mc -mods -N -now -o -p -par -pty -P -q -R -r -S -shell -sync -t -tc -tcon "
        "-umask -v -w -wd -xd -@"
    )
    two_valued = frozenset(("-pe",))
    resource_option = "-l"
    size_example = "-l node_f={nodes}"
    project_option = "-P {project}"
    mail_options = ("-m ea", "-M {address}")
    time_options = ("-l h_rt",)
    time_example = "-l h_rt="
    log_example = "-j y"
    example = "-l s_vmem=4G"
    about_signals = (
        "-notify makes Grid Engine send SIGUSR2 to this shell and its children some seconds before SIGKILL, "
        "at the time limit and at qdel, and SIGUSR1 before a suspension.  The shell asks the sweep to stop "
        "cleanly and waits for it; the sweep watches the clock in any case."
    )
    signals = "USR2 USR1"
    submit_folder = "SGE_O_WORKDIR"
    local_folders = ("TMPDIR",)

    submit = "qsub"
    # Some sites print more lines before and after.
    taken = re.compile(r"^Your job(?:-array)? (\d+)\S* \(.*\) has been submitted", re.MULTILINE)
    ask = "qstat"
    cancel = "qdel"

    job_variables = ("JOB_ID",)

    def directives(self, request: Request) -> tuple[str, ...]:
        """See :class:`BatchSystem`."""
        return (
            f"-N {request.name}",
            "-cwd",
            # The queue's shell may be another one, whatever the first line says.
            "-S /bin/bash",
            *request.site,
            *([f"-q {request.group}"] if request.group else []),
            *([request.project] if request.project else []),
            *([request.size] if request.size else []),
            f"-l h_rt={clock(request.elapse_s)}",
            "-notify",
            *request.container,
            "-j y",
            f"-o {request.name}.$JOB_ID.log",
            *request.own,
        )

    def asked(self, find: Find) -> Asked:
        """See :class:`BatchSystem`."""
        slots, limit, group, project = find("-pe"), find("-l h_rt"), find("-q"), find("-P")
        log = find("-o", "-j")
        return Asked(
            ranks=whole(re.split(r"[ -]", slots.value)[-1]) if slots else None,
            elapse_s=self.time_limit_s(limit.value) if limit else None,
            group=group.value if group else "",
            project=project.value if project else "",
            log=log.value if log else "",
            lines=places(ranks=slots, elapse=limit, group=group, project=project, log=log),
        )

    def time_limit_s(self, text: str) -> float | None:
        """See :class:`BatchSystem`: ``[days:]hours:minutes:seconds``, each of which may be empty."""
        parts = text.split(":")
        if (
            len(parts) not in (1, 3, 4)
            or not any(parts)
            or not all(re.fullmatch(r"\d{0,9}", part) for part in parts)
        ):
            return None
        days, hours, minutes, seconds = [0, 0, 0, *(int(part or 0) for part in parts)][-4:]
        return float(((24 * days + hours) * 60 + minutes) * 60 + seconds)

    def first_folder(self, find: Find) -> str:
        """See :class:`BatchSystem`: without -cwd a job starts in the home folder."""
        folder = find("-wd")
        return folder.value if folder else "" if find("-cwd") else "~"

    def follow_options(self, chained: bool, after: str) -> list[str]:
        """See :class:`BatchSystem`."""
        return ["-hold_jid", after] if after else []

    def listings(self, job_ids: Sequence[str], uid: int, user: str) -> Sequence[tuple[str, ...]]:
        """See :class:`BatchSystem`."""
        whose = ("-u", user) if user else ()
        return (("qstat", "-xml", *whose), ("qstat", *whose))

    def listed(self, text: str) -> list[QueuedJob]:
        """See :class:`BatchSystem`."""
        return self._from_xml(text) if "<job_info" in text else self._from_table(text)

    def queued(self, job_id: str, word: str, why: str = "") -> QueuedJob:
        """See :class:`BatchSystem`: each letter of a state has its own meaning."""
        waits = "q" in word
        state = (
            JobState.HELD
            if "E" in word or (waits and "h" in word)
            else JobState.WAITING
            if waits
            else JobState.RUNNING
        )
        return QueuedJob(job_id, state, f"{word}, {why}" if why else word)

    def job_id(self, environment: Mapping[str, str]) -> str:
        """See :class:`BatchSystem`; other programs set JOB_ID, too, but not the variables beside it."""
        number = super().job_id(environment)
        beside = ("SGE_O_WORKDIR", "SGE_JOB_SPOOL_DIR", "PE_HOSTFILE")
        if not number or not any(environment.get(name) for name in beside):
            return ""
        task = environment.get("SGE_TASK_ID", "")
        return f"{number}.{task}" if _TASK.match(task) else number

    def allocation(self, environment: Mapping[str, str], read: Callable[[str], str]) -> Allocation:
        """See :class:`BatchSystem`."""
        file = environment.get("PE_HOSTFILE", "")
        # One line per node and queue: host, slots, queue, processors.
        slots: dict[str, int] = {}
        for line in read(file).splitlines():
            host, count = (*line.split(), "", "")[:2]
            if host and (granted := positive(count)):
                slots[host] = slots.get(host, 0) + granted
        # The granted GPUs of this node, at sites that count them as `gpu`.
        gpus = environment.get("SGE_HGR_gpu", "").split()
        return Allocation(
            self.name,
            self.job_id(environment),
            tuple(AllocatedNode(host, count) for host, count in slots.items()),
            gpus_per_node=len(gpus) or None,
        )

    def questions(self, job_id: str) -> Sequence[tuple[str, ...]]:
        """See :class:`BatchSystem`."""
        number = job_id.partition(".")[0]
        return ((self.ask, "-j", number), (self.ask, "-xml", "-j", number))

    def answer(self, text: str, job_id: str, now: float) -> JobTimes:
        """See :class:`BatchSystem`."""
        number, _, task = job_id.partition(".")
        read = _in_xml if "<JB_job_number>" in text else _in_lines
        started_at, limit, queued_at = read(text, number, task or "1")
        if started_at is None:
            # A truncated output may also lack that the job follows another one.
            return JobTimes()
        limit_s = self.time_limit_s(limit)
        return JobTimes(started_at, None if limit_s is None else started_at + limit_s, queued_at)

    def probe(self, host: str) -> list[str]:
        """See :class:`BatchSystem`."""
        return ["qrsh", "-inherit", "-nostdin", host, "true"]

    def _from_xml(self, text: str) -> list[QueuedJob]:
        found: list[QueuedJob] = []
        for job in _LISTED.findall(text):
            number = _XML_NUMBER.search(job)
            state = re.search(r"<state>([A-Za-z]+)</state>", job)
            task = re.search(r"<tasks>(\d+)</tasks>", job)
            if number and state:
                found.append(self.queued(f"{number[1]}.{task[1]}" if task else number[1], state[1]))
        return found

    def _from_table(self, text: str) -> list[QueuedJob]:
        found: list[QueuedJob] = []
        at: int | None = None
        for line in text.splitlines():
            row = line.split()
            if row[:1] == ["job-ID"]:
                at = row.index("state") if "state" in row else None
            elif at is not None and len(row) > at and row[0].isdecimal():
                found.append(self.queued(row[0], row[at]))
        return found


GRID_ENGINE = GridEngine()


def _in_lines(text: str, number: str, task: str) -> tuple[float | None, str, float | None]:
    """Read start, limit and submission of a job from ``qstat -j``."""
    started_at: float | None = None
    queued_at: float | None = None
    limit = ""
    ours = follows = False
    # A truncated line says nothing.
    for line in (line.rstrip() for line in text.splitlines(keepends=True) if line.endswith("\n")):
        if found := _NUMBER.match(line):
            ours = found[1] == number
        elif not ours:
            continue
        elif found := _SUBMITTED.match(line):
            queued_at = moment(found[1], *_DATES)
        elif line.startswith(_FOLLOWS):
            follows = True
        elif found := _HARD.match(line):
            limit = dict(part.partition("=")[::2] for part in found[1].split(",")).get("h_rt", "")
        elif (found := _START.match(line)) and found[1] == task:
            started_at = moment(found[2], *_DATES)
    return started_at, limit, None if follows else queued_at


def _in_xml(text: str, number: str, task: str) -> tuple[float | None, str, float | None]:
    """Read them from ``qstat -xml -j``."""
    # Each job begins with its number.
    parts = _XML_NUMBER.split(text)
    job = next((parts[at + 1] for at in range(1, len(parts) - 1, 2) if parts[at] == number), "")
    hard = _XML_HARD.search(job)
    limit = _XML_LIMIT.search(hard[0]) if hard else None
    starts = _XML_START.findall(job)
    tasks = _XML_TASK.findall(job)
    # Number and start of a task come in either order; each running task has both.
    mine = dict(zip(tasks, starts, strict=False)).get(task) if len(tasks) == len(starts) else None
    submitted = None if _XML_FOLLOWS.search(job) else _XML_SUBMITTED.search(job)
    return (
        None if mine is None else _seconds(mine), limit[1] if limit else "",
        None if submitted is None else _seconds(submitted[1]),
    )  # fmt: skip


def _seconds(stated: str) -> float:
    moment_s = int(stated)
    return moment_s / 1000 if moment_s >= _MILLISECONDS_FROM else float(moment_s)
