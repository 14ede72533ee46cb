"""Steering: from events to effects and to the end of a run; the devices and cores of the ranks."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mpisweep.blocks import ClosedRecord, decode
from mpisweep.devices.nodes import Node
from mpisweep.master.steering import Steering
from mpisweep.rank.layout import share_of_rank
from mpisweep.rank.options import RankOptions
from mpisweep.rank.transport import LoneTransport
from mpisweep.records import EndReason
from mpisweep.scheduling.decisions import End, Quarantine
from mpisweep.scheduling.events import StopRequested, TimePassed
from mpisweep.spec import parse_spec


class Run:
    """The collaborators of a steering; records all calls in order."""

    def __init__(self, *decisions: Any) -> None:
        self.decisions = decisions
        self.events: list[Any] = []
        self.effects: list[Any] = []
        self.records: list[Any] = []
        self.ends: list[tuple[EndReason, float]] = []
        self.steering = Steering(
            cast(Any, self),
            cast(Any, SimpleNamespace(carry_out=self._carry_out, append=self._append)),
            cast(Any, SimpleNamespace(judge=lambda reason: EndReason.NOTHING_FINITE)),
            cast(Any, SimpleNamespace(begin=lambda reason, since: self.ends.append((reason, since)))),
            grace_s=60.0,
        )

    def handle(self, event: Any, now: float) -> tuple[Any, ...]:
        self.events.append((event, now))
        return self.decisions

    def _carry_out(self, decision: Any, event: Any, body: bytes | None) -> None:
        self.effects.append((decision, event, body))

    def _append(self, body: bytes) -> None:
        self.records.append(decode(body))


def test_a_decision_takes_effect_with_the_event_it_answers():
    decision = Quarantine(cast(Any, None), "slow")
    run = Run(decision)
    run.steering.handle(TimePassed(), 1.0, b"body")
    assert run.events == [(TimePassed(), 1.0)]
    assert run.effects == [(decision, TimePassed(), b"body")]
    assert run.ends == []


def test_an_end_is_judged_and_recorded_before_the_run_closes():
    run = Run(End(EndReason.COMPLETE))
    before = time.time()
    run.steering.handle(TimePassed(), 1.0)
    [record] = run.records
    assert isinstance(record, ClosedRecord)
    assert record.why == EndReason.NOTHING_FINITE.value
    [(reason, since)] = run.ends
    assert reason is EndReason.NOTHING_FINITE
    assert before <= since <= time.time()


def test_the_first_request_to_stop_sets_when_the_grace_ends(caplog):
    caplog.set_level("INFO")
    run = Run()
    run.steering.request_stop(EndReason.SIGNAL, 1.0)
    run.steering.request_stop(EndReason.SIGNAL, 2.0)
    assert run.events == [
        (StopRequested(EndReason.SIGNAL), 1.0),
        (StopRequested(EndReason.SIGNAL), 2.0),
    ]
    assert caplog.text.count("running trials have 60 s to return") == 1


@pytest.mark.parametrize(("ranks", "refusal"), [(1, ""), (2, "there are 1 workers; start more ranks")])
def test_a_trial_of_more_ranks_than_workers_is_refused(tmp_path: Path, ranks: int, refusal: str):
    text = f'workload = "m:f"\nranks_per_trial = {ranks}\n[parameters]\nx = [1, 2]\n'
    spec = parse_spec(text, source="sweep.toml", folder=tmp_path)
    options = RankOptions(tmp_path / "s.h5", False, "auto", None, cast(Any, None))
    share, why = share_of_rank(LoneTransport(), Node((0, 1), ()), spec, options)
    assert share is not None
    assert share.cores == (0, 1)
    assert why.endswith(refusal)
    assert bool(why) == bool(refusal)
