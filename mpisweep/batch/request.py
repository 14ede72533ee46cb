"""Turning the user's wishes and the site's facts into a checked request for a job: pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from mpisweep.batch.site import SAFE, Site, SiteError
from mpisweep.batch.texts import clock
from mpisweep.spec import nearest

__all__ = ["CORES_PER_GPU", "LEAST_CORES_PER_GPU", "Job", "Wishes", "plan_job"]

#: Most ranks on a node without GPUs, as `mpisweep run` starts.
_RANKS_WITHOUT_GPUS = 16
#: With fewer cores per GPU none is left for data loaders beside the training process.
LEAST_CORES_PER_GPU = 2
#: Proposal if nothing is known.
CORES_PER_GPU = 4
#: A mail address that no shell and no batch system takes apart.
_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*@[A-Za-z0-9][A-Za-z0-9.-]*")


@dataclass(frozen=True, slots=True)
class Wishes:
    """The user's wishes; None or empty to leave it to the site.

    Attributes:
        gpus: per node; per job, if the site's unit is the GPU.
        ranks: per node.
        cores: per rank.
        group: resource group, partition or queue.
        project: project group or account.
        modules: to load instead of the site's.
        directives: options of the batch system in addition to the site's.
        mail: address that the batch system writes to when the job ends.
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
    mail: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A job, decided and checked.

    Attributes:
        gpus: per node; 0 for none.
        cores: per rank; None to ask for none.
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
        """Ranks of the whole job."""
        return self.nodes * self.ranks_per_node

    @property
    def cores_per_node(self) -> int | None:
        """Cores of all ranks on a node together; None for unknown."""
        return self.site.cores_per_node if self.cores is None else self.cores * self.ranks_per_node

    def doubt(self) -> str:
        """One sentence if the GPUs would wait for data; else empty."""
        cores = self.cores_per_node
        if not self.gpus or not self.site.system.marker or self.site.unit == "gpu":
            return ""
        if cores is None:
            # Whole nodes come with all their cores.
            return (
                ""
                if self.site.system.gives_whole_nodes or self.site.node_resource
                else (
                    f"the number of cores per rank is not set, and {self.site.system.title} gives one, which "
                    f"leaves none for loading data; add --cores {CORES_PER_GPU}, or set cores_per_rank in a "
                    "copy of the site file"
                )
            )
        if cores >= LEAST_CORES_PER_GPU * self.gpus:
            return ""
        return (
            f"{cores} core{'s' * (cores != 1)} for {self.gpus} GPU{'s' * (self.gpus != 1)} per node are "
            f"fewer than {LEAST_CORES_PER_GPU} per GPU, which leaves none for loading data; ask for more "
            "with --cores"
        )


def plan_job(site: Site, wishes: Wishes, devices_per_trial: float = 1.0, ranks_per_trial: int = 1) -> Job:
    """Plan a job, and refuse wishes beyond known limits.

    Args:
        site: the machine.
        wishes: the user's.
        devices_per_trial: GPUs per trial, or the share of one.
        ranks_per_trial: most ranks of a trial in the sweep.

    Raises:
        SiteError: names the wish, the limit, and what is allowed.
    """
    gpus = site.gpus_per_node if wishes.gpus is None else wishes.gpus
    if gpus is None and site.system.marker:
        raise SiteError(
            f"--site {site.name}: the site file does not state the GPUs per node; add --gpus (without GPUs, "
            "--gpus 0 and --ranks), or set gpus_per_node in a copy of the file"
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
        directives=(*_mail(site, wishes.mail), *(_directive(site, text) for text in wishes.directives)),
    )
    _check_words(job)
    if site.system.size_example and not site.size and not wishes.directives:
        raise SiteError(
            f"--site {site.name}: the site file does not state how to ask for nodes, and "
            f"{site.system.title} has no option for it; "
            'add --directive, e.g. --directive="-pe mpi 8", or set size in a copy of the file, '
            f'e.g. size = "{site.system.size_example}"'
        )
    if site.system.marker:
        _check_limits(job)
        if job.ranks < ranks_per_trial:
            raise SiteError(
                f"--nodes {job.nodes}: gives {job.ranks} rank{'s' * (job.ranks != 1)}, and a trial of the "
                f"sweep has {ranks_per_trial} (ranks_per_trial); ask for more nodes, or more --ranks per node"
            )
    return job


