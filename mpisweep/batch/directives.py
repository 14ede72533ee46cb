"""Reading a job script that somebody else has written: its directives, what they ask for, and its commands.

Nothing is judged here; that is :mod:`mpisweep.batch.checkscript`.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mpisweep.batch.dialect import DIALECTS, PBS, PJM, SLURM, Dialect

__all__ = ["Asked", "Command", "Directive", "JobScript", "asked_for", "read_script", "time_limit_s"]

_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=(\S.*)?")
#: One word that may be a value.
_VALUE = re.compile(r"[A-Za-z0-9_][\w.,:=/+@%-]*")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-([^}]*))?\})")


@dataclass(frozen=True, slots=True)
class Directive:
    """One option in a directive; resources are options of their own, e.g. ``-L node``.

    Attributes:
        known: whether the batch system has such an option.
        lacks_value: whether it wants a value and has none.
    """

    line: int
    option: str
    value: str
    known: bool = True
    lacks_value: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A command, its continuation lines joined and the variables filled in that the script itself sets."""

    line: int
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobScript:
    """A script that was read.

    Attributes:
        system: None when no directive of any system is in it.
        others: markers of other systems, with their first lines.
        late: lines of directives after the first command.
        broken: lines of directives that lack a value, with the line behind each of them that looks like it.
        misspelt: lines that look like directives and are none.
        carriage_returns: the first line that ends as on Windows; 0 for none.
    """

    system: Dialect | None
    has_interpreter: bool
    directives: tuple[Directive, ...]
    commands: tuple[Command, ...]
    others: Mapping[str, int] = field(default_factory=dict)
    late: tuple[int, ...] = ()
    broken: Mapping[int, str] = field(default_factory=dict)
    misspelt: tuple[int, ...] = ()
    carriage_returns: int = 0
    lines: tuple[str, ...] = ()

    def find(self, *options: str) -> Directive | None:
        """The last directive with one of these options: it is the one that counts."""
        return next((d for d in reversed(self.directives) if d.option in options), None)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a script asks for; None and empty for what it does not say.

    Attributes:
        gpus: of a node.
        ranks: of the job.
        cores: of a node.
        lines: where each of these stands; 1 for what does not.
    """

    nodes: int | None = None
    gpus: int | None = None
    ranks: int | None = None
    cores: int | None = None
    elapse_s: float | None = None
    group: str = ""
    project: str = ""
    log: str = ""
    shares_a_node: bool = False
    lines: Mapping[str, int] = field(default_factory=dict)

    def line(self, what: str) -> int:
        """Where it stands."""
        return self.lines.get(what, 1)


# ------------------------------------------------------------------------------------- reading


def read_script(text: str) -> JobScript:
    """Take a script apart."""
    raw = text.split("\n")
    carriage_returns = next((n for n, line in enumerate(raw, 1) if line.endswith("\r")), 0)
    lines = [line.rstrip("\r") for line in raw]
    markers: dict[str, list[int]] = {}
    misspelt: list[int] = []
    for number, line in enumerate(lines, 1):
        name = _marker(line)
        if name:
            markers.setdefault(name, []).append(number)
        elif _nearly_a_marker(line):
            misspelt.append(number)
    system = DIALECTS[max(markers, key=lambda name: len(markers[name]))] if markers else None
    own = markers.pop(system.name) if system else []
    broken = {n: value for n in own if system and (value := _broken_off(system, lines[n - 1 : n + 1]))}
    # What has come loose from a directive is no command, though the shell takes it for one.
    lines_of_commands = ["" if number in broken else line for number, line in enumerate(lines)]
    first_command = next(
        (n for n, line in enumerate(lines_of_commands, 1) if line.strip() and not line.lstrip().startswith("#")), len(lines) + 1
    )
    return JobScript(
        system=system,
        has_interpreter=lines[0].startswith("#!"),
        directives=tuple(d for n in own if system and n < first_command for d in _directives(system, n, f"{lines[n - 1]} {broken.get(n, '')}")),
        commands=tuple(_commands(lines_of_commands)),
        others={DIALECTS[name].marker: found[0] for name, found in markers.items()},
        late=tuple(n for n in own if n > first_command),
        broken=broken,
        misspelt=tuple(misspelt),
        carriage_returns=carriage_returns,
        lines=tuple(lines),
    )


def _marker(line: str) -> str:
    """The name of the batch system that a line is a directive of."""
    return next((d.name for d in DIALECTS.values() if d.marker and re.match(rf"{d.marker}(\s|$)", line)), "")


def _broken_off(system: Dialect, lines: list[str]) -> str:
    """The second of these lines, where it is the value that the directive in the first one lacks; else empty."""
    last = next(reversed(list(_directives(system, 1, lines[0]))), None)
    value = lines[1].strip() if len(lines) > 1 else ""
    if last is None or not last.lacks_value or not _VALUE.fullmatch(value):
        return ""
    return value if last.option != system.resource_option or "=" in value else ""


def _nearly_a_marker(line: str) -> bool:
    # A comment that speaks of PJM is none; one in which an option follows is.
    return re.match(r"\s*#+\s*(PJM|SBATCH|SBACTH|SBTACH|SBATH|PBS)\s*-", line, re.IGNORECASE) is not None


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return text.split()


def _directives(system: Dialect, number: int, line: str) -> Iterable[Directive]:
    words = _split(line[len(system.marker) :])
    while words:
        word = words.pop(0)
        option, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        lacks_value = False
        if not equals and option in system.flags:
            value = ""
        elif not equals and option in system.valued:
            value = words.pop(0) if words and not words[0].startswith("-") else ""
            lacks_value = not value
        elif not equals and not word.startswith("--") and word[:2] in system.valued:
            option, value = word[:2], word[2:]
        elif option not in system.valued | system.flags:
            yield Directive(number, option, value, known=False)
            # Its value, if any, is not an option of its own.
            while words and not words[0].startswith("-"):
                words.pop(0)
            continue
        else:
            lacks_value = not value
        yield from _resources(system, Directive(number, {"--rsc-list": "-L"}.get(option, option), value, lacks_value=lacks_value))


def _resources(system: Dialect, found: Directive) -> Iterable[Directive]:
    """The resources in a value like ``node=4,elapse=1:00:00``, each by itself."""
    if found.option not in (system.resource_option, "--mpi") or not found.option or found.lacks_value:
        yield found
        return
    for part in found.value.split(","):
        name, equals, value = part.strip().partition("=")
        known = not system.resources or found.option == "--mpi" or name in system.resources
        yield Directive(found.line, f"{found.option} {name}", value, known, lacks_value=bool(equals) and not value)


def _commands(lines: list[str]) -> Iterable[Command]:
    variables: dict[str, str] = {}
    joined, start = "", 0
    for number, line in enumerate(lines, 1):
        if not joined and line.lstrip().startswith("#"):
            continue
        start = start if joined else number
        joined += line.removesuffix("\\")
        if line.endswith("\\") and number < len(lines):
            continue
        text, joined = joined.strip(), ""
        if assignment := _ASSIGNMENT.fullmatch(text):
            variables[assignment[1]] = _fill_in(" ".join(_split(assignment[2] or "")), variables)
        words = tuple(_fill_in(word, variables) for word in _split(text))
        if words:
            yield Command(start, words)


def _fill_in(word: str, variables: Mapping[str, str]) -> str:
    """Variables that the script sets, and the defaults of others; what is not known stays as it is."""

    def value(found: re.Match[str]) -> str:
        known = variables.get(found[1] or found[2])
        return known if known is not None else found[3] if found[3] is not None else found[0]

    return _VARIABLE.sub(value, word)


# ------------------------------------------------------------------------------------- what is asked for


def asked_for(script: JobScript) -> Asked:
    """What the directives ask for."""
    read = {PJM.name: _pjm, SLURM.name: _slurm, PBS.name: _pbs}
    return read[script.system.name](script) if script.system else Asked()


def _lines(**found: Directive | None) -> dict[str, int]:
    return {what: directive.line for what, directive in found.items() if directive is not None}


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,9}", text) else None


def _pjm(script: JobScript) -> Asked:
    node, gpu = script.find("-L node", "-L vnode"), script.find("-L gpu", "-L gpus")
    proc, each = script.find("--mpi proc"), script.find("--mpi max-proc-per-node")
    elapse, group = script.find("-L elapse"), script.find("-L rscgrp")
    project, log = script.find("-g", "--gname"), script.find("-o", "--out", "-j")
    shape = node.value.partition(":")[0].split("x") if node else []
    nodes = math.prod(int(part) for part in shape) if shape and all(_whole(part) for part in shape) else None
    ranks = _whole(proc.value) if proc else None
    if ranks is None and each and nodes and _whole(each.value):
        ranks = nodes * int(each.value)
    return Asked(
        nodes=1 if gpu and node is None else nodes,
        gpus=_whole(gpu.value) if gpu else None,
        ranks=ranks,
        elapse_s=time_limit_s(PJM, elapse.value.rpartition("-")[2]) if elapse else None,
        group=group.value if group else "",
        project=project.value if project else "",
        log=(log.value or log.option) if log else "",
        shares_a_node=gpu is not None and node is None,
        lines=_lines(nodes=node or gpu, gpus=gpu, ranks=proc or each, elapse=elapse, group=group, project=project, log=log),
    )


def _slurm(script: JobScript) -> Asked:
    node, tasks, each = script.find("--nodes", "-N"), script.find("--ntasks", "-n"), script.find("--ntasks-per-node")
    nodes = _whole(node.value.rpartition("-")[2]) if node else None
    ranks = _whole(tasks.value) if tasks else None
    if ranks is None and each and _whole(each.value):
        ranks = (nodes or 1) * int(each.value)
    by_node, gres = script.find("--gpus-per-node"), script.find("--gres")
    by_task, total = script.find("--gpus-per-task"), script.find("--gpus", "-G")
    gpus = _whole(by_node.value.rpartition(":")[2]) if by_node else None
    if gpus is None and gres and (found := re.search(r"gpu(?::[^:,]+)?:(\d+)", gres.value)):
        gpus = int(found[1])
    if gpus is None and total and (count := _whole(total.value.rpartition(":")[2])) is not None:
        gpus = count // (nodes or 1)
    if gpus is None and by_task and ranks and (count := _whole(by_task.value.rpartition(":")[2])) is not None:
        gpus = count * ranks // (nodes or 1)
    each_core, by_gpu = script.find("--cpus-per-task", "-c"), script.find("--cpus-per-gpu")
    cores = None
    if by_gpu and gpus and (count := _whole(by_gpu.value)) is not None:
        cores = count * gpus
    elif ranks and script.find("--exclusive") is None and (count := _whole(each_core.value) if each_core else 1) is not None:
        cores = count * ranks // (nodes or 1)
    time, group = script.find("--time", "-t"), script.find("--partition", "-p")
    project, log = script.find("--account", "-A"), script.find("--output", "-o")
    return Asked(
        nodes=nodes,
        gpus=gpus,
        ranks=ranks,
        cores=cores,
        elapse_s=time_limit_s(SLURM, time.value) if time else None,
        group=group.value if group else "",
        project=project.value if project else "",
        log=log.value if log else "",
        lines=_lines(
            nodes=node, gpus=by_node or gres or total or by_task, ranks=tasks or each,
            cores=by_gpu or each_core or tasks or each, elapse=time, group=group,
            project=project, log=log,
        ),
    )  # fmt: skip


def _pbs(script: JobScript) -> Asked:
    select, walltime = script.find("-l select"), script.find("-l walltime")
    group, project = script.find("-q"), script.find("-P", "-A")
    log = script.find("-o", "-j", "-k")
    nodes: int | None = None
    gpus: int | None = None
    ranks: int | None = None
    cores: int | None = None
    if select:
        for chunk in select.value.split("+"):
            count, *parts = chunk.split(":")
            values = dict(part.partition("=")[::2] for part in parts)
            many = _whole(count) or 1
            nodes = (nodes or 0) + many
            if "ngpus" in values:
                # PBS gives one core where a chunk asks for none.
                cores = _whole(values.get("ncpus", "1"))
                gpus = max(gpus or 0, _whole(values["ngpus"]) or 0)
            if "mpiprocs" in values:
                ranks = (ranks or 0) + many * (_whole(values["mpiprocs"]) or 1)
    return Asked(
        nodes=nodes,
        gpus=gpus,
        ranks=ranks,
        cores=cores,
        elapse_s=time_limit_s(PBS, walltime.value) if walltime else None,
        group=group.value if group else "",
        project=project.value if project else "",
        log=log.value if log else "",
        lines=_lines(nodes=select, gpus=select, ranks=select, cores=select, elapse=walltime, group=group, project=project, log=log),
    )


def time_limit_s(system: Dialect, text: str) -> float | None:
    """A time limit as the system reads it: a bare number is seconds, but minutes for Slurm; None for anything else."""
    days, dash, rest = text.rpartition("-")
    parts = rest.split(":")
    if not all(re.fullmatch(r"\d{1,9}", part) for part in parts) or len(parts) > 3 or (dash and not days.isdigit()):
        return None
    numbers = [int(part) for part in parts]
    if dash and system is not SLURM:
        return None
    if dash:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
        return float(86400 * int(days) + 3600 * hours + 60 * minutes + seconds)
    if len(numbers) == 1:
        return float(numbers[0] * (60 if system is SLURM else 1))
    return float(sum(number * 60**power for power, number in enumerate(reversed(numbers))))
