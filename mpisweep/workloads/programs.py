"""Start the program of a trial, with its two pipes and its environment.

A program must die with its trial process, also if that is killed.  The kernel does this for a process that
asks for it, so something has to ask between the fork and the program.  Python code there needs a fork that
copies this process's page tables, and both sides then copy the pages that they write: 9 ms of CPU time for a
program that itself takes 1 ms.  util-linux has a command that asks and then becomes the program; it starts by
vfork(), which copies nothing, and adds half a millisecond.  If the rank is killed within this time, its
program stays behind.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mpisweep.processes.kernel import die_with_parent, start_with_retries
from mpisweep.records import FailureCause, Value
from mpisweep.spec.commandline import CommandWorkload, render
from mpisweep.workloads.report import REPORT_VARIABLE
from mpisweep.workloads.trial import Trial, TrialFailedError

__all__ = ["has_not_started", "start_program"]

#: Exit codes of a shell, and of util-linux, for a program that cannot be executed or is not found.
_NOT_STARTED = (126, 127)
#: How the command before the program, or its loader, begins its only line in that case.
_ITS_ERROR = re.compile(rb"\A(\S*/)?setpriv: .*\n?\Z")
#: How a program in machine code begins.
_ELF = b"\x7fELF"


def start_program(
    workload: CommandWorkload,
    folder: Path,
    trial: Trial,
    arguments: list[str],
    values: dict[str, Value],
    *,
    directly: bool = False,
) -> tuple[subprocess.Popen[bytes], int, int]:
    """Start the program; return it with the read ends of its two pipes.

    Args:
        workload: the command line.
        folder: of the sweep file.
        trial: the trial that the program runs.
        arguments: the rendered command line.
        values: for variables of the environment.
        directly: without another command before it, so that an error of its start is known exactly.

    Raises:
        TrialFailedError: when it cannot be started.
    """
    printed, prints = os.pipe()
    reported, reports = os.pipe()
    environment = _environment(workload, trial, values, reports)
    parent = os.getpid()
    try:
        own_folder = trial.directory if workload.own_directory else folder
        before = () if directly else _before(arguments[0], own_folder, environment)
        program = start_with_retries(lambda: subprocess.Popen(
            [*before, *arguments],
            cwd=own_folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=prints,
            stderr=prints,
            pass_fds=[reports],
            process_group=0,
            # A preexec_fn is safe only without threads; this process has none.
            preexec_fn=None if before else lambda: die_with_parent(parent),
        ))  # fmt: skip
    except (OSError, ValueError) as error:
        for file in (printed, reported):
            os.close(file)
        raise TrialFailedError(
            FailureCause.EXCEPTION,
            f"{arguments[0]!r} cannot be started: {getattr(error, 'strerror', error)}",
        ) from error
    finally:
        os.close(prints)
        os.close(reports)
    return program, printed, reported


def has_not_started(status: int, output: bytes) -> bool:
    """Whether the command before the program could not start it, as its output says."""
    return status in _NOT_STARTED and _ITS_ERROR.match(output) is not None


def _before(program: str, folder: Path, environment: Mapping[bytes, bytes]) -> tuple[str, ...]:
    """The command to put before a program; empty if there is none for it."""
    path = os.fsdecode(environment.get(b"PATH", b""))
    return _dying_with_parent() if _is_executed_as_it_is(program, folder, path) else ()


def _environment(
    workload: CommandWorkload, trial: Trial, values: dict[str, Value], reports: int
) -> dict[bytes, bytes]:
    """The environment of the program; `reports` is the file into which it reports."""
    environment = {
        **(_usual_environment() if trial.team is None else os.environb),
        b"MPISWEEP_TRIAL": b"%d" % trial.number,
        b"MPISWEEP_REPEAT": b"%d" % trial.repeat,
        b"MPISWEEP_SEED": b"%d" % trial.seed,
        REPORT_VARIABLE.encode(): b"%d:%d:%d" % (reports, os.fstat(reports).st_ino, os.getpid()),
    }
    if trial.team is not None:
        # As under torchrun, it sees the devices of all ranks on its node and uses its local rank's.
        environment |= _encoded(dict(trial.team.environment))
    # A Python program that buffers its output would report everything at its end.
    environment.setdefault(b"PYTHONUNBUFFERED", b"1")
    return environment | _encoded({name: render(value, values) for name, value in workload.environment})


def _encoded(variables: Mapping[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.fsencode(value) for name, value in variables.items()}


@functools.cache
def _usual_environment() -> dict[bytes, bytes]:
    """The environment of this process; only a trial of several ranks changes it, for its own time."""
    return dict(os.environb)


@functools.lru_cache(maxsize=256)
def _is_executed_as_it_is(program: str, folder: Path, path: str) -> bool:
    """Whether the kernel knows the format of a program.

    Another one is an error, e.g. a program for the processors of the login node; but setpriv, like a shell,
    would have a shell read it.
    """
    found = folder / program if "/" in program else shutil.which(program, path=path or None)
    head = _head_of(found) if found is not None else b""
    return head.startswith(b"#!") or (head.startswith(_ELF) and _format_of(head) == _own_format())


def _head_of(path: str | Path) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(20)
    except (OSError, ValueError):
        # Executable but not readable, for one; or no path at all.
        return b""


def _format_of(head: bytes) -> tuple[bytes, bytes]:
    """Word size with byte order, and the machine, of an ELF file."""
    return head[4:6], head[18:20]


@functools.cache
def _own_format() -> tuple[bytes, bytes]:
    return _format_of(_head_of("/proc/self/exe"))


@functools.cache
def _dying_with_parent() -> tuple[str, ...]:
    """A command that has the kernel kill the program after it with its parent; empty if there is none.

    setpriv has the option since util-linux 2.33; Busybox's has not.
    """
    found = shutil.which("setpriv", path=os.defpath)
    command = (str(found), "--pdeathsig", "KILL", "--")
    try:
        able = found and not subprocess.run(
            [*command, str(found), "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=False
        ).returncode  # fmt: skip
    except OSError:
        able = False
    return command if able else ()
