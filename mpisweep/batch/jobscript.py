"""Writing a job script for a site and a request.

::

    site file + wishes --plan_job()--> Job --write_script()--> Script --text()--> job.sh

A :class:`~mpisweep.batch.request.Job` is a checked request; a :class:`Script` is plain data; everything here
is pure.  Names that users choose (folders, files, parameters) reach the script only through :func:`in_shell`,
and never a directive: each system splits directives by its own rules, so they contain only names that
:data:`mpisweep.batch.site.SAFE` accepts.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field

from mpisweep.batch.base import BatchSystem
from mpisweep.batch.head import Request
from mpisweep.batch.request import Job
from mpisweep.batch.texts import clock

__all__ = ["Block", "Payload", "Script", "in_shell", "write_script"]

#: For a signal that comes late and for writing the last snapshot, in seconds.
_SIGNAL_MARGIN_S = 30


@dataclass(frozen=True, slots=True)
class Payload:
    """The sweep that runs in the job.

    Attributes:
        name: of the sweep.
        sweep: the sweep file; empty for a sweep that the arguments define.
        arguments: of ``mpisweep run``, without the sweep file and the results file.
        command_line: of the workload, after ``--``; empty for none.
        results: the results file.
        folder: working folder; None for the folder it is submitted from.
        venv: folder of a Python environment; ``~/`` is the home folder.
        conda: name or folder of a conda environment.
        image: of a container.
        grace_s: time for running trials to return when the sweep stops.
        chained: whether the job is part of a chain.
        split: number of shares if several jobs run the sweep together; None for one job.
    """

    name: str
    sweep: str
    results: str
    arguments: tuple[str, ...] = ()
    command_line: tuple[str, ...] = ()
    folder: str | None = None
    venv: str = ""
    conda: str = ""
    image: str = ""
    grace_s: float = 10.0
    chained: bool = False
    split: int | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """Lines of bash, with a comment that says why."""

    why: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """A job script as data.

    Attributes:
        head: comments for readers of the script.
        directives: options of the batch system, without its marker.
    """

    marker: str
    head: tuple[str, ...]
    directives: tuple[str, ...]
    blocks: tuple[Block, ...] = field(default_factory=tuple)

    def text(self) -> str:
        """The content of the file."""
        parts = ["#!/bin/bash", *_comments(self.head)]
        parts += [f"{self.marker} {directive}" for directive in self.directives]
        parts += ["set -euo pipefail"]
        for block in self.blocks:
            parts += ["", *_comments([block.why] if block.why else []), *block.lines]
        return "\n".join(parts) + "\n"


# ------------------------------------------------------------------------------------- the script


def write_script(job: Job, payload: Payload) -> Script:
    """Write the script of a job."""
    system = job.site.system
    blocks = [_folder_block(job, payload), *_environment_blocks(job, payload)]
    blocks += [_names_block(job, payload)]
    if payload.chained:
        blocks.append(_chain_block(payload))
    blocks += [_run_block(job, payload), _end_block(system, payload)]
    return Script(
        marker=system.marker,
        head=_head(job, payload),
        directives=system.directives(_request(job, payload)) if system.marker else (),
        blocks=tuple(block for block in blocks if block.lines),
    )


def in_shell(text: str) -> str:
    """Quote a text as one word of bash on one line; a leading ``~/`` is the home folder."""
    if text.startswith("~/"):
        return f'"$HOME"/{in_shell(text[2:])}'
    if not re.search(r"[\x00-\x1f\x7f]", text):
        return shlex.quote(text)
    escaped = "".join(
        f"\\x{ord(c):02x}" if ord(c) < 0x20 or ord(c) == 0x7F else f"\\{c}" if c in "\\'" else c for c in text
    )
    # bash reads two hexadecimal digits at most, so a digit may follow.
    return f"$'{escaped}'"


def _comments(sentences: Iterable[str]) -> list[str]:
    """Wrap sentences into comment lines; an empty sentence gives an empty comment."""
    lines: list[str] = []
    for sentence in sentences:
        line = "#"
        for word in sentence.split(" ") if sentence else ():
            if len(line) + 1 + len(word) > 110:
                lines.append(line)
                line = "#"
            line += " " + word
        lines.append(line)
    return lines


def _head(job: Job, payload: Payload) -> tuple[str, ...]:
    system = job.site.system
    if not system.marker:
        return (
            f"The sweep {payload.name} on one machine: one worker per GPU, or one per core.",
            "Run it again after an interruption: the sweep resumes.",
            "",
            "  bash THIS_SCRIPT [OPTIONS OF mpisweep run]",
        )
    size = (
        f"{job.gpus} GPU{'s' * (job.gpus != 1)}"
        if job.site.unit == "gpu"
        else f"{job.nodes} node{'s' * (job.nodes != 1)}"
    )
    ranks = f"{job.ranks} rank{'s' * (job.ranks != 1)}"
    return (
        f"The sweep {payload.name} on {job.site.title}: {size}, {ranks}, up to {clock(job.elapse_s or 0)}.",
        "",
        "  " + " ".join(filter(None, (system.submit, job.site.submit_options(job.project), "THIS_SCRIPT"))),
        "",
        "Submit it again if it ends early: the sweep resumes, and no completed trial runs again.",
        *(["Submit it several times: the jobs work on the sweep together."] if payload.split else []),
        *_limits_sentence(job),
    )


def _limits_sentence(job: Job) -> tuple[str, ...]:
    if not job.group:
        return ()
    group = job.site.resource_group(job.group)
    longest_s = group.longest_s(job.nodes)
    if longest_s is None:
        return (f"The site file does not state the limits of {job.group}: see the site's own pages.",)
    return (f"The site file allows up to {clock(longest_s)} in {job.group} for this number of nodes.",)


def _request(job: Job, payload: Payload) -> Request:
    site = job.site
    return Request(
        name=site.system.job_name(payload.name),
        unit=site.unit,
        nodes=job.nodes,
        gpus=job.gpus,
        ranks=job.ranks,
        ranks_per_node=job.ranks_per_node,
        cores=job.cores,
        cores_per_node=job.cores_per_node,
        elapse_s=job.elapse_s or 0,
        group=job.group,
        size=site.size.format(
            nodes=job.nodes, ranks=job.ranks, ranks_per_node=job.ranks_per_node, gpus=job.gpus,
            cores=job.cores_per_node or job.ranks_per_node,
        ),
        project="" if site.project_with_command else site.project_option(job.project),
        site=site.directives,
        container=site.container.directives if payload.image else (),
        own=job.directives,
        warn_s=math.ceil(payload.grace_s) + _SIGNAL_MARGIN_S,
    )  # fmt: skip


def _folder_block(job: Job, payload: Payload) -> Block:
    if payload.folder is not None:
        return Block(
            "The folder of the sweep; relative paths start here.", (f"cd -- {in_shell(payload.folder)}",)
        )
    if not job.site.system.submit_folder:
        return Block("", ())
    return Block(
        "The folder that the job was submitted from.", (f'cd -- "${job.site.system.submit_folder}"',)
    )


def _environment_blocks(job: Job, payload: Payload) -> list[Block]:
    blocks: list[Block] = []
    modules = (*job.modules, *(job.site.container.modules if payload.image else ()))
    if job.site.setup or modules:
        lines = [*job.site.setup]
        if modules:
            lines += [
                "# shellcheck disable=SC1091",
                "type module >/dev/null 2>&1 || source /etc/profile.d/modules.sh",
                f"module load {' '.join(modules)}",
            ]
        blocks.append(
            Block(
                "Modules, in the versions that the environment was built with.  Their scripts fail under "
                "`set -u`.",
                ("set +u", *lines, "set -u"),
            )
        )
    if payload.image:
        return blocks
    if payload.conda:
        lines = [
            "set +u",
            'eval "$(conda shell.bash hook)"',
            f"conda activate {in_shell(payload.conda)}",
            "set -u",
        ]
        blocks.append(Block("The environment that mpisweep is in.", tuple(lines)))
    elif payload.venv:
        lines = [
            f"venv=${{MPISWEEP_VENV:-{in_shell(payload.venv)}}}",
            "# shellcheck disable=SC1091",
            'source "$venv/bin/activate"',
        ]
        blocks.append(Block("The environment that mpisweep is in.", tuple(lines)))
    return blocks


def _names_block(job: Job, payload: Payload) -> Block:
    lines = []
    if payload.sweep:
        lines.append(f"sweep=${{MPISWEEP_SWEEP:-{in_shell(payload.sweep)}}}")
    lines.append(f"results=${{MPISWEEP_RESULTS:-{in_shell(payload.results)}}}")
    if payload.image:
        container = job.site.container
        binds = ",".join(_in_double_quotes(bind) for bind in (*container.binds, "$PWD"))
        nv = " --nv" if job.gpus else ""
        lines += [
            f"image=${{MPISWEEP_IMAGE:-{in_shell(payload.image)}}}",
            f'inside=({container.command} exec{nv} --bind "{binds}" "$image")',
        ]
    return Block("The sweep and its results." if payload.sweep else "The results.", tuple(lines))


def _in_double_quotes(text: str) -> str:
    return re.sub(r'([\\"`])', r"\\\1", text)


def _chain_block(payload: Payload) -> Block:
    return Block(
        "One job of a chain: it runs only if there is something left to do, and cancels the jobs after it "
        "otherwise.",
        (
            "decision=0",
            f'{_inside(payload)}mpisweep chain "$results" || decision=$?',
            'if [ "$decision" -eq 3 ]; then exit 0; fi',
        ),
    )


def _inside(payload: Payload) -> str:
    return '"${inside[@]}" ' if payload.image else ""


#: May be sent more than once: the sweep takes repeated SIGUSR1 as one request.
_ASK = '[ -z "$sweep_pid" ] || kill -USR1 "$sweep_pid" 2>/dev/null || true'


def _run_block(job: Job, payload: Payload) -> Block:
    system = job.site.system
    words = [
        "mpisweep run",
        *(['"$sweep"'] if payload.sweep else []),
        *map(in_shell, payload.arguments),
        '-o "$results"',
    ]
    if payload.split:
        words.append(f"--split {payload.split}")
    if not system.marker:
        words.append('"$@"')
    elif not system.tells_its_end:
        words.append('--walltime "$((walltime - SECONDS))"')
    if payload.command_line:
        words += ["--", *map(in_shell, payload.command_line)]
    run = _inside(payload) + " ".join(words)
    exports: tuple[str, ...] = ()
    if payload.image:
        exports = system.container_exports(job.cores)
        ranks = job.site.launch.replace("{ranks}", str(job.ranks)).replace(
            "{ranks_per_node}", str(job.ranks_per_node)
        )
        run = f"{ranks} {run}" if job.ranks > 1 else run
    if not system.marker:
        return Block("", ("code=0", f"{run} || code=$?"))
    walltime: tuple[str, ...] = ()
    if not system.tells_its_end:
        walltime = (
            f"# {system.title} sets no variable for the end of a job: the time limit above, in seconds.",
            f"walltime={round(job.elapse_s or 0)}",
        )
    return Block(
        system.about_signals,
        (
            "sweep_pid=",
            "signalled=0",
            f"trap 'signalled=1; {_ASK}' {system.signals}",
            "# The sweep may receive SIGTERM, too, which would end it at once if it came after SIGUSR1.",
            f"trap 'signalled=1; sleep 1; {_ASK}' TERM",
            *walltime,
            *exports,
            f"{run} &",
            "sweep_pid=$!",
            "code=0",
            'wait "$sweep_pid" || code=$?',
            "# A signal ends `wait` and not the sweep.",
            'while [ "$signalled" -eq 1 ]; do',
            "    signalled=0",
            "    code=0",
            '    wait "$sweep_pid" || code=$?',
            "done",
        ),
    )


def _end_block(system: BatchSystem, payload: Payload) -> Block:
    again = "submit this script again" if system.marker else "run this script again"
    early = (
        "This job stopped before the sweep was complete: if no other job runs it,"
        if payload.split
        else "The sweep stopped early:"
    )
    return Block(
        "The best trials so far.  Exit codes: 0 every trial has ended, 3 stopped early, 4 no trial "
        "completed, 2 wrong input.",
        (
            f'{_inside(payload)}mpisweep top "$results" || true',
            f'if [ "$code" -eq 3 ]; then echo "{early} {again} to resume it."; fi',
            'exit "$code"',
        ),
    )
