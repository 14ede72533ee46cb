"""Find workloads, searches, sites and batch systems by name, built in or from plugins.

A package provides plugins as entry points (``[options.entry_points]`` of setup.cfg,
``[project.entry-points]`` of pyproject.toml).  The groups, and the objects that their entries refer to:

``mpisweep.workloads``
    a :class:`~mpisweep.spec.catalogue.WorkloadDescription`; the entry has the name of the workload
``mpisweep.searches``
    a class with ``from_spec(spec)``, which returns a sampler; the entry has the name of the search
``mpisweep.sites``
    a package whose folder contains site files, ``NAME.toml`` each
``mpisweep.batch``
    a :class:`~mpisweep.batch.base.BatchSystem` object; the entry's name is the system's

Built-in entries are registered in the same groups and also listed in :data:`BUILT_IN`.  Finding one does not
scan installed packages, which would cost each rank tens of milliseconds, and works if mpisweep is only on
PYTHONPATH.  A plugin cannot take a built-in name.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from mpisweep.dataclass import dataclass

__all__ = [
    "BATCH",
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
BATCH = "mpisweep.batch"

#: Group -> name -> reference, as in setup.cfg.
BUILT_IN: dict[str, dict[str, str]] = {
    WORKLOADS: {"resnet50": "mpisweep.spec.catalogue:RESNET50"},
    SEARCHES: {
        "grid": "mpisweep.search.grid:GridSampler",
        "points": "mpisweep.search.grid:GridSampler",
        "random": "mpisweep.search.random:RandomSampler",
        "sobol": "mpisweep.search.sobol:SobolSampler",
        "largest_batch": "mpisweep.search.largest_batch:LargestBatch",
        "batch_size": "mpisweep.search.batch_size:BatchSizeSearch",
        **dict.fromkeys(("tpe", "gp", "cmaes", "nsga2", "optuna"), "mpisweep.search.learning:LearningSearch"),
    },
    SITES: {"mpisweep": "mpisweep.batch.sites"},
    # In the order in which a job's environment is searched for them.
    BATCH: {
        "pjm": "mpisweep.batch.pjm:PJM",
        "slurm": "mpisweep.batch.slurm:SLURM",
        "pbs": "mpisweep.batch.pbs:PBS",
        "gridengine": "mpisweep.batch.gridengine:GRID_ENGINE",
        "workstation": "mpisweep.batch.workstation:WORKSTATION",
    },
}

#: Folders of notes on installed packages, but for those of mpisweep.
_NOTES = re.compile(r"(?!mpisweep[-.]).*\.(?:dist|egg)-info")


class PluginError(ValueError):
    """Unusable plugin; the message ends a sentence that begins with the key that names it."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One entry of a group.

    Attributes:
        reference: ``module:attribute``, or ``module``.
        package: name and version of its package; empty if built in.
    """

    name: str
    reference: str
    package: str = ""

    @property
    def text(self) -> str:
        """The plugin in messages."""
        return f"{self.name!r} of the package {self.package}" if self.package else repr(self.name)

    def load(self, method: str = "") -> Any:
        """Import the object that the entry refers to.

        Args:
            method: a method that the object must have; empty for none.

        Raises:
            PluginError: if it cannot be imported, does not exist, or lacks the method.
        """
        module, _, attributes = self.reference.partition(":")
        try:
            found: object = importlib.import_module(module)
            for attribute in filter(None, attributes.split(".")):
                found = getattr(found, attribute)
        except Exception as error:
            # Importing third-party code may raise anything.
            raise self.unfit(f"cannot be loaded: {type(error).__name__}: {error}") from error
        if method and not callable(getattr(found, method, None)):
            raise self.unfit(f"cannot be used: it has no method {method!r}")
        return found

    def folder(self) -> Path:
        """Find the folder of the package that the entry refers to, without importing it.

        Raises:
            PluginError: if there is no such package.
        """
        try:
            found = importlib.util.find_spec(self.reference)
        except Exception as error:
            # Finding a package imports its parents.
            raise self.unfit(f"cannot be loaded: {type(error).__name__}: {error}") from error
        folders = list(found.submodule_search_locations or ()) if found is not None else []
        if not folders:
            raise self.unfit(f"cannot be loaded: there is no package {self.reference!r}")
        return Path(folders[0])

    def unfit(self, why: str) -> PluginError:
        """Build the error that says why this plugin cannot be used."""
        return PluginError(" ".join(f"{self.text} {why}".split()))


def plugin_names(group: str) -> list[str]:
    """Names of a group: built-in ones, then those of installed packages."""
    return list(dict.fromkeys([*BUILT_IN[group], *(plugin.name for plugin in installed_plugins(group))]))


def is_named(group: str, name: object) -> bool:
    """Whether a group has this name; scans installed packages only if it is not built in."""
    return name in BUILT_IN[group] or any(plugin.name == name for plugin in installed_plugins(group))


def find_plugin(group: str, name: str) -> Plugin | None:
    """Find an entry by name; None if there is none.

    Raises:
        PluginError: if two packages provide it.
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
    """Entries of installed packages without built-in ones, sorted by name."""
    return tuple(sorted(_entries(group), key=lambda plugin: (plugin.name, plugin.package)))


def _entries(group: str) -> Iterator[Plugin]:
    if not _may_be_registered(group):
        return
    # Local, because the import takes tens of milliseconds.
    from importlib.metadata import entry_points

    for entry in entry_points(group=group):
        if entry.name not in BUILT_IN[group]:
            package = (
                f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "without a name"
            )
            yield Plugin(entry.name, entry.value, package)


def _may_be_registered(group: str) -> bool:
    """Whether a package other than mpisweep may register entries of a group, within milliseconds.

    Packages are searched as importlib.metadata does it, and any other way to install one counts as a yes.
    """
    finders = [finder for finder in sys.meta_path if finder is not PathFinder]
    if any(hasattr(finder, "find_distributions") for finder in finders):
        return True
    for folder in sys.path:
        if folder.endswith(".egg") or Path(folder).is_file():
            return True
        with contextlib.suppress(OSError):
            for name in os.listdir(folder or "."):
                if _NOTES.fullmatch(name) and _mentions(Path(folder, name, "entry_points.txt"), group):
                    return True
    return False


def _mentions(file: Path, group: str) -> bool:
    try:
        return group.encode() in file.read_bytes()
    except OSError:
        # Most packages register nothing.
        return False
