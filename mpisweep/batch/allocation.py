"""Which batch system has given us this machine, as far as the environment tells."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Allocation", "this_allocation"]

#: Batch system -> the variables that may hold its job id, the most exact first.
_JOB_VARIABLES: dict[str, tuple[str, ...]] = {
    "pjm": ("PJM_SUBJOBID", "PJM_JOBID"),
    "slurm": ("SLURM_JOB_ID", "SLURM_JOBID"),
    "pbs": ("PBS_JOBID",),
}


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
