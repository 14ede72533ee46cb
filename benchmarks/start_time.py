"""Where the time of a sweep that does nothing goes, beside the same number of bare MPI processes.

    python benchmarks/start_time.py [--ranks 4 32] [--rounds 3]

Each line adds a step to the one before: the interpreter, MPI, what a rank imports, the whole sweep from the
shell with one trial per worker.  The lines take turns; the fastest round counts.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from throughput import mpi_command, mpi_environment

#: What each rank does, from a bare interpreter to a rank that has everything but a sweep.
STEPS = {
    "python": "pass",
    "+ MPI_Init, MPI_Finalize": "from mpi4py import MPI",
    "+ imports of a rank": "import mpisweep.rank.main; from mpi4py import MPI",
}


def taken(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall and CPU time of a command and all its processes, in seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, cwd=folder, env=mpi_environment(), check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu_s


def measure(ranks: int, rounds: int) -> dict[str, tuple[float, float]]:
    best: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "noop.py").write_text("def train(trial):\n    return {'loss': 0.0}\n")
        commands = {step: mpi_command(ranks, "-c", code) for step, code in STEPS.items()}
        run = [sys.executable, "-m", "mpisweep", "run", "noop:train", "-p", f"x=1:{ranks}", "-o", "noop.h5"]
        commands["mpisweep run"] = [*run, "--fresh", "-q", "-n", str(ranks)]
        for _ in range(rounds):
            for step, command in commands.items():
                found = taken(command, folder)
                best[step] = min(best.get(step, found), found)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 32], help="default: 4 32")
    parser.add_argument("--rounds", type=int, default=3, help="of which the fastest counts (default: 3)")
    options = parser.parse_args()
    print("| ranks | | from the shell [s] | CPU time per rank [s] |\n|---:|---|---:|---:|")
    for ranks in options.ranks:
        for step, (wall_s, cpu_s) in measure(ranks, options.rounds).items():
            print(f"| {ranks} | {step} | {wall_s:.1f} | {cpu_s / ranks:.2f} |", flush=True)


if __name__ == "__main__":
    main()
