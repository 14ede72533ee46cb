"""Load the search that a sweep names, built in or from a plugin."""

from __future__ import annotations

from typing import Any

from mpisweep.plugins import SEARCHES, PluginError, find_plugin
from mpisweep.spec.model import Spec, SpecError

__all__ = ["load_search"]


def load_search(spec: Spec) -> Any:
    """Import the search and return its class, which has ``from_spec(spec)``.

    Raises:
        SpecError: if no package provides the search, or it cannot be used.
    """
    try:
        plugin = find_plugin(SEARCHES, spec.search)
        if plugin is None:
            raise PluginError(f"there is no search {spec.search!r}; install the package that it comes with")
        return plugin.load(method="from_spec")
    except PluginError as error:
        raise SpecError(f"{spec.source}: search: {error}") from error
