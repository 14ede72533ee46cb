"""Programs that a test runs in the background."""

from __future__ import annotations

import contextlib
import subprocess

import psutil
from waiting import PATIENCE_S

__all__ = ["end", "end_all", "family", "kill_family", "remember"]

_started: list[subprocess.Popen[str]] = []


def remember(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """Register a process and return it; :func:`end_all` ends it after the test if it still runs."""
    _started.append(process)
    return process


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The process and its descendants; empty once the process was reaped."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_family(process: psutil.Process) -> list[psutil.Process]:
    """Kill a process and its descendants, and return them.

    All are suspended first, so that none starts another process or reacts to the end of one.
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
    """End all programs that a test left running; they would slow down every later test."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            end(process)
