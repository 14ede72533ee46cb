"""Programs that tests start and do not wait for at once; what a failed test leaves running ends with it."""

from __future__ import annotations

import contextlib
import subprocess

import psutil
from waiting import PATIENCE_S

__all__ = ["end_all", "remember"]

_started: list[subprocess.Popen[str]] = []


def remember(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """The process, which is ended after the test if it still runs then."""
    _started.append(process)
    return process


def end_all() -> None:
    """Kill what still runs, and its descendants: a sweep that hangs would take the cores of all tests after
    it.
    """
    while _started:
        process = _started.pop()
        if process.poll() is not None:
            continue
        members = []
        with contextlib.suppress(psutil.NoSuchProcess):
            members = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for act in (psutil.Process.suspend, psutil.Process.kill):
            for member in members:
                with contextlib.suppress(psutil.NoSuchProcess):
                    act(member)
        process.wait()
        psutil.wait_procs(members, timeout=PATIENCE_S)
