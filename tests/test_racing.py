"""Racing: the error that it states, the runs that it saves, and the same trials after every kind of death."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_reliability import ended, ranks_by_number
from test_run import start
from waiting import wait_for

import mpisweep as package
from mpisweep.blocks import EndedBlock
from mpisweep.records import Direction, EndReason, FailureCause, TrialState
from mpisweep.scheduling.decisions import AddRepeats, Assign, End
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import StopRequested, TrialsEnded, WorkerJoined
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search.racing import ALPHA, Race, fit_variances
from mpisweep.spec import Repeats, SpecError, parse_spec, spec_from_flags

Run = Callable[..., subprocess.CompletedProcess[str]]

COMPLETE, FAILED = int(TrialState.COMPLETE), int(TrialState.FAILED)


def race_of(count: int, repeats: Repeats, kept: int | None = None) -> Race:
    of = [*range(count)] * repeats.first
    repeat_of = [repeat for repeat in range(repeats.first) for _ in range(count)]
    return Race(repeats, "loss", Direction.MINIMIZE, of, repeat_of, kept)


class Raced:
    """A race whose trials end in a random order; `values` has a row per configuration."""

    def __init__(
        self, values, repeats: Repeats, *, random=None, devices: int = 0, kept: int | None = None
    ) -> None:
        self.race = race_of(len(values), repeats, kept)
        self.trials = [(one, repeat) for repeat in range(repeats.first) for one in range(len(values))]
        running = list(range(len(self.trials)))
        while running:
            number = running.pop(0 if random is None else random.integers(len(running)))
            self.race.note(number, COMPLETE, 0, float(values[self.trials[number]]))
            for one, repeat in self.race.ask(max(0, devices - len(running))):
                self.race.add(one, repeat)
                running.append(len(self.trials))
                self.trials.append((one, repeat))
        assert self.race.is_over
        assert len(set(self.trials)) == len(self.trials)


# ------------------------------------------------------------------------------------- the stated error


def normal(random, shape):
    return random.normal(size=shape)


def heavy_tailed(random, shape):
    return random.standard_t(3, size=shape)


def unequal(random, shape):
    """Each configuration has a spread of its own."""
    return random.normal(size=shape) * np.exp(random.normal(size=(shape[0], 1)))


def noisy_best(random, shape):
    """The best configuration is ten times as noisy as the others."""
    return random.normal(size=shape) * np.where(np.arange(shape[0]) == 0, 10.0, 1.0)[:, None]


NOISES = (normal, heavy_tailed, unequal, noisy_best)
REPEATS = Repeats(2, 8)


def share_of_lost(noise, count: int, spread: float, sweeps: int, tell) -> None:
    """Check how often the best configuration, number 0, leaves, and what share of the runs it took."""
    random = np.random.default_rng(count)
    lost, runs, regret = 0, 0, []
    for _ in range(sweeps):
        means = np.sort(random.normal(size=count)) * spread
        seeds = 3.0 * random.normal(size=REPEATS.most)
        values = means[:, None] + seeds + noise(random, (count, REPEATS.most))
        raced = Raced(values, REPEATS)
        lost += 0 not in raced.race.racing
        runs += len(raced.trials)
        finalists = raced.race.racing
        full = values.mean(axis=1)
        regret.append(means[finalists[int(np.argmin(full[finalists]))]] - means[int(np.argmin(full))])
    share = runs / (sweeps * count * REPEATS.most)
    tell(
        f"race of {count}, {noise.__name__}, spread {spread:g}: the best leaves in {lost} of {sweeps}, "
        f"{share:.0%} of the runs"
    )
    # A best configuration that alone is noisier than the others leaves more often; the documentation says so.
    stated = 2 * ALPHA if noise is noisy_best else ALPHA
    # Three standard errors above that.
    assert lost / sweeps <= stated + 3 * (stated * (1 - stated) / sweeps) ** 0.5
    # What wins is as good as what wins after all repeats, within three standard errors.
    assert np.mean(regret) <= 3 * np.std(regret) / sweeps**0.5 + 1e-9
    if spread > 1 and noise is not noisy_best:
        assert share < 0.8


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("count", "sweeps"), [(2, 300), (12, 150), (60, 40)])
@pytest.mark.parametrize("spread", [0.0, 5.0])
def test_the_best_configuration_leaves_as_rarely_as_stated_and_runs_are_saved(
    noise, count, sweeps, spread, tell
):
    share_of_lost(noise, count, spread, sweeps, tell)


@pytest.mark.long
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("count", "sweeps"), [(2, 3000), (5, 2000), (12, 2000), (60, 600), (700, 100)])
@pytest.mark.parametrize("spread", [0.0, 0.5, 5.0])
def test_the_best_of_many_leaves_as_rarely_as_stated(noise, count, sweeps, spread, tell):
    share_of_lost(noise, count, spread, sweeps, tell)


def test_without_noise_one_round_decides():
    raced = Raced(np.arange(20.0)[:, None] + np.zeros((20, 8)), REPEATS)
    assert raced.race.racing == [0]
    assert len(raced.trials) == 40


def test_a_difference_that_one_test_alone_would_call_clear_is_not_clear_in_six_rounds():
    race = race_of(2, Repeats(4, 10))
    # Student's t is 3.5: its bound is 2.4 for one test, and 4.9 for six.
    for number, value in enumerate([0.0, 1.0, 0.0, 3.0, 0.0, 3.0, 0.0, 1.0]):
        race.note(number, COMPLETE, 0, value)
    assert race.ask(0) == [(0, 4), (1, 4)]


def test_a_configuration_that_is_noisier_than_the_others_is_judged_by_its_own_noise():
    values = 10.0 + 0.1 * np.random.default_rng(3).normal(size=(200, 3))
    values[0] = [10.5, 13.5, 9.0]
    race = race_of(200, Repeats(2, 3))
    for number, (repeat, one) in enumerate(product(range(2), range(200))):
        race.note(number, COMPLETE, 0, float(values[one, repeat]))
    assert (0, 2) in race.ask(0)


def test_variances_that_are_alike_help_each_other_and_others_do_not():
    random = np.random.default_rng(1)
    alike = random.normal(size=(500, 3)).var(axis=1, ddof=1)
    degrees, variance = fit_variances(alike, 2)
    assert degrees > 50
    assert variance == pytest.approx(1.0, rel=0.15)
    unlike = (random.normal(size=(500, 3)) * np.exp(2 * random.normal(size=(500, 1)))).var(axis=1, ddof=1)
    assert fit_variances(unlike, 2)[0] < 3
    assert fit_variances(np.zeros(500), 2) == (0.0, 0.0)
    assert fit_variances(alike[:5], 2) == (0.0, 0.0)


# ------------------------------------------------------------------------------------- order and devices


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 25), st.integers(0, 30))
def test_who_stays_depends_neither_on_the_order_of_ends_nor_on_the_devices(seed, count, devices):
    random = np.random.default_rng(seed)
    values = 2.0 * random.normal(size=(count, 1)) + random.normal(size=(count, 6))
    usual = Raced(values, Repeats(2, 6))
    other = Raced(values, Repeats(2, 6), random=random, devices=devices)
    assert other.race.racing == usual.race.racing
    # Idle devices may have run more, never less.
    assert set(usual.trials) <= set(other.trials)
    assert sorted(Raced(values, Repeats(2, 6), random=random).trials) == sorted(usual.trials)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(0, 40))
def test_a_race_that_is_rebuilt_from_what_has_ended_goes_on_as_the_first_one(seed, count, told):
    random = np.random.default_rng(seed)
    values = random.normal(size=(count, 1)) + random.normal(size=(count, 6))
    race = race_of(count, Repeats(2, 6))
    trials = [(one, repeat) for repeat in range(2) for one in range(count)]
    for number in range(told):
        if number == len(trials):
            break
        race.note(number, COMPLETE, 0, float(values[trials[number]]))
        for one, repeat in race.ask(1):
            race.add(one, repeat)
            trials.append((one, repeat))
    rebuilt = Race(Repeats(2, 6), "loss", Direction.MINIMIZE, *map(list, zip(*trials, strict=True)))
    for number in range(min(told, len(trials))):
        rebuilt.note(number, COMPLETE, 0, float(values[trials[number]]))
    assert rebuilt.ask(0) == [] == race.ask(0)
    assert (rebuilt.racing, rebuilt.round, rebuilt.is_over) == (race.racing, race.round, race.is_over)
    assert rebuilt.ask(9) == race.ask(9)


def test_a_device_that_would_be_idle_gets_a_repeat_of_one_that_is_not_worse():
    race = race_of(3, Repeats(2, 9))
    for number, value in enumerate([1.0, 1.2, 50.0, 1.2, 1.1]):
        race.note(number, COMPLETE, 0, value)
    # Configuration 2 still runs: the round is not over.
    assert race.ask(0) == []
    assert race.ask(2) == [(0, 2), (1, 2)]
    assert race.round == 2


# ------------------------------------------------------------------------------------- failures


def test_a_configuration_that_failed_gets_no_more_repeats_and_a_lost_trial_says_nothing():
    race = race_of(3, Repeats(2, 4))
    for number in range(6):
        cause = {0: FailureCause.EXCEPTION, 1: FailureCause.LOST}.get(number, FailureCause.NONE)
        race.note(number, FAILED if cause else COMPLETE, int(cause), None if cause else 1.0 + number / 10)
    assert race.ask(0) == [(1, 2), (2, 2)]


def test_a_race_in_which_all_fail_goes_on_and_ends():
    race = race_of(2, Repeats(2, 3))
    for number in range(4):
        race.note(number, FAILED, int(FailureCause.EXCEPTION), None)
    assert race.ask(0) == [(0, 2), (1, 2)]
    assert race.round == 3


def test_the_baseline_is_run_as_long_as_the_race_lasts():
    values = np.array([[0.0], [0.1], [90.0]]) + np.random.default_rng(3).normal(size=(3, 5))
    raced = Raced(values, Repeats(2, 5), kept=2)
    assert 2 not in raced.race.racing
    assert sorted(repeat for one, repeat in raced.trials if one == 2) == [0, 1, 2, 3, 4]


# ------------------------------------------------------------------------------------- the scheduler


def block_of(assigned: Assign, values: dict[int, float]) -> EndedBlock:
    numbers, [slot] = assigned.numbers, assigned.slots
    count = len(numbers)
    losses = [values[number] for number in numbers]
    return EndedBlock(
        slot.rank, slot.place, numbers, assigned.attempts, [COMPLETE] * count, [0.0] * count, [1.0] * count,
        {"loss": losses},
    )  # fmt: skip


def test_the_scheduler_adds_the_repeats_that_the_race_wants_and_ends_with_it():
    race = race_of(2, Repeats(2, 3))
    model = DurationModel({"x": [1, 2, 1, 2]}, None, 4)
    scheduler = Scheduler([0] * 4, [0] * 4, model, retries=1, grace_s=1.0, race=race)
    assigned = [one for one in scheduler.handle(WorkerJoined(1, 4), 0.0) if isinstance(one, Assign)]
    assert len(assigned) == 4
    values = dict(enumerate([1.0, 1.1, 1.2, 1.0]))
    decisions = [
        one for block in assigned for one in scheduler.handle(TrialsEnded(block_of(block, values)), 1.0)
    ]
    added = [one for one in decisions if isinstance(one, AddRepeats)]
    assert sorted(number for one in added for number in one.numbers) == [4, 5]
    assert sorted(pair for one in added for pair in zip(one.configurations, one.repeats, strict=True)) == [
        (0, 2),
        (1, 2),
    ]
    scheduler.check()
    again = [one for one in decisions if isinstance(one, Assign)]
    assert scheduler.handle(StopRequested(EndReason.REQUEST), 1.5)
    ends = [
        one
        for block in again
        for one in scheduler.handle(TrialsEnded(block_of(block, dict.fromkeys(block.numbers, 1.0))), 2.0)
        if isinstance(one, End)
    ]
    # All have ended, and the race wants nothing more: the stop came too late.
    assert ends == [End(EndReason.COMPLETE)]


def test_a_run_that_is_stopped_between_two_rounds_is_not_complete():
    race = race_of(2, Repeats(2, 4))
    scheduler = Scheduler(
        [0] * 4, [0] * 4, DurationModel({"x": [1, 2, 1, 2]}, None, 4), retries=1, grace_s=1.0, race=race
    )
    assigned = [one for one in scheduler.handle(WorkerJoined(1, 4), 0.0) if isinstance(one, Assign)]
    scheduler.handle(StopRequested(EndReason.REQUEST), 0.5)
    values = dict(enumerate([1.0, 1.1, 1.2, 1.0]))
    decisions = [
        one for block in assigned for one in scheduler.handle(TrialsEnded(block_of(block, values)), 1.0)
    ]
    assert decisions[-1] == End(EndReason.REQUEST)
    assert not [one for one in decisions if isinstance(one, AddRepeats)]


# ------------------------------------------------------------------------------------- the sweep file


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("repeats = { from = 1, to = 9 }", "with at least 2 first and more at most"),
        ("repeats = { from = 4, to = 4 }", "expected an integer from 1 to 1,000, or { from = 2, to = 10 }"),
        ("repeats = { from = 4 }", "repeats: is {'from': 4}; expected"),
        ("repeats = { form = 2, to = 9 }", "repeats.form: is not a known key; did you mean 'from'?"),
        ('repeats = { to = 9 }\nsearch = "tpe"\ntrials = 4', "a race needs all configurations at its start"),
        ('repeats = { to = 9 }\nobjective = ["a", "b"]', "a race ranks configurations by one objective"),
    ],
)
def test_a_race_that_makes_no_sense_is_refused_in_one_sentence(text, problem):
    with pytest.raises(SpecError) as refused:
        parse_spec(
            f'workload = "m:f"\n{text}\n[parameters]\nx = {{ from = 1, to = 9 }}\n',
            source="s.toml",
            folder=Path("/"),
        )
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_command_line_has_a_race():
    spec = spec_from_flags("m:f", ["x=1:9"], folder=Path(), options={"repeats": "3:7"})
    assert spec.repeats == Repeats(3, 7)
    assert str(spec.repeats) == "3 to 7"
    with pytest.raises(SpecError, match="FROM:TO, such as 2:10"):
        spec_from_flags("m:f", ["x=1:9"], folder=Path(), options={"repeats": "7:3"})


# ------------------------------------------------------------------------------------- whole sweeps

RACE = """
import random, time
def run(trial):
    time.sleep(0.03)
    chance = random.Random(f"{trial.seed}:{trial.params['x']}")
    return trial.params["x"] // 3 * 5.0 + random.Random(trial.seed).random() + 0.1 * chance.gauss(0, 1)
