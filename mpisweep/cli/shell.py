"""The command completion: a script with which a shell completes commands, options and files."""

from __future__ import annotations

import argparse

from mpisweep.cli.arguments import Commands

__all__ = ["FILES", "add_commands"]

#: Metavariable of an argument -> the files that fit; folders are completed as well.
FILES = {"FILE": "*.h5", "SWEEP": "*.toml", "SCRIPT": "*"}


def add_commands(commands: Commands) -> None:
    """Register completion."""
    parser = commands.add_parser(
        "completion",
        help="print a script that completes commands in a shell",
        description="Print a script with which a shell completes commands, options, their values, and files "
        "that fit: results files, sweep files.",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), metavar="SHELL", help="bash, zsh or fish")
    parser.set_defaults(command=_completion)


def _completion(options: argparse.Namespace) -> int:
    import shtab

    # The parser has this command, too.
    from mpisweep.cli.program import make_parser

    parser = make_parser()
    parser.show_commands()
    for action in parser.all_actions():
        pattern = FILES.get(str(action.metavar))
        if pattern is not None:
            action.complete = shtab.FILE if pattern == "*" else shtab.glob(pattern)  # type: ignore[attr-defined]
        elif action.metavar == "FOLDER":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    text: str = shtab.complete(parser, shell=options.shell)
    print(text)
    return 0
