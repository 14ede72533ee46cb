"""Long trials wait in the queue; expectations learned from trials that have ended and that still run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from random import Random
from statistics import fmean

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import simulate

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, Slot, TrialState
from mpisweep.scheduling.decisions import Assign, Reclaim
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import TimePassed, TrialsEnded, TrialsReclaimed, WorkerJoined
from mpisweep.scheduling.regression import Observations, fit_best
from mpisweep.scheduling.scheduler import Scheduler

ROOT = Path(__file__).parent.parent
COMPLETE = int(TrialState.COMPLETE)


def ended(rank: int, number: int, seconds: float) -> TrialsEnded:
    return TrialsEnded(EndedBlock(rank, 0, [number], [1], [COMPLETE], [0.0], [seconds], {}))


def given(decisions) -> list[int]:
    return [number for made in decisions if isinstance(made, Assign) for number in made.numbers]


def measured(count: int, seconds: float) -> DurationModel:
    """All trials take this long, as ten measurements say."""
    model = DurationModel({"x": [1] * count}, None, count)
    model.observe(range(10), [seconds] * 10)
    model.fit()
    return model


# ------------------------------------------------------------------------------------- hand-out


@pytest.mark.parametrize(("seconds", "ahead"), [(0.9, 1), (1.1, 0)])
def test_a_trial_of_a_second_or_more_is_not_handed_out_behind_another(seconds, ahead):
    scheduler = Scheduler(bytes(20), [0] * 20, measured(20, seconds), retries=1, grace_s=1.0)
    for rank in range(4):
        assert len(given(scheduler.handle(WorkerJoined(rank, 1), 0.0))) == 1 + ahead
    first, attempt = next(iter(scheduler.held[Slot(2, 0)].items()))
    assert attempt == 1
    assert len(given(scheduler.handle(ended(2, first, seconds), seconds))) == 1


@pytest.mark.parametrize(("seconds", "ahead"), [(0.06, 4), (0.2, 1), (0.9, 1)])
def test_a_backlog_bridges_a_quarter_second_of_short_trials(seconds, ahead):
    scheduler = Scheduler(bytes(60), [0] * 60, measured(60, seconds), retries=1, grace_s=1.0)
    for rank in range(4):
        scheduler.handle(WorkerJoined(rank, 1), 0.0)
    for _ in range(8):
        scheduler.handle(TimePassed(), 0.001)
    assert [len(scheduler.held[Slot(rank, 0)]) for rank in range(4)] == [1 + ahead] * 4


def test_some_of_the_last_short_trials_stay_in_the_queue():
    scheduler = Scheduler(bytes(16), [0] * 16, measured(16, 0.05), retries=1, grace_s=1.0)
    for rank in range(4):
        scheduler.handle(WorkerJoined(rank, 1), 0.0)
    for _ in range(8):
        scheduler.handle(TimePassed(), 0.001)
    # Backlogs of a quarter second would hold all of them.
    assert sum(len(held) for held in scheduler.held.values()) < 16


def test_trials_handed_out_before_they_were_known_to_be_long_are_reclaimed_and_the_longest_goes_first():
    """Sixty slots hold a second trial each when the first durations arrive; a few are reclaimed per event."""
    count = 300
    model = DurationModel({"x": list(range(1, count + 1))}, None, count)
    scheduler = Scheduler(bytes(count), [0] * count, model, retries=1, grace_s=1.0)
    for rank in range(60):
        scheduler.handle(WorkerJoined(rank, 1), 0.0)
    assert all(len(held) == 2 for held in scheduler.held.values())
    reclaimed: list[Slot] = []
    for rank in range(4):
        number = next(iter(scheduler.held[Slot(rank, 0)]))
        made = scheduler.handle(ended(rank, number, 10.0 + number), 10.0 + number)
        reclaimed += [one.slot for one in made if isinstance(one, Reclaim)]
    for tick in range(10):
        made = scheduler.handle(TimePassed(), 20.0 + 0.02 * tick)
        of_tick = [one.slot for one in made if isinstance(one, Reclaim)]
        assert len(of_tick) <= 8
        reclaimed += of_tick
    assert len(set(reclaimed)) == len(reclaimed) == 59, "all but the one whose end made durations known"
    for slot in reclaimed:
        _, *second = scheduler.held[slot]
        scheduler.handle(TrialsReclaimed(slot, second, (1,) * len(second), AttemptEnd.RECLAIMED), 21.0)
    assert all(len(held) == 1 for held in scheduler.held.values())
    [number] = scheduler.held[Slot(30, 0)]
    assert given(scheduler.handle(ended(30, number, 40.0), 40.0)) == [count - 1], "and not a reclaimed one"


# ------------------------------------------------------------------------------------- expectations


def observations(features, logs, running) -> Observations:
    columns = np.column_stack([np.ones(len(logs)), *features])
    return Observations(columns, np.array(logs, dtype=float), np.array(running, dtype=bool))


def test_trials_that_still_run_count_as_longer_than_they_have_run():
    """All trials began together; the tenth that has ended is far from the mean of all."""
    random = Random(3)
    sizes = np.array([random.uniform(-2, 2) for _ in range(400)])
    logs = np.array([4.0 + 0.8 * size + random.gauss(0, 0.2) for size in sizes])
    until = float(np.quantile(logs, 0.1))
    found = fit_best(observations([sizes], np.minimum(logs, until), logs > until))
    assert found.weights == pytest.approx([4.0, 0.8], abs=0.25)
    without = fit_best(observations([sizes[logs <= until]], logs[logs <= until], [False] * 40))
    assert without.weights[0] < 3.4, "those that have ended say that trials are shorter than they are"


def test_the_fit_has_the_largest_likelihood():
    """No other weights give ended and running trials a larger penalised likelihood."""
    random = Random(5)
    sizes = np.array([random.gauss(0, 1) for _ in range(60)])
    logs = 1.0 + 0.5 * sizes + np.array([random.gauss(0, 0.3) for _ in range(60)])
    observed = observations([sizes], np.minimum(logs, 1.2), logs > 1.2)
    found = fit_best(observed)

    def likelihood(weights) -> float:
        z = (observed.logs - observed.features @ weights) / found.spread
        tails = [math.log(math.erfc(one / math.sqrt(2)) / 2) for one in z[observed.running]]
        return -float((z[~observed.running] ** 2).sum()) / 2 + sum(tails) - 0.05 * weights[1] ** 2

    best = likelihood(found.weights)
    for step in ((0.02, 0.0), (-0.02, 0.0), (0.0, 0.02), (0.0, -0.02)):
        assert likelihood(found.weights + np.array(step)) < best


def test_parameters_that_explain_nothing_do_not_change_the_order():
    orders = []
    for seed in range(40):
        random = Random(seed)
        columns = {"x": [random.random() for _ in range(100)], "y": [random.random() for _ in range(100)]}
        model = DurationModel(columns, None, 100)
        model.observe(range(40), [math.exp(random.gauss(2, 0.7)) for _ in range(40)])
        model.fit()
        orders.append(model.next_last(list(range(40, 100))) == list(range(99, 39, -1)))
    assert sum(orders) >= 37


def test_until_parameters_say_more_trials_start_by_their_known_work():
    """Of forty trials that began together those have ended that happened to be fast."""
    works = [float(size) for size in range(1, 101)]
    kept = 0
    for seed in range(20):
        random = Random(seed)
        durations = {number: works[number] * math.exp(random.gauss(0, 0.2)) for number in range(60, 100)}
        now = sorted(durations.values())[4]
        model = DurationModel({"batch_size": list(range(1, 101))}, works, 100)
        fast = [number for number, seconds in durations.items() if seconds <= now]
        model.observe(fast, [durations[number] for number in fast])
        model.fit({number: now for number in durations if number not in fast})
        kept += model.next_last(list(range(60))) == list(range(60))
    assert kept >= 17


def test_the_model_expects_long_trials_to_take_longer_than_any_that_has_ended():
    random = Random(7)
    sizes = [random.uniform(-2, 2) for _ in range(200)]
    durations = [math.exp(4.0 + 0.8 * size + random.gauss(0, 0.2)) for size in sizes]
    now = sorted(durations)[20]
    model = DurationModel({"size": sizes}, None, 200)
    fast = [number for number, seconds in enumerate(durations) if seconds <= now]
    model.observe(fast, [durations[number] for number in fast])
    model.fit({number: now for number in range(200) if number not in fast})
    usual = sorted(range(200), key=durations.__getitem__)[100]
    assert model.expected_s(usual) == pytest.approx(durations[usual], rel=0.4)


def test_of_equally_long_trials_the_one_about_which_less_is_known_goes_first():
    """Level b was measured once, level a often; both took the same."""
    columns = {"level": ["a", "b"] * 10 + ["c"] * 10}
    model = DurationModel(columns, None, 30)
    numbers = [0, 2, 4, 6, 8, 10, 1, *range(20, 27)]
    model.observe(numbers, [10.0] * 7 + [1.0] * 7)
    model.fit()
    a, b = model.expected_s(12), model.expected_s(13)
    assert a is not None
    assert b == pytest.approx(a, rel=0.15)
    assert model.next_last([12, 13])[-1] == 13


# ------------------------------------------------------------------------------------- the simulator


def mean_of(make, workers: int, repeats: int = 3) -> simulate.Outcome:
    return simulate.mean([simulate.simulate(make(Random(seed)), workers, 0.001) for seed in range(repeats)])


@pytest.mark.parametrize(("workers", "above_known"), [(64, 0.01), (256, 0.012)])
def test_durations_like_the_posters_end_nearly_as_early_as_if_they_were_known(workers, above_known):
    found = mean_of(simulate.like_the_poster, workers)
    assert found.ratio <= found.ratio_known * (1 + above_known)
    assert found.ratio_submitted > found.ratio * 1.03, "a plain queue is worse"


def test_explained_durations_end_nearly_as_early_as_if_they_were_known():
    assert mean_of(simulate.explained, 128).ratio <= mean_of(simulate.explained, 128).ratio_known * 1.02


def test_unexplained_durations_end_as_early_as_with_a_plain_queue():
    pairs = [simulate.simulate(simulate.unexplained(Random(seed)), 64, 0.001) for seed in range(6)]
    assert fmean(one.ratio / one.ratio_submitted for one in pairs) < 1.005


def run_simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "simulate.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_simulator_reads_durations_and_parameters(tmp_path):
    sizes = range(1, 41)
    (tmp_path / "d.txt").write_text("\n".join(f"{size}.0" for size in sizes))
    (tmp_path / "p.csv").write_text("size\n" + "\n".join(map(str, sizes)))
    files = ("--durations", str(tmp_path / "d.txt"), "--parameters", str(tmp_path / "p.csv"))
    done = run_simulate(*files, "--workers", "4", "--json")
    [found] = json.loads(done.stdout)
    assert found["lower_bound_s"] == 205.0
    assert found["ratio"] < found["ratio_submitted"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("1.0\nx\n", "could not convert"), ("", "at least one"), ("1.0\n-2.0\n", "above 0")],
)
def test_the_simulator_refuses_wrong_durations_in_one_sentence(tmp_path, text, message):
    (tmp_path / "d.txt").write_text(text)
    done = run_simulate("--durations", str(tmp_path / "d.txt"))
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
