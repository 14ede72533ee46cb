"""One call of a hook: a process with a time limit, whose standard input is JSON."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from mpisweep.processes.kernel import end_family, kill_group

__all__ = ["HookCalls", "HookLog", "Outcome", "json_line"]

#: Bytes of a call's output that are kept: its end.
_OUTPUT_BYTES = 1 << 16
#: Bytes of output that one run adds to the log of hooks.
_LOG_BYTES = 16 << 20
#: First and longest pause between two looks whether it has ended, or its time is up, in seconds.
_LOOK_FIRST_S = 0.5e-3
_LOOK_S = 0.05
#: Time for a killed process to end, in seconds; one that hangs in a file system may never do.
_REAP_S = 2.0


class Outcome(NamedTuple):
    """How a call ended; `problem` is empty if it exited with 0."""

    problem: str
    output: str


class HookCalls:
    """Calls hooks one after another; :meth:`end` ends the present call and all later ones.

    Args:
        folder: where they run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_over = False

    def call(self, command: Sequence[str], told: bytes, ends_at: Callable[[], float]) -> Outcome:
        """Run a program; kill it, and what it has started, when its time is up.

        Args:
            command: the program and its arguments.
            told: its standard input.
            ends_at: when its time is up, by the monotonic clock; may change meanwhile.
        """
        # Files, not pipes: neither a program that reads nothing nor a process left behind can block.
        try:
            with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output:
                given.write(told)
                given.seek(0)
                problem = self._run(command, given, output, ends_at)
                return Outcome(problem, _end_of(output))
        except OSError as error:
            return Outcome(f"could not start: {error.strerror or error}", "")

    def end(self) -> None:
        """Kill the present call, and let no other begin."""
        with self._lock:
            self._is_over = True
            if self._process is not None:
                _kill(self._process)

    def _run(
        self, command: Sequence[str], given: IO[bytes], output: IO[bytes], ends_at: Callable[[], float]
    ) -> str:
        with self._lock:
            if self._is_over:
                return "was not called: the launcher ends"
            self._process = process = subprocess.Popen(
                command, cwd=self._folder, stdin=given, stdout=output, stderr=output, start_new_session=True
            )
        began = time.monotonic()
        code = self._await(process, ends_at)
        if code is None:
            _kill(process)
            reaped_by = time.monotonic() + _REAP_S
            self._await(process, lambda: reaped_by)
        if code is None:
            return f"was killed after {time.monotonic() - began:.1f} s"
        if self._is_over and code < 0:
            return "was killed: the launcher ends"
        return "" if code == 0 else f"died of signal {-code}" if code < 0 else f"exited with {code}"

    def _await(self, process: subprocess.Popen[bytes], ends_at: Callable[[], float]) -> int | None:
        """Wait for the end of the present call and reap it; None if its time is up before.

        Reaped under the lock: :meth:`end` must not kill another process that gets its number.
        """
        pause_s = _LOOK_FIRST_S
        while True:
            with self._lock:
                code = process.poll()
                if code is not None:
                    self._process = None
            left_s = ends_at() - time.monotonic()
            if code is not None or left_s <= 0:
                return code
            time.sleep(min(left_s, pause_s))
            pause_s = min(2 * pause_s, _LOOK_S)


def _kill(process: subprocess.Popen[bytes]) -> None:
    end_family(process.pid)
    kill_group(process.pid)


def _end_of(output: IO[bytes]) -> str:
    size = os.fstat(output.fileno()).st_size
    output.seek(max(0, size - _OUTPUT_BYTES))
    text = output.read(_OUTPUT_BYTES).decode("utf-8", "replace")
    return text if size <= _OUTPUT_BYTES else f"[{size - _OUTPUT_BYTES:,} bytes are left out here]\n{text}"


def json_line(facts: Mapping[str, Any]) -> bytes:
    """One line of JSON."""
    return f"{json.dumps(facts, ensure_ascii=False, allow_nan=False)}\n".encode("utf-8", "backslashreplace")


class HookLog:
    """The file that keeps what hooks print, and how they failed.

    Args:
        path: created with its folder when there is something to keep.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._left = _LOG_BYTES

    def add(self, what: str, outcome: Outcome, took_s: float) -> None:
        """Append a call that failed or printed something; a full disk affects only the log."""
        if not (outcome.problem or outcome.output) or self._left <= 0:
            return
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        text = (
            f"==== {when} {what} {outcome.problem or 'exited with 0'}, {took_s:.2f} s ====\n{outcome.output}"
        )
        content = (text if text.endswith("\n") else f"{text}\n").encode("utf-8", "replace")
        self._left -= len(content)
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(exist_ok=True)
            with self.path.open("ab") as file:
                file.write(content)
