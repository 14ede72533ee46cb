"""A site: what a job script must say on one machine, read from a small TOML file.

Such files come with mpisweep (`jobscripts/sites/`) and with plugins (:mod:`mpisweep.plugins`); a user's own
are looked for in ``~/.config/mpisweep/sites/`` or named by their path.  A limit that a file does not state is
unknown, and nothing is refused for it.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from mpisweep.batch.base import BatchSystem
from mpisweep.batch.registry import SCRIPTED
from mpisweep.plugins import SITES, PluginError, installed_plugins
from mpisweep.spec import parse_duration

__all__ = [
    "Container",
    "Limit",
    "ResourceGroup",
    "Site",
    "SiteError",
    "known_sites",
    "load_site",
    "parse_site",
    "site_folders",
]

#: Folders that every node has for itself, unless a site file says otherwise.
_LOCAL_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108
#: What may stand in a directive as it is: such lines are split by each system's own rules, never by a shell.
SAFE = re.compile(r"[A-Za-z0-9_.,:=/+@%~-]+")

_KEYS = (
    "title",
    "system",
    "gpus_per_node",
    "cores_per_node",
    "cores_per_rank",
    "ranks_per_node",
    "unit",
    "size",
    "group",
    "project_needed",
    "project",
    "project_with_command",
    "directives",
    "modules",
    "setup",
    "launch",
    "local_folders",
    "container",
    "groups",
)
_SIZES = ("nodes", "ranks", "ranks_per_node", "gpus", "cores")
_CONTAINER_KEYS = ("command", "modules", "directives", "binds")
_GROUP_KEYS = ("limits", "gpus", "common_name")
_LIMIT_KEYS = ("nodes", "elapse")


log = logging.getLogger(__name__)


class SiteError(ValueError):
    """A site, or what is asked of it, is wrong; the message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Up to so many nodes, a job may take so long; None for what is not known."""

    nodes: int | None
    elapse_s: float | None


@dataclass(frozen=True, slots=True)
class ResourceGroup:
    """A resource group (PJM), partition (Slurm) or queue (PBS).

    Attributes:
        limits: in the order of their nodes; empty when none is known.
        gpus: most GPUs of a job, where jobs ask for GPUs instead of nodes; None for unknown.
        common_name: whether groups of other sites are called so, too: a script that names it may be for any
            of them.
    """

    name: str
    limits: tuple[Limit, ...] = ()
    gpus: int | None = None
    common_name: bool = False

    @property
    def most_nodes(self) -> int | None:
        """How many nodes a job may have; None for unknown."""
        known = [limit.nodes for limit in self.limits]
        return max((n for n in known if n is not None), default=None) if None not in known else None

    def longest_s(self, nodes: int) -> float | None:
        """How long a job of so many nodes may take; None for unknown."""
        for limit in self.limits:
            if limit.nodes is None or nodes <= limit.nodes:
                return limit.elapse_s
        return None


@dataclass(frozen=True, slots=True)
class Container:
    """How a container is entered there.

    Attributes:
        command: ``singularity`` or ``apptainer``.
        binds: folders of the host that are to be seen inside; variables of the shell are filled in.
    """

    command: str = "singularity"
    modules: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """One machine.

    Attributes:
        name: of the file, without ``.toml``.
        gpus_per_node: 0 for none, None for unknown.
        cores_per_node: None for unknown.
        cores_per_rank: what a rank with a GPU asks for where :attr:`cores_per_node` is not known; None for
            nothing.
        ranks_per_node: None for one a GPU or, where there is none, one a core.
        unit: what a job asks for: ``node``, ``gpu`` (of a shared node) or ``vnode``.
        size: the directive that asks for the nodes, in which ``{nodes}``, ``{ranks}``, ``{ranks_per_node}``,
            ``{gpus}`` and ``{cores}`` (of a node) are filled in; empty for the batch system's own way.
        group: the resource group that is used unless another is asked for; empty for none.
        project: the option that names the project, in which ``{project}`` is filled in; empty for the batch
            system's own.
        project_with_command: whether that option stands in the command that submits, and not in the script.
        directives: options of the batch system that every job has there.
        setup: lines of bash before anything else.
        launch: starts ranks in containers: a command line of bash in which ``{ranks}`` and
            ``{ranks_per_node}`` are filled in.
        local_folders: folders that every node has for itself.
        groups: by name; what is not known is not in it.
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
    local_folders: tuple[str, ...] = _LOCAL_FOLDERS
    container: Container = field(default_factory=Container)
    groups: Mapping[str, ResourceGroup] = field(default_factory=dict)

    def resource_group(self, name: str) -> ResourceGroup:
        """What is known of a resource group: nothing, for one that the file does not name."""
        return self.groups.get(name, ResourceGroup(name))

    @property
    def node_resource(self) -> str:
        """The resource of which a job asks for as many as nodes, e.g. ``-l node_f``; empty where there is
        none.
        """
        found = re.fullmatch(r"(-\S+ [\w-]+)=\{nodes\}", self.size)
        return found[1] if found else ""

    def project_option(self, project: str) -> str:
        """The option that names a project; empty for none."""
        return (self.project or self.system.project_option).format(project=project) if project else ""

    def submit_options(self, project: str) -> str:
        """Options that the command that submits a job must have."""
        return self.project_option(project) if self.project_with_command else ""

    def is_local(self, path: Path) -> bool:
        """Whether a path lies on a disk that other nodes do not see."""
        there = path.resolve()
        return any(there.is_relative_to(Path(folder).resolve()) for folder in self.local_folders)


