"""The head of a job script: a request to write, and directives that were read.

::

    Job  --request--> BatchSystem.directives() --> lines of a script
    lines of a script --> Directive ... --> BatchSystem.asked() --> Asked
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mpisweep.dataclass import dataclass, field

__all__ = ["Asked", "Directive", "Find", "Request", "places"]


@dataclass(frozen=True, slots=True)
class Request:
    """A job's request to its batch system, with everything decided.

    Attributes:
        name: of the job, valid for the system.
        unit: ``node``, ``gpu`` (of a shared node) or ``vnode``.
        gpus: per node; 0 for none.
        cores: per rank; None to ask for none.
        cores_per_node: for all ranks of a node together; None for unknown.
        group: resource group, partition or queue; empty for none.
        size: the site's directive that asks for nodes; empty for the system's own.
        project: the directive for the project; empty for none.
        site: options of every job at the site.
        container: options of a job with a container.
        own: the user's options.
        warn_s: seconds before its end at which the job should receive a warning, if the system can send one.
    """

    name: str
    unit: str
    nodes: int
    gpus: int
    ranks: int
    ranks_per_node: int
    cores: int | None
    cores_per_node: int | None
    elapse_s: float
    group: str = ""
    size: str = ""
    project: str = ""
    site: tuple[str, ...] = ()
    container: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    warn_s: int = 0


@dataclass(frozen=True, slots=True)
class Directive:
    """One option in a directive; resources are options of their own, e.g. ``-L node``.

    Attributes:
        known: whether the batch system has this option.
        lacks_value: whether it needs a value and has none.
    """

    line: int
    option: str
    value: str
    known: bool = True
    lacks_value: bool = False


#: Returns the last directive with one of these options, which is the one that counts, or None.
Find = Callable[..., Directive | None]


@dataclass(frozen=True, slots=True)
class Asked:
    """The request of a script; None or empty for unknown.

    Attributes:
        gpus: per node.
        ranks: of the job.
        cores: per node.
        lines: the line of each of these.
    """

    nodes: int | None = None
    gpus: int | None = None
    ranks: int | None = None
    cores: int | None = None
    elapse_s: float | None = None
    group: str = ""
    project: str = ""
    log: str = ""
    shares_a_node: bool = False
    lines: Mapping[str, int] = field(default_factory=dict)

    def line(self, what: str) -> int:
        """The line of one of these; 1 if it is not in the script."""
        return self.lines.get(what, 1)


def places(**found: Directive | None) -> dict[str, int]:
    """The lines of the directives that were found, for :attr:`Asked.lines`."""
    return {what: directive.line for what, directive in found.items() if directive is not None}
