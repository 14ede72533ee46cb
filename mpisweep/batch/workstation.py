"""A machine without a batch system: a script is run and not submitted."""

from __future__ import annotations

from mpisweep.batch.base import BatchSystem

__all__ = ["WORKSTATION", "Workstation"]


class Workstation(BatchSystem):
    """See the module."""

    name = "workstation"
    title = "a workstation"
    submit = "bash"


WORKSTATION = Workstation()
