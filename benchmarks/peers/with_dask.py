"""Dask: a local cluster of single-threaded worker processes; map and gather."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dask.distributed import Client, LocalCluster
from work import Run, drive


@contextmanager
def pool(workers: int) -> Iterator[Run]:
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        # Results of pure functions are kept by their arguments; every trial is to run.
        yield lambda trial, inputs: client.gather(client.map(trial, inputs, pure=False))


if __name__ == "__main__":
    drive(pool)
