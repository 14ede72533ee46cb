"""What a trial leaves running: processes that are to be gone before the next one starts."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

from mpisweep.processes.kernel import end_descendants

__all__ = ["end_leftovers", "has_children", "leave"]

#: How long what a trial has left behind may take to end, in seconds.
_LEFTOVERS_S = 2.0
#: Where Python's libraries keep the numbers of their helper processes: module, object, attribute.
_HELPERS = (
    ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
    ("joblib.externals.loky.backend.resource_tracker", "_resource_tracker", "_pid"),
)


def has_children() -> bool:
    """Whether a trial has left processes behind, which are to be gone before the next one starts."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end_leftovers() -> bool:
    """End what a trial has left behind; True when something does not end."""
    return bool(end_descendants(keep=_helpers(), within_s=_LEFTOVERS_S))


def _helpers() -> set[int]:
    """Processes that Python's own libraries keep for as long as this one lives."""
    found: set[int] = set()
    for module, holder, name in _HELPERS:
        if module in sys.modules:
            pid = getattr(getattr(sys.modules[module], holder, None), name, None)
            found |= {pid} if isinstance(pid, int) else set()
    return found


def leave(status: int) -> NoReturn:
    """End this process without the handlers of the one that it was forked from."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status & 0xFF)
