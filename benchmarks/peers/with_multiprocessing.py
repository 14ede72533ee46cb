"""multiprocessing: a pool of processes, results as they come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pool

from work import Run, drive


@contextmanager
def pool(workers: int) -> Iterator[Run]:
    with Pool(workers) as processes:
        yield processes.imap_unordered


if __name__ == "__main__":
    drive(pool)
