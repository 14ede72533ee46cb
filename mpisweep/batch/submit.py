"""Giving a job script to the batch system, alone or after another job, and taking jobs back."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from mpisweep.batch.base import BatchSystem

__all__ = ["SubmitError", "cancel", "find_command", "submit"]

#: How long a batch system may take over a submission, in seconds: some are slow when they are busy.
_SUBMIT_S = 120.0


class SubmitError(RuntimeError):
    """A job was not taken; the message is one sentence with the batch system's own words."""


def find_command(system: BatchSystem, command: str) -> str:
    """Where a batch system's command is.

    Raises:
        SubmitError: when it is not on PATH.
    """
    found = shutil.which(command)
    if found is None:
        raise SubmitError(
            f"{command} is not on PATH: this is no machine that {system.title} jobs are submitted from; log "
            "in to one, or write the script with `mpisweep jobscript` and submit it there"
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
        folder: to submit from: relative paths of the directives start there.
        chained: whether other jobs are to follow.
        after: id of the job that this one follows.
        options: that the site wants with the command.
        run: :func:`subprocess.run`.

    Raises:
        SubmitError: when it was not taken.
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
            f"{system.submit} has not answered for {_SUBMIT_S:.0f} s; whether the job was taken, "
            f"`{system.ask}` tells"
        ) from error
    except OSError as error:
        raise SubmitError(f"{system.submit} cannot be started: {error.strerror}") from error
    job_id = system.submitted_id(done.stdout + done.stderr) if done.returncode == 0 else ""
    if not job_id:
        words = " ".join((done.stderr.strip() or done.stdout.strip() or "it said nothing").split())
        raise SubmitError(f"{system.submit} has not taken {script.name}: {words}")
    return job_id


def cancel(system: BatchSystem, job_ids: Sequence[str]) -> str:
    """Take jobs back.

    Returns:
        Empty when it was done, else the batch system's words.
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
