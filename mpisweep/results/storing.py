"""The side process for the results file, so that the master never waits for a disk.

Requests and answers are one line of JSON each; :mod:`mpisweep.master.snapshotter` is the other end::

    {"ask": "read", "path": ...}                               the tables of a sweep, without its curves
    {"ask": "compact", "path": ..., "token": ..., "keep": ...} a snapshot
    {"ask": "close", "path": ..., "token": ..., "since": ...}  the last snapshot of a run
    {"ask": "gather", "path": ..., "silence_s": ...}           merge the parts of a split sweep
    {"ask": "leave", "token": ..., "folders": [...]}           release the claim; remove empty folders

Every answer has ``seconds``, and ``error``, which is empty on success.  The process keeps no state between
two requests: it can be killed at any time, and the request sent to another one.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from socket import socket
from typing import Any

from mpisweep.processes.one_core import use_one_core
from mpisweep.results import ResultsError, journal_folder, shares_folder
from mpisweep.results.claim import Claim
from mpisweep.results.journal.reader import Damage
from mpisweep.results.journal.segments import segments
from mpisweep.results.reports import Reading
from mpisweep.results.state import TABLE_FIELDS, SweepState

__all__ = ["read_here", "serve_snapshots", "state_from", "state_to"]


def serve_snapshots(files: list[int], arguments: Mapping[str, Any]) -> None:
    """Entry point of the process.

    Args:
        files: the socket.
        arguments: unused.
    """
    with contextlib.suppress(OSError):
        # The name that ps and top show (Linux).
        Path("/proc/self/comm").write_text("mpisweep-writer")
    use_one_core()
    with socket(fileno=files[0]) as connection, connection.makefile("rw", encoding="utf-8") as line:
        for text in line:
            print(json.dumps(_answer(json.loads(text))), file=line, flush=True)


def _answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    answer: dict[str, Any] = {"error": ""}
    try:
        answer |= _ANSWERS[asked["ask"]](asked)
    except ResultsError as error:
        answer |= {"error": str(error), "refused": True}
    except OSError as error:
        answer |= {"error": str(error), "errno": error.errno, "filename": str(error.filename)}
    except (ValueError, TypeError) as error:
        answer["error"] = str(error)
    return answer | {"seconds": time.monotonic() - started}


def read_here(path: Path) -> tuple[SweepState | None, list[Damage]]:
    """The tables of a sweep and the damage in its journal; None if there is no sweep."""
    if not path.exists() and not segments(journal_folder(path)) and not shares_folder(path).exists():
        return None, []
    # Only a resumed sweep needs h5py; a new one starts faster without it.
    from mpisweep.results.shares.merging import read_sweep

    damages: list[Damage] = []
    return read_sweep(path, damages, reading=Reading.TABLES), damages


def _read(asked: Mapping[str, Any]) -> dict[str, Any]:
    state, damages = read_here(Path(asked["path"]))
    return {
        "state": None if state is None else state_to(state),
        "damages": [[one.segment, one.offset, one.length] for one in damages],
    }


def _compact(asked: Mapping[str, Any]) -> dict[str, Any]:
    from concurrent.futures import ThreadPoolExecutor

    from mpisweep.results.compaction import compact

    # Priority belongs to a thread (Linux), and only root can raise it again.  The last snapshot, for which
    # all ranks wait, took ten times as long at low priority on a busy machine.
    with ThreadPoolExecutor(1, initializer=_lower_priority) as thread:
        thread.submit(compact, Path(asked["path"]), asked["keep"], Path(asked["token"])).result()
    return {}


def _lower_priority() -> None:
    # A snapshot of a running sweep is never urgent; a trial's data loader on the same core is.
    with contextlib.suppress(OSError):
        os.nice(10)


def _close(asked: Mapping[str, Any]) -> dict[str, Any]:
    from mpisweep.results.compaction import compact_and_close

    compact_and_close(Path(asked["path"]), Path(asked["token"]), closing_since=asked["since"])
    return {}


def _gather(asked: Mapping[str, Any]) -> dict[str, Any]:
    from mpisweep.results.shares.merging import gather

    gather(Path(asked["path"]), asked["silence_s"])
    return {}


def _leave(asked: Mapping[str, Any]) -> dict[str, Any]:
    Claim(Path(asked["token"])).release()
    for folder in asked["folders"]:
        # A folder of trials is empty once no trial has a checkpoint.
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return {}


_ANSWERS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "read": _read, "compact": _compact, "close": _close, "gather": _gather, "leave": _leave,
}  # fmt: skip


def state_to(state: SweepState) -> dict[str, Any]:
    """Convert the tables of a sweep, without curves, to JSON values."""
    return {name: getattr(state, name) for name in TABLE_FIELDS}


def state_from(told: Mapping[str, Any]) -> SweepState:
    """Restore a state from :func:`state_to`, without its curves."""
    return SweepState(**{name: told[name] for name in TABLE_FIELDS})
