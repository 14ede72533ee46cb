"""How the program answers errors: one sentence and an exit code, once for all ranks."""

from __future__ import annotations

import codecs
import errno
import io
import os
import signal
import sys
import time
from collections.abc import Callable

from mpisweep.batch.variables import LAUNCH_VARIABLE
from mpisweep.errors import UserError, missing_package
from mpisweep.rank.transport import expected_rank, is_first_rank

__all__ = ["answered", "escape_output", "wait_for_first_rank"]

#: Errors of a full disk, to which our output is redirected.
_FULL = (errno.ENOSPC, errno.EDQUOT)
#: Seconds that other ranks wait before they exit: mpirun kills all ranks when one fails, and the first one
#: must have printed the error by then.
_FIRST_S = 5.0


def answered(run: Callable[[], int], command: str) -> int:
    """Run a command and return the exit code; errors that a user can cause are answered.

    Args:
        run: the command.
        command: its name; empty for none.
    """
    is_rank = expected_rank() is not None or LAUNCH_VARIABLE in os.environ
    try:
        code = run()
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
        return _refuse(f"mpisweep {command}: {sentence}" if command else f"mpisweep: {sentence}")
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


def escape_output() -> None:
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


def wait_for_first_rank() -> None:
    """Give the first rank time to print the error."""
    if not is_first_rank():
        time.sleep(_FIRST_S)
