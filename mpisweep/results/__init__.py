"""Everything on disk: the journal, the HDF5 file, and reading the two as one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mpisweep.errors import UserError

__all__ = [
    "ResultsError",
    "behind_link",
    "damaged_folder",
    "file_to_create",
    "journal_folder",
    "logs_folder",
    "requests_folder",
    "shares_folder",
    "stop_file",
    "trials_folder",
]


class ResultsError(UserError):
    """A results file cannot be used; the message is one sentence for the user."""


def behind_link(path: Path) -> Path:
    """Resolve a symbolic link to the results file.

    Writers replace the file as a whole, and the link has to survive that.  The files that belong to a results
    file lie beside the file, not beside the link, so that users of either name find them.
    """
    # If the file system denies access here, it denies it again where the file is used, with a better message.
    with contextlib.suppress(OSError):
        if path.is_symlink():
            return Path(os.path.realpath(path))
    return path


def file_to_create(path: Path, name: str, option: str) -> Path:
    """Check that a results file can be created at `path`, and resolve a link.

    Args:
        path: of the file.
        name: of the sweep, for the message.
        option: by which the user sets another path.

    Raises:
        ResultsError: if no file can be created there.
    """
    try:
        is_folder, has_folder = path.is_dir(), path.parent.is_dir()
    except OSError as error:
        problem = f"{path}: cannot be used: {error.strerror}; set {option} to another file"
        raise ResultsError(problem) from error
    if is_folder:
        raise ResultsError(f"{path}: is a folder; set {option} to a file, e.g. {path / name}.h5")
    if not has_folder:
        raise ResultsError(f"{path}: folder {path.parent} does not exist; create it first")
    return behind_link(path)


def journal_folder(path: Path) -> Path:
    """The folder of a results file's journal, which exists while the sweep is not complete."""
    return path.with_name(path.name + ".journal")


def shares_folder(path: Path) -> Path:
    """The shared folder of a split sweep, see :mod:`mpisweep.results.shares.folder`."""
    return path.with_name(path.name + ".shares")


def trials_folder(path: Path) -> Path:
    """The folder that holds the folders of single trials, if any trial asks for one."""
    return path.with_name(path.name + ".trials")


def damaged_folder(path: Path) -> Path:
    """The folder that keeps damaged parts for inspection."""
    return path.with_name(path.name + ".damaged")


def logs_folder(path: Path) -> Path:
    """The folder that keeps the output of failed trials, one file per rank, and of hooks."""
    return path.with_name(path.name + ".logs")


def requests_folder(path: Path) -> Path:
    """The folder of users' requests that no run has taken yet."""
    return path.with_name(path.name + ".requests")


def stop_file(path: Path) -> Path:
    """The file whose existence asks the sweep to stop."""
    return path.with_name(path.name + ".stop")
