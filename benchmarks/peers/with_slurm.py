"""Slurm: sbatch --array=0-COUNT%WORKERS of a script that writes a result file, then waiting for its end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from work import COUNT, FOLDER, PROGRAM, TRIALS, WHAT, Run, drive

RESULTS = FOLDER / "results"


@contextmanager
def pool(workers: int) -> Iterator[Run]:
    RESULTS.mkdir()
    command = PROGRAM if WHAT == "program" else f"{sys.executable} {Path(__file__)} $SLURM_ARRAY_TASK_ID"

    def run(trial, inputs):
        sbatch = ["sbatch", "--parsable", f"--array=0-{COUNT - 1}%{workers}", f"--chdir={FOLDER}"]
        sbatch += ["--output=/dev/null", f"--wrap={command}"]
        job = subprocess.run(sbatch, check=True, text=True, capture_output=True).stdout.strip()
        ask = ["squeue", "--noheader", f"--jobs={job}"]
        while subprocess.run(ask, text=True, capture_output=True).stdout.strip():
            time.sleep(0.2)
        if WHAT == "program":
            return [0.0] * COUNT
        return [float(path.read_text()) for path in RESULTS.iterdir()]

    yield run


def main() -> None:
    if len(sys.argv) > 1:
        x = int(sys.argv[1])
        (RESULTS / str(x)).write_text(str(TRIALS[WHAT](x)))
    else:
        drive(pool, stores=True, can_warm=False)


if __name__ == "__main__":
    main()
