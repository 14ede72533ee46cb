"""Load the search that a sweep names, built in or from a plugin; check its pruner."""

from __future__ import annotations

import importlib
from typing import Any

from mpisweep.plugins import SEARCHES, PluginError, find_plugin
from mpisweep.spec.model import Spec, SpecError

__all__ = ["check_pruner", "load_search"]


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


def check_pruner(spec: Spec) -> None:
    """Check the pruner of a sweep that has one, which imports Optuna.

    Raises:
        SpecError: if it does not exist or refuses its options, or Optuna is not installed.
    """
    if spec.prune is not None:
        # By name, as the searches are: this package is below theirs.
        importlib.import_module("mpisweep.search.pruning").check_pruner(spec)