# ------------------------------------------------------------------------------------- finding them


def site_folders(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Where sites are looked for by name: the user's own folder first, then what comes with mpisweep."""
    # Who has no home folder, as users of containers may, is left with "~", where there is nothing.
    home = environment.get("HOME") or os.path.expanduser("~")  # noqa: PTH111
    config = Path(environment.get("XDG_CONFIG_HOME") or Path(home) / ".config")
    return [config / "mpisweep" / "sites", Path(__file__).parent / "sites"]


def known_sites(folders: Sequence[Path] | None = None) -> dict[str, Path]:
    """The files of all sites that can be named, or of those in some folders; the first of a name counts."""
    found: dict[str, Path] = {}
    for folder in [*site_folders(), *_plugin_folders()] if folders is None else folders:
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def _plugin_folders() -> list[Path]:
    """Folders of sites that come with installed packages."""
    found: list[Path] = []
    for plugin in installed_plugins(SITES):
        try:
            found.append(plugin.folder())
        except PluginError as error:
            # The sites of others can be named all the same.
            log.warning("sites: %s", error)
    return found


def load_site(name: str) -> Site:
    """A site by its name, or by the path of its file.

    Raises:
        SiteError: when there is none, or its file says something wrong.
    """
    is_path = name.endswith(".toml") or "/" in name
    sites = known_sites(site_folders())
    if not is_path and name not in sites:
        sites = known_sites()
    path = Path(name) if is_path else sites.get(name)
    if path is None:
        near = difflib.get_close_matches(name, sites, n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        raise SiteError(
            f"--site {name}: there is no such site{meant}; known are {', '.join(sites)}, or say the path of "
            "your own file"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SiteError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SiteError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    return parse_site(text, name=path.stem, source=str(path))


def parse_site(text: str, *, name: str, source: str) -> Site:
    """The site in a file's text.

    Raises:
        SiteError: when it says something wrong.
    """
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SiteError(f"{source}: is not TOML: {error}") from error
    return _Parser(source).site(raw, name)


# ------------------------------------------------------------------------------------- the parser


class _Parser:
    """Takes a site file apart; knows how messages call it."""

    def __init__(self, source: str) -> None:
        self._source = source

    def site(self, raw: dict[str, Any], name: str) -> Site:
        self._known(raw, _KEYS, "")
        system = self._choice(raw, "system", tuple(SCRIPTED))
        inside = self._table(raw, "container", "container")
        self._known(inside, _CONTAINER_KEYS, "container.")
        groups = {
            group: self._group(group, self._table({group: entry}, group, f"groups.{group}"))
            for group, entry in self._table(raw, "groups", "groups").items()
        }
        return Site(
            name=name,
            title=self._text(raw, "title") or name,
            system=SCRIPTED[system],
            gpus_per_node=self._count(raw, "gpus_per_node", "gpus_per_node", 0),
            cores_per_node=self._count(raw, "cores_per_node", "cores_per_node", 1),
            cores_per_rank=self._count(raw, "cores_per_rank", "cores_per_rank", 1),
            ranks_per_node=self._count(raw, "ranks_per_node", "ranks_per_node", 1),
            unit=self._choice(raw, "unit", ("node", "gpu", "vnode"), "node"),
            size=self._option(raw, "size", _SIZES, "-l node_f={nodes}"),
            group=self._safe(self._text(raw, "group"), "group"),
            project_needed=self._yes(raw, "project_needed"),
            project=self._option(raw, "project", ("project",), "-P {project}"),
            project_with_command=self._yes(raw, "project_with_command"),
            directives=self._directives(raw, "directives", "directives"),
            modules=self._texts(raw, "modules", "modules"),
            setup=self._texts(raw, "setup", "setup"),
            launch=self._launch(raw),
            local_folders=self._texts(raw, "local_folders", "local_folders")
            if "local_folders" in raw
            else _LOCAL_FOLDERS,
            container=Container(
                command=self._text(inside, "command", "container.") or "singularity",
                modules=self._texts(inside, "modules", "container.modules"),
                directives=self._directives(inside, "directives", "container.directives"),
                binds=self._texts(inside, "binds", "container.binds"),
            ),
            groups=groups,
        )

    def _group(self, name: str, raw: dict[str, Any]) -> ResourceGroup:
        where = f"groups.{name}"
        self._safe(name, where)
        self._known(raw, _GROUP_KEYS, where + ".")
        limits = raw.get("limits", [])
        if not isinstance(limits, list) or not all(isinstance(entry, dict) for entry in limits):
            self._fail(
                f"{where}.limits", f'found {limits!r}; expected [{{ nodes = 4, elapse = "24:00:00" }}, ...]'
            )
        return ResourceGroup(
            name,
            tuple(sorted((self._limit(f"{where}.limits", entry) for entry in limits), key=_by_nodes)),
            self._count(raw, "gpus", f"{where}.gpus", 1),
            self._yes(raw, "common_name", f"{where}."),
        )

    def _limit(self, where: str, raw: dict[str, Any]) -> Limit:
        self._known(raw, _LIMIT_KEYS, where + ".")
        elapse_s = parse_duration(raw["elapse"]) if "elapse" in raw else None
        if "elapse" in raw and elapse_s is None:
            self._fail(f"{where}.elapse", f'found {raw["elapse"]!r}; expected a duration like "24:00:00"')
        return Limit(self._count(raw, "nodes", f"{where}.nodes", 1), elapse_s)

    def _launch(self, raw: dict[str, Any]) -> str:
        launch = self._text(raw, "launch")
        if launch and ("{ranks}" not in launch or "\n" in launch):
            self._fail(
                "launch",
                f'found {launch!r}; expected one line with {{ranks}} in it, e.g. "mpirun -n {{ranks}}"',
            )
        return launch

    def _option(self, raw: dict[str, Any], key: str, fields: tuple[str, ...], example: str) -> str:
        """An option with braces, in which at least one of the fields is filled in."""
        text = self._text(raw, key)
        try:
            filled = text.format(**dict.fromkeys(fields, "1"))
        except (LookupError, ValueError, AttributeError):
            filled = ""
        has_field = any(f"{{{name}}}" in text for name in fields)
        if text and not (
            has_field and text.startswith("-") and all(SAFE.fullmatch(word) for word in filled.split(" "))
        ):
            self._fail(
                key,
                f"found {text!r}; expected an option with {' or '.join(f'{{{name}}}' for name in fields)} "
                f"in it, e.g. {example!r}",
            )
        return text

    def _directives(self, raw: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
        found = self._texts(raw, key, where)
        for text in found:
            if not all(SAFE.fullmatch(word) for word in text.split(" ")):
                self._fail(
                    where, f'found {text!r}; expected an option without quotes, e.g. "-L jobenv=singularity"'
                )
        return found

    def _safe(self, text: str, where: str) -> str:
        if text and not SAFE.fullmatch(text):
            self._fail(where, f"found {text!r}; expected a name without spaces and quotes")
        return text

    def _text(self, raw: dict[str, Any], key: str, prefix: str = "") -> str:
        value = raw.get(key, "")
        if not isinstance(value, str):
            self._fail(prefix + key, f"found {value!r}; expected text in quotes")
        return value

    def _texts(self, raw: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
        values = raw.get(key, [])
        if not isinstance(values, list) or not all(
            isinstance(value, str) and "\n" not in value for value in values
        ):
            self._fail(where, f"found {values!r}; expected a list of texts of one line each")
        return tuple(values)

    def _count(self, raw: dict[str, Any], key: str, where: str, least: int) -> int | None:
        value = raw.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            self._fail(where, f"found {value!r}; expected an integer of at least {least}")
        return value

    def _yes(self, raw: dict[str, Any], key: str, prefix: str = "") -> bool:
        value = raw.get(key, False)
        if not isinstance(value, bool):
            self._fail(prefix + key, f"found {value!r}; expected true or false")
        return value

    def _choice(
        self, raw: dict[str, Any], key: str, choices: tuple[str, ...], default: str | None = None
    ) -> str:
        value = raw.get(key, default)
        if value not in choices:
            found = "nothing" if value is None else repr(value)
            self._fail(key, f"found {found}; expected one of {', '.join(choices)}")
        return str(value)

    def _table(self, raw: dict[str, Any], key: str, where: str) -> dict[str, Any]:
        value = raw.get(key, {})
        if not isinstance(value, dict):
            self._fail(where, f"found {value!r}; expected a table, [{where}]")
        return value

    def _known(self, raw: dict[str, Any], keys: tuple[str, ...], prefix: str) -> None:
        for key in raw:
            if key not in keys:
                near = difflib.get_close_matches(key, keys, n=1)
                meant = f"did you mean {near[0]}?" if near else f"known are {', '.join(keys)}"
                self._fail(f"{prefix}{key}", f"is not a key of a site file; {meant}")

    def _fail(self, where: str, what: str) -> NoReturn:
        raise SiteError(f"{self._source}: {where}: {what}")


def _by_nodes(limit: Limit) -> float:
    return float("inf") if limit.nodes is None else limit.nodes
