"""Everything that is on disk: the journal, the HDF5 file, and reading the two as one."""

from __future__ import annotations

from pathlib import Path

__all__ = ["ResultsError", "journal_folder", "trials_folder"]


class ResultsError(Exception):
    """A results file that cannot be used; the message is one sentence for the user."""


def journal_folder(path: Path) -> Path:
    """Where the journal of a results file lies while the sweep is not complete."""
    return path.with_name(path.name + ".journal")


def trials_folder(path: Path) -> Path:
    """Where the folders of single trials lie, if any asks for one."""
    return path.with_name(path.name + ".trials")
