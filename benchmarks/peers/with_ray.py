"""Ray core: a remote function, and get on all of its references."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray
from work import Run, drive


@contextmanager
def pool(workers: int) -> Iterator[Run]:
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)

    def run(trial, inputs):
        remote = ray.remote(trial)
        return ray.get([remote.remote(x) for x in inputs])

    yield run
    ray.shutdown()


if __name__ == "__main__":
    drive(pool)
