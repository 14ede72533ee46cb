"""joblib: Parallel with its default backend, loky, which sends short trials in batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from joblib import Parallel, delayed
from work import Run, drive


@contextmanager
def pool(workers: int) -> Iterator[Run]:
    with Parallel(n_jobs=workers) as parallel:
        yield lambda trial, inputs: parallel(delayed(trial)(x) for x in inputs)


if __name__ == "__main__":
    drive(pool)
