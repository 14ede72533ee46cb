"""Trials for TensorBoard: a run per trial with its curves, listed in the HParams tables.

Imports tensorboard, not TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from mpisweep.results.load import Sweep
from mpisweep.spec.space import Choice, Parameter
from mpisweep.views.exported.facts import TrialFacts, trial_facts

__all__ = ["write"]


#: TensorBoard's states of trials; others are unknown to it.
_STATUS = {"complete": "STATUS_SUCCESS", "pruned": "STATUS_SUCCESS", "failed": "STATUS_FAILURE"}


def write(sweep: Sweep, out: Path) -> None:
    """Write a folder of event files: `tensorboard --logdir OUT` shows it."""
    experiment = api_pb2.Experiment(
        name=sweep.name,
        hparam_infos=[_parameter(one) for one in sweep.spec.space.parameters],
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=name)) for name in sweep.metrics],
    )
    first = min((float(at) for at in sweep.trials["started_at"] if math.isfinite(at)), default=0.0)
    _write(out, [_told(first, metadata.EXPERIMENT_TAG, experiment=experiment)])
    for facts in trial_facts(sweep):
        if math.isfinite(facts.started_at):
            _write(out / f"trial-{facts.number:05d}", _events(facts))


def _events(facts: TrialFacts) -> Iterator[Any]:
    begun = SessionStartInfo(start_time_secs=facts.started_at)
    for name, value in (facts.params | facts.fixed).items():
        if isinstance(value, bool):
            begun.hparams[name].bool_value = value
        elif isinstance(value, str):
            begun.hparams[name].string_value = value
        else:
            begun.hparams[name].number_value = value
    yield _told(facts.started_at, metadata.SESSION_START_INFO_TAG, session_start_info=begun)
    last = facts.last_steps
    for name, curve in facts.curves.items():
        for step, value, after in zip(curve.step, curve.value, curve.time, strict=True):
            yield _scalar(facts.started_at + float(after), name, float(value), int(step))
    for name, value in facts.finals.items():
        # The HParams tables show the last value.
        yield _scalar(facts.ended_at, name, value, last.get(name, -1) + 1)
    if facts.has_ended:
        status = api_pb2.Status.Value(_STATUS.get(facts.state, "STATUS_UNKNOWN"))
        over = SessionEndInfo(status=status, end_time_secs=facts.ended_at)
        yield _told(facts.ended_at, metadata.SESSION_END_INFO_TAG, session_end_info=over)


def _told(at: float, tag: str, **what: Any) -> Any:
    """An event for the HParams tables."""
    about = metadata.create_summary_metadata(HParamsPluginData(**what))
    return _event(at, summary=Summary(value=[Summary.Value(tag=tag, metadata=about)]))


def _scalar(at: float, name: str, value: float, step: int) -> Any:
    return _event(at, step=step, summary=Summary(value=[Summary.Value(tag=name, simple_value=value)]))


def _event(at: float, **what: Any) -> Any:
    return Event(wall_time=at if math.isfinite(at) else 0.0, **what)


def _write(folder: Path, events: Any) -> None:
    writer = EventFileWriter(str(folder))
    for event in events:
        writer.add_event(event)
    writer.close()


def _parameter(parameter: Parameter) -> Any:
    """A parameter and its domain; TensorBoard has no logarithmic one."""
    told = api_pb2.HParamInfo(name=parameter.name)
    if not isinstance(parameter, Choice):
        told.type = api_pb2.DATA_TYPE_FLOAT64
        told.domain_interval.min_value, told.domain_interval.max_value = parameter.low, parameter.high
        return told
    kinds = {type(value) for value in parameter.values}
    told.type = {
        frozenset({bool}): api_pb2.DATA_TYPE_BOOL,
        frozenset({str}): api_pb2.DATA_TYPE_STRING,
    }.get(frozenset(kinds), api_pb2.DATA_TYPE_FLOAT64)
    if not kinds & {bool, str} or len(kinds) == 1:
        told.domain_discrete.extend(parameter.values)
    return told
