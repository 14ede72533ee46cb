"""The program: all commands in one parser, and every error as one sentence and an exit code.

Exit codes: 0 every trial has ended; 3 stopped early and resumable; 4 ended, but no trial completed; 2 the
user's input is wrong; 1 a bug.
"""

from __future__ import annotations

import argparse
import codecs
import errno
import io
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from mpisweep import __version__
from mpisweep.batch.launch import LAUNCH_VARIABLE
from mpisweep.batch.launchers import LaunchError
from mpisweep.batch.site import SiteError
from mpisweep.batch.submit import SubmitError
from mpisweep.cli import batch, check, look, mend, run, stop
from mpisweep.cli.sweepargs import split_command_line
from mpisweep.devices.nodes import LayoutError
from mpisweep.rank.transport import TransportError, expected_rank, is_first_rank
from mpisweep.results import ResultsError
from mpisweep.spec import SpecError

__all__ = ["main"]

#: What a disk says that takes nothing more, into which our output goes.
_FULL = (errno.ENOSPC, errno.EDQUOT)
#: How long other ranks wait for the first one to say what is wrong, in seconds: a launcher ends all ranks as
#: soon as one of them has failed, which may be before it has spoken.
_FIRST_S = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns the exit code."""
    _print_anything()
    ours, command_line = split_command_line(list(sys.argv[1:] if arguments is None else arguments))
    options = _parser(ours).parse_args(ours)
    options.given, options.command_line = ours[1:], command_line
    is_rank = expected_rank() is not None or LAUNCH_VARIABLE in os.environ
    try:
        code: int = options.command(options) or 0
        if sys.stdout is not None:
            # Otherwise Python finds out when it is too late to say something.
            sys.stdout.flush()
    except (
        SpecError,
        ResultsError,
        LaunchError,
        LayoutError,
        TransportError,
        SiteError,
        SubmitError,
    ) as error:
        _wait_for_the_first()
        if is_first_rank():
            print(f"mpisweep: {error}", file=sys.stderr)
        return 2
    except KeyError as error:
        print(f"mpisweep: {error.args[0]}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Somebody piped us into `head`; there is nobody left to tell.
        _print_no_more()
        return 128 + signal.SIGPIPE
    except OSError as error:
        # Ranks know what to do about files; what they let through is a bug, and so is what no file is to
        # blame for.
        if is_rank or (error.filename is None and error.errno not in _FULL):
            raise
        if error.filename is None:
            _print_no_more()
        print(
            f"mpisweep: {error.filename or 'what is printed cannot be written'}: {error.strerror}",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return code


def _print_anything() -> None:
    """Have what the user's locale cannot write be printed as an escape, instead of ending the program, or a
    trial.
    """
    codecs.register_error("mpisweep", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in (
            "strict",
            "surrogateescape",
            "backslashreplace",
        ):
            stream.reconfigure(errors="mpisweep")


def _escaped(error: UnicodeError) -> tuple[bytes, int]:
    """The bytes of a name that are no text, and an escape for all else."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    parts = (
        bytes([ord(c) - 0xDC00]) if "\udc80" <= c <= "\udcff" else c.encode("ascii", "backslashreplace")
        for c in text
    )
    return b"".join(parts), error.end


def _print_no_more() -> None:
    """Have Python not try again, when it ends, to print what could not be printed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """What it has to say is said by one rank."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if is_first_rank():
            super()._print_message(message, file)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Exit, and where something is wrong not before the rank that says what."""
        if status:
            _wait_for_the_first()
        super().exit(status, message)


def _wait_for_the_first() -> None:
    """Leave to the first rank the time to say what is wrong."""
    if not is_first_rank():
        time.sleep(_FIRST_S)


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="mpisweep",
        description="A whole hyperparameter sweep in one batch job, or in one command on a workstation.",
        epilog="Exit codes: 0 every trial has ended; 3 stopped early and resumable: run the same command; "
        "4 no trial completed; 2 wrong input; 1 a bug.",
    )
    parser.add_argument("--version", action="version", version=f"mpisweep {__version__}")
    parser.set_defaults(command=lambda _: parser.print_help())
    commands = parser.add_subparsers(metavar="COMMAND")
    # In the order in which `mpisweep --help` lists them.
    for module in (run, check, look, mend, batch, stop):
        module.add_commands(commands)
    if given[:1] == ["chain"]:
        # The scripts of `submit --chain` call it, and nobody else.
        stop.add_chain(commands)
    return parser
