"""The program: parse all commands, and turn errors into one sentence and an exit code.

Exit codes: 0 all trials ended; 3 stopped early, resumable; 4 ended, but no trial completed; 2 invalid input;
1 a bug.
"""

from __future__ import annotations

import argparse
import codecs
import errno
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence

from mpisweep import __version__
from mpisweep.batch.variables import LAUNCH_VARIABLE
from mpisweep.cli.parser import Parser, wait_for_first_rank
from mpisweep.cli.sweepargs import split_command_line
from mpisweep.errors import UserError, missing_package
from mpisweep.rank.transport import expected_rank, is_first_rank

__all__ = ["main", "make_parser"]

#: Errors of a full disk, to which our output is redirected.
_FULL = (errno.ENOSPC, errno.EDQUOT)
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
    _escape_output()
    ours, command_line = split_command_line(list(sys.argv[1:] if arguments is None else arguments))
    is_rank = expected_rank() is not None or LAUNCH_VARIABLE in os.environ
    try:
        options, unknown = make_parser(ours[0] if ours else "").parse_known_args(ours)
        if unknown:
            options.parser.refuse(unknown)
        options.given, options.command_line = ours[1:], command_line
        code: int = options.command(options) or 0
        if sys.stdout is not None:
            # Otherwise Python fails at exit, too late for a message.
            sys.stdout.flush()
    except UserError as error:
        return _refuse(f"mpisweep: {error}")
    except ModuleNotFoundError as error:
        sentence = missing_package(error)
        # Other ranks wait for one that lacks another package than this, with which MPI begins.
        if not sentence or (is_rank and error.name != "mpi4py"):
            raise
        return _refuse(f"mpisweep {ours[0]}: {sentence}" if ours else f"mpisweep: {sentence}")
    except KeyError as error:
        print(f"mpisweep: {error.args[0]}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader, such as `head`, has exited.
        _discard_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        # Ranks handle file errors themselves: others are bugs, and so are errors without a file.
        if is_rank or (error.filename is None and error.errno not in _FULL):
            raise
        if error.filename is None:
            _discard_output()
        print(
            f"mpisweep: {error.filename or 'standard output cannot be written'}: {error.strerror}",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return code


def _refuse(sentence: str) -> int:
    """Print a sentence, once for all ranks; returns the exit code."""
    wait_for_first_rank()
    if is_first_rank():
        print(sentence, file=sys.stderr)
    return 2


def _escape_output() -> None:
    """Print characters that the locale cannot encode as escapes instead of failing."""
    codecs.register_error("mpisweep", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in (
            "strict",
            "surrogateescape",
            "backslashreplace",
        ):
            stream.reconfigure(errors="mpisweep")


def _escaped(error: UnicodeError) -> tuple[bytes, int]:
    """Encode undecodable bytes of a name as they are, and other characters as escapes."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    parts = (
        bytes([ord(c) - 0xDC00]) if "\udc80" <= c <= "\udcff" else c.encode("ascii", "backslashreplace")
        for c in text
    )
    return b"".join(parts), error.end


def _discard_output() -> None:
    """Redirect standard output to /dev/null, because Python flushes it again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
