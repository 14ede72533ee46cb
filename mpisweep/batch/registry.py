"""The batch systems that are known.  One more is one more name in :data:`SYSTEMS`."""

from __future__ import annotations

from mpisweep.batch.base import BatchSystem
from mpisweep.batch.gridengine import GRID_ENGINE
from mpisweep.batch.pbs import PBS
from mpisweep.batch.pjm import PJM
from mpisweep.batch.slurm import SLURM
from mpisweep.batch.workstation import WORKSTATION

__all__ = ["SCRIPTED", "SYSTEMS", "batch_system"]

#: In the order in which a job's environment is searched for them.
SYSTEMS: tuple[BatchSystem, ...] = (PJM, SLURM, PBS, GRID_ENGINE)

#: What scripts can be written for, by name: the batch systems, and a machine without one.
SCRIPTED: dict[str, BatchSystem] = {system.name: system for system in (*SYSTEMS, WORKSTATION)}


def batch_system(name: str) -> BatchSystem | None:
    """The batch system of this name; None for ``local``."""
    return next((system for system in SYSTEMS if system.name == name), None)
