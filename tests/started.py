"""Programs that a test starts and does not wait for at once."""

from __future__ import annotations

import contextlib
import subprocess

import psutil
from waiting import PATIENCE_S

__all__ = ["end", "end_all", "family", "remember"]

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


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process and its descendants, and wait until all of them have ended.

    They are suspended first, so that none of them reacts to the end of another.
    """
    members = family(process)
    for act in (psutil.Process.suspend, psutil.Process.kill):
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                act(member)
    process.wait()
    psutil.wait_procs(members, timeout=PATIENCE_S)


def end_all() -> None:
    """End what a test has left running: it would take the cores of all tests after it."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            end(process)
