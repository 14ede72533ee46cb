"""Errors that people can cause, and that every command answers with one sentence."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["UserError", "how_to_add", "missing_modules", "missing_package"]

#: Modules that an installation may lack -> the packages that bring them.
_PACKAGES = {
    "cmaes": "cmaes",
    "h5py": "h5py",
    "matplotlib": "matplotlib",
    "mpi4py": "mpi4py",
    "numpy": "numpy",
    "optuna": "optuna cmaes",
    "rich": "rich",
    "scipy": "scipy",
    "shtab": "shtab",
    "sklearn": "scikit-learn",
    "torch": "torch",
    "torchvision": "torchvision",
}


class UserError(Exception):
    """Input or a machine is not as it must be; the message is one sentence for the user."""


def missing_modules(*modules: str) -> list[str]:
    """Those of some top-level modules that are not installed; imports none."""
    return [module for module in modules if find_spec(module) is None]


def how_to_add(*modules: str) -> str:
    """Say how to install modules, as the second half of a sentence."""
    packages = " ".join(dict.fromkeys(_PACKAGES.get(module, module) for module in modules))
    return f"`pip install {packages}` adds {'them' if ' ' in packages else 'it'}"


def missing_package(error: ModuleNotFoundError) -> str:
    """Say what an import lacks and how to add it; "" if mpisweep does not use the module."""
    module = (error.name or "").partition(".")[0]
    if module not in _PACKAGES:
        return ""
    return f"needs {module}, which is not installed; {how_to_add(module)}"
