"""Probing which nodes of the allocation still answer, all at once and within a time limit.

The batch system is no help here: it takes minutes to notice that a node is gone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence

from mpisweep.batch.jobfacts import Allocation
from mpisweep.batch.registry import batch_system

__all__ = ["answering", "probe_command"]

#: Time limit for a node's answer, in seconds.
_ANSWER_S = 15.0
#: Interval of looking for answers, in seconds.
_LOOK_S = 0.05


def probe_command(allocation: Allocation, remote_shell: str, host: str) -> list[str]:
    """A command that exits with 0 if a process can be started on the node."""
    system = batch_system(allocation.system)
    if system is not None and (probe := system.probe(host)):
        return probe
    if remote_shell:
        return [remote_shell, host, "true"]
    return ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_ANSWER_S:g}", host, "true"]


def answering(allocation: Allocation, remote_shell: str, hosts: Sequence[str]) -> list[str]:
    """Probe hosts and return those that answer, in order; all of them if none does.

    If not even the nearest host answers, the probe is at fault, and the launcher may do better.  Without a
    program to probe with, all are returned, too.
    """
    if len(hosts) < 2 or shutil.which(probe_command(allocation, remote_shell, "")[0]) is None:
        return list(hosts)
    asked = {host: _start(probe_command(allocation, remote_shell, host)) for host in hosts}
    until = time.monotonic() + _ANSWER_S
    while any(probe.poll() is None for probe in asked.values()) and time.monotonic() < until:
        time.sleep(_LOOK_S)
    for probe in asked.values():
        if probe.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(probe.pid, signal.SIGKILL)
            probe.wait()
    return [host for host, probe in asked.items() if probe.returncode == 0] or list(hosts)


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