"""


def race_sweep(folder: Path) -> str:
    (folder / "mine.py").write_text(RACE)
    (folder / "s.toml").write_text(
        'name = "s"\nworkload = "mine:run"\nrepeats = { from = 3, to = 8 }\nseed = 2\n[parameters]\n'
        "x = { from = 0, to = 11 }\n"
    )
    return "s.toml"


def pairs_of(path: Path) -> list[tuple[int, int]]:
    trials = package.load(path).trials
    assert set(trials["state"]) == {"complete"}
    return sorted(zip(trials["configuration"].tolist(), trials["repeat"].tolist(), strict=True))


@pytest.mark.mpi
def test_a_race_whose_master_and_job_are_killed_runs_the_same_trials_as_an_undisturbed_one(
    folder, environment, mpisweep: Run
):
    race_sweep(folder)
    done = mpisweep("run", "s.toml", "-n", "2", "-o", "whole.h5")
    assert done.returncode == 0, done.stderr
    whole = pairs_of(folder / "whole.h5")
    # The three that are alike run to the end, the others at least three times.
    assert {pair for pair in whole if pair[0] < 3} == set(product(range(3), range(8)))
    assert 3 * 12 + 3 * 5 <= len(whole) < 8 * 12
    assert "12 configurations x 3 to 8 repeats" in mpisweep("check", "s.toml", "-o", "none.h5").stdout

    sweep = start(folder, environment, "run", "s.toml", "-n", "3", "-o", "r.h5")
    wait_for(lambda: ended(folder / "r.h5") >= 30)
    ranks_by_number(sweep)[0].kill()
    wait_for(lambda: ended(folder / "r.h5") >= 42)
    for process in [*psutil.Process(sweep.pid).children(recursive=True), psutil.Process(sweep.pid)]:
        if process.is_running():
            process.kill()
    sweep.wait()
    done = mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert core_of(folder / "r.h5") == core_of(folder / "whole.h5")
    said = mpisweep("status", "r.h5").stdout
    assert "of 12 configurations in the race" in said
    refused = mpisweep("run", "s.toml", "-n", "1", "--split", "2", "-o", "t.h5")
    assert refused.returncode == 2
    assert "remove --split" in refused.stderr


def core_of(path: Path) -> set[tuple[int, int]]:
    """The trials that the rounds asked for; others were for idle devices."""
    pairs = pairs_of(path)
    assert len(set(pairs)) == len(pairs)
    trials = package.load(path).trials
    losses = {
        (c, r): loss
        for c, r, loss in zip(trials["configuration"], trials["repeat"], trials["loss"], strict=True)
    }
    race = race_of(12, Repeats(3, 8))
    found = list(product(range(12), range(3)))
    for number, (repeat, one) in enumerate(product(range(3), range(12))):
        race.note(number, COMPLETE, 0, float(losses[one, repeat]))
    count = 36
    while more := race.ask(0):
        found += more
        for pair in more:
            assert pair in losses, f"{pair} did not run"
            race.add(*pair)
            race.note(count, COMPLETE, 0, float(losses[pair]))
            count += 1
    return set(found)
