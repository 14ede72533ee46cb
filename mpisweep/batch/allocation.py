"""Which batch system has given us this machine and until when, as far as it tells."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

__all__ = ["Allocation", "ends_at", "this_allocation"]

#: Batch system -> the variables that may hold its job id, the most exact first.
_JOB_VARIABLES: dict[str, tuple[str, ...]] = {
    "pjm": ("PJM_SUBJOBID", "PJM_JOBID"),
    "slurm": ("SLURM_JOB_ID", "SLURM_JOBID"),
    "pbs": ("PBS_JOBID",),
}


#: How long a batch system's own command may take, in seconds.
_ASK_S = 20.0


@dataclass(frozen=True, slots=True)
class Allocation:
    """Where this run of the program lives; ``local`` and no job id outside of a batch system."""

    system: str
    job_id: str


def this_allocation(environment: Mapping[str, str] = os.environ) -> Allocation:
    """Read the environment."""
    for system, names in _JOB_VARIABLES.items():
        for name in names:
            if environment.get(name):
                return Allocation(system, environment[name])
    return Allocation("local", "")


def ends_at(allocation: Allocation, environment: Mapping[str, str] = os.environ) -> float | None:
    """When the allocation ends, in seconds since 1970; None where nobody says so.

    Slurm says it in ``SLURM_JOB_END_TIME`` or, where its version sets no such variable, by ``squeue``.  PJM and PBS
    have it in no variable: there ``--walltime`` says it.
    """
    if allocation.system != "slurm":
        return None
    stated = environment.get("SLURM_JOB_END_TIME", "")
    if stated.isdigit():
        return float(stated)
    try:
        asked = subprocess.run(
            ["squeue", "--noheader", "--jobs", allocation.job_id, "--format", "%e"],
            capture_output=True, text=True, timeout=_ASK_S, check=True,
        )  # fmt: skip
        return datetime.fromisoformat(asked.stdout.split()[0]).timestamp()
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