def _usual_ranks(site: Site, gpus: int, devices_per_trial: float) -> int:
    """One rank per GPU or share of one; without GPUs one per core."""
    if gpus:
        ranks = math.floor(gpus / devices_per_trial + 1e-9)
        if ranks < 1:
            raise SiteError(
                f"--gpus {gpus}: is fewer than the {devices_per_trial:g} GPUs per trial that the sweep needs "
                "(devices_per_trial)"
            )
        return ranks
    if not site.system.marker:
        return 1
    if site.cores_per_node is None:
        raise SiteError(
            f"--site {site.name}: the site file does not state the cores per node, and there are no GPUs to "
            "count by; add --ranks, or set cores_per_node in a copy of the file"
        )
    return min(site.cores_per_node, _RANKS_WITHOUT_GPUS)


def _cores(site: Site, wanted: int | None, ranks: int, gpus: int) -> int | None:
    """Cores to ask for per rank."""
    if wanted is not None and (not site.system.marker or site.unit == "gpu"):
        why = "has no batch system" if not site.system.marker else "gives cores with the GPUs"
        raise SiteError(f"--cores {wanted}: {site.title} {why}; leave out --cores")
    if wanted is not None and site.cores_per_node is not None and wanted * ranks > site.cores_per_node:
        raise SiteError(
            f"--cores {wanted}: {ranks} rank{'s' * (ranks != 1)} per node would have {wanted * ranks} cores, "
            f"and a node of {site.name} has {site.cores_per_node}"
        )
    if wanted is not None:
        return wanted
    if site.cores_per_node is not None:
        return site.cores_per_node // ranks or None
    # A rank without a GPU needs no cores for loading data.
    return site.cores_per_rank if gpus else None


def _directive(site: Site, text: str) -> str:
    """Check an option of the batch system, and remove its marker."""
    marker = site.system.marker
    if not marker:
        raise SiteError(f"--directive {text!r}: {site.title} has no batch system; leave out --directive")
    option = text.removeprefix(marker).strip()
    if not option.startswith("-") or not option.isprintable():
        raise SiteError(
            f"--directive {text!r}: expected one option of {site.system.submit}, e.g. {site.system.example!r}"
        )
    return option


def _mail(site: Site, address: str) -> tuple[str, ...]:
    """Write the directives that mail an address when the job ends."""
    if not address:
        return ()
    if not site.system.mail_options:
        why = "has no batch system" if not site.system.marker else "has no known options for mail"
        raise SiteError(f"--mail {address}: {site.title} {why}; leave out --mail")
    if not _ADDRESS.fullmatch(address):
        raise SiteError(f"--mail {address!r}: expected one address, such as name@example.org")
    return tuple(option.format(address=address) for option in site.system.mail_options)


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
        raise SiteError("--elapse: is missing; set the time limit of the job, e.g. --elapse 2:00:00")
    if site.project_needed and not job.project:
        raise SiteError(f"--project: is missing; jobs on {site.title} need a project group")
    if job.group and site.groups and job.group not in site.groups:
        raise SiteError(
            f"--group {job.group}: is not a resource group of {site.name}; "
            f"{nearest(job.group, site.groups)} (a copy of the site file can name more)"
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
    """Say what is allowed instead: another group, or the longest time."""
    site, nodes = job.site, f"{job.nodes} node{'s' * (job.nodes > 1)}"
    others = {name: other.longest_s(job.nodes) for name, other in site.groups.items() if name != group}
    fitting = [name for name, limit in others.items() if limit is not None and limit >= (job.elapse_s or 0)]
    unknown = [name for name, limit in others.items() if limit is None]
    here = f"resource group {group} of {site.name} allows at most {clock(longest_s)} for {nodes}"
    if fitting:
        return f"{here}; {' and '.join(fitting)} allows it"
    return here + ("" if unknown else ", and no other group allows more")
