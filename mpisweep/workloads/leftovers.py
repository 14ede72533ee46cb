"""Ending the processes that a trial has left behind, before the next trial starts."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import NoReturn

from mpisweep.processes.kernel import end_descendants

__all__ = ["end_leftovers", "exit_now", "give_up", "has_children", "keep"]

#: How long leftover processes may take to end, in seconds.
_LEFTOVERS_S = 2.0
#: Where Python's libraries store the ids of their helper processes: module, object, attribute.
_HELPERS = (
    ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
    ("joblib.externals.loky.backend.resource_tracker", "_resource_tracker", "_pid"),
)
#: Processes that a built-in workload keeps from trial to trial.
_kept: set[int] = set()


def keep(processes: Iterable[int]) -> None:
    """Keep children of this process from trial to trial."""
    _kept.update(processes)


def give_up(processes: Iterable[int]) -> None:
    """Keep these children no longer."""
    _kept.difference_update(processes)


def has_children() -> bool:
    """Whether this process has children, which a trial must have left behind."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end_leftovers() -> bool:
    """End the processes that a trial has left behind; True if one of them does not end."""
    return bool(end_descendants(keep=_helpers(), within_s=_LEFTOVERS_S))


def _helpers() -> set[int]:
    """Processes that the workload keeps, and those that Python's libraries keep for this process's life."""
    found = set(_kept)
    for module, holder, name in _HELPERS:
        if module in sys.modules:
            pid = getattr(getattr(sys.modules[module], holder, None), name, None)
            found |= {pid} if isinstance(pid, int) else set()
    return found


def exit_now(status: int) -> NoReturn:
    """Exit without the exit handlers inherited through the fork."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status & 0xFF)
