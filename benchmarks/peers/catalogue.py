"""The tools: how each starts, which package it comes from, and how it keeps results."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
H5PY = "h5py by the caller"

#: Python interpreter, workers, number of trials, kind of trial -> command.
Command = Callable[[str, int, int, str], list[str]]


def script(name: str, *options: str) -> Command:
    """The command of a program that is started by itself."""
    return lambda python, workers, count, what: [
        python, str(HERE / name), *(one.format(workers=workers) for one in options)
    ]  # fmt: skip


def under_mpi(name: str, *module: str) -> Command:
    """The command of a program whose rank 0 is the master."""
    return lambda python, workers, count, what: [
        str(Path(python).parent / "mpirun"), "--oversubscribe", "--bind-to", "none", "-n", str(workers + 1),
        python, *module, str(HERE / name),
    ]  # fmt: skip


def mpisweep(python: str, workers: int, count: int, what: str) -> list[str]:
    """The command of a sweep."""
    run = [
        sys.executable, "-m", "mpisweep", "run", "-p", f"x=0:{count - 1}", "-n", str(workers),
        "-o", "results.h5", "--retries", "2", "--quiet",
    ]  # fmt: skip
    if what == "program":
        return [*run, "--", "/bin/true", "{x}"]
    return [*run, "--folder", str(HERE), "with_mpisweep:train"]


@dataclass(frozen=True, slots=True)
class Peer:
    """A tool that runs trials."""

    name: str
    #: The distribution whose version is listed; empty for what Python or the system has.
    package: str
    #: The module whose import shows that it is there.
    module: str
    #: How results are kept.
    stores: str
    command: Command
    #: The most trials that one measure runs: some tools take minutes for what others do in a second.
    most: int = 1_000_000
    #: No-op trials of a full run.
    noops: int = 20_000


OURS = Peer("mpisweep", "mpisweep", "mpisweep", "journal and HDF5", mpisweep, noops=400_000)

PEERS = [
    OURS,
    Peer("multiprocessing", "", "multiprocessing", H5PY, script("with_multiprocessing.py")),
    Peer("joblib", "joblib", "joblib", H5PY, script("with_joblib.py"), noops=400_000),
    Peer("mpi4py.futures", "mpi4py", "mpi4py", H5PY, under_mpi("with_futures.py", "-m", "mpi4py.futures")),
    Peer("libEnsemble, MPI", "libensemble", "libensemble", "history, .npy at the end",
         under_mpi("with_libensemble.py"), noops=4_000),
    Peer("libEnsemble, local", "libensemble", "libensemble", "history, .npy at the end",
         script("with_libensemble.py", "--comms", "local", "--nworkers", "{workers}"), noops=4_000),
    Peer("Dask", "distributed", "distributed", H5PY, script("with_dask.py"), noops=4_000),
    Peer("Ray", "ray", "ray", H5PY, script("with_ray.py"), noops=8_000),
    Peer("Parsl", "parsl", "parsl", H5PY, script("with_parsl.py"), noops=4_000),
    Peer("Optuna", "optuna", "optuna", "journal file", script("with_optuna.py"), noops=2_000),
    Peer("HyperQueue", "hyperqueue", "hyperqueue", "a file per trial", script("with_hyperqueue.py"),
         noops=200),
    Peer("Ray Tune", "ray", "ray.tune", "a folder per trial", script("with_tune.py"), most=700, noops=60),
    Peer("Slurm array", "", "", "a file per trial", script("with_slurm.py"), most=700, noops=100),
]  # fmt: skip
