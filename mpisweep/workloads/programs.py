"""Start the program of a trial, with its two pipes and its environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from mpisweep.processes.kernel import die_with_parent, start_with_retries
from mpisweep.records import FailureCause, Value
from mpisweep.spec.commandline import CommandWorkload, render
from mpisweep.workloads.report import REPORT_VARIABLE
from mpisweep.workloads.trial import Trial, TrialFailedError

__all__ = ["start_program"]


def start_program(
    workload: CommandWorkload, folder: Path, trial: Trial, arguments: list[str], values: dict[str, Value]
) -> tuple[subprocess.Popen[bytes], int, int]:
    """Start the program; return it with the read ends of its two pipes."""
    printed, prints = os.pipe()
    reported, reports = os.pipe()
    environment = os.environ | {
        "MPISWEEP_TRIAL": str(trial.number),
        "MPISWEEP_REPEAT": str(trial.repeat),
        "MPISWEEP_SEED": str(trial.seed),
        REPORT_VARIABLE: f"{reports}:{os.fstat(reports).st_ino}:{os.getpid()}",
    }
    if trial.team is not None:
        # As under torchrun, it sees the devices of all ranks on its node and uses its local rank's.
        environment |= dict(trial.team.environment)
    # A Python program that buffers its output would report everything at its end.
    environment.setdefault("PYTHONUNBUFFERED", "1")
    environment |= {name: render(value, values) for name, value in workload.environment}
    parent = os.getpid()
    try:
        program = start_with_retries(lambda: subprocess.Popen(
            arguments,
            cwd=trial.directory if workload.own_directory else folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=prints,
            stderr=prints,
            pass_fds=[reports],
            process_group=0,
            # A preexec_fn is safe only without threads; this process has none.
            preexec_fn=lambda: die_with_parent(parent),
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
