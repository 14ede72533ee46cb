"""Programs that a test starts and does not wait for at once."""

from __future__ import annotations

import contextlib
import subprocess

import psutil
from waiting import PATIENCE_S

__all__ = ["end", "end_all", "family", "kill_family", "remember"]

_started: list[subprocess.Popen[str]] = []


def remember(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """Return the process, which :func:`end_all` ends after the test if it still runs then."""
    _started.append(process)
    return process


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The process and its descendants; none once it was reaped."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_family(process: psutil.Process) -> list[psutil.Process]:
    """Kill a process and its descendants, and return them.

    All are suspended first: none starts another process, or reacts to the end of one.
    """
    members = [process]
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.suspend()
            members += member.children()
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    return members


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process and its descendants, and wait until all of them have ended."""
    members: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        members = kill_family(psutil.Process(process.pid))
    process.wait()
    psutil.wait_procs(members, timeout=PATIENCE_S)


def end_all() -> None:
    """End what a test has left running: it would take the cores of all tests after it."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            end(process)
