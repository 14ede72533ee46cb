"""No-op trials per second of mpisweep, compared with two baselines that store nothing.

    python benchmarks/throughput.py [--trials 400000] [--workers 4]

Runs on the same number of ranks: a bare mpi4py send/recv loop, mpi4py.futures, and mpisweep with journal
and fsync, isolated trial processes and the HDF5 file. A rate is trials over wall time, without the start of
the interpreters; mpisweep's time ends with the last snapshot. The next table is the CPU time per trial of
each kind of process, from which the CPU time of a sweep of few trials is subtracted; the last one is the
cost of each step per trial.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path

import psutil

from mpisweep.batch.launch import mpi_environment

BARE = """
import sys, time
from mpi4py import MPI
comm, count = MPI.COMM_WORLD, int(sys.argv[1])
if comm.rank == 0:
    started, sent, status = time.perf_counter(), 0, MPI.Status()
    for worker in range(1, comm.size):
        comm.send(sent, worker); sent += 1
    for done in range(count):
        comm.recv(source=MPI.ANY_SOURCE, status=status)
        comm.send(sent if sent < count else None, status.Get_source()); sent += 1
    print(count / (time.perf_counter() - started))
else:
    while (x := comm.recv(source=0)) is not None:
        comm.send(x * 0.5, 0)
"""

FUTURES = """
import sys, time
from mpi4py.futures import MPIPoolExecutor
def noop(x): return x * 0.5
if __name__ == "__main__":
    count = int(sys.argv[1])
    with MPIPoolExecutor() as pool:
        list(pool.map(noop, range(100)))
        started = time.perf_counter()
        for _ in pool.map(noop, range(count), unordered=True): pass
        print(count / (time.perf_counter() - started))
