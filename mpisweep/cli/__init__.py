"""The command line: arguments to a Spec, errors to one sentence and an exit code, each in one place.

A module holds commands that belong together and has one function for the program, ``add_commands``; a command
is a function of the parsed arguments that returns the exit code.  What ranks do not need is imported where it
is used.
"""

from __future__ import annotations

from mpisweep.cli.program import main

__all__ = ["main"]
