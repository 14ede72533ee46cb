"""Site files: small TOML files, found by name or path and parsed.

They come with mpisweep (`mpisweep/batch/sites/`) and with plugins (:mod:`mpisweep.plugins`); users keep their
own in ``~/.config/mpisweep/sites/`` or give a path.  A limit that a file does not state is unknown, and
nothing is refused for it.
"""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mpisweep.batch.base import BatchSystem
from mpisweep.batch.registry import find_system
from mpisweep.batch.site import LOCAL_FOLDERS, SAFE, Container, Limit, ResourceGroup, Site, SiteError
from mpisweep.plugins import BATCH, SITES, PluginError, installed_plugins, plugin_names
from mpisweep.spec import nearest, one_of, parse_duration

__all__ = ["known_sites", "load_site", "parse_site", "site_folders"]

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


# ------------------------------------------------------------------------------------- finding them


def site_folders(environment: Mapping[str, str] = os.environ) -> list[Path]:
    """List the folders with site files: the user's own first, then mpisweep's."""
    # Users of containers may have no home folder; "~" is left then, which does not exist.
    home = environment.get("HOME") or os.path.expanduser("~")  # noqa: PTH111
    config = Path(environment.get("XDG_CONFIG_HOME") or Path(home) / ".config")
    return [config / "mpisweep" / "sites", Path(__file__).parent / "sites"]


def known_sites(folders: Sequence[Path] | None = None) -> dict[str, Path]:
    """Map names of sites, or of those in some folders, to files; the first of a name counts."""
    found: dict[str, Path] = {}
    for folder in [*site_folders(), *_plugin_folders()] if folders is None else folders:
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def _plugin_folders() -> list[Path]:
    """Folders with site files of installed packages."""
    found: list[Path] = []
    for plugin in installed_plugins(SITES):
        try:
            found.append(plugin.folder())
        except PluginError as error:
            # The sites of other packages are still found.
            log.warning("sites: %s", error)
    return found


def load_site(name: str) -> Site:
    """Load a site by its name, or by the path of its file.

    Raises:
        SiteError: if there is none, or its file is not valid.
    """
    is_path = name.endswith(".toml") or "/" in name
    sites = known_sites(site_folders())
    if not is_path and name not in sites:
        sites = known_sites()
    path = Path(name) if is_path else sites.get(name)
    if path is None:
        raise SiteError(
            f"--site {name}: there is no such site; {nearest(name, sites)} (`mpisweep sites` lists them, and "
            "the path of a site file works too)"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SiteError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SiteError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    return parse_site(text, name=path.stem, source=str(path))


def parse_site(text: str, *, name: str, source: str) -> Site:
    """Parse the text of a site file.

    Raises:
        SiteError: if it is not valid.
    """
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SiteError(f"{source}: is not TOML: {error}") from error
    return _Parser(source).site(raw, name)


# ------------------------------------------------------------------------------------- the parser


class _Parser:
    """Parses a site file; `source` names it in messages."""

    def __init__(self, source: str) -> None:
        self._source = source

    def site(self, raw: dict[str, Any], name: str) -> Site:
        self._known(raw, _KEYS, "")
        system = self._system(raw)
        inside = self._table(raw, "container", "container")
        self._known(inside, _CONTAINER_KEYS, "container.")
        groups = {
            group: self._group(group, self._table({group: entry}, group, f"groups.{group}"))
            for group, entry in self._table(raw, "groups", "groups").items()
        }
        return Site(
            name=name,
            title=self._text(raw, "title") or name,
            system=system,
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
            else LOCAL_FOLDERS,
            container=Container(
                command=self._text(inside, "command", "container.") or "singularity",
                modules=self._texts(inside, "modules", "container.modules"),
                directives=self._directives(inside, "directives", "container.directives"),
                binds=self._texts(inside, "binds", "container.binds"),
            ),
            groups=groups,
        )

    def _system(self, raw: dict[str, Any]) -> BatchSystem:
        name = raw.get("system")
        try:
            found = find_system(name) if isinstance(name, str) else None
        except PluginError as error:
            self._fail("system", str(error))
        return found or self._refuse("system", name, plugin_names(BATCH))

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
        """Read an option with at least one of these fields in braces."""
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
            self._refuse(key, value, choices)
        return str(value)

    def _refuse(self, key: str, value: object, choices: Iterable[str]) -> NoReturn:
        found = "nothing" if value is None else repr(value)
        self._fail(key, f"found {found}; expected {one_of(value, choices)}")

    def _table(self, raw: dict[str, Any], key: str, where: str) -> dict[str, Any]:
        value = raw.get(key, {})
        if not isinstance(value, dict):
            self._fail(where, f"found {value!r}; expected a table, [{where}]")
        return value

    def _known(self, raw: dict[str, Any], keys: tuple[str, ...], prefix: str) -> None:
        for key in raw:
            if key not in keys:
                self._fail(f"{prefix}{key}", f"is not a key of a site file; {nearest(key, keys)}")

    def _fail(self, where: str, what: str) -> NoReturn:
        raise SiteError(f"{self._source}: {where}: {what}")


def _by_nodes(limit: Limit) -> float:
    return float("inf") if limit.nodes is None else limit.nodes
