"""Processes of this node: starting them, inspecting them through the kernel, ending them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import math
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

__all__ = [
    "FORK_PAUSES_S",
    "HOSTS_VARIABLE",
    "JOB_SIGNALS",
    "NO_ROOM",
    "adopt_orphans",
    "children_of",
    "delivery_s",
    "die_with_parent",
    "end_descendants",
    "end_family",
    "exit_of",
    "handles_any",
    "kill_group",
    "kill_if_same",
    "machine_id",
    "process_start",
    "python_command",
    "start_with_retries",
    "this_host",
]

Started = TypeVar("Started")

#: Host names for the ranks, separated by commas and repeated cyclically from rank 0 on, so that tests can run
#: the ranks of one machine as if on several.
HOSTS_VARIABLE = "MPISWEEP_HOSTS"
_RANK_VARIABLE = "OMPI_COMM_WORLD_RANK"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
#: Signals that batch systems send to all processes of a job, to request or force an end.
JOB_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)
#: A batch system signals all processes of a job within milliseconds, which must not become a trial's fault.
_DELIVERY_S = 0.25
#: Where more processes than cores want to run, delivery takes longer; up to so many times as long is waited.
_DELIVERY_FACTOR = 4.0

#: Errors of a fork when the system lacks processes or memory.
NO_ROOM = (errno.EAGAIN, errno.ENOMEM)
#: Pauses between the tries of a fork that fails with these errors, in seconds.
FORK_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
#: First and longest pause while killed processes end, in seconds.
_END_PAUSE_S = 0.0002
_END_PAUSE_AT_MOST_S = 0.02


def delivery_s() -> float:
    """Seconds within which a signal that is sent to a whole job reaches all of its processes."""
    runnable = 0.0
    with contextlib.suppress(OSError):
        runnable = os.getloadavg()[0]
    return _DELIVERY_S * min(max(1.0, runnable / (os.cpu_count() or 1)), _DELIVERY_FACTOR)


def start_with_retries(start: Callable[[], Started]) -> Started:
    """Call `start`, which starts a process; retry while the system lacks processes or memory.

    Raises:
        OSError: from `start`, when the last try fails.
    """
    for pause_s in FORK_PAUSES_S:
        try:
            return start()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
        time.sleep(pause_s)
    return start()


def python_command() -> list[str]:
    """The Python command for a process that imports this mpisweep.

    The process imports nothing from its working directory, unless mpisweep itself is found only there; then
    mpisweep's main module removes the directory from the path as far as it can.
    """
    package = __name__.partition(".")[0]
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    found = (spec for finder in finders if (spec := finder.find_spec(package, None)) is not None)
    first = next(found, None)
    is_found = first is not None and first.origin == sys.modules[package].__file__
    return [sys.executable, "-P"] if is_found else [sys.executable]


def this_host() -> str:
    """The name of this node; see :data:`HOSTS_VARIABLE`."""
    names = os.environ.get(HOSTS_VARIABLE, "").split(",")
    rank = os.environ.get(_RANK_VARIABLE, "")
    return names[int(rank) % len(names)] if names[0] and rank.isdigit() else socket.gethostname()


def machine_id() -> str:
    """Identify the kernel and the process-id namespace of this process.

    Two machines, or two containers on one machine, can have the same host name; process numbers are
    comparable only if these ids are equal.
    """
    found: list[str] = []
    with contextlib.suppress(OSError):
        found.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with contextlib.suppress(OSError):
        found.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return "/".join(found)


def process_start(pid: int) -> int:
    """Start time of a process in clock ticks since boot; -1 if there is none or it is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        if Path("/proc/self").exists():
            return -1
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, 0)
            return 0
        return -1
    # The command's name is in parentheses and may contain any character; the fields follow the last one.
    fields = text.rpartition(")")[2].split()
    return -1 if fields[0] == "Z" else int(fields[19])


def handles_any(pid: int, numbers: Iterable[int]) -> bool:
    """Whether a process handles any of these signals, according to the kernel."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    handled = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return handled is not None and any(int(handled[1], 16) >> (number - 1) & 1 for number in numbers)


def kill_if_same(pid: int, start: int) -> None:
    """Kill a process, unless its number now belongs to another one."""
    if pid > 1 and process_start(pid) == start:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int, death_signal: int = signal.SIGKILL) -> None:
    """Have the kernel signal this process when `parent`, which forked it, dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


@contextlib.contextmanager
def exit_of(process: int) -> Iterator[int | None]:
    """A descriptor that is readable when the process has ended; None if the system has none."""
    try:
        file = os.pidfd_open(process)
    except (AttributeError, OSError):
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)


def kill_group(process: int) -> None:
    """Kill the process group that this process leads or has led."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)


def children_of(pid: int) -> list[int]:
    """The child processes of a process; empty if the kernel does not list them."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_bytes().split())
    return found


def end_descendants(keep: Container[int] = (), within_s: float = math.inf) -> list[int]:
    """Kill and reap every descendant of this process, except `keep` and their descendants.

    Needs :func:`adopt_orphans`: the children of a killed process become ours, until there are none.

    Args:
        keep: process numbers of children.
        within_s: how long to wait.  A process inside a driver or a file system that hangs does not end; time
            in which this process did not run does not count.

    Returns:
        The killed children that have not ended.
    """
    waited_s, pause_s = 0.0, _END_PAUSE_S
    while True:
        found = [child for child in children_of(os.getpid()) if child not in keep]
        if not found:
            return []
        for child in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        stay = [child for child in found if not _is_reaped(child)]
        if not stay:
            continue
        if waited_s >= within_s:
            return stay
        time.sleep(pause_s)
        waited_s += pause_s
        pause_s = min(2 * pause_s, _END_PAUSE_AT_MOST_S)


def _is_reaped(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def end_family(pid: int) -> None:
    """Kill a process and its descendants; all are stopped first, so that none can fork."""
    family = [pid]
    for member in family:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(member, signal.SIGSTOP)
        family += children_of(member)
    for member in family:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(member, signal.SIGKILL)
