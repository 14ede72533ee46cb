"""Run docs/tutorial.ipynb from top to bottom and store its outputs, after a change of its cells."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

PAGE = Path(__file__).parent / "tutorial.ipynb"


def executed(folder: Path) -> nbformat.NotebookNode:
    """The notebook after a run in a folder, which gets its files.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails.
    """
    notebook = nbformat.read(PAGE, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=600,
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    )
    client.execute()
    return notebook


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        nbformat.write(executed(Path(made)), PAGE)
