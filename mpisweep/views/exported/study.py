"""A study of Optuna with the trials of a sweep, for optuna-dashboard and Optuna's own plots.

The trials keep their numbers.  Optuna has no word for some ends: a trial that was skipped or infeasible, or
whose objective is not finite, has failed there; its user attribute ``state`` says what happened.  A trial
that waits is enqueued, so that a study that is continued in Optuna runs it.  Imports Optuna.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from mpisweep.results.load import Sweep
from mpisweep.spec.space import Choice, FloatRange, Parameter
from mpisweep.spec.suggested import as_in_range
from mpisweep.views.exported.facts import TrialFacts, trial_facts

__all__ = ["write"]

_STATES = {
    "waiting": TrialState.WAITING,
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
}


def write(sweep: Sweep, out: Path) -> None:
    """Write the study, named as the sweep, to a database of SQLite or a journal file of Optuna."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="mpisweep-export-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Optuna has a URL of the path, in which '?' and '{' mean something.
        made = Path(folder) / "study"
        _fill(sweep, _storage(made, is_journal=out.suffix == ".journal"))
        aside = out.with_name(f"{out.name}.tmp-{os.getpid()}")
        shutil.copyfile(made, aside)
        os.replace(aside, out)


def _storage(path: Path, *, is_journal: bool) -> BaseStorage:
    if is_journal:
        return JournalStorage(JournalFileBackend(str(path)))
    return RDBStorage(f"sqlite:///{path}")


def _fill(sweep: Sweep, storage: BaseStorage) -> None:
    study = optuna.create_study(
        study_name=sweep.name,
        storage=storage,
        directions=[one.direction.value for one in sweep.objectives],
    )
    study.set_metric_names([one.name for one in sweep.objectives])
    study.set_user_attr("results file", str(sweep.path))
    ranges = {parameter.name: _distribution(parameter) for parameter in sweep.spec.space.parameters}
    for facts in trial_facts(sweep):
        asked = sweep.distributions(facts.number).items()
        own = {name: json_to_distribution(json.dumps(described)) for name, described in asked}
        study.add_trial(_frozen(sweep, facts, ranges | own))


def _frozen(sweep: Sweep, facts: TrialFacts, ranges: Mapping[str, BaseDistribution]) -> FrozenTrial:
    state = _STATES.get(facts.state, TrialState.FAIL)
    values = [facts.metrics.get(one.name, math.nan) for one in sweep.objectives]
    if state is TrialState.COMPLETE and not all(map(math.isfinite, values)):
        state = TrialState.FAIL
    inside: dict[str, Any] = {}
    outside: dict[str, Any] = {}
    for name, value in facts.params.items():
        # A baseline, and the other value of a parameter with a condition, may lie outside of the range.
        own = as_in_range(ranges[name], value)
        if own is None:
            outside[name] = value
        else:
            inside[name] = own[0]
    metrics = {name: value for name, value in facts.metrics.items() if name != sweep.objective}
    curve = facts.curves.get(sweep.objective) if len(sweep.objectives) == 1 else None
    is_waiting = state is TrialState.WAITING
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=state,
        value=None,
        values=values if state is TrialState.COMPLETE else None,
        datetime_start=_time(facts.started_at) or (None if is_waiting else datetime.datetime.now()),
        datetime_complete=(_time(facts.ended_at) or datetime.datetime.now()) if state.is_finished() else None,
        params={} if is_waiting else inside,
        distributions={} if is_waiting else {name: ranges[name] for name in inside},
        user_attrs=facts.told | facts.fixed | outside | metrics,
        # As Optuna's enqueue_trial() does.
        system_attrs={"fixed_params": facts.params} if is_waiting else {},
        intermediate_values=(
            {} if curve is None else dict(zip(curve.step.tolist(), curve.value.tolist(), strict=True))
        ),
    )


def _distribution(parameter: Parameter) -> BaseDistribution:
    match parameter:
        case Choice():
            return CategoricalDistribution(parameter.values)
        case FloatRange():
            return FloatDistribution(
                parameter.low,
                parameter.high,
                log=parameter.log,
                step=None if parameter.log else parameter.step,
            )
    step = 1 if parameter.log else parameter.step
    return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=step)


def _time(seconds: float) -> datetime.datetime | None:
    """Optuna's times are local, and without a zone."""
    return datetime.datetime.fromtimestamp(seconds) if math.isfinite(seconds) else None
