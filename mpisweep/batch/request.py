"""What a job asks its batch system for: the user's wishes and the site's facts, decided and checked. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mpisweep.batch.site import SAFE, Site, SiteError
from mpisweep.batch.texts import clock

__all__ = ["CORES_PER_GPU", "LEAST_CORES_PER_GPU", "Job", "Wishes", "plan_job"]

#: At most so many ranks on a node without GPUs, as `mpisweep run` starts.
_RANKS_WITHOUT_GPUS = 16
#: With fewer cores per GPU nothing is left for data loaders beside the process that trains.
LEAST_CORES_PER_GPU = 2
#: What is proposed where nothing is known.
CORES_PER_GPU = 4


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user has asked for; None and empty for what is left to the site.

    Attributes:
        gpus: of a node; of the job, where the site's unit is the GPU.
        ranks: of a node.
        cores: of a rank.
        group: resource group, partition or queue.
        project: project group or account.
        modules: instead of the site's, when there are any.
        directives: options of the batch system beside the site's.
    """

    nodes: int = 1
    elapse_s: float | None = None
    gpus: int | None = None
    ranks: int | None = None
    cores: int | None = None
    group: str = ""
    project: str = ""
    modules: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """What the batch system is asked for.

    Attributes:
        gpus: of a node; 0 for none.
        cores: of a rank; None where the batch system is not asked for any.
        elapse_s: None on a workstation, which has no limit.
    """

    site: Site
    nodes: int
    gpus: int
    ranks_per_node: int
    elapse_s: float | None
    group: str
    project: str
    modules: tuple[str, ...]
    cores: int | None = None
    directives: tuple[str, ...] = ()

    @property
    def ranks(self) -> int:
        """Of the whole job."""
        return self.nodes * self.ranks_per_node

    @property
    def cores_per_node(self) -> int | None:
        """What its ranks have of a node together; None where nobody knows."""
        return self.site.cores_per_node if self.cores is None else self.cores * self.ranks_per_node

    def doubt(self) -> str:
        """One sentence when the GPUs would wait for their data; else empty."""
        cores = self.cores_per_node
        if not self.gpus or not self.site.system.marker or self.site.unit == "gpu":
            return ""
        if cores is None:
            # Whole nodes come with all their cores.
            return (
                ""
                if self.site.system.gives_whole_nodes or self.site.node_resource
                else (
                    f"nothing says how many cores a rank gets, and {self.site.system.title} gives it one, "
                    f"which leaves none for loading data; say --cores {CORES_PER_GPU}, or cores_per_rank in "
                    "a copy of the site's file"
                )
            )
        if cores >= LEAST_CORES_PER_GPU * self.gpus:
            return ""
        return (
            f"{cores} core{'s' * (cores != 1)} for {self.gpus} GPU{'s' * (self.gpus != 1)} of a node are "
            f"fewer than {LEAST_CORES_PER_GPU} per GPU, which leaves none for loading data; ask for more "
            "with --cores"
        )


def plan_job(site: Site, wishes: Wishes, devices_per_trial: float = 1.0, ranks_per_trial: int = 1) -> Job:
    """Decide what a job asks for, and refuse what is known not to be had.

    Args:
        site: where.
        wishes: what.
        devices_per_trial: GPUs that a trial gets, or the share of one.
        ranks_per_trial: the most that a trial of the sweep has.

    Raises:
        SiteError: naming what was asked for, the limit, and what is allowed.
    """
    gpus = site.gpus_per_node if wishes.gpus is None else wishes.gpus
    if gpus is None and site.system.marker:
        raise SiteError(
            f"--site {site.name}: does not say how many GPUs a node has; say it with --gpus (where there is "
            "none, --gpus 0 and --ranks), or in a copy of the site's file"
        )
    nodes = 1 if site.unit == "gpu" or not site.system.marker else wishes.nodes
    if nodes != wishes.nodes:
        what = f"a job on {site.title} has one node" if site.system.marker else "a workstation is one node"
        raise SiteError(
            f"--nodes {wishes.nodes}: {what}"
            + ("; ask for more GPUs with --gpus" if site.unit == "gpu" else "")
        )
    if site.unit == "node" and site.gpus_per_node is not None and (gpus or 0) > site.gpus_per_node:
        raise SiteError(f"--gpus {gpus}: a node of {site.name} has {site.gpus_per_node}")
    ranks = wishes.ranks or site.ranks_per_node or _usual_ranks(site, gpus or 0, devices_per_trial)
    job = Job(
        site=site,
        nodes=nodes,
        gpus=gpus or 0,
        ranks_per_node=ranks,
        elapse_s=wishes.elapse_s if site.system.marker else None,
        group=wishes.group or site.group,
        project=wishes.project,
        modules=wishes.modules or site.modules,
        cores=_cores(site, wishes.cores, ranks, gpus or 0),
        directives=tuple(_directive(site, text) for text in wishes.directives),
    )
    _check_words(job)
    if site.system.size_example and not site.size and not job.directives:
        raise SiteError(
            f"--site {site.name}: does not say how nodes are asked for, and "
            f"{site.system.title} has no option for it; "
            'say it with --directive, e.g. --directive="-pe mpi 8", or in a copy of the site\'s file, '
            f'e.g. size = "{site.system.size_example}"'
        )
    if site.system.marker:
        _check_limits(job)
        if job.ranks < ranks_per_trial:
            raise SiteError(
                f"--nodes {job.nodes}: gives {job.ranks} rank{'s' * (job.ranks != 1)}, and a trial of the "
                f"sweep has {ranks_per_trial} (ranks_per_trial); ask for more nodes, or more --ranks of each"
            )
    return job


