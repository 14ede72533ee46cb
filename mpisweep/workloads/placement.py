"""The place of a trial process: its devices, its cores, and an environment without MPI."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from mpisweep.processes.one_core import THREAD_VARIABLES

__all__ = ["take_place"]

#: Prefixes of the variables with which MPI launchers mark a process as a rank.
_MPI_PREFIXES = ("OMPI_COMM_", "PMIX_", "PMI_", "PRTE_", "MV2_COMM_")


def take_place(variables: Mapping[str, str], cores: Collection[int]) -> None:
    """Restrict this process to its devices and cores.

    Args:
        variables: select the devices.
        cores: numbers of the cores; all if empty.
    """
    # A trial with MPI must not take itself for a rank.
    for name in [name for name in os.environ if name.startswith(_MPI_PREFIXES)]:
        del os.environ[name]
    os.environ.update(variables)
    if not cores:
        return
    count = str(len(cores))
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, count)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
