"""Giving a job script to the batch system, alone or after another job, and taking jobs back."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from mpisweep.batch.dialect import PBS, PJM, SLURM, Dialect

__all__ = ["SubmitError", "cancel", "find_command", "follow_options", "parse_job_id", "submit"]

#: How long a batch system may take over a submission, in seconds: some are slow when they are busy.
_SUBMIT_S = 120.0

#: What is printed for a job that was taken.  PJM says it with and without a full stop after INFO.
_TAKEN = {
    PJM.name: re.compile(r"^\[INFO\.?\] PJM 0000 pjsub Job (\S+) submitted\.", re.MULTILINE),
    SLURM.name: re.compile(r"^Submitted batch job (\d+)", re.MULTILINE),
    PBS.name: re.compile(r"^(\d+(?:\.[\w.-]+)?)\s*$", re.MULTILINE),
}


class SubmitError(RuntimeError):
    """A job was not taken; the message is one sentence with the batch system's own words."""


def find_command(system: Dialect, command: str) -> str:
    """Where a batch system's command is.

    Raises:
        SubmitError: when it is not on PATH.
    """
    found = shutil.which(command)
    if found is None:
        raise SubmitError(
            f"{command} is not on PATH: this is no machine that {system.title} jobs are submitted from; log in to one, "
            "or write the script with `mpisweep jobscript` and submit it there"
        )
    return found


def submit(
    system: Dialect,
    script: Path,
    *,
    folder: Path,
    chained: bool = False,
    after: str = "",
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run,
) -> str:
    """Submit a script and return the job's id.

    Args:
        system: the batch system.
        script: the file.
        folder: to submit from: relative paths of the directives start there.
        chained: whether other jobs are to follow.
        after: id of the job that this one follows.
        run: :func:`subprocess.run`.

    Raises:
        SubmitError: when it was not taken.
    """
    command = [find_command(system, system.submit), *follow_options(system, chained, after), str(script)]
    try:
        done = run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_SUBMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise SubmitError(
            f"{system.submit} has not answered for {_SUBMIT_S:.0f} s; whether the job was taken, `{system.ask}` tells"
        ) from error
    except OSError as error:
        raise SubmitError(f"{system.submit} cannot be started: {error.strerror}") from error
    job_id = parse_job_id(system, done.stdout + done.stderr) if done.returncode == 0 else ""
    if not job_id:
        words = " ".join((done.stderr.strip() or done.stdout.strip() or "it said nothing").split())
        raise SubmitError(f"{system.submit} has not taken {script.name}: {words}")
    return job_id


def parse_job_id(system: Dialect, output: str) -> str:
    """The job's id in what the batch system has printed; empty when no job was taken."""
    found = _TAKEN[system.name].search(output)
    return found[1] if found else ""


def follow_options(system: Dialect, chained: bool, after: str) -> list[str]:
    """The options of a job that others follow, or that follows `after` however that ends.

    PJM calls such jobs the sub jobs of a step job.  ``sd`` says when one is deleted: a script that ends with 0 has
    nothing left to do, and PJM then deletes those after it.
    """
    if system is PJM and chained:
        if not after:
            return ["--step"]
        step_job, _, number = after.partition("_")
        return ["--step", "--sparam", f"jid={step_job},sn={int(number or 0) + 1},sd=ec==0:after:{int(number or 0)}"]
    if not after:
        return []
    return {SLURM.name: [f"--dependency=afterany:{after}"], PBS.name: ["-W", f"depend=afterany:{after}"]}[system.name]


def cancel(system: Dialect, job_ids: Sequence[str]) -> str:
    """Take jobs back.

    Returns:
        Empty when it was done, else the batch system's words.
    """
    command = shutil.which(system.cancel)
    if command is None:
        return f"{system.cancel} is not on PATH"
    try:
        done = subprocess.run(
            [command, *job_ids], capture_output=True, text=True, errors="replace", timeout=_SUBMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{system.cancel}: {error}"
    return "" if done.returncode == 0 else " ".join((done.stderr.strip() or done.stdout.strip() or system.cancel).split())