def _usual_ranks(site: Site, gpus: int, devices_per_trial: float) -> int:
    """One rank a GPU or a share of one; without GPUs one a core."""
    if gpus:
        ranks = math.floor(gpus / devices_per_trial + 1e-9)
        if ranks < 1:
            raise SiteError(
                f"--gpus {gpus}: the sweep wants {devices_per_trial:g} GPUs a trial (devices_per_trial), "
                "more than a node gets"
            )
        return ranks
    if not site.system.marker:
        return 1
    if site.cores_per_node is None:
        raise SiteError(
            f"--site {site.name}: does not say how many cores a node has, and there are no GPUs to go by; "
            "say with --ranks how many ranks a node gets, or the cores in a copy of the site's file "
            "(cores_per_node)"
        )
    return min(site.cores_per_node, _RANKS_WITHOUT_GPUS)


def _cores(site: Site, wanted: int | None, ranks: int, gpus: int) -> int | None:
    """Cores to ask for, for each rank."""
    if wanted is not None and (not site.system.marker or site.unit == "gpu"):
        why = "has no batch system to ask for them" if not site.system.marker else "gives them with the GPUs"
        raise SiteError(f"--cores {wanted}: {site.title} {why}; leave it out")
    if wanted is not None and site.cores_per_node is not None and wanted * ranks > site.cores_per_node:
        raise SiteError(
            f"--cores {wanted}: {ranks} rank{'s' * (ranks != 1)} of a node would have {wanted * ranks} "
            f"cores, and a node of {site.name} has {site.cores_per_node}"
        )
    if wanted is not None:
        return wanted
    if site.cores_per_node is not None:
        return site.cores_per_node // ranks or None
    # A rank without a GPU has no GPU to feed.
    return site.cores_per_rank if gpus else None


def _directive(site: Site, text: str) -> str:
    """An option of the batch system as it goes into the script, without its marker."""
    marker = site.system.marker
    if not marker:
        raise SiteError(
            f"--directive {text!r}: {site.title} has no batch system that reads directives; leave it out"
        )
    option = text.removeprefix(marker).strip()
    if not option.startswith("-") or not option.isprintable():
        raise SiteError(
            f"--directive {text!r}: expected one option of {site.system.submit}, e.g. {site.system.example!r}"
        )
    return option


def _check_words(job: Job) -> None:
    for flag, text in (
        ("--group", job.group),
        ("--project", job.project),
        *(("--module", m) for m in job.modules),
    ):
        if text and not SAFE.fullmatch(text):
            raise SiteError(f"{flag} {text!r}: expected a name without spaces and quotes")


def _check_limits(job: Job) -> None:
    site = job.site
    if job.elapse_s is None:
        raise SiteError("--elapse: is missing; say how long the job may take, e.g. --elapse 2:00:00")
    if site.project_needed and not job.project:
        raise SiteError(f"--project: is missing; jobs on {site.title} need a project group")
    if job.group and site.groups and job.group not in site.groups:
        raise SiteError(
            f"--group {job.group}: is not a resource group of {site.name}; known are "
            f"{', '.join(site.groups)} (a copy of the site's file can name more)"
        )
    group = site.resource_group(job.group)
    if group.most_nodes is not None and job.nodes > group.most_nodes:
        others = [other.name for other in site.groups.values() if (other.most_nodes or 0) >= job.nodes]
        raise SiteError(
            f"--nodes {job.nodes}: resource group {group.name} of {site.name} gives at most "
            f"{group.most_nodes}" + (f"; {' and '.join(others)} more" if others else "")
        )
    if site.unit == "gpu" and group.gpus is not None and job.gpus > group.gpus:
        raise SiteError(
            f"--gpus {job.gpus}: resource group {group.name} of {site.name} gives at most {group.gpus}"
        )
    longest_s = group.longest_s(job.nodes)
    if longest_s is not None and job.elapse_s > longest_s:
        raise SiteError(f"--elapse {clock(job.elapse_s)}: {_longest(job, group.name, longest_s)}")


def _longest(job: Job, group: str, longest_s: float) -> str:
    """What is allowed instead: elsewhere on the site, or at most."""
    site, nodes = job.site, f"{job.nodes} node{'s' * (job.nodes > 1)}"
    others = {name: other.longest_s(job.nodes) for name, other in site.groups.items() if name != group}
    fitting = [name for name, limit in others.items() if limit is not None and limit >= (job.elapse_s or 0)]
    unknown = [name for name, limit in others.items() if limit is None]
    here = f"resource group {group} of {site.name} allows at most {clock(longest_s)} for {nodes}"
    if fitting:
        return f"{here}; {' and '.join(fitting)} allows it"
    return here + ("" if unknown else ", and no other group allows more")
