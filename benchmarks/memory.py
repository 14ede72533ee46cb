"""Memory for a large sweep: of its master, its snapshots, and opening its file.

    python benchmarks/memory.py [--trials 20000] [--points 300] [--file-bytes 1000000000] [--workers 2]

The first two lines come from a real run on MPI ranks, whose memory is sampled until its end.  Each other line
comes from a separate process that does the work of the snapshot process.  "Beyond" is the peak of a process
minus its memory before; "tables" is the memory for the same sweep without curves.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

REPORTING = """
def train(trial):
    x = trial.params["x"]
    for step in range({points}):
        trial.report(step, loss=x / (step + 1))
    return x * 0.5
"""
#: Step, value and time of a report, 8 bytes each.
SAMPLE_BYTES = 24


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] in WORK:
        after = Path(sys.argv[3]) if sys.argv[3] else None
        print(json.dumps(measured(sys.argv[1], Path(sys.argv[2]), after, *map(int, sys.argv[4:]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--points", type=int, default=300, help="reports per trial")
    parser.add_argument(
        "--file-bytes", type=int, default=1_000_000_000, help="size of the file that is opened"
    )
    parser.add_argument("--workers", type=int, default=2, help="number of workers of the run; 0 for no run")
    options = parser.parse_args()
    trials, points = options.trials, options.points
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        print(
            f"{trials:,} trials of {points:,} reports: {megabytes(trials * points * SAMPLE_BYTES)} of curves"
        )
        print(f"  {'':<44} {'at first':>10} {'beyond':>10}")
        if options.workers:
            show_run(folder, trials, points, options.workers)
        show_compaction(folder, trials, points)
        show_opening(folder, trials, options.file_bytes)


# ------------------------------------------------------------------------------------- the run


def show_run(folder: Path, trials: int, points: int, workers: int) -> None:
    (folder / "reporting.py").write_text(REPORTING.format(points=points))
    started = time.monotonic()
    master, snapshotter = run(folder, trials, workers)
    seconds = time.monotonic() - started
    for name, (first, most) in (("master of a run", master), ("its snapshot process", snapshotter)):
        print(f"  {name:<44} {megabytes(first):>10} {megabytes(most - first):>10}   in {seconds:.0f} s")


def run(folder: Path, trials: int, workers: int) -> list[tuple[int, int]]:
    """Memory of the master and of its snapshot process: when the sweep is open, and the peak."""
    from mpisweep.batch.jobfacts import Allocation
    from mpisweep.batch.launch import mpi_environment
    from mpisweep.batch.launchers import find_launcher, start_command
    from mpisweep.batch.placement import NodeRanks, Placement

    here = Allocation("local", "")
    starting = start_command(find_launcher(here), here, Placement((NodeRanks("", workers + 1),)))
    command = [
        *starting,
        sys.executable,
        "-m",
        "mpisweep",
        "run",
        "reporting:train",
        "-p",
        f"x=1:{trials}",
        "-o",
        "run.h5",
        "--master",
        "idle",
    ]
    environment = mpi_environment() | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    with (folder / "run.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        seen: dict[int, tuple[int, int]] = {}
        master = 0
        while process.poll() is None:
            time.sleep(0.05)
            if not list(folder.glob("run.h5.journal/*.000000")):
                continue
            master = master or next((one for one in below(process.pid) if is_master(one)), 0)
            for one in (
                [master, *(child for child in below(master) if niceness(child) > niceness(master))]
                if master
                else []
            ):
                memory, most = status(one, "VmRSS"), status(one, "VmHWM")
                if memory:
                    seen[one] = seen.get(one, (memory, 0))[0], most
    assert process.returncode == 0, (folder / "run.log").read_text()
    # Trial processes have the master's niceness; a replaced snapshot process is listed separately.
    own = seen.pop(master)
    return [own, max(seen.values(), key=lambda one: one[1])]


def below(process: int) -> Iterator[int]:
    """Yield all descendants of a process."""
    try:
        for thread in os.listdir(f"/proc/{process}/task"):
            for child in Path(f"/proc/{process}/task/{thread}/children").read_text().split():
                yield int(child)
                yield from below(int(child))
    except (FileNotFoundError, ProcessLookupError):
        return


def is_master(process: int) -> bool:
    try:
        environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        arguments = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"OMPI_COMM_WORLD_RANK=0" in environment and b"reporting:train" in arguments


def niceness(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[16])
    except (OSError, IndexError):
        return 0


def status(process: int | str, key: str) -> int:
    """A memory figure of a process in bytes; 0 if the process has ended."""
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 0


# ------------------------------------------------------------------------------------- snapshots and opening


def show_compaction(folder: Path, trials: int, points: int) -> None:
    path = folder / "compact.h5"
    measure("journal", path, trials, points)
    costs = {}
    for where in ("the journal", "the file"):
        costs[where] = measure("compact", path)
        for segment in Path(f"{path}.journal").iterdir():
            segment.unlink()
    tables = measure("tables", path)
    print(f"  {'tables without curves':<44} {'':>10} {megabytes(tables['memory']):>10}")
    for where, cost in costs.items():
        show(
            f"snapshot, curves from {where}",
            cost,
            f"{cost['memory'] / tables['memory']:.1f} times the tables",
        )


def show_opening(folder: Path, trials: int, file_bytes: int) -> None:
    path = folder / "large.h5"
    measure("large", path, trials, file_bytes)
    cost = measure("open", path)
    show(f"opening a file of {path.stat().st_size / 1e9:.2f} GB", cost, f"reads {megabytes(cost['read'])}")


def show(name: str, cost: dict[str, float], more: str) -> None:
    print(f"  {name:<44} {'':>10} {megabytes(cost['memory']):>10}   in {cost['seconds']:.2f} s, {more}")


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"


def measure(work: str, path: Path, *numbers: int, after: Path | None = None) -> dict[str, float]:
    """Measure the work in a new process, which first opens and compacts the sweep `after`."""
    command = [sys.executable, __file__, work, str(path), str(after or ""), *map(str, numbers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measured(work: str, path: Path, after: Path | None, *numbers: int) -> dict[str, float]:
    """Do the work in this process; return the additional memory, bytes read and seconds."""
    # Import everything before the measurement, as in a process that has already made a snapshot.
    import mpisweep.results.shares.merging
    import mpisweep.results.storing  # noqa: F401

    if after is not None:
        open_file(after)
        compact_file(after)
    Path("/proc/self/clear_refs").write_text("5")
    before, read, started = status("self", "VmRSS"), bytes_read(), time.monotonic()
    kept = WORK[work](path, *numbers)
    seconds, read = time.monotonic() - started, bytes_read() - read
    most = status("self", "VmHWM")
    del kept
    return {"memory": most - before, "read": read, "seconds": seconds}


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().splitlines()[0].split()[1])


def journal(path: Path, trials: int, points: int) -> None:
    """Write the journal of a complete sweep; each trial reports in one block."""
    from mpisweep.blocks import AssignedBlock, Curve, EndedBlock, JoinedRecord, ReportBlock, encode
    from mpisweep.results.journal.writer import Journal

    Path(f"{path}.journal").mkdir()
    with tempfile.TemporaryDirectory(dir=path.parent) as token:
        writer = Journal(Path(f"{path}.journal"), opening(trials), Path(token))
        writer.start()
        writer.append(encode(introduction(trials)))
        writer.append(encode(JoinedRecord(1, "node1", "cpu 0", 1, 1, 1001.0)))
        steps, times = array("q", range(points)), array("d", [0.1 * step for step in range(points)])
        for number in range(trials):
            values = array("d", [number / (1 + step) for step in steps])
            writer.append(encode(AssignedBlock([[1, 0]], 1002.0 + number, [number], [1], {"x": number + 1})))
            writer.append(encode(ReportBlock(1, number, 1, {"loss": Curve(steps, values, times)})))
            ended = EndedBlock(
                1, 0, [number], [1], [2], [1003.0 + number], [1.5 + number], {"loss": [0.5 * number]}
            )
            last = writer.append(encode(ended))
            while last - writer.synced > 2000:
                time.sleep(0.001)
        writer.close()
        writer.join()


def opening(trials: int):  # type: ignore[no-untyped-def]
    from mpisweep.blocks import RunRecord

    spec = f'workload = "m:f"\n[parameters]\nx = {{ from = 1, to = {trials} }}\n'
    return RunRecord(
        "20260101T000000-aaaaaa", 0, "node1", 1, 1000.0, 2, "local", "", [], "0", spec, "s.toml", {}
    )


def introduction(trials: int):  # type: ignore[no-untyped-def]
    from mpisweep.blocks import TrialsBlock

    return TrialsBlock(list(range(trials)), {"x": list(range(1, trials + 1))})


def large(path: Path, trials: int, file_bytes: int) -> None:
    """Write a results file of about this size, mostly curves."""
    import numpy as np

    from mpisweep.results.file.writing import write_file
    from mpisweep.results.merged import read_merged
    from mpisweep.results.reports import StoredCurve

    journal(path, trials, 1)
    state = read_merged(path)
    points = max(1, file_bytes // (SAMPLE_BYTES * trials))
    samples = np.arange(trials * points)
    lengths = np.full(trials, points)
    state.curves.fresh.clear()
    state.curves.stored["loss"] = StoredCurve(
        samples, samples.astype(float), samples.astype(float), points * np.arange(trials), lengths
    )
    write_file(path, state)
    for segment in Path(f"{path}.journal").iterdir():
        segment.unlink()


def tables(path: Path) -> object:
    from mpisweep.results.reports import Reading
    from mpisweep.results.shares.merging import read_sweep

    return read_sweep(path, reading=Reading.TABLES)


def compact_file(path: Path) -> None:
    from mpisweep.results.compaction import compact

    compact(path)


def open_file(path: Path) -> object:
    """Return the snapshot process's answer to a request for the tables."""
    from mpisweep.results.storing import _answer

    answer = _answer({"ask": "read", "path": str(path)})
    assert not answer["error"], answer
    assert answer["state"]["trials"]["state"], answer
    return json.dumps(answer)


def merge(path: Path) -> None:
    from mpisweep.results.shares.merging import gather

    assert gather(path, 0.1)


WORK = {
    "journal": journal,
    "large": large,
    "tables": tables,
    "compact": compact_file,
    "merge": merge,
    "open": open_file,
}


if __name__ == "__main__":
    main()
