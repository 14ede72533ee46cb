"""The trials that every tool runs, and the frame of its program.

A tool's program gives :func:`drive` its pool. What happens goes to one log, a line per event, appended by
the process in which it happens. All measures are taken from that log, so no tool's own clock counts. What
to do comes in environment variables, which every tool passes on to its workers.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

FOLDER = Path(os.environ.get("PEERS_FOLDER", "."))
#: What a trial is: "noop", "sleep" or "program".
WHAT = os.environ.get("PEERS_WHAT", "noop")
COUNT = int(os.environ.get("PEERS_COUNT", "0"))
WORKERS = int(os.environ.get("PEERS_WORKERS", "1"))
#: Seconds that a trial sleeps.
SECONDS = float(os.environ.get("PEERS_SECONDS", "0"))
#: The trial in whose middle its worker is killed; -1 for none.
VICTIM = int(os.environ.get("PEERS_VICTIM", "-1"))
#: Whether workers run something before the clock starts.
IS_WARM = os.environ.get("PEERS_WARM") == "1"
PROGRAM = "/bin/true"

Trial = Callable[[int], float]
Run = Callable[[Trial, Iterable[int]], Iterable[float | None]]
#: Given a number of workers, it gives `run(trial, inputs)` while it is entered.
Pool = Callable[[int], AbstractContextManager[Run]]

_has_noted = False


def note(event: str, x: int = 0, when: float | None = None) -> None:
    """Append a line to the log: event, input, time in seconds, process id."""
    line = f"{event} {x} {time.time() if when is None else when:.6f} {os.getpid()}\n"
    log = os.open(FOLDER / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line.encode())
    os.close(log)


def note_once(x: int) -> None:
    """Log the first trial of this process only."""
    global _has_noted
    if not _has_noted:
        _has_noted = True
        note("begin", x)


def noop(x: int) -> float:
    note_once(x)
    return x * 0.5


def program(x: int) -> float:
    note_once(x)
    subprocess.run([PROGRAM], check=True)
    return x * 0.5


def sleep(x: int, worker: int | None = None) -> float:
    """Sleep; in the middle of trial `VICTIM` kill the worker (by default this process), once."""
    note("begin", x)
    if x == VICTIM and is_first():
        time.sleep(SECONDS / 2)
        note("kill", x)
        os.kill(worker or os.getpid(), signal.SIGKILL)
    time.sleep(SECONDS)
    note("end", x)
    return x * 0.5


def is_first() -> bool:
    try:
        os.close(os.open(FOLDER / "killed", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def warm(x: int) -> float:
    """Keep a worker long enough that another one gets the next input."""
    time.sleep(0.3)
    return x * 0.5


TRIALS: dict[str, Trial] = {"noop": noop, "sleep": sleep, "program": program}


def drive(pool: Pool, *, stores: bool = False, can_warm: bool = True) -> None:
    """Run the trials; `stores` says that the tool has stored the results, else h5py does."""
    with pool(WORKERS) as run:
        if IS_WARM and can_warm:
            list(run(warm, range(WORKERS)))
        note("go")
        results = list(run(TRIALS[WHAT], range(COUNT)))
        if not stores and os.environ.get("PEERS_STORE") == "1":
            store(results)
        note("done")
        note("results", sum(1 for one in results if one is not None))


def store(results: list[float | None]) -> None:
    """Write the results as a careful user would: to an HDF5 file that is on the disk."""
    import h5py

    with h5py.File(FOLDER / "results.h5", "w") as file:
        file["x"] = range(len(results))
        file["loss"] = [float("nan") if one is None else one for one in results]
    with (FOLDER / "results.h5").open("rb") as file:
        os.fsync(file.fileno())
