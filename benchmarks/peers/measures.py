"""What is measured, from the log of each run (:mod:`work`)."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mpisweep.batch.launch import mpi_environment
from peers import processes
from peers.catalogue import HERE, OURS, Peer


@dataclass(frozen=True, slots=True)
class Measure:
    """One kind of run."""

    name: str
    #: What a trial is, see :mod:`work`.
    what: str
    workers: int
    #: Trials, of a quick and of a full run; 0 for the tool's own number of no-op trials.
    trials: tuple[int, int]
    seconds: float = 0.0
    victim: bool = False
    warm: bool = False
    stores: bool = False
    is_quick: bool = True
    with_memory: bool = False


MEASURES = [
    Measure("noop", "noop", 4, (0, 0), warm=True),
    Measure("busy 50 ms, 8", "sleep", 8, (240, 480), 0.05, warm=True),
    Measure("busy 50 ms, 32", "sleep", 32, (960, 1280), 0.05, warm=True, is_quick=False),
    Measure("busy 1 s, 8", "sleep", 8, (24, 40), 1.0, warm=True, with_memory=True),
    Measure("busy 1 s, 32", "sleep", 32, (96, 128), 1.0, warm=True, is_quick=False),
    Measure("durable", "sleep", 4, (700, 700), 0.02, stores=True),
    Measure("programs", "program", 4, (200, 1000), warm=True),
    Measure("recovery", "sleep", 4, (200, 200), 0.05, victim=True, stores=True),
]
#: Column -> measure, unit, whether more is better.
COLUMNS: dict[str, tuple[str, str, bool]] = {
    "noop_per_s": ("noop", "1/s", True),
    "busy_50ms_8": ("busy 50 ms, 8", "", True),
    "busy_50ms_32": ("busy 50 ms, 32", "", True),
    "busy_1s_8": ("busy 1 s, 8", "", True),
    "busy_1s_32": ("busy 1 s, 32", "", True),
    "start_s": ("durable", "s", False),
    "durable_s": ("durable", "s", False),
    "programs_per_s": ("programs", "1/s", True),
    "memory_mib": ("busy 1 s, 8", "MiB", False),
}


@dataclass(slots=True)
class Log:
    """The events of a run: name -> (input, time, process id)."""

    events: dict[str, list[tuple[int, float, int]]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Log:
        log = cls()
        for line in path.read_text().splitlines() if path.exists() else ():
            name, x, when, pid = line.split()
            log.events.setdefault(name, []).append((int(x), float(when), int(pid)))
        return log

    def times(self, name: str) -> list[float]:
        return sorted(when for _, when, _ in self.events.get(name, ()))

    def last(self, name: str) -> tuple[int, float] | None:
        found = self.events.get(name)
        return found[-1][:2] if found else None


def utilisation(log: Log, workers: int) -> tuple[float, float]:
    """Share of the workers' time in which trials ran: in between, and from the first begin to the last end.

    In between: from when all workers have begun a trial until the first of them has ended its last one.
    """
    begun = {(x, pid): when for x, when, pid in log.events.get("begin", ())}
    spans = [(pid, begun[x, pid], when) for x, when, pid in log.events.get("end", ()) if (x, pid) in begun]
    if not spans:
        return math.nan, math.nan
    pids = {pid for pid, _, _ in spans}
    if len(pids) == workers:
        first = max(min(a for one, a, _ in spans if one == pid) for pid in pids)
        last = min(max(b for one, _, b in spans if one == pid) for pid in pids)
    else:
        # A process per trial.
        first = sorted(a for _, a, _ in spans)[workers - 1]
        last = sorted(b for _, _, b in spans)[-workers]
    whole = max(b for _, _, b in spans) - min(a for _, a, _ in spans)
    all_of_it = sum(b - a for _, a, b in spans) / (workers * whole)
    if last <= first:
        # One worker was through before another one began.
        return all_of_it, all_of_it
    within = sum(max(0.0, min(b, last) - max(a, first)) for _, a, b in spans)
    return within / (workers * (last - first)), all_of_it


def results_of(peer: Peer, folder: Path, log: Log) -> tuple[int, float]:
    """Results that are kept, and the time at which they were."""
    if peer is OURS:
        import mpisweep

        path = folder / "results.h5"
        if not path.exists():
            return 0, math.nan
        sweep = mpisweep.load(path)
        if not log.events.get("begin"):
            log.events["begin"] = [(0, min(sweep.trials["started_at"].tolist()), 0)]
        return sum(1 for one in sweep.trials["state"] if one == "complete"), path.stat().st_mtime
    kept, done = log.last("results"), log.last("done")
    if kept is None and peer.package == "libensemble":
        kept = _dumped(folder), 0.0
    if kept is None and (folder / "results").is_dir():
        kept = sum(1 for _ in (folder / "results").iterdir()), 0.0
    return (kept[0] if kept else 0), (done[1] if done else math.nan)


def _dumped(folder: Path) -> int:
    """Results in the history that libEnsemble writes when it ends early."""
    import numpy as np

    found = sorted(folder.glob("*history*.npy"), key=lambda path: path.stat().st_mtime)
    return int(np.load(found[-1])["sim_ended"].sum()) if found else 0


def measure(
    peer: Peer,
    one: Measure,
    python: str,
    limit_s: float,
    *,
    is_quick: bool,
    most: int | None,
    around: Mapping[str, str],
) -> dict[str, object]:
    """Run one measure of one tool; a failure is told by the key "error"."""
    count = one.trials[0 if is_quick else 1] or (peer.noops // 4 if is_quick else peer.noops)
    count = min(count, peer.most, most or count)
    folder = Path(tempfile.mkdtemp(prefix="peers-"))
    environment = {
        **os.environ, **mpi_environment(), **around,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")])),
        "PATH": os.pathsep.join([str(Path(python).parent), os.environ["PATH"]]),
        "PEERS_FOLDER": str(folder), "PEERS_WHAT": one.what, "PEERS_COUNT": str(count),
        "PEERS_WORKERS": str(one.workers), "PEERS_SECONDS": str(one.seconds),
        "PEERS_VICTIM": str(count // 2 if one.victim else -1), "PEERS_WARM": str(int(one.warm)),
        "PEERS_STORE": str(int(one.stores)),
    }  # fmt: skip
    try:
        ran = processes.run(
            peer.command(python, one.workers, count, one.what), folder, environment, limit_s,
            with_memory=one.with_memory, also=around.get("PEERS_SLURM_TOKEN", ""),
        )  # fmt: skip
        log = Log.read(folder / "log")
        kept, done = results_of(peer, folder, log)
        return _found(one, count, ran, log, kept, done, limit_s)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _found(
    one: Measure, count: int, ran: processes.Ran, log: Log, kept: int, done: float, limit_s: float
) -> dict[str, object]:
    found: dict[str, object] = {"trials": count, "workers": one.workers, "seconds": ran.seconds}
    if one.victim:
        begun = Counter(x for x, _, _ in log.events.get("begin", ()))
        return found | {
            "ends": not ran.is_late, "kept": kept, "lost": count - kept,
            "run_again": sum(times - 1 for times in begun.values()),
            "exit_code": None if ran.is_late else ran.exit_code, "limit_s": limit_s,
            "was_killed": bool(log.events.get("kill")), "error": "" if log.events.get("kill") else ran.error,
        }  # fmt: skip
    if ran.is_late or kept < count:
        why = f"not ended within {limit_s:.0f} s" if ran.is_late else f"{kept} of {count} results"
        return found | {"error": "; ".join(filter(None, [why, ran.error]))}
    begins = log.times("begin") or log.times("go")
    found["start_s"] = begins[0] - ran.started
    if one.what == "sleep":
        found["busy"], found["busy_whole"] = utilisation(log, one.workers)
    else:
        found["per_s"] = count / (done - begins[0])
    if one.with_memory:
        found["memory_mib"] = ran.peak_bytes / 2**20
    return found


def row(found: Mapping[str, Mapping[str, object]]) -> dict[str, float]:
    """The columns of a tool from its measures; what was not measured is missing."""
    keys = {"noop_per_s": "per_s", "programs_per_s": "per_s", "durable_s": "seconds"}
    cells = {}
    for column, (name, _, _) in COLUMNS.items():
        key = keys.get(column, "busy" if column.startswith("busy") else column)
        value = found.get(name, {}).get(key)
        if isinstance(value, float) and not found[name].get("error"):
            cells[column] = value
    return cells


def mean(several: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """The mean of several runs of one measure; the error of one of them if none is without."""
    good = [one for one in several if not one.get("error")]
    if not good:
        return dict(several[0])
    return {
        key: sum(one[key] for one in good) / len(good) if isinstance(value, float) else value  # type: ignore[misc]
        for key, value in good[0].items()
    }
