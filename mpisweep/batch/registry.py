"""The batch systems by name, and recognising the one that a process runs in.

Built-in systems come first.  Installed packages (:mod:`mpisweep.plugins`) are searched for more only if a
name is not built in, if no built-in system recognises the environment, or to read a job script.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from mpisweep.batch.base import BatchSystem
from mpisweep.batch.jobfacts import NO_SYSTEM
from mpisweep.plugins import BATCH, BUILT_IN, Plugin, PluginError, find_plugin, installed_plugins

__all__ = [
    "SCRIPTED",
    "SYSTEMS",
    "batch_system",
    "find_system",
    "known_systems",
    "recognise",
    "unusable_plugins",
]

#: Attributes without a default.
_NEEDED = ("name", "title", "submit")


@cache
def _load(plugin: Plugin) -> BatchSystem:
    found = plugin.load()
    if not isinstance(found, BatchSystem):
        raise plugin.unfit(f"cannot be used: it is of type {type(found).__name__} and not a BatchSystem")
    if missing := [name for name in _NEEDED if not isinstance(getattr(found, name, None), str)]:
        raise plugin.unfit(f"cannot be used: it has no {' and no '.join(missing)}")
    if found.name != plugin.name:
        raise plugin.unfit(f"cannot be used: it describes {found.name!r}")
    if plugin.name == NO_SYSTEM:
        raise plugin.unfit("cannot be used: its name stands for no batch system")
    try:
        is_everywhere = bool(found.job_id({}))
    except Exception as error:
        # A fault in it must not reach sweeps that do not need it.
        raise plugin.unfit(f"cannot be used: job_id: {type(error).__name__}: {error}") from error
    if is_everywhere:
        raise plugin.unfit("cannot be used: it takes every process for a job of its own")
    return found


#: The built-in systems by name, and a machine without one: scripts can be written for each.
SCRIPTED: dict[str, BatchSystem] = {
    name: _load(Plugin(name, reference)) for name, reference in BUILT_IN[BATCH].items()
}

#: The built-in systems that run jobs, in the order in which a job's environment is searched for them.
SYSTEMS: tuple[BatchSystem, ...] = tuple(system for system in SCRIPTED.values() if system.marker)


def find_system(name: str) -> BatchSystem | None:
    """Find the system of this name, built-in or a plugin's; None if there is none.

    Raises:
        PluginError: if a plugin has the name and cannot be used.
    """
    if name in SCRIPTED:
        return SCRIPTED[name]
    plugin = find_plugin(BATCH, name)
    return None if plugin is None else _load(plugin)


def batch_system(name: str) -> BatchSystem | None:
    """Return the system of this name; None for ``local``, and if no usable package has it."""
    if name == NO_SYSTEM:
        return None
    try:
        return find_system(name)
    except PluginError:
        return None


def known_systems() -> tuple[BatchSystem, ...]:
    """List the systems that run jobs: the built-in ones, then the plugins that can be used."""
    return (*SYSTEMS, *(system for system in _plugins()[0] if system.marker))


def recognise(environment: Mapping[str, str]) -> BatchSystem | None:
    """Return the system whose job this environment belongs to; None outside of jobs."""
    built_in = next((system for system in SYSTEMS if system.job_id(environment)), None)
    return built_in or next((system for system in _plugins()[0] if system.job_id(environment)), None)


def unusable_plugins() -> tuple[str, ...]:
    """Say why each plugin that cannot be used is not."""
    return _plugins()[1]


@cache
def _plugins() -> tuple[tuple[BatchSystem, ...], tuple[str, ...]]:
    """The systems of installed packages, and why others cannot be used."""
    usable: list[BatchSystem] = []
    unusable: list[str] = []
    for name in dict.fromkeys(plugin.name for plugin in installed_plugins(BATCH)):
        try:
            if (system := find_system(name)) is not None:
                usable.append(system)
        except PluginError as error:
            unusable.append(str(error))
    return tuple(usable), tuple(unusable)
