"""Run one program with everything that it starts: limited in time, ended whole, its memory summed.

Some tools start daemons that leave the program's process group and session.  So all processes are found by a
variable in their environment, and ended by their ids.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TOKEN = "PEERS_TOKEN"
_LOOK_S = 0.25
_GRACE_S = 3.0


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program has ended; `seconds` are those from its start to its exit."""

    seconds: float
    started: float
    is_late: bool
    exit_code: int
    #: The largest sum of proportional set sizes of all its processes, in bytes; 0 if not asked for.
    peak_bytes: int
    error: str


def run(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    limit_s: float,
    *,
    with_memory: bool = False,
    also: str = "",
) -> Ran:
    """Run a program in `folder`; `also` is the token of processes whose memory counts too."""
    token = secrets.token_hex(8)
    out = folder / "out"
    with out.open("wb") as file:
        started = time.time()
        process = subprocess.Popen(
            command, cwd=folder, env={**environment, TOKEN: token}, stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        tokens = [one for one in (token, also) if one]
        peak, is_over = [0], threading.Event()
        watch = threading.Thread(target=_watch, args=(tokens, peak, is_over))
        if with_memory:
            watch.start()
        try:
            process.wait(limit_s)
            is_late = False
        except subprocess.TimeoutExpired:
            is_late = True
        finally:
            seconds = time.time() - started
            is_over.set()
            if with_memory:
                watch.join()
            end(process.pid, token)
            process.wait()
    return Ran(seconds, started, is_late, process.returncode, peak[0], last_line(out))


def last_line(out: Path) -> str:
    """The last line that a program printed, shortened; empty if none."""
    lines = [one.strip() for one in out.read_text(errors="replace").splitlines() if one.strip(" -*=\t")]
    errors = [one for one in lines if "Error" in one or "error" in one]
    return ((errors or lines or [""])[-1])[:160]


def family(token: str) -> list[int]:
    """Process ids of all that was started with this token."""
    wanted = f"{TOKEN}={token}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in Path(f"/proc/{name}/environ").read_bytes():
                    found.append(int(name))
    return found


def end(group: int, token: str) -> None:
    """End a process group, then what is left of the family."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
        for pid in family(token):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        until = time.monotonic() + _GRACE_S
        while [one for one in family(token) if one != group] and time.monotonic() < until:
            time.sleep(0.05)


def _watch(tokens: Sequence[str], peak: list[int], is_over: threading.Event) -> None:
    while not is_over.wait(_LOOK_S):
        pids = [pid for token in tokens for pid in family(token)]
        peak[0] = max(peak[0], sum(map(proportional_bytes, pids)))


def proportional_bytes(pid: int) -> int:
    """Memory of a process, shared pages divided by the number of their users."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
