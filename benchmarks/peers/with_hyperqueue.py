"""HyperQueue: a local cluster, one job; each task is a process, and its result a file of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
from work import FOLDER, PROGRAM, WHAT, Run, drive

RESULTS = FOLDER / "results"


def write(trial, x):
    (RESULTS / str(x)).write_text(str(trial(x)))


@contextmanager
def pool(workers: int) -> Iterator[Run]:
    RESULTS.mkdir()

    def run(trial, inputs):
        # By default the first task that fails cancels the job.
        job = Job(max_fails=None, default_workdir=FOLDER / "tasks")
        is_program = WHAT == "program" and trial.__name__ == "program"
        for x in inputs:
            if is_program:
                job.program([PROGRAM])
            else:
                job.function(write, args=(trial, x))
        submitted = client.submit(job)
        client.wait_for_jobs([submitted], raise_on_error=False)
        failed = client.get_failed_tasks(submitted)
        if is_program:
            return [0.0] * (len(job.tasks) - len(failed))
        return [float(path.read_text()) for path in RESULTS.iterdir()]

    with LocalCluster(worker_config=WorkerConfig(cores=workers)) as cluster:
        client = cluster.client()
        yield run


if __name__ == "__main__":
    drive(pool, stores=True, can_warm=False)
