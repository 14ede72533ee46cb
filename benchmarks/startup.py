"""Files that each rank of a ResNet50 sweep opens until its trials run, with and without --stage-env.

    python benchmarks/startup.py [--ranks 1 16]

Needs strace; 16 ranks take about 16 GB of memory and some minutes.  Only files of the installed Python count:
the standard library and site-packages, which a cluster keeps on its shared file system.  The launcher and
mpirun run once per job and are not counted.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path

CALL = re.compile(r'(\w+)\((?:[^"]*)"([^"]*)".*= (-?\d+)')
INSTALLED = tuple({
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    os.fspath(Path.home() / ".cache" / "mpisweep"),
})  # fmt: skip


def count(traces: list[Path]) -> Counter[str]:
    """Count the file system calls of all processes of all ranks."""
    found: Counter[str] = Counter()
    for trace in traces:
        for line in trace.read_text(errors="replace").splitlines():
            match = CALL.match(line)
            if match is None or not match[2].startswith(INSTALLED):
                continue
            call, _, result = match.groups()
            if "open" in call:
                found["opened" if int(result) >= 0 else "missing"] += 1
            else:
                found["looked up"] += 1
    return found


def measure(ranks: int, staged: bool) -> Counter[str]:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "mpisweep",
            "run",
            "resnet50",
            "-p",
            f"batch_size=2:{max(3, ranks + 1)}",
            "-p",
            "num_iter=1",
            "-p",
            "image_size=32",
            "-p",
            "warmup_iter=0",
            "-o",
            "r.h5",
            "-n",
            str(ranks),
            "-q",
        ]
        command += ["--stage-env"] if staged else []
        trace = ["strace", "-ff", "-qq", "-e", "trace=%file", "-o", "trace"]
        environment = os.environ | {"OMPI_MCA_mpi_yield_when_idle": "1"}
        subprocess.run([*trace, *command], cwd=folder, env=environment, check=True, capture_output=True)
        traces = sorted(Path(folder).glob("trace.*"), key=lambda path: int(path.suffix[1:]))
        # Skip the first process, the launcher.
        return count(traces[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    names = ["opened", "missing", "looked up"]
    print("per rank:\n\n| ranks | | " + " | ".join(names) + " |")
    print("|---|---|" + "---:|" * len(names))
    # Warm up: the pack and missing bytecode are made once for all jobs.
    measure(1, staged=True)
    for ranks in options.ranks:
        for staged in (False, True):
            found = measure(ranks, staged)
            cells = " | ".join(f"{found[name] / ranks:,.0f}" for name in names)
            print(f"| {ranks} | {'--stage-env' if staged else 'as installed'} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
