"""Rules of ``[stop]``: target, patience and device-hours, through stops, resumes and kills."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_reliability import ended, ranks_by_number
from test_results import opening, write_journal
from test_run import start
from test_split import member as member  # the fixture
from test_usage import HOUR, assigned, written
from test_usage import ended as ended_block
from waiting import wait_for

import mpisweep as package
from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, Direction, EndReason, Slot, TrialState
from mpisweep.results.merged import read_merged
from mpisweep.results.stopping import stopping_of
from mpisweep.scheduling.decisions import Assign, End, Stop
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import TimePassed, TrialsEnded, TrialsReclaimed, WorkerJoined
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search.stopping import Stopping
from mpisweep.spec import SpecError, StopRules, parse_spec

Run = Callable[..., subprocess.CompletedProcess[str]]

COMPLETE, PRUNED, FAILED = (int(s) for s in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED))


def rules_of(direction: Direction = Direction.MINIMIZE, **rules) -> Stopping:
    return Stopping(StopRules(**rules), "loss", direction)


# ------------------------------------------------------------------------------------- the rules


@pytest.mark.parametrize(
    ("direction", "value", "is_reached"),
    [
        (Direction.MINIMIZE, 0.5, True),
        (Direction.MINIMIZE, 0.4, True),
        (Direction.MINIMIZE, 0.6, False),
        (Direction.MAXIMIZE, 0.6, True),
        (Direction.MAXIMIZE, 0.4, False),
        (Direction.MINIMIZE, -math.inf, False),
        (Direction.MINIMIZE, math.nan, False),
        (Direction.MINIMIZE, None, False),
    ],
)
def test_a_target_is_reached_at_it_or_beyond_in_the_direction_of_the_objective(direction, value, is_reached):
    rules = rules_of(direction, target=0.5)
    rules.note([COMPLETE], [value])
    assert rules.reached() is (EndReason.TARGET if is_reached else None)


def test_a_pruned_or_failed_trial_neither_reaches_a_target_nor_uses_patience():
    rules = rules_of(target=0.5, patience=1)
    rules.note([COMPLETE], [1.0])
    rules.note([PRUNED, FAILED], [0.1, None])
    assert rules.reached() is None
    rules.note([COMPLETE], None)
    assert rules.reached() is EndReason.PATIENCE


@given(
    st.lists(st.one_of(st.none(), st.just(math.nan), st.floats(-3, 3))),
    st.integers(1, 5),
    st.sampled_from(list(Direction)),
)
def test_patience_counts_complete_trials_since_the_best_first_finite_objective(values, patience, direction):
    rules = rules_of(direction, patience=patience)
    for value in values:
        rules.note([COMPLETE], [value])
    finite = [(v, -n) for n, v in enumerate(values) if v is not None and math.isfinite(v)]
    if not finite:
        assert rules.reached() is None
        return
    choose = min if direction is Direction.MINIMIZE else max
    best = choose(v for v, _ in finite)
    first = next(n for n, v in enumerate(values) if v == best)
    assert rules.since == len(values) - first - 1
    assert (rules.reached() is EndReason.PATIENCE) == (rules.since >= patience)


# ------------------------------------------------------------------------------------- the scheduler


def scheduler_of(rules: Stopping, trials: int = 50) -> Scheduler:
    states = [int(TrialState.WAITING)] * trials
    model = DurationModel({"x": list(range(trials))}, None, trials, None)
    return Scheduler(states, [0] * trials, model, retries=0, grace_s=10.0, rules=rules)


def result(number: int, value: float, seconds: float = 1.0) -> TrialsEnded:
    return TrialsEnded(EndedBlock(1, 0, [number], [1], [COMPLETE], [0.0], [seconds], {"loss": [value]}))


def test_when_a_rule_holds_running_trials_are_asked_to_return_and_the_run_ends_with_its_reason():
    scheduler = scheduler_of(rules_of(target=0.5), trials=2)
    scheduler.handle(WorkerJoined(1, 2), 0.0)
    [other] = scheduler.held[Slot(1, 1)]
    decisions = scheduler.handle(result(0, 0.1), 1.0)
    assert Stop(10.0) in decisions
    assert not any(isinstance(decision, (Assign, End)) for decision in decisions)
    returned = TrialsReclaimed(Slot(1, 1), (other,), (1,), AttemptEnd.INTERRUPTED)
    assert scheduler.handle(returned, 2.0)[-1] == End(EndReason.TARGET)


def test_a_rule_that_holds_from_the_start_ends_the_run_before_any_trial():
    rules = Stopping(StopRules(patience=3), "loss", Direction.MINIMIZE, ended_by=EndReason.PATIENCE)
    assert scheduler_of(rules).handle(TimePassed(), 0.0) == [Stop(10.0), End(EndReason.PATIENCE)]


def test_a_sweep_whose_trials_have_all_ended_is_complete_whatever_the_rules_say():
    scheduler = scheduler_of(rules_of(target=0.5), trials=1)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    assert scheduler.handle(result(0, 0.1), 1.0)[-1] == End(EndReason.COMPLETE)


def test_running_trials_use_device_hours_by_their_gpus_or_else_their_cores():
    for worker, unit, used in (
        (WorkerJoined(1, 2, cores=4.0), "core-hours", 8.0),
        (WorkerJoined(1, 2, cores=4.0, gpus=0.5), "GPU-hours", 1.0),
    ):
        rules = rules_of(device_hours=1e9)
        scheduler = scheduler_of(rules)
        scheduler.handle(worker, 0.0)
        for second in range(1, 3601):
            scheduler.handle(TimePassed(), float(second))
        assert (rules.unit, rules.used_hours) == (unit, pytest.approx(used))


def test_idle_slots_use_no_device_hours():
    rules = rules_of(device_hours=1e9)
    scheduler = scheduler_of(rules, trials=1)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    scheduler.handle(WorkerJoined(2, 1), 0.0)
    scheduler.handle(TimePassed(), 3600.0)
    assert rules.used_hours == pytest.approx(1.0)


# ------------------------------------------------------------------------------------- results so far


def test_results_are_judged_in_the_order_of_their_time_and_device_hours_are_those_of_the_status(tmp_path):
    blocks = [
        assigned(0, 0.0, 0),
        assigned(1, 0.0, 1),
        ended_block(0, 0, 0.0, 3.0),
        ended_block(1, 1, 0.0, 1.0),
    ]
    sweep = written(tmp_path / "r.h5", 1.0, *blocks, assigned(0, 3 * HOUR, 2))
    state = read_merged(tmp_path / "r.h5")
    spec = parse_spec(
        sweep.spec.text + "\n[stop]\npatience = 9\ndevice_hours = 5", source="s", folder=tmp_path
    )
    found = stopping_of(spec, state)
    # Both have the loss 1, and the second one does not improve on the first.
    assert (found.since, found.used_hours, found.reached()) == (1, pytest.approx(4.0), None)
    assert stopping_of(spec, state, now=5 * HOUR).used_hours == pytest.approx(6.0)
    assert stopping_of(spec, state, now=5 * HOUR).reached() is EndReason.DEVICE_HOURS


def test_an_end_by_a_rule_lasts_until_the_rule_changes(tmp_path):
    write_journal(tmp_path / "r.h5", [], opening())
    state = read_merged(tmp_path / "r.h5")
    state.state = EndReason.PATIENCE.value

    def spec(rules: str):
        return parse_spec(state.spec + f"\n[stop]\n{rules}", source="s", folder=tmp_path)

    before = spec("patience = 9")
    for rules, reason in (
        ("patience = 9", EndReason.PATIENCE),
        ("patience = 9\ntarget = 0", EndReason.PATIENCE),
        ("patience = 10", None),
        ("target = 0", None),
    ):
        assert stopping_of(spec(rules), state, recorded=before).reached() is reason


# ------------------------------------------------------------------------------------- whole runs

WORKLOAD = """
import time
from pathlib import Path

