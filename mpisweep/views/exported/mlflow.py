"""Trials as the runs of an MLflow experiment in a database of SQLite, which needs no server.

``mlflow ui --backend-store-uri sqlite:///OUT/mlflow.db`` shows it.  Imports mlflow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from mpisweep.results.load import Sweep
from mpisweep.views.exported.facts import TrialFacts, trial_facts

__all__ = ["write"]

#: Most metrics and most parameters per call.
_METRICS = 1000
_PARAMS = 100
_STATES = {"complete": "FINISHED", "pruned": "FINISHED", "running": "RUNNING", "waiting": "SCHEDULED"}


def write(sweep: Sweep, out: Path) -> None:
    """Write an experiment, named as the sweep, into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri=f"sqlite:///{out.resolve()}/mlflow.db")
    experiment = client.create_experiment(
        sweep.name,
        artifact_location=(out.resolve() / "artifacts").as_uri(),
        tags={"objective": sweep.objective, "direction": sweep.direction.value, "source": str(sweep.path)},
    )
    for facts in trial_facts(sweep):
        if math.isfinite(facts.started_at):
            _run(client, experiment, facts)


def _run(client: Any, experiment: str, facts: TrialFacts) -> None:
    name, begun = f"trial-{facts.number:05d}", round(1000 * facts.started_at)
    run = client.create_run(experiment, start_time=begun, run_name=name).info.run_id
    params = [Param(name, str(value)) for name, value in (facts.params | facts.fixed).items()]
    for first in range(0, len(params), _PARAMS):
        client.log_batch(run, params=params[first : first + _PARAMS])
    metrics = list(_metrics(facts))
    for first in range(0, len(metrics), _METRICS):
        client.log_batch(run, metrics=metrics[first : first + _METRICS])
    client.log_batch(run, tags=[RunTag(name, str(value)) for name, value in facts.told.items()])
    ended = round(1000 * facts.ended_at) if facts.has_ended else None
    client.set_terminated(run, status=_STATES.get(facts.state, "FAILED"), end_time=ended)


def _metrics(facts: TrialFacts) -> Iterator[Any]:
    """All reports, then the final values that are not the last report."""
    last = facts.last_steps
    for name, curve in facts.curves.items():
        for step, value, after in zip(curve.step, curve.value, curve.time, strict=True):
            yield Metric(name, float(value), round(1000 * (facts.started_at + float(after))), int(step))
    for name, value in facts.finals.items():
        yield Metric(name, value, round(1000 * facts.ended_at), last.get(name, -1) + 1)
