"""The key ``after`` of a sweep file: the launcher reads it once and tells the ranks."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from mpisweep.batch.variables import AFTER_VARIABLE, LAUNCH_VARIABLE
from mpisweep.spec import After, ReadAfter, Spec

__all__ = ["after_of", "tell_ranks"]


def after_of(options: argparse.Namespace, source: str, folder: Path) -> ReadAfter:
    """How this process reads the key.

    Args:
        options: of a command that takes a sweep.
        source: the sweep file.
        folder: of the sweep file.
    """

    def read(file: str, name: str) -> After:
        # Trial processes must not inherit it.
        told = os.environ.pop(AFTER_VARIABLE, "") if LAUNCH_VARIABLE in os.environ else ""
        if told:
            return After(**json.loads(told))
        from mpisweep.results.after import read_after

        is_fresh = getattr(options, "fresh", False)
        return read_after(file, name, source=source, folder=folder, output=options.output, is_fresh=is_fresh)

    return read


def tell_ranks(spec: Spec) -> None:
    """Have the ranks that this process starts take what it has read."""
    if spec.after is not None:
        os.environ[AFTER_VARIABLE] = json.dumps(spec.after.table)