def run(trial):
    x = trial.params["x"]
    if Path("slow").exists():
        time.sleep(0.1)
    return {"loss": abs(x - 30.0)}

def worse(trial):
    # Each trial is worse than those before it.
    while Path("gate").exists() and len(list(Path().glob("ended.*"))) >= 15:
        time.sleep(0.01)
    time.sleep(0.1 * Path("slow").exists())
    Path(f"ended.{trial.number}").touch()
    return {"loss": len(list(Path().glob("ended.*")))}
"""


def sweep_file(folder: Path, *rules: str, last: int = 60, limits: str = "", function: str = "run") -> str:
    (folder / "mine.py").write_text(WORKLOAD)
    stop = "\n".join(rules)
    (folder / "s.toml").write_text(
        f'name = "s"\nworkload = "mine:{function}"\n[parameters]\nx = {{ from = 1, to = {last} }}\n'
        f"[limits]\ngrace = 2\n{limits}[stop]\n{stop}\n"
    )
    return "s.toml"


@pytest.mark.mpi
def test_a_changed_rule_continues_and_an_unchanged_one_runs_nothing(folder, mpisweep: Run):
    name = sweep_file(folder, "target = 20")
    (folder / "slow").touch()
    command = ("run", name, "-n", "2", "-o", "r.h5")
    assert mpisweep(*command).returncode == 0
    first = package.load(folder / "r.h5")
    count = first.count(TrialState.COMPLETE)
    assert 10 <= count < 30
    assert first.trials["loss"][first.trials["state"] == "complete"].min() <= 20
    again = mpisweep(*command)
    assert again.returncode == 0
    assert "the objective reached stop.target; " in again.stderr
    assert package.load(folder / "r.h5").count(TrialState.COMPLETE) == count
    shown = mpisweep("status", "r.h5").stdout
    assert "stops at loss <= 20\n" in shown
    assert f"  {count} of 60 trials have ended\n" in shown
    sweep_file(folder, "target = 0", "patience = 25")
    assert "loss <= 0, or 25 trials without improvement" in mpisweep("check", name, "-o", "r.h5").stdout
    assert mpisweep(*command).returncode == 0
    last = package.load(folder / "r.h5")
    assert last.allocations["end"].tolist()[1:] == [EndReason.TARGET.value] * 2
    assert last.trials["loss"][29] == 0
    attempts = last.attempts[last.attempts["end"] == "ended"]["trial"].tolist()
    assert len(attempts) == len(set(attempts))


@pytest.mark.mpi
def test_patience_counts_on_through_the_death_of_everything(folder, environment, mpisweep: Run):
    name = sweep_file(folder, "patience = 25", last=300, function="worse")
    (folder / "gate").touch()
    sweep = start(folder, environment, "run", name, "-n", "2", "-o", "r.h5")
    wait_for(lambda: ended(folder / "r.h5") >= 5)
    for rank in ranks_by_number(sweep).values():
        rank.kill()
    sweep.kill()
    sweep.wait()
    (folder / "gate").unlink()
    (folder / "slow").touch()
    assert mpisweep("run", name, "-n", "2", "-o", "r.h5").returncode == 0
    found = package.load(folder / "r.h5")
    assert found.state == EndReason.PATIENCE.value
    # Up to two improve, 25 do not, and some were running when the rule held or were ended by the kill.
    assert 26 <= found.count(TrialState.COMPLETE) <= 31


@pytest.mark.mpi
def test_all_members_stop_when_one_of_them_reaches_the_target(folder, member, mpisweep: Run):
    name = sweep_file(folder, "target = 25", last=400, limits="silence = 3\n")
    (folder / "slow").touch()
    runs = [member(name, "-o", "r.h5", "--split", "2", "-n", "1") for _ in range(2)]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    found = package.load(folder / "r.h5")
    assert found.state == EndReason.TARGET.value
    assert 1 <= found.count(TrialState.COMPLETE) < 400
    assert set(found.allocations["end"].tolist()) == {EndReason.TARGET.value}
    assert not list(folder.glob("r.h5.shares*"))
    again = mpisweep("run", name, "-o", "r.h5", "--split", "2", "-n", "1")
    assert again.returncode == 0
    assert "the objective reached stop.target" in again.stderr
    assert len(package.load(folder / "r.h5").allocations) == 2


@pytest.mark.mpi
def test_what_no_member_knows_alone_stops_all_of_them_once_their_results_are_merged(folder, member):
    """Patience is judged when the results of all members are merged: here, when one of them leaves."""
    name = sweep_file(folder, "patience = 20", last=400, limits="silence = 3\n")
    (folder / "slow").touch()
    runs = [member(name, "-o", "r.h5", "--split", "2", "-n", "1") for _ in range(2)]
    # Each member runs its trials in the order of x, and the best is that of x = 30.
    wait_for(lambda: _complete(folder) >= 120)
    runs[0].terminate()
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    found = package.load(folder / "r.h5")
    assert found.state == EndReason.PATIENCE.value
    assert found.count(TrialState.COMPLETE) < 400


def _complete(folder: Path) -> int:
    try:
        return package.load(folder / "r.h5").count(TrialState.COMPLETE)
    except package.ResultsError:
        return 0


# ------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ("target = '0.1'", "stop.target: is '0.1'; expected a finite number"),
        ("target = nan", "stop.target: is nan; expected a finite number"),
        ("patience = 0", "stop.patience: is 0; expected an integer of at least 1"),
        ("device_hours = 0", "stop.device_hours: is 0; expected a finite number above 0"),
        ("device_hours = true", "stop.device_hours: is True; expected a finite number above 0"),
        ("patiense = 3", "stop.patiense: is not a known key; did you mean 'patience'?"),
        ("timeout = 3", "stop.timeout: belongs in [limits] or in [hooks]"),
    ],
)
def test_bad_rules_are_refused_in_one_sentence(tmp_path, rules, problem):
    with pytest.raises(SpecError) as refused:
        parse_spec(
            f'workload = "m:f"\n[parameters]\nx = [1]\n[stop]\n{rules}', source="s.toml", folder=tmp_path
        )
    assert str(refused.value) == f"s.toml: {problem}"


def test_rules_can_be_given_as_flags(mpisweep: Run, folder):
    (folder / "mine.py").write_text(WORKLOAD)
    flags = ("--target", "0.5", "--patience", "4", "--device-hours", "2.5")
    done = mpisweep("check", "mine:run", "-p", "x=1:9", *flags)
    assert done.returncode == 0, done.stderr
    assert "  stop        loss <= 0.5, or 4 trials without improvement, or 2.5 GPU-hours" in done.stdout
    refused = mpisweep("check", "mine:run", "-p", "x=1:9", "--device-hours", "0")
    assert refused.returncode == 2
    assert "--device-hours: is 0.0; expected a finite number above 0" in refused.stderr
