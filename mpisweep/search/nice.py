"""How a process beside the master behaves among the trials of its node, and answers."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from socket import socket
from typing import Any

from mpisweep.processes.one_core import use_one_core

__all__ = ["answer_lines", "behave"]


def behave(name: str) -> None:
    """Take this name, one core, and a lower priority than trials.

    Args:
        name: what `ps` and `top` show.
    """
    # What it does is asked for ahead of time; a trial's data loader on the same core is urgent.
    with contextlib.suppress(OSError):
        os.nice(5)
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="ascii")
    use_one_core()
    # The fork server has loaded torch if the workload needs it, and torch reads these variables only then.
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def answer_lines(file: int, answers: Callable[[Iterator[str]], Iterable[Mapping[str, Any]]]) -> None:
    """Answer each line of a socket with one line of JSON, until it is closed.

    Args:
        file: descriptor of the socket.
        answers: yields the answers to the lines; third-party code in it may raise anything, which is answered
            with its text as ``error``, and ends the process.
    """
    with socket(fileno=file) as connection, connection.makefile("rw", encoding="utf-8") as line:
        try:
            for answer in answers(line):
                print(json.dumps(answer), file=line, flush=True)
        except Exception as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=line, flush=True)
