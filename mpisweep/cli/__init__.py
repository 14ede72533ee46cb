"""The command line: arguments become a Spec, errors one sentence and an exit code.

Each module holds related commands and registers them in ``add_commands``; a command is a function of the
parsed arguments that returns the exit code.  Imports that ranks do not need are local to functions.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

from mpisweep.batch.variables import HANDED_VARIABLE, LAUNCH_VARIABLE

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return the exit code.

    Args:
        arguments: of the command line; None for those of this process, which is then about to exit.
    """
    # What is imported stays: the collector would look through it ten times and find nothing.
    was_on = gc.isenabled()
    gc.disable()
    try:
        run = _program(arguments)
    finally:
        if was_on:
            gc.enable()
    if arguments is None:
        gc.freeze()
    try:
        return run()
    finally:
        if arguments is None:
            # At exit it would look through everything twice more, for 20 ms.
            gc.freeze()


def _program(arguments: Sequence[str] | None) -> Callable[[], int]:
    """What this process runs: a rank that its launcher has told everything needs no parser."""
    is_handed = {HANDED_VARIABLE, LAUNCH_VARIABLE} <= os.environ.keys() and sys.argv[1:2] == ["run"]
    if arguments is None and is_handed:
        from mpisweep.cli.handed import run_handed

        return run_handed
    from mpisweep.cli.program import main as run

    return partial(run, arguments)
