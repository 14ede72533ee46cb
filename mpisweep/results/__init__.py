"""Everything that is on disk: the journal, the HDF5 file, and reading the two as one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = [
    "ResultsError",
    "behind_link",
    "damaged_folder",
    "journal_folder",
    "logs_folder",
    "shares_folder",
    "stop_file",
    "trials_folder",
]


class ResultsError(Exception):
    """A results file that cannot be used; the message is one sentence for the user."""


def behind_link(path: Path) -> Path:
    """The file itself, where a symbolic link leads to it: it is replaced as a whole, and the link has to
    stay.

    What belongs to a results file lies beside the file and not beside a link to it, so that all who come by
    either name find it.
    """
    # What the file system denies here it denies again, with the file's name, where the file is used.
    with contextlib.suppress(OSError):
        if path.is_symlink():
            return Path(os.path.realpath(path))
    return path


def journal_folder(path: Path) -> Path:
    """Where the journal of a results file lies while the sweep is not complete."""
    return path.with_name(path.name + ".journal")


def shares_folder(path: Path) -> Path:
    """Where several allocations that work on one sweep keep what they share, see
    :mod:`mpisweep.results.shares.folder`.
    """
    return path.with_name(path.name + ".shares")


def trials_folder(path: Path) -> Path:
    """Where the folders of single trials lie, if any asks for one."""
    return path.with_name(path.name + ".trials")


def damaged_folder(path: Path) -> Path:
    """Where damaged parts are kept for people to look at."""
    return path.with_name(path.name + ".damaged")


def logs_folder(path: Path) -> Path:
    """Where what trials print when they fail is kept, one file a rank."""
    return path.with_name(path.name + ".logs")


def stop_file(path: Path) -> Path:
    """A file that stops the sweep in order when somebody makes it."""
    return path.with_name(path.name + ".stop")
