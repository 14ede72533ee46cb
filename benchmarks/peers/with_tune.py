"""Ray Tune: a grid over the inputs, a CPU per trial; a folder per trial holds the results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

os.environ["RAY_AIR_NEW_OUTPUT"] = "0"

import ray
from ray import tune
from work import FOLDER, Run, drive


@contextmanager
def pool(workers: int) -> Iterator[Run]:
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)

    def run(trial, inputs):
        def trainable(config):
            tune.report({"loss": trial(config["x"])})

        tuner = tune.Tuner(
            trainable,
            param_space={"x": tune.grid_search(list(inputs))},
            run_config=tune.RunConfig(storage_path=str(FOLDER / "tune"), verbose=0),
        )
        return [None if one.error else one.metrics["loss"] for one in tuner.fit()]

    yield run
    ray.shutdown()


if __name__ == "__main__":
    drive(pool, stores=True, can_warm=False)
