"""Parsl: a high-throughput executor on this node; programs are bash apps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider
from work import FOLDER, PROGRAM, WHAT, Run, drive


@parsl.python_app
def call(trial, x):
    return trial(x)


@parsl.bash_app
def execute(x, program):
    return program


@contextmanager
def pool(workers: int) -> Iterator[Run]:
    executor = HighThroughputExecutor(
        label="local", address="127.0.0.1", max_workers_per_node=workers, cores_per_worker=0.01,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
    )  # fmt: skip

    def run(trial, inputs):
        if WHAT == "program" and trial.__name__ == "program":
            return [float(one.result()) for one in [execute(x, PROGRAM) for x in inputs]]
        futures = [call(trial, x) for x in inputs]
        return [None if future.exception() else future.result() for future in futures]

    with parsl.load(Config(executors=[executor], run_dir=str(FOLDER / "runinfo"), usage_tracking=0)):
        yield run


if __name__ == "__main__":
    drive(pool)
