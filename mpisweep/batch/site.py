"""A site: one machine, and what a job script must say on it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mpisweep.batch.base import BatchSystem
from mpisweep.errors import UserError

__all__ = ["LOCAL_FOLDERS", "SAFE", "Container", "Limit", "ResourceGroup", "Site", "SiteError"]

#: Node-local folders, unless a site file says otherwise.
LOCAL_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108
#: Text that is safe in a directive: each system splits such lines by its own rules, never by a shell.
SAFE = re.compile(r"[A-Za-z0-9_.,:=/+@%~-]+")


class SiteError(UserError, ValueError):
    """A site file or a request is wrong; the message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The longest a job of up to so many nodes may take; None for unknown."""

    nodes: int | None
    elapse_s: float | None


@dataclass(frozen=True, slots=True)
class ResourceGroup:
    """A resource group (PJM), partition (Slurm) or queue (PBS).

    Attributes:
        limits: in the order of their nodes; empty when none is known.
        gpus: most GPUs per job, if jobs ask for GPUs instead of nodes; None for unknown.
        common_name: whether groups of other sites have the same name; a script that names it may be for any
            of them.
    """

    name: str
    limits: tuple[Limit, ...] = ()
    gpus: int | None = None
    common_name: bool = False

    @property
    def most_nodes(self) -> int | None:
        """Most nodes per job; None for unknown."""
        known = [limit.nodes for limit in self.limits]
        return max((n for n in known if n is not None), default=None) if None not in known else None

    def longest_s(self, nodes: int) -> float | None:
        """Longest time limit for a job of this many nodes; None for unknown."""
        for limit in self.limits:
            if limit.nodes is None or nodes <= limit.nodes:
                return limit.elapse_s
        return None


@dataclass(frozen=True, slots=True)
class Container:
    """How to start a command in a container at a site.

    Attributes:
        command: ``singularity`` or ``apptainer``.
        binds: folders of the host to mount inside; the shell expands variables in them.
    """

    command: str = "singularity"
    modules: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """A machine that jobs are submitted to.

    Attributes:
        name: of the file, without ``.toml``.
        gpus_per_node: 0 for none, None for unknown.
        cores_per_node: None for unknown.
        cores_per_rank: cores to ask for per rank with a GPU if :attr:`cores_per_node` is not known; None for
            none.
        ranks_per_node: None for one per GPU or, without GPUs, one per core.
        unit: what a job asks for: ``node``, ``gpu`` (of a shared node) or ``vnode``.
        size: template of the directive that asks for nodes, with ``{nodes}``, ``{ranks}``,
            ``{ranks_per_node}``, ``{gpus}`` and ``{cores}`` (per node); empty for the batch system's own.
        group: default resource group; empty for none.
        project: template of the option for the project, with ``{project}``; empty for the batch system's
            own.
        project_with_command: whether that option belongs on the submit command and not in the script.
        directives: options of the batch system for every job.
        setup: lines of bash before anything else.
        launch: template of the bash command that starts ranks in containers, with ``{ranks}`` and
            ``{ranks_per_node}``.
        local_folders: node-local folders.
        groups: known resource groups by name.
    """

    name: str
    title: str
    system: BatchSystem
    gpus_per_node: int | None = None
    cores_per_node: int | None = None
    cores_per_rank: int | None = None
    ranks_per_node: int | None = None
    unit: str = "node"
    size: str = ""
    group: str = ""
    project_needed: bool = False
    project: str = ""
    project_with_command: bool = False
    directives: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    launch: str = ""
    local_folders: tuple[str, ...] = LOCAL_FOLDERS
    container: Container = field(default_factory=Container)
    groups: Mapping[str, ResourceGroup] = field(default_factory=dict)

    def resource_group(self, name: str) -> ResourceGroup:
        """Look a resource group up; one that the file does not name has no known limits."""
        return self.groups.get(name, ResourceGroup(name))

    @property
    def node_resource(self) -> str:
        """The resource whose amount is the number of nodes, e.g. ``-l node_f``; empty for none."""
        found = re.fullmatch(r"(-\S+ [\w-]+)=\{nodes\}", self.size)
        return found[1] if found else ""

    def project_option(self, project: str) -> str:
        """Write the option for a project; empty for none."""
        return (self.project or self.system.project_option).format(project=project) if project else ""

    def submit_options(self, project: str) -> str:
        """Write the options that the submit command needs."""
        return self.project_option(project) if self.project_with_command else ""

    def is_local(self, path: Path) -> bool:
        """Whether a path is on a node-local disk."""
        there = path.resolve()
        return any(there.is_relative_to(Path(folder).resolve()) for folder in self.local_folders)
