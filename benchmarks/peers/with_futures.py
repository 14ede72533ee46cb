"""mpi4py.futures: mpirun -n WORKERS+1 python -m mpi4py.futures with_futures.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mpi4py.futures import MPIPoolExecutor
from work import Run, drive


@contextmanager
def pool(workers: int) -> Iterator[Run]:
    with MPIPoolExecutor() as executor:
        yield lambda trial, inputs: executor.map(trial, inputs, unordered=True)


if __name__ == "__main__":
    drive(pool)