"""

#: Kind of process -> its name in the table.
KINDS = {
    "master": "master: loop", "ranks": "ranks of the workers", "trials": "trial processes",
    "snapshots": "snapshot process", "fork server": "fork servers",
}  # fmt: skip

NOOP = "def train(trial): return trial.params['x'] * 0.5\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=400_000)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "bare.py").write_text(BARE)
        (folder / "futures.py").write_text(FUTURES)
        (folder / "noop.py").write_text(NOOP)
        ranks = options.workers + 1
        bare = float(mpirun(folder, ranks, "bare.py", str(options.trials)))
        futures = float(
            mpirun(folder, ranks, "-m", "mpi4py.futures", "futures.py", str(options.trials // 20))
        )
        ours, file_bytes = sweep(folder, ranks, options.trials)
    print(f"no-op trials per second, {options.workers} workers, {os.cpu_count()} cores")
    print(f"  bare send/recv loop, nothing stored   {bare:10,.0f}")
    print(f"  mpi4py.futures, nothing stored        {futures:10,.0f}")
    print(f"  mpisweep, everything stored           {ours:10,.0f}")
    print(f"  ratio to mpi4py.futures {ours / futures:.1f}, to the bare loop {ours / bare:.2f}")
    print(f"  {file_bytes / options.trials:.0f} bytes per trial in the file")
    processes(options.workers, options.trials // 4)
    steps()


def mpirun(folder: Path, ranks: int, *arguments: str) -> str:
    done = subprocess.run(
        mpi_command(ranks, *arguments), cwd=folder, env=mpi_environment(), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout.strip().rpartition("\n")[2]


def mpi_command(ranks: int, *arguments: str) -> list[str]:
    from mpisweep.batch.jobfacts import Allocation
    from mpisweep.batch.launchers import find_launcher, start_command
    from mpisweep.batch.placement import NodeRanks, Placement

    here = Allocation("local", "")
    starting = start_command(find_launcher(here), here, Placement((NodeRanks("", ranks),)))
    return [*starting, sys.executable, *arguments]


def sweep(folder: Path, ranks: int, trials: int) -> tuple[float, int]:
    import mpisweep

    mpirun(folder, ranks, *sweep_arguments(trials))
    path = folder / "noop.h5"
    found = mpisweep.load(path)
    assert (found.trials["state"] == "complete").all()
    started = float(found.allocations["started_at"][0])
    return trials / (path.stat().st_mtime - started), path.stat().st_size


def sweep_arguments(trials: int) -> list[str]:
    return [
        "-m", "mpisweep", "run", "noop:train", "-p", f"x=1:{trials}", "-o", "noop.h5", "--master", "idle",
    ]  # fmt: skip


def processes(workers: int, trials: int) -> None:
    """Print the CPU time per trial, in microseconds, of each kind of process."""
    few = trials // 100
    base, whole = (cpu_seconds(workers, count) for count in (few, trials))
    print("microseconds of CPU time per trial")
    total = 0.0
    for name in whole:
        microseconds = 1e6 * (whole[name] - base.get(name, 0.0)) / (trials - few)
        total += microseconds
        print(f"  {name:<36} {microseconds:6.2f}")
    print(f"  {'all':<36} {total:6.2f}")


def cpu_seconds(workers: int, trials: int) -> dict[str, float]:
    """CPU time of each kind of process in one sweep, in seconds, shortly before it ends."""
    with tempfile.TemporaryDirectory() as made:
        (Path(made) / "noop.py").write_text(NOOP)
        command = mpi_command(workers + 1, *sweep_arguments(trials))
        started = psutil.Popen(
            command, cwd=made, env=mpi_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        #: Process and thread -> kind, CPU time.
        found: dict[tuple[int, int], tuple[str, float]] = {}
        while started.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                look(started, found)
            time.sleep(0.02)
    seconds: dict[str, float] = {}
    for kind, cpu_s in found.values():
        seconds[kind] = seconds.get(kind, 0.0) + cpu_s
    return seconds


def look(launcher: psutil.Process, found: dict[tuple[int, int], tuple[str, float]]) -> None:
    """Note the CPU time of all threads below a launcher."""
    for process in launcher.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            is_master = process.environ().get("OMPI_COMM_WORLD_RANK") == "0"
            above = [one.pid for one in process.parents()]
            kinds = (
                ("master", "fork server", "snapshots") if is_master else ("ranks", "fork server", "trials")
            )
            kind = kinds[min(above.index(launcher.pid), 2)]
            for thread in process.threads():
                name = (
                    "master: other threads" if kind == "master" and thread.id != process.pid else KINDS[kind]
                )
                found[process.pid, thread.id] = name, thread.user_time + thread.system_time


def steps(count: int = 128) -> None:
    """Print the microseconds per trial of each step, measured in this process in blocks of `count`."""
    from mpisweep import blocks
    from mpisweep.records import Slot
    from mpisweep.results.journal.reader import Entry
    from mpisweep.results.journal.segments import frame
    from mpisweep.results.replay import apply
    from mpisweep.results.state import SweepState
    from mpisweep.scheduling import decisions, durations, events, scheduler

    numbers = list(range(count))
    columns: dict[str, blocks.Column] = {"x": [n + 1 for n in numbers]}
    assigned = blocks.AssignedBlock([[1, 0]], time.time(), numbers, [1] * count, columns)
    ended = blocks.EndedBlock(
        1, 0, numbers, [1] * count, [2] * count, [time.time()] * count, [1.234e-6] * count,
        {"loss": [0.5 * n for n in numbers]},
    )  # fmt: skip
    assigned_body, ended_body = blocks.encode(assigned), blocks.encode(ended)

    model = durations.DurationModel(columns, None, count)  # type: ignore[arg-type]
    model.observe(numbers, [1e-6] * count)
    model.fit()
    # As in the middle of a large sweep, where fits are rare.
    model._next_fit = 1 << 60

    def schedule() -> None:
        made = scheduler.Scheduler(bytes(count), [0] * count, model, retries=2, grace_s=1)
        for decision in made.handle(events.WorkerJoined(1, 1), 0.0):
            assert isinstance(decision, decisions.Assign)
        while made.count(scheduler.TrialState.COMPLETE) < count:
            held = made.held[Slot(1, 0)]
            given = list(held.items())
            made.handle(
                events.TrialsEnded(
                    blocks.EndedBlock(
                        1, 0, [n for n, _ in given], [a for _, a in given], [2] * len(given),
                        [0.0] * len(given), [1e-6] * len(given), {},
                    )
                ),
                0.0,
            )  # fmt: skip

    def replay() -> None:
        state = SweepState()
        run = blocks.RunRecord("r", 0, "h", 1, 0.0, 1, "local", "", [], "0", "", "", {})
        for record in (run, blocks.TrialsBlock(numbers, columns), assigned, ended):
            apply(state, Entry("s", 1, record))

    parts = {
        "master: decide": schedule,
        "master: encode the assignment": lambda: blocks.encode(assigned),
        "trial process: decode it": lambda: blocks.decode(assigned_body),
        "trial process: encode the results": lambda: blocks.encode(ended),
        "master: decode them": lambda: blocks.decode(ended_body),
        "journal: frame and checksum both": lambda: (frame(assigned_body), frame(ended_body)),
        "snapshot: replay both": replay,
    }
    print("microseconds of CPU time per trial and step")
    for name, part in parts.items():
        seconds = min(timeit.repeat(part, timer=time.process_time, number=20, repeat=9)) / 20
        print(f"  {name:<36} {1e6 * seconds / count:6.2f}")


if __name__ == "__main__":
    main()
