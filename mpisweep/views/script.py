"""Run the main function of an analysis script."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from mpisweep.results import ResultsError

__all__ = ["run_script"]


def run_script(main: Callable[[], None]) -> int:
    """Run the main function of an analysis script; a user error becomes one sentence.

    Returns:
        The exit code: 0, or 2 after a sentence on standard error.
    """
    try:
        main()
    except ResultsError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader, `head` for one, has closed the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(f"{error.filename}: cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    return 0
