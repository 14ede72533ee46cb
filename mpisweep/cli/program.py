"""The program: parse all commands, and turn errors into one sentence and an exit code.

Exit codes: 0 all trials ended; 3 stopped early, resumable; 4 ended, but no trial completed; 2 invalid input;
1 a bug.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from mpisweep import __version__
from mpisweep.cli.answers import answered, escape_output
from mpisweep.cli.parser import Parser
from mpisweep.cli.sweepargs import split_command_line

__all__ = ["main", "make_parser"]

#: The commands in `mpisweep --help`.
_GROUPS = {
    "write and run a sweep": ("init", "check", "run"),
    "change a sweep that exists, also while it runs": ("retry", "skip", "first", "add", "stop"),
    "look at a sweep, also while it runs": (
        "status",
        "watch",
        "top",
        "trial",
        "output",
        "figure",
        "compare",
        "report",
        "export",
    ),
    "supercomputers": ("sites", "jobscript", "submit"),
    "reference and repair": ("options", "replay", "repair", "completion"),
}
#: Module of mpisweep.cli -> its commands.  Only the module of the command that is given is imported.
_MODULES = {
    "init": ("init",),
    "run": ("run",),
    "check": ("check",),
    "figure": ("figure",),
    "compare": ("compare",),
    "look": ("top", "status", "watch", "trial", "output", "export"),
    "report": ("report",),
    "mend": ("replay", "repair"),
    "lists": ("sites", "options"),
    "batch": ("jobscript", "submit"),
    "requests": ("retry", "skip", "first", "add"),
    "stop": ("stop",),
    "shell": ("completion",),
}
_EXIT_CODES = (
    "exit codes: 0 all trials ended; 3 stopped early, run the same command to resume; 4 no trial completed; "
    "2 invalid input; 1 a bug"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return the exit code."""
    escape_output()
    ours, command_line = split_command_line(list(sys.argv[1:] if arguments is None else arguments))

    def run() -> int:
        options, unknown = make_parser(ours[0] if ours else "").parse_known_args(ours)
        if unknown:
            options.parser.refuse(unknown)
        options.given, options.command_line = ours[1:], command_line
        return options.command(options) or 0

    return answered(run, ours[0] if ours else "")


def make_parser(command: str = "") -> Parser:
    """Build the parser of all commands, or of one.

    Args:
        command: the command that is given; the result knows no others if there is such a command.  ``chain``,
            which only job scripts call, has a parser only so.
    """
    parser = Parser(
        prog="mpisweep",
        description="Run a whole hyperparameter sweep in one batch job, or on a workstation.",
        usage="mpisweep [-h] [--version] COMMAND ...",
    )
    parser.groups, parser.exit_codes = _GROUPS, _EXIT_CODES
    parser.add_argument("--version", action="version", version=f"mpisweep {__version__}")
    parser.set_defaults(command=lambda _: parser.print_help())
    commands = parser.add_subparsers(metavar="COMMAND", prog="mpisweep", help=argparse.SUPPRESS)
    if command == "chain":
        importlib.import_module("mpisweep.cli.stop").add_chain(commands)
        return parser
    modules = [name for name, known in _MODULES.items() if command in known] or list(_MODULES)
    for name in modules:
        importlib.import_module(f"mpisweep.cli.{name}").add_commands(commands)
    return parser
