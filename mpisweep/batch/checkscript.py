"""What people get wrong in job scripts: each rule finds one kind of mistake and says what would be right.

A rule gets a :class:`~mpisweep.batch.scriptsheet.Sheet`, everything there is to know of the script, and
yields findings.  An *error* costs the job or its results; a *warning* may be meant.  What a site or a batch
system does not state is not judged.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise, takewhile

from mpisweep.batch.base import BatchSystem
from mpisweep.batch.directives import Command, JobScript, asked_for, read_script
from mpisweep.batch.head import Asked
from mpisweep.batch.registry import SYSTEMS
from mpisweep.batch.request import CORES_PER_GPU, LEAST_CORES_PER_GPU
from mpisweep.batch.scriptsheet import Facts, Finding, LookUp, Severity, Sheet
from mpisweep.batch.site import Site, SiteError, known_sites, load_site
from mpisweep.batch.texts import clock, whole
from mpisweep.spec import parse_duration

__all__ = ["check_script"]

#: A walltime may be shorter than the elapse by this much, for loading modules, before it is a waste.
_SLACK = 0.1
_LOCAL = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
_STARTERS = ("mpirun", "mpiexec", "mpiexec.hydra", "srun", "orterun", "prterun")


def check_script(
    text: str, *, site: Site | None = None, look_up: LookUp = lambda folder, sweep, results: Facts()
) -> list[Finding]:
    """All findings, in the order of their lines.

    Args:
        text: of the script.
        site: where it is to run; found out from what it asks for when it is not given.
        look_up: see :data:`~mpisweep.batch.scriptsheet.LookUp`.
    """
    script = read_script(text)
    if script.carriage_returns:
        return [
            Finding(
                script.carriage_returns,
                Severity.ERROR,
                "the lines end as on Windows, and the shell takes the carriage "
                "return for a part of every word",
                "convert them, e.g. with `sed -i 's/\\r$//'`",
            )
        ]
    system = script.system or (site.system if site else None)
    if system is None:
        return [Finding(
            1, Severity.ERROR, "no directive was found",
            f"a job script begins with lines of {', '.join(s.marker for s in SYSTEMS)}; one that is run "
            "and not submitted is checked with --site workstation",
        )]  # fmt: skip
    asked = asked_for(script)
    site = site or _guess(system, script, asked)
    sheet = Sheet(script, _with_nodes(script, asked, site), system, site, look_up)
    rules = _RULES if system.marker else (_sweep,)
    return sorted((finding for rule in rules for finding in rule(sheet)), key=lambda finding: finding.line)


def _guess(system: BatchSystem, script: JobScript, asked: Asked) -> Site | None:
    """The site whose resource group, or whose nodes, the script names; None where none or several have it, or
    any may.
    """
    sites = []
    for path in known_sites().values():
        # One that cannot be read is not the one that is meant.
        with contextlib.suppress(SiteError):
            sites.append(load_site(str(path)))
    sites = [site for site in sites if site.system is system]
    if not asked.group:
        fitting = [site for site in sites if site.node_resource and script.find(site.node_resource)]
        return fitting[0] if len(fitting) == 1 else None
    fitting = [site for site in sites if asked.group in site.groups]
    return fitting[0] if len(fitting) == 1 and not fitting[0].groups[asked.group].common_name else None


def _with_nodes(script: JobScript, asked: Asked, site: Site | None) -> Asked:
    """The same with the nodes that are asked for in a way that only the site knows."""
    found = script.find(site.node_resource) if site and site.node_resource else None
    if found is None:
        return asked
    return replace(asked, nodes=whole(found.value), lines={**asked.lines, "nodes": found.line})


# ------------------------------------------------------------------------------------- the rules


def _interpreter(sheet: Sheet) -> Iterator[Finding]:
    if sheet.system.needs_interpreter and not sheet.script.has_interpreter:
        yield Finding(
            1,
            Severity.ERROR,
            f"the first line does not name an interpreter, and {sheet.system.submit} refuses such a script",
            "#!/bin/bash",
        )


def _spelling(sheet: Sheet) -> Iterator[Finding]:
    system = sheet.system
    for number in sheet.script.misspelt:
        yield Finding(
            number, Severity.WARNING, "looks like a directive and is a comment",
            f"a directive begins with {system.marker} and a space, at the start of its line",
        )  # fmt: skip
    for marker, number in sheet.script.others.items():
        yield Finding(
            number,
            Severity.WARNING,
            f"{marker} means nothing to {system.title}",
            f"only {system.marker} lines count here",
        )
    for number, value in sheet.script.broken.items():
        text = sheet.script.lines[number - 1].strip()
        yield Finding(
            number,
            Severity.ERROR,
            f"{text.split()[-1]} has no value here, and the next line, {value}, which belongs to it, "
            "is taken for a command",
            f"{text} {value}, on one line",
        )
    for directive in sheet.script.directives:
        if directive.lacks_value:
            joint = "=" if " " in directive.option or directive.option.startswith("--") else " "
            yield Finding(
                directive.line,
                Severity.ERROR,
                f"{directive.option} has no value",
                f"{system.marker} {directive.option}{joint}VALUE",
            )
        if directive.known or directive.lacks_value:
            continue
        known: Iterable[str] = system.flags | system.valued
        option, _, resource = directive.option.partition(" ")
        if resource:
            known = system.resources
        near = difflib.get_close_matches(resource or option, sorted(known), n=1)
        yield Finding(
            directive.line, Severity.ERROR, f"{system.submit} knows no {directive.option}",
            f"did you mean {near[0]}?" if near else f"see `man {system.submit}`",
        )  # fmt: skip


def _order(sheet: Sheet) -> Iterator[Finding]:
    for number in sheet.script.late:
        yield Finding(
            number, Severity.ERROR, f"stands after the first command, where {sheet.system.title} ignores it",
            "directives go to the top, before any command",
        )  # fmt: skip


def _broken_commands(sheet: Sheet) -> Iterator[Finding]:
    for command in sheet.script.commands:
        if re.match(r"--?[A-Za-z]", command.words[0]):
            yield Finding(
                command.line,
                Severity.ERROR,
                f"begins with an option, {command.words[0]}, and the shell takes it for a command",
                "end the line before with a backslash",
            )


def _limits(sheet: Sheet) -> Iterator[Finding]:
    asked, site = sheet.asked, sheet.site
    option = sheet.system.time_example
    elapse = sheet.script.find(*sheet.system.time_options)
    if elapse is None:
        yield Finding(
            1,
            Severity.WARNING,
            "no time limit is asked for, and the system's own may be short",
            f"{sheet.system.marker} {option}2:00:00",
        )
    elif asked.elapse_s is None and not elapse.lacks_value:
        yield Finding(elapse.line, Severity.ERROR, f"{elapse.value!r} is no time limit", f"{option}2:00:00")
    if site is None:
        return
    if site.project_needed and not asked.project and not site.project_with_command:
        yield Finding(
            1, Severity.ERROR, f"no project group is named, and {site.name} wants one",
            f"{sheet.system.marker} {site.project_option('GROUP')}",
        )  # fmt: skip
    group = site.resource_group(asked.group)
    if asked.nodes and group.most_nodes is not None and asked.nodes > group.most_nodes:
        yield Finding(
            asked.line("nodes"),
            Severity.ERROR,
            f"{asked.nodes} nodes are more than resource group {group.name} gives",
            f"at most {group.most_nodes}",
        )
    longest_s = group.longest_s(asked.nodes or 1)
    if asked.elapse_s and longest_s is not None and asked.elapse_s > longest_s:
        yield Finding(
            asked.line("elapse"),
            Severity.ERROR,
            f"{clock(asked.elapse_s)} is longer than resource group {group.name} allows for "
            f"{asked.nodes or 1} nodes",
            f"at most {clock(longest_s)}",
        )


def _ranks(sheet: Sheet) -> Iterator[Finding]:
    asked, gpus = sheet.asked, sheet.gpus
    if not gpus or not asked.ranks:
        return
    total = gpus * (asked.nodes or 1)
    if asked.ranks < total:
        yield Finding(
            asked.line("ranks"),
            Severity.ERROR,
            f"{_are(asked.ranks, 'rank')} fewer than the {total} GPUs: some idle",
            f"{total} ranks, one a GPU",
        )
    elif asked.ranks > total:
        yield Finding(
            asked.line("ranks"), Severity.WARNING if asked.ranks % total == 0 else Severity.ERROR,
            f"{_are(asked.ranks, 'rank')} more than the {total} GPU{'s' * (total != 1)}: they share",
            f"{total} ranks, unless the sweep says devices_per_trial = {total / asked.ranks:.3g}",
        )  # fmt: skip


def _cores(sheet: Sheet) -> Iterator[Finding]:
    cores, gpus = sheet.asked.cores, sheet.gpus
    if gpus and cores is not None and cores < LEAST_CORES_PER_GPU * gpus:
        each = sheet.system.cores_example(CORES_PER_GPU, gpus)
        yield Finding(
            sheet.asked.line("cores"),
            Severity.WARNING,
            f"{_are(cores, 'core')} fewer than {LEAST_CORES_PER_GPU} per GPU, which "
            "leaves none for loading data",
            f"{each}, or as many as a node has",
        )


def _started_ranks(sheet: Sheet) -> Iterator[Finding]:
    ranks = sheet.asked.ranks
    own = f"${sheet.system.ranks_variable}" if sheet.system.ranks_variable else ranks
    for command in sheet.script.commands:
        starter = next(
            (at for at, word in enumerate(command.words) if word.rsplit("/", 1)[-1] in _STARTERS), None
        )
        if starter is None or ranks is None:
            continue
        words = command.words[starter + 1 :]
        for option, value in pairwise([*words, ""]):
            if "mpisweep" in option:
                break
            if found := re.fullmatch(r"(?:--ntasks|--np|--n)=(\d+)|-n(\d+)", option):
                count = found[1] or found[2]
            elif (
                option in ("-n", "-np", "--np", "--n", "--ntasks", "-c")
                and value.isdigit()
                and not (option == "-c" and command.words[starter] == "srun")
            ):
                count = value
            else:
                continue
            if int(count) > ranks:
                yield Finding(
                    command.line,
                    Severity.ERROR,
                    f"{command.words[starter]} starts {count} ranks, and the job has {ranks}",
                    f"{own}, or plain `mpisweep run`, which finds out by itself",
                )


def _environment(sheet: Sheet) -> Iterator[Finding]:
    words = [word for command in sheet.script.commands for word in command.words]
    in_container = any(word in ("singularity", "apptainer") for word in words)
    loads = any(
        ("module" in command.words[:3] and "load" in command.words) or command.words[:1] == ("ml",)
        for command in sheet.script.commands
    )
    activates = any(word.endswith(("/activate", "conda.sh")) or word == "conda" for word in words)
    if not (
        loads
        or activates
        or in_container
        or any("/" in command.words[0] and "mpisweep" in command.words[0] for command, _ in sheet.sweeps)
    ):
        yield Finding(
            1,
            Severity.WARNING,
            "no module is loaded and no environment activated: a job does not have your login's",
            "module load ..., and source VENV/bin/activate",
        )
    elif sheet.site and sheet.site.modules and not loads and not in_container:
        yield Finding(
            1,
            Severity.WARNING,
            f"no module is loaded; {sheet.site.name} has MPI and CUDA in modules",
            f"module load {' '.join(sheet.site.modules)}",
        )
    if in_container and sheet.site and sheet.site.container.directives:
        for text in sheet.site.container.directives:
            option, _, value = text.partition(" ")
            name, _, wanted = value.partition("=")
            found = sheet.script.find(f"{option} {name}")
            if found is None or found.value != wanted:
                yield Finding(
                    1,
                    Severity.ERROR,
                    f"containers need {text} on {sheet.site.name}",
                    f"{sheet.system.marker} {text}",
                )
    if not sheet.asked.log:
        yield Finding(
            1,
            Severity.WARNING,
            "nothing says where the log goes",
            f"{sheet.system.marker} {sheet.system.log_example}",
        )


def _sweep(sheet: Sheet) -> Iterator[Finding]:
    if not sheet.sweeps:
        yield Finding(
            1, Severity.WARNING, "no command in it is `mpisweep run`", "mpisweep run SWEEP.toml -o RESULTS.h5"
        )
    for command, arguments in sheet.sweeps:
        results = _option(arguments, "-o", "--output")
        where = _local_folder(sheet, results)
        if not where and not results.startswith("/"):
            where = _local_folder(sheet, _working_folder(sheet, command))
        if where:
            yield Finding(
                command.line,
                Severity.ERROR,
                f"the results lie in {where}, which each node has for itself and which is gone after the job",
                "a folder that all nodes share",
            )
        yield from _walltime(sheet, command, _option(arguments, "--walltime"))
        yield from _files(sheet, command, arguments, results)


def _walltime(sheet: Sheet, command: Command, given: str) -> Iterator[Finding]:
    elapse_s = sheet.asked.elapse_s
    # The scripts of `mpisweep jobscript` take off what has passed: $((walltime - SECONDS)).
    variable = re.fullmatch(r"\$\(\((\w+) ?- ?SECONDS\)\)", given)
    if variable:
        line = next((text for text in sheet.script.lines if text.startswith(f"{variable[1]}=")), "")
        given = line.partition("=")[2]
    walltime_s = parse_duration(given) if given else None
    if walltime_s is None or elapse_s is None:
        return
    if walltime_s > elapse_s:
        yield Finding(
            command.line,
            Severity.ERROR,
            f"--walltime {clock(walltime_s)} is longer than the job, which has {clock(elapse_s)}: "
            "it is killed before it stops in order",
            f"--walltime {clock(elapse_s)}",
        )
    elif walltime_s < (1 - _SLACK) * elapse_s:
        yield Finding(
            command.line,
            Severity.WARNING,
            f"--walltime {clock(walltime_s)} leaves {clock(elapse_s - walltime_s)} of the job unused",
            f"--walltime {clock(elapse_s)}",
        )


def _files(sheet: Sheet, command: Command, arguments: tuple[str, ...], results: str) -> Iterator[Finding]:
    facts = sheet.look_up(_working_folder(sheet, command), _sweep_of(arguments), results)
    if facts.problem:
        yield Finding(
            command.line,
            Severity.ERROR,
            facts.problem,
            "the path of a sweep file that `mpisweep check` finds nothing wrong with, "
            "as seen from where the job runs",
        )
    elapse_s, longest_s, timeout_s = sheet.asked.elapse_s, facts.longest_s, facts.timeout_s
    if elapse_s is None:
        return
    if longest_s is not None and longest_s > elapse_s:
        yield Finding(
            sheet.asked.line("elapse"),
            Severity.ERROR,
            f"{clock(elapse_s)} is too short for one trial: the longest so far took {clock(longest_s)}",
            f"more than {clock(longest_s)}",
        )
    elif timeout_s is not None and timeout_s > elapse_s:
        yield Finding(
            sheet.asked.line("elapse"),
            Severity.ERROR,
            f"{clock(elapse_s)} is shorter than what one trial may take: limits.timeout is "
            f"{clock(timeout_s)}",
            f"at least {clock(timeout_s)}, or a smaller timeout",
        )


_RULES = (
    _interpreter,
    _spelling,
    _order,
    _broken_commands,
    _limits,
    _ranks,
    _cores,
    _started_ranks,
    _environment,
    _sweep,
)


# ------------------------------------------------------------------------------------- what they need


def _option(arguments: tuple[str, ...], *names: str) -> str:
    for at, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else arguments[at + 1] if at + 1 < len(arguments) else ""
    return ""


def _sweep_of(arguments: tuple[str, ...]) -> str:
    """The sweep that `mpisweep run` is given; empty where that cannot be told."""
    ours = tuple(takewhile(lambda word: word not in ("--", "&", "&&", "|", "||", ";"), arguments))
    first = ours[0] if ours and not ours[0].startswith("-") else ""
    return first or next((word for word in ours if word.endswith(".toml")), "")


def _working_folder(sheet: Sheet, command: Command) -> str:
    """The folder of the last `cd` before a command; empty for where the script is submitted from."""
    found = sheet.system.first_folder(sheet.script.find)
    for other in sheet.script.commands:
        if other.line < command.line and other.words[0] in ("cd", "pushd") and len(other.words) > 1:
            found = other.words[-1]
    return "" if re.fullmatch(rf"\$\{{?{sheet.system.submit_folder}\}}?", found) else found


def _local_folder(sheet: Sheet, path: str) -> str:
    """The node's own folder that a path begins with; empty when it does not."""
    folders = sheet.site.local_folders if sheet.site else _LOCAL
    for folder in folders:
        if path == folder or path.startswith(folder.rstrip("/") + "/"):
            return folder
    for variable in sheet.system.local_folders:
        if re.match(rf"\$(?:{variable}\b|\{{{variable}\b)", path):
            return f"${variable}"
    return ""


def _are(count: int, what: str) -> str:
    return f"{count} {what} is" if count == 1 else f"{count} {what}s are"
