"""Copies of a sweep for other tools, one file per tool.

A copy is written after the fact from what :func:`mpisweep.load` returns; the HDF5 file stays the original.
The libraries are imported where they are used: a tool that is not installed is one sentence.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mpisweep.results import ResultsError
from mpisweep.results.load import Sweep

__all__ = ["COPIES", "Copy", "copy_for", "write_copy"]


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a sweep that another tool reads.

    Attributes:
        module: has ``write(sweep, out)``, or ``write(sweep, out, curves=...)`` if it `has_curves`.
        needs: packages to install.
        suffixes: of the files that it writes; empty for a folder.
        has_curves: whether it can have one row per report instead of one per trial.
    """

    module: str
    needs: str
    suffixes: tuple[str, ...] = ()
    has_curves: bool = False


#: Format -> its copy.
COPIES: Mapping[str, Copy] = {
    "optuna": Copy("study", "optuna", (".db", ".sqlite", ".journal")),
    "parquet": Copy("parquet", "pyarrow", (".parquet",), has_curves=True),
    "tensorboard": Copy("tensorboard", "tensorboard"),
    "mlflow": Copy("mlflow", "mlflow"),
    "wandb": Copy("wandb", "wandb"),
}


def copy_for(suffix: str) -> str | None:
    """The format of files with this suffix; None if there is none."""
    return next((name for name, one in COPIES.items() if suffix in one.suffixes), None)


def write_copy(sweep: Sweep, name: str, out: Path, *, curves: bool = False) -> None:
    """Write a copy of a sweep.

    Args:
        sweep: the sweep.
        name: one of :data:`COPIES`.
        out: the file or folder.
        curves: whether to write one row per report.

    Raises:
        ResultsError: if a package is missing, or the copy would replace something else.
    """
    made = COPIES[name]
    if curves and not made.has_curves:
        raise ResultsError(f"--curves: a copy for {name} has the curves already; remove it")
    if made.suffixes and out.suffix not in made.suffixes:
        raise ResultsError(f"{out}: the suffix is not {' or '.join(made.suffixes)}; rename it")
    if not made.suffixes and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ResultsError(f"{out}: exists; set -o to a new folder")
    try:
        module = importlib.import_module(f"{__name__}.{made.module}")
    except ModuleNotFoundError as error:
        raise ResultsError(
            f"a copy for {name} needs {error.name!r}, which is not installed; run `pip install {made.needs}`"
        ) from error
    if made.has_curves:
        module.write(sweep, out, curves=curves)
    else:
        module.write(sweep, out)
