"""The program: parse all commands, and turn errors into one sentence and an exit code.

Exit codes: 0 all trials ended; 3 stopped early, resumable; 4 ended, but no trial completed; 2 invalid input;
1 a bug.
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

#: Errors of a full disk, to which our output is redirected.
_FULL = (errno.ENOSPC, errno.EDQUOT)
#: Seconds that other ranks wait before they exit: mpirun kills all ranks when one fails, and the first one
#: must have printed the error by then.
_FIRST_S = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return the exit code."""
    _escape_output()
    ours, command_line = split_command_line(list(sys.argv[1:] if arguments is None else arguments))
    options = _parser(ours).parse_args(ours)
    options.given, options.command_line = ours[1:], command_line
    is_rank = expected_rank() is not None or LAUNCH_VARIABLE in os.environ
    try:
        code: int = options.command(options) or 0
        if sys.stdout is not None:
            # Otherwise Python fails at exit, too late for a message.
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
        _wait_for_first_rank()
        if is_first_rank():
            print(f"mpisweep: {error}", file=sys.stderr)
        return 2
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


class _Parser(argparse.ArgumentParser):
    """A parser whose messages only the first rank prints."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if is_first_rank():
            super()._print_message(message, file)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Exit; on an error, only after the first rank had time to print it."""
        if status:
            _wait_for_first_rank()
        super().exit(status, message)


def _wait_for_first_rank() -> None:
    """Give the first rank time to print the error."""
    if not is_first_rank():
        time.sleep(_FIRST_S)


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="mpisweep",
        description="Run a whole hyperparameter sweep in one batch job, or on a workstation.",
        epilog="Exit codes: 0 all trials ended; 3 stopped early, run the same command to resume; 4 no trial "
        "completed; 2 invalid input; 1 a bug.",
    )
    parser.add_argument("--version", action="version", version=f"mpisweep {__version__}")
    parser.set_defaults(command=lambda _: parser.print_help())
    commands = parser.add_subparsers(metavar="COMMAND")
    # In the order of `mpisweep --help`.
    for module in (run, check, look, mend, batch, stop):
        module.add_commands(commands)
    if given[:1] == ["chain"]:
        # Only the scripts of `submit --chain` call it.
        stop.add_chain(commands)
    return parser
