"""Bytes read from the source, and seconds, until every node has a copy of the data (--stage-data).

    python benchmarks/staging.py [--nodes 1 2 4] [--megabytes 500]

The nodes are ranks of this machine with host names of their own, so their copies share its memory and its
cores; on a cluster each has its own.  The copies are in /dev/shm, the source is in --folder (default: the
temporary folder), and in the page cache.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

LINE = re.compile(r"read (\S+ \S+) once, wrote to \S+ \S+ in (\S+) s")
WORKLOAD = "def nothing(trial):\n    return 0.0\n"


def make_sources(folder: Path, megabytes: int) -> Iterator[tuple[str, Path]]:
    """Yield descriptions and paths of folders and tar files with this much data."""
    large, small = folder / "large", folder / "small"
    for root, count in ((large, 8), (small, 50 * megabytes)):
        root.mkdir()
        size = megabytes * 1_000_000 // count
        for number in range(count):
            inside = root / f"{number % 100:02d}"
            inside.mkdir(exist_ok=True)
            (inside / f"{number}.bin").write_bytes(os.urandom(size))
        yield f"{count:,} files of {size / 1e6:g} MB", root
    archive = folder / "small.tar"
    with tarfile.open(archive, "w") as packed:
        packed.add(small, arcname="small")
    yield "the latter in a tar file", archive


def measure(source: Path, nodes: int, folder: Path) -> tuple[str, float]:
    """Stage on this many nodes; returns the bytes read, as the run says, and seconds."""
    hosts = ",".join(f"n{number}" for number in range(nodes))
    results = folder / f"{source.name}-{nodes}.h5"
    command = [sys.executable, "-m", "mpisweep", "run", "nothing:nothing", "-p", "x=1:2", "-n", str(nodes)]
    command += ["--stage-data", os.fspath(source), "--stage-to", "/dev/shm", "-o", os.fspath(results)]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"MPISWEEP_HOSTS": hosts}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    found = LINE.search(done.stderr)
    assert found is not None, done.stderr
    return found[1], float(found[2])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    print("| data | nodes | read from the source | time [s] |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = Path(made)
        (folder / "nothing.py").write_text(WORKLOAD)
        for described, source in make_sources(folder, options.megabytes):
            for nodes in options.nodes:
                read, seconds = measure(source, nodes, folder)
                print(f"| {described} | {nodes} | {read} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
