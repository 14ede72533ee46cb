"""Submitting job scripts, alone or after another job, and cancelling jobs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from mpisweep.batch.base import BatchSystem
from mpisweep.errors import UserError

__all__ = ["SubmitError", "cancel", "find_command", "submit"]

#: Time limit of a submission, in seconds: busy batch systems are slow.
_SUBMIT_S = 120.0


class SubmitError(UserError, RuntimeError):
    """A job was not submitted; the message is one sentence with the message of the batch system."""


def find_command(system: BatchSystem, command: str) -> str:
    """Find a batch system's command.

    Raises:
        SubmitError: if it is not on PATH.
    """
    found = shutil.which(command)
    if found is None:
        raise SubmitError(
            f"{command} is not on PATH: {system.title} jobs cannot be submitted from this machine; log in to "
            "one that has it, or write the script with `mpisweep jobscript` and submit it there"
        )
    return found


def submit(
    system: BatchSystem,
    script: Path,
    *,
    folder: Path,
    chained: bool = False,
    after: str = "",
    options: Sequence[str] = (),
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run,
) -> str:
    """Submit a script and return the job's id.

    Args:
        system: the batch system.
        script: the file.
        folder: to submit from; relative paths in directives start there.
        chained: whether it is part of a chain.
        after: id of the job that it follows; empty for none.
        options: of the submit command, as the site needs them.
        run: :func:`subprocess.run`.

    Raises:
        SubmitError: if it was not accepted.
    """
    command = [
        find_command(system, system.submit),
        *system.follow_options(chained, after),
        *options,
        str(script),
    ]
    try:
        done = run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SUBMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SubmitError(
            f"{system.submit} has not answered within {_SUBMIT_S:.0f} s; `{system.ask}` shows whether the "
            "job was accepted"
        ) from error
    except OSError as error:
        raise SubmitError(f"{system.submit} cannot be started: {error.strerror}") from error
    job_id = system.submitted_id(done.stdout + done.stderr) if done.returncode == 0 else ""
    if not job_id:
        words = " ".join((done.stderr.strip() or done.stdout.strip() or "no output").split())
        raise SubmitError(f"{system.submit} refused {script.name}: {words}")
    return job_id


def cancel(system: BatchSystem, job_ids: Sequence[str]) -> str:
    """Cancel jobs.

    Returns:
        Empty if that was done, else the message of the batch system.
    """
    command = shutil.which(system.cancel)
    if command is None:
        return f"{system.cancel} is not on PATH"
    try:
        done = subprocess.run(
            [command, *job_ids],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SUBMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{system.cancel}: {error}"
    return (
        ""
        if done.returncode == 0
        else " ".join((done.stderr.strip() or done.stdout.strip() or system.cancel).split())
    )
