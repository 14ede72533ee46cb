"""The command line: arguments become a Spec, errors one sentence and an exit code.

Each module holds related commands and registers them in ``add_commands``; a command is a function of the
parsed arguments that returns the exit code.  Imports that ranks do not need are local to functions.
"""

from __future__ import annotations

from mpisweep.cli.program import main

__all__ = ["main"]
