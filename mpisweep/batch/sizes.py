"""Sizes of an allocation to plan for: how many workers a job of so many nodes has. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mpisweep.batch.request import Wishes, plan_job
from mpisweep.batch.site import ResourceGroup, Site
from mpisweep.progress import counted

__all__ = ["Machine", "at_site", "doubling"]

#: Most sizes of a plan.
_SIZES = 8


@dataclass(frozen=True, slots=True)
class Machine:
    """The nodes of a plan.

    Attributes:
        unit: what a job asks for: ``node`` or ``GPU``.
        workers_per_unit: number of workers on one; may be a fraction, of GPUs that a trial needs several of.
        what: describes them, e.g. ``nodes of flow-cx with 4 workers each``.
        most: largest number of them in a job; None for unknown.
        group: knows the longest time limit of a job; None for none.
    """

    unit: str
    workers_per_unit: float
    what: str
    most: int | None = None
    group: ResourceGroup | None = None

    def workers(self, count: int) -> int:
        """Number of workers of a job of this size."""
        return math.floor(self.workers_per_unit * count + 1e-9)

    def longest_s(self, count: int) -> float | None:
        """Longest time limit of a job of this size, in seconds; None for unknown."""
        if self.group is None:
            return None
        return self.group.longest_s(1 if self.unit == "GPU" else count)


def at_site(site: Site, wishes: Wishes, devices_per_trial: float) -> Machine:
    """The nodes of a site, or its GPUs where jobs ask for these.

    Raises:
        SiteError: if the site file does not say what a node has, or the wishes are beyond its limits.
    """
    # Only the number of ranks is wanted: any name of a project and any time limit do.
    one = replace(wishes, nodes=1, elapse_s=1.0, project=wishes.project or "any")
    if site.unit == "gpu":
        group = site.resource_group(wishes.group or site.group)
        return Machine(
            "GPU", 1 / devices_per_trial, f"GPUs of {site.name}", group.gpus or site.gpus_per_node, group
        )
    job = plan_job(site, one, devices_per_trial)
    limits = site.resource_group(job.group) if site.system.marker else None
    most = 1 if limits is None else limits.most_nodes
    each = f"{counted(job.ranks_per_node, 'worker')} each"
    return Machine("node", job.ranks_per_node, f"nodes of {site.name} with {each}", most, limits)


def doubling(machine: Machine, trials: int, widest: int, given: Sequence[int] = ()) -> list[int]:
    """The sizes to plan for: the given ones, or doubling until every trial has a worker."""
    if given:
        return sorted(set(given))
    found: list[int] = []
    count = max(1, math.ceil(widest / machine.workers_per_unit - 1e-9))
    while len(found) < _SIZES:
        if machine.most is not None and count >= machine.most:
            return [*found, max(machine.most, 1)]
        found.append(count)
        if machine.workers(count) >= trials * widest:
            break
        count *= 2
    return found
