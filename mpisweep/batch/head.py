"""The head of a job script, in both directions: what a job asks for, and what a script's directives say.
Values only.

::

    Job  --request--> BatchSystem.directives() --> lines of a script
    lines of a script --> Directive ... --> BatchSystem.asked() --> Asked
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["Asked", "Directive", "Find", "Request", "places"]


@dataclass(frozen=True, slots=True)
class Request:
    """What a job asks its batch system for, all of it decided.

    Attributes:
        name: of the job, as the system takes it.
        unit: what a job asks for: ``node``, ``gpu`` (of a shared node) or ``vnode``.
        gpus: of a node; 0 for none.
        cores: of a rank; None where the batch system is not asked for any.
        cores_per_node: what its ranks have of a node together; None where nobody knows.
        group: resource group, partition or queue; empty for none.
        size: the directive that asks for the nodes, where the site says it; else empty.
        project: the directive that names the project; empty for none.
        site: options that every job has at the site.
        container: options that a job with a container needs; empty for others.
        own: options of the user's own.
        warn_s: so many seconds before its end the job wants to be warned, where the system can.
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
        known: whether the batch system has such an option.
        lacks_value: whether it wants a value and has none.
    """

    line: int
    option: str
    value: str
    known: bool = True
    lacks_value: bool = False


#: The last directive with one of these options, which is the one that counts; None where there is none.
Find = Callable[..., Directive | None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a script asks for; None and empty for what it does not say.

    Attributes:
        gpus: of a node.
        ranks: of the job.
        cores: of a node.
        lines: where each of these stands; 1 for what does not.
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
        """Where it stands."""
        return self.lines.get(what, 1)


def places(**found: Directive | None) -> dict[str, int]:
    """The lines of those directives that were found, for :attr:`Asked.lines`."""
    return {what: directive.line for what, directive in found.items() if directive is not None}
