"""Rules on the commands of a job script: starting ranks, the environment, the sweep."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise, takewhile

from mpisweep.batch.directives import Command
from mpisweep.batch.scriptsheet import Finding, Severity, Sheet
from mpisweep.batch.texts import clock
from mpisweep.spec import parse_duration

__all__ = ["COMMAND_RULES", "check_sweeps"]

#: A walltime may be shorter than the elapse by this much, for loading modules, before it is a waste.
_SLACK = 0.1
_LOCAL = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
_STARTERS = ("mpirun", "mpiexec", "mpiexec.hydra", "srun", "orterun", "prterun")


def _broken_commands(sheet: Sheet) -> Iterator[Finding]:
    for command in sheet.script.commands:
        if re.match(r"--?[A-Za-z]", command.words[0]):
            yield Finding(
                command.line,
                Severity.ERROR,
                f"begins with an option, {command.words[0]}, and the shell takes it for a command",
                "end the line before with a backslash",
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
                    f"{own}, or plain `mpisweep run`, which starts them by itself",
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
            "no module is loaded and no environment activated: jobs do not inherit your login environment",
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
            "the log file is not set",
            f"{sheet.system.marker} {sheet.system.log_example}",
        )


def check_sweeps(sheet: Sheet) -> Iterator[Finding]:
    """Check the commands that run a sweep: the only rule for scripts without directives."""
    if not sheet.sweeps:
        yield Finding(
            1,
            Severity.WARNING,
            "the script does not run `mpisweep run`",
            "mpisweep run SWEEP.toml -o RESULTS.h5",
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
                f"the results are in {where}, which other nodes cannot see and which is gone after the job",
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
            "it is killed before it can stop cleanly",
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
            "the path, from the working folder of the job, of a sweep file that passes `mpisweep check`",
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
            f"{clock(elapse_s)} is shorter than the time limit of a trial: limits.timeout is "
            f"{clock(timeout_s)}",
            f"at least {clock(timeout_s)}, or a smaller timeout",
        )


COMMAND_RULES = (_broken_commands, _started_ranks, _environment, check_sweeps)


# ------------------------------------------------------------------------------------- reading a command


def _option(arguments: tuple[str, ...], *names: str) -> str:
    for at, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else arguments[at + 1] if at + 1 < len(arguments) else ""
    return ""


def _sweep_of(arguments: tuple[str, ...]) -> str:
    """The sweep argument of `mpisweep run`; empty if that is not clear."""
    ours = tuple(takewhile(lambda word: word not in ("--", "&", "&&", "|", "||", ";"), arguments))
    first = ours[0] if ours and not ours[0].startswith("-") else ""
    return first or next((word for word in ours if word.endswith(".toml")), "")


def _working_folder(sheet: Sheet, command: Command) -> str:
    """The folder of the last `cd` before a command; empty for where the script was submitted."""
    found = sheet.system.first_folder(sheet.script.find)
    for other in sheet.script.commands:
        if other.line < command.line and other.words[0] in ("cd", "pushd") and len(other.words) > 1:
            found = other.words[-1]
    return "" if re.fullmatch(rf"\$\{{?{sheet.system.submit_folder}\}}?", found) else found


def _local_folder(sheet: Sheet, path: str) -> str:
    """The node-local folder that a path begins with; empty for none."""
    folders = sheet.site.local_folders if sheet.site else _LOCAL
    for folder in folders:
        if path == folder or path.startswith(folder.rstrip("/") + "/"):
            return folder
    for variable in sheet.system.local_folders:
        if re.match(rf"\$(?:{variable}\b|\{{{variable}\b)", path):
            return f"${variable}"
    return ""
