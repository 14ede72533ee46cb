"""The command init: write a sweep file for a script, a function or a program."""

from __future__ import annotations

import argparse
from pathlib import Path

from mpisweep.cli.arguments import Commands
from mpisweep.spec import SpecError

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Register init."""
    parser = commands.add_parser(
        "init",
        help="write a sweep file for a script or program",
        description="Write a commented sweep file. Parameters come from the options of a script (argparse, "
        "click) or of a program that answers --help, or from a function's use of trial.params; metrics from "
        "what it prints or reports. Ranges are guesses around the defaults. An objective of Optuna needs "
        "none; direction, pruner and number of trials are those of its study. Runs nothing but --help.",
    )
    parser.add_argument(
        "script",
        metavar="SCRIPT",
        nargs="?",
        default="resnet50",
        help="Python script, module:function, program, or built-in workload (default: resnet50)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        default=Path("sweep.toml"),
        help="sweep file to write, never over another one (default: sweep.toml)",
    )
    parser.set_defaults(command=_init)


def _init(options: argparse.Namespace) -> int:
    from mpisweep.drafting import DraftError, draft_text, look_at

    output: Path = options.output
    if output.exists():
        raise SpecError(f"{output}: exists; set -o to another file, or move it aside")
    if not output.parent.is_dir():
        raise SpecError(f"{output}: folder {output.parent} does not exist; create it first")
    try:
        text = draft_text(look_at(options.script, output.parent), output.name)
    except DraftError as error:
        raise SpecError(str(error)) from error
    try:
        # Another program may have made it meanwhile.
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise SpecError(f"{output}: cannot be written: {error.strerror}") from error
    print(f"{output}: written; read and edit it, then run `mpisweep check {output}`")
    return 0
