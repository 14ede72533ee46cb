"""What is found by name: built-in workloads, searches and sites, and those of installed packages.

A package adds to mpisweep by entry points (``[options.entry_points]`` of setup.cfg,
``[project.entry-points]`` of pyproject.toml).  The groups, and what an entry of each names:

``mpisweep.workloads``
    a :class:`~mpisweep.spec.catalogue.WorkloadDescription`; the entry's name is the workload's
``mpisweep.searches``
    a class with ``from_spec(spec)``, which returns a sampler; the entry's name is the search's
``mpisweep.sites``
    a package in whose folder lie site files, ``NAME.toml`` each

The built-in ones are registered in the same groups and are listed in :data:`BUILT_IN` as well: they are found
without a look at what is installed, which takes tens of milliseconds that a rank need not spend, and where
mpisweep is not installed but only on PYTHONPATH.  A plugin cannot take a built-in name.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = [
    "BUILT_IN",
    "SEARCHES",
    "SITES",
    "WORKLOADS",
    "Plugin",
    "PluginError",
    "find_plugin",
    "installed_plugins",
    "is_named",
    "plugin_names",
]

WORKLOADS = "mpisweep.workloads"
SEARCHES = "mpisweep.searches"
SITES = "mpisweep.sites"

#: Group -> name -> reference, as in setup.cfg.
BUILT_IN: dict[str, dict[str, str]] = {
    WORKLOADS: {"resnet50": "mpisweep.spec.catalogue:RESNET50"},
    SEARCHES: {
        "grid": "mpisweep.search.grid:GridSampler",
        "random": "mpisweep.search.random:RandomSampler",
        "sobol": "mpisweep.search.sobol:SobolSampler",
        "largest_batch": "mpisweep.search.largest_batch:LargestBatch",
    },
    SITES: {"mpisweep": "mpisweep.batch.sites"},
}


class PluginError(ValueError):
    """A plugin cannot be used; the message is the end of a sentence that begins with where it was named."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One entry of a group.

    Attributes:
        reference: ``module:attribute``, or ``module``.
        package: name and version of the package that it comes with; empty for the built-in ones.
    """

    name: str
    reference: str
    package: str = ""

    @property
    def text(self) -> str:
        """For messages."""
        return f"{self.name!r} of the package {self.package}" if self.package else repr(self.name)

    def load(self, method: str = "") -> Any:
        """What the entry names.

        Args:
            method: that it must have; empty for none.

        Raises:
            PluginError: when it cannot be imported, or its module does not have it, or it has no such method.
        """
        module, _, attributes = self.reference.partition(":")
        try:
            found: object = importlib.import_module(module)
            for attribute in filter(None, attributes.split(".")):
                found = getattr(found, attribute)
        except Exception as error:
            # A plugin is somebody's program, and may raise anything when it is imported.
            raise self.unfit(f"cannot be loaded: {type(error).__name__}: {error}") from error
        if method and not callable(getattr(found, method, None)):
            raise self.unfit(f"cannot be used: it has no method {method!r}")
        return found

    def folder(self) -> Path:
        """The folder of the package that the entry names; nothing of it is run.

        Raises:
            PluginError: when there is none.
        """
        try:
            found = importlib.util.find_spec(self.reference)
        except Exception as error:
            # Finding a package imports those around it.
            raise self.unfit(f"cannot be loaded: {type(error).__name__}: {error}") from error
        folders = list(found.submodule_search_locations or ()) if found is not None else []
        if not folders:
            raise self.unfit(f"cannot be loaded: there is no package {self.reference!r}")
        return Path(folders[0])

    def unfit(self, why: str) -> PluginError:
        """The error that says why this plugin cannot be used."""
        return PluginError(" ".join(f"{self.text} {why}".split()))


def plugin_names(group: str) -> list[str]:
    """Every name of a group: the built-in ones, then those of installed packages."""
    return list(dict.fromkeys([*BUILT_IN[group], *(plugin.name for plugin in installed_plugins(group))]))


def is_named(group: str, name: object) -> bool:
    """Whether an entry has this name; installed packages are only looked at where no built-in one has it."""
    return name in BUILT_IN[group] or any(plugin.name == name for plugin in installed_plugins(group))


def find_plugin(group: str, name: str) -> Plugin | None:
    """The entry of that name; None when there is none.

    Raises:
        PluginError: when two packages have it.
    """
    if name in BUILT_IN[group]:
        return Plugin(name, BUILT_IN[group][name])
    found = [plugin for plugin in installed_plugins(group) if plugin.name == name]
    if len(found) > 1:
        packages = " and ".join(plugin.package for plugin in found)
        raise PluginError(f"{name!r} is in the packages {packages}; uninstall one of them")
    return found[0] if found else None


@cache
def installed_plugins(group: str) -> tuple[Plugin, ...]:
    """The entries of installed packages, without the built-in ones, by name."""
    return tuple(sorted(_entries(group), key=lambda plugin: (plugin.name, plugin.package)))


def _entries(group: str) -> Iterator[Plugin]:
    # Takes tens of milliseconds, and is needed where a name is asked for that is not built in.
    from importlib.metadata import entry_points

    for entry in entry_points(group=group):
        if entry.name not in BUILT_IN[group]:
            package = (
                f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "without a name"
            )
            yield Plugin(entry.name, entry.value, package)
