"""Searches that learn: proposals are reproducible, and survive the death of every process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers._tpe import _truncnorm
from scipy.special import log_ndtr
from test_reliability import ended, ranks_by_number, stderr_of
from test_run import start
from waiting import wait_for

import mpisweep as package
from mpisweep.records import Direction, EndReason, Slot
from mpisweep.scheduling.decisions import AddTrials, Assign, End, Propose
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import Proposed, StopRequested, TimePassed, WorkerJoined
from mpisweep.scheduling.proposals import Proposals
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search import proposing, thinning
from mpisweep.search.learning import NAMED
from mpisweep.search.proposing import End as Told
from mpisweep.search.proposing import Past, Proposer
from mpisweep.search.repeated import MeanOfRepeats
from mpisweep.search.samplers import make_sampler
from mpisweep.search.thinning import BEST, SHOWN
from mpisweep.spec import SamplerChoice, SpecError, parse_spec, spec_from_flags
from mpisweep.spec.preflight import check_startable

Run = Callable[..., subprocess.CompletedProcess[str]]

SPACE = ("x=-5.0:5.0", "n=1:40", "lr=1e-4:1e-1:log", "o=sgd,adamw,lion", "b=8,16,32,64")
NOTHING = Past([], {}, [])
SAMPLERS = [*NAMED.values(), SamplerChoice("QMCSampler", {}), SamplerChoice("RandomSampler", {})]
by_name = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)


def space_of(*parameters: str):
    options = {"search": "random", "trials": 9}
    return spec_from_flags("m:f", parameters, options=options, folder=Path()).space


def loss(configuration) -> float:
    return abs(float(configuration["x"]) - 1.5) + abs(int(configuration["n"]) - 30) / 10


def loss_and_time(configuration) -> list[float]:
    """Two objectives in conflict: the smaller `n`, the larger the loss and the smaller the time."""
    return [loss(configuration), int(configuration["n"]) + float(configuration["x"]) ** 2]


ONE, TWO = [Direction.MINIMIZE], [Direction.MINIMIZE, Direction.MAXIMIZE]


class History:
    """A search and what happened in it, so that another process can continue."""

    def __init__(self, sampler: SamplerChoice, parameters=SPACE, seed: int = 0, directions=ONE) -> None:
        self.sampler, self.seed, self.space = sampler, seed, space_of(*parameters)
        self.directions = directions
        self.configurations: list[dict] = []
        self.known: list[int] = []
        self.ends: list[Told] = []
        self.proposer = self.rebuilt()

    def rebuilt(self) -> Proposer:
        past = Past(self.configurations, dict(enumerate(self.known)), self.ends)
        return Proposer(self.space, self.sampler, self.seed, self.directions, past)

    def ask(self, count: int) -> list[dict]:
        found = self.proposer.ask(len(self.configurations), count)
        self.known += [len(self.ends)] * len(found)
        self.configurations += found
        return found

    def outcome(self, configuration) -> list[float]:
        return loss_and_time(configuration) if len(self.directions) == 2 else [loss(configuration)]

    def end(self, *numbers: int, failed: bool = False, pruned_at: int = -1) -> None:
        nothing = None if pruned_at < 0 else [None] * len(self.directions)
        told = [
            Told(n, nothing if failed else self.outcome(self.configurations[n]), pruned_at) for n in numbers
        ]
        self.ends += told
        self.proposer.tell(told)


# ------------------------------------------------------------------------------------- proposals


@by_name
def test_a_search_that_is_rebuilt_goes_on_as_the_first_one_would_have(sampler: SamplerChoice):
    search = History(sampler)
    search.ask(14)
    search.end(3, 0, 1, *range(4, 12))
    search.end(2, failed=True)
    search.end(12, pruned_at=3)
    search.end(13, failed=True, pruned_at=5)
    # A Gaussian process takes a second per proposal.
    for turn in range(1 if sampler.name == "GPSampler" else 8):
        search.ask(2)
        search.end(14 + 2 * turn, 15 + 2 * turn, pruned_at=turn % 3 - 1)
    other = search.rebuilt()
    assert other.ask(len(search.configurations), 2) == search.ask(2)


@settings(max_examples=15, deadline=None)
@given(
    sampler=st.sampled_from([NAMED["tpe"], NAMED["nsga2"]]),
    directions=st.sampled_from([ONE, TWO]),
    turns=st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 4), st.booleans(), st.integers(-1, 2)),
        min_size=1,
        max_size=8,
    ),
)
def test_whatever_the_order_of_ends_a_rebuilt_search_proposes_the_same(sampler, directions, turns):
    search = History(sampler, directions=directions)
    running: list[int] = []
    for asked, over, is_failure, pruned_at in turns:
        first = len(search.configurations)
        assert search.rebuilt().ask(first, asked) == search.ask(asked)
        running += range(first, first + asked)
        for _ in range(min(over, len(running))):
            search.end(running.pop(len(running) // 2), failed=is_failure, pruned_at=pruned_at)


@by_name
def test_no_configuration_is_proposed_twice_and_a_small_space_is_exhausted(sampler: SamplerChoice):
    search = History(sampler, ("x=1:3", "n=1:4"))
    found = []
    while more := search.ask(1):
        found += more
        search.end(len(found) - 1)
    assert len(found) == 12
    assert len({tuple(one.values()) for one in found}) == 12


def test_64_workers_do_not_get_64_copies_of_a_point():
    cells = []
    for sampler in (
        NAMED["tpe"],
        SamplerChoice("TPESampler", {"multivariate": True, "constant_liar": False}),
    ):
        search = History(sampler, ("x=0.0:10.0", "n=1:40"))
        for number in range(30):
            search.ask(1)
            search.end(number)
        cells.append(len({(int(4 * one["x"]), one["n"] // 4) for one in search.ask(64)}))
    # A sampler that does not know the running trials draws around the best one repeatedly.
    assert cells[0] > 1.2 * cells[1], cells


@by_name
def test_proposals_belong_to_the_space(sampler: SamplerChoice):
    search = History(sampler)
    for first in (0, 4, 8, 12):
        assert all(search.space.contains(one) for one in search.ask(4))
        search.end(*range(first, first + 4))


RULES = """
name = "s"
workload = "m:f"
search = "tpe"
trials = 9
where = ["n * b <= 512"]
zip = [["b", "w"]]
[parameters]
o = ["sgd", "adamw"]
momentum = { from = 0.5, to = 0.99, when = "o == 'sgd'" }
n = { from = 1, to = 64 }
b = [8, 16, 32, 64]
w = [1, 2, 3, 4]
"""


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_constraints_hold_and_inactive_parameters_are_absent_also_after_a_rebuild(name):
    search = History(NAMED[name])
    search.space = parse_spec(RULES, source="s.toml", folder=Path()).space
    search.proposer = search.rebuilt()
    for number in range(24):
        [one] = search.ask(1)
        assert search.space.contains(one)
        assert ("momentum" in one) == (one["o"] == "sgd")
        assert one["n"] * one["b"] <= 512
        assert one["w"] == {8: 1, 16: 2, 32: 3, 64: 4}[one["b"]]
        told = [Told(number, [float(one["n"])])]
        search.ends += told
        search.proposer.tell(told)
    other = search.rebuilt()
    assert other.ask(24, 2) == search.ask(2)


def test_a_constraint_that_leaves_few_points_does_not_keep_the_search_from_the_end():
    search = History(NAMED["tpe"])
    text = RULES.replace("n * b <= 512", "n * b == 64 and o == 'adamw'")
    search.space = parse_spec(text, source="s.toml", folder=Path()).space
    search.proposer = search.rebuilt()
    assert len(search.ask(9)) == 4


def test_it_learns():
    search, chance = History(NAMED["tpe"]), History(SamplerChoice("RandomSampler", {}))
    for kind in (search, chance):
        for number in range(60):
            kind.ask(1)
            kind.end(number)
    best = [min(end.outcome for end in kind.ends) for kind in (search, chance)]
    assert best[0] < best[1]
    late = [np.median([end.outcome for end in kind.ends[30:]]) for kind in (search, chance)]
    assert late[0] < 0.6 * late[1]


def test_trials_outside_the_space_and_unknown_ends_do_no_harm():
    search = History(NAMED["tpe"])
    search.configurations = [{"x": 99.0, "n": 1, "lr": 1e-3, "o": "sgd", "b": 8}]
    search.known, search.ends = [-1], [Told(0, [0.1])]
    search.proposer = search.rebuilt()
    assert len(search.ask(2)) == 2
    search.proposer.tell([Told(77, [1.0])])


# ------------------------------------------------------------------------------------- the scheduler


def scheduler_of(wanted: int) -> Scheduler:
    model = DurationModel({"x": []}, None, 0)
    return Scheduler([], [], model, retries=1, grace_s=1.0, proposals=Proposals(wanted, 0))


def proposed(*values: int, **more) -> Proposed:
    return Proposed(tuple({"x": value} for value in values), (1,) * len(values), 0, 0.01, **more)


def test_a_worker_that_joins_has_the_search_asked_for_its_trials():
    scheduler = scheduler_of(10)
    assert scheduler.handle(WorkerJoined(1, 2), 0.0) == [Propose(2)]
    assert scheduler.handle(TimePassed(), 0.1) == []
    decisions = scheduler.handle(proposed(5, 6), 0.2)
    assert decisions == [
        AddTrials([0, 1], [{"x": 5}, {"x": 6}], 0),
        Assign((Slot(1, 0),), [0], [1]),
        Assign((Slot(1, 1),), [1], [1]),
    ]
    scheduler.check()


def test_a_proposal_does_not_wait_behind_a_running_trial():
    scheduler = scheduler_of(9)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    decisions = scheduler.handle(proposed(5, 6), 0.1)
    assert [one for one in decisions if isinstance(one, Assign)] == [Assign((Slot(1, 0),), [0], [1])]
    assert scheduler.handle(TimePassed(), 0.2) == []


def test_no_more_are_asked_for_than_the_sweep_wants():
    scheduler = scheduler_of(3)
    assert scheduler.handle(WorkerJoined(1, 8), 0.0) == [Propose(3)]


def test_a_run_ends_neither_before_the_search_has_answered_nor_without_its_trials():
    scheduler = scheduler_of(2)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    assert not [one for one in scheduler.handle(TimePassed(), 9.0) if isinstance(one, End)]
    assert scheduler.handle(StopRequested(EndReason.REQUEST), 9.1)[-1] == End(EndReason.REQUEST)


def test_a_search_with_nothing_more_ends_the_run():
    scheduler = scheduler_of(5)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    assert scheduler.handle(proposed(is_exhausted=True), 1.0) == [End(EndReason.COMPLETE)]


def test_a_slow_search_is_asked_further_ahead_than_a_fast_one():
    asked = []
    for seconds in (1e-4, 0.01, 0.1):
        proposals = Proposals(1000, 0)
        proposals.ask(slots=16, idle=0, waiting=0, usual_s=None)
        proposals.note(16, 16 * seconds, is_exhausted=False)
        asked.append(proposals.ask(slots=16, idle=0, waiting=0, usual_s=1.0))
    assert asked == [0, 2, 16]


# ------------------------------------------------------------------------------------- the sweep file


def spec_of(search: str, folder: Path):
    text = (
        f'name = "s"\nworkload = "workloads:half"\n{search}\ntrials = 8\n'
        "[parameters]\nx = { from = 1, to = 99 }\n"
    )
    return parse_spec(text, source="s.toml", folder=folder)


@pytest.mark.parametrize(
    ("search", "problem"),
    [
        ('search = "tpa"', "expected one of"),
        ('search = { sampler = "TPESamplr" }', "did you mean 'TPESampler'?"),
        ('search = { sampler = "TPESampler", multivariat = true }', "did you mean 'multivariate'?"),
        ('search = { sampler = "TPESampler", seed = 3 }', "the sweep's own 'seed'"),
        ('search = { sampler = "NSGAIISampler", population_size = 1 }', "refuses population_size = 1"),
        ("search = { multivariate = true }", "expected a sampler of Optuna"),
        ('search = "optuna"', "expected a sampler of Optuna"),
    ],
)
def test_an_unknown_sampler_or_option_is_refused_before_any_rank_starts(folder, search, problem):
    with pytest.raises(SpecError) as refused:
        check_startable(spec_of(search, folder))
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


def hide(folder: Path, environment: dict[str, str], package: str) -> None:
    """Make a package fail to import."""
    (folder / "hidden").mkdir()
    (folder / "hidden" / f"{package}.py").write_text(f'raise ImportError("no module {package}")\n')
    paths = [str(folder / "hidden"), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def test_a_machine_without_optuna_is_told_what_to_install(folder, environment, mpisweep: Run):
    hide(folder, environment, "optuna")
    (folder / "s.toml").write_text(spec_of('search = "tpe"', folder).text)
    done = mpisweep("run", "s.toml", "-n", "1")
    assert done.returncode == 2
    assert "`pip install optuna cmaes` adds them" in done.stderr
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------- whole sweeps

VALLEY = """
import time
def run(trial):
    with open("ran.txt", "a") as ran:
        ran.write(f"{trial.number}\\n")
    time.sleep(0.02)
    if trial.params["x"] > 90:
        raise ValueError("too large")
    return abs(trial.params["x"] - 33.3) / 10 + (trial.params["o"] != "b")
"""


def valley(folder: Path, search: str = "tpe", trials: int = 40) -> str:
    (folder / "mine.py").write_text(VALLEY)
    (folder / "s.toml").write_text(
        f'name = "s"\nworkload = "mine:run"\nsearch = "{search}"\ntrials = {trials}\nseed = 5\n'
        "[parameters]\nx = { from = 1.0, to = 100.0 }\no = ['a', 'b', 'c']\n"
        "[baseline]\nx = 50.0\no = 'a'\n"
    )
    return "s.toml"


def assert_reproducible(path: Path, search: str = "tpe") -> None:
    """Every proposal in a file follows from what the file says was known when it was made."""
    sweep = package.load(path)
    trials, spec = sweep.trials, sweep.spec
    ends = {
        int(row["end_order"]): (int(row["number"]), _outcome(row, spec), int(row["pruned_at"]))
        for row in trials
        if row["end_order"] >= 0
    }
    assert sorted(ends) == list(range(len(ends)))
    repeats = MeanOfRepeats(trials["configuration"].tolist(), spec.repeats.first)
    history = [Told(*end) for _, one in sorted(ends.items()) if (end := repeats.note(*one)) is not None]
    first = trials[trials["repeat"] == 0]
    configurations = [{name: first[name][n].item() for name in spec.space.names} for n in range(len(first))]
    known = first["proposed_after"].tolist()
    for number, count in enumerate(known):
        if count >= 0:
            before = {n: ends for n, ends in enumerate(known[:number]) if ends >= 0}
            past = Past(configurations[:number], before, history[:count])
            directions = [one.direction for one in spec.objectives]
            proposer = Proposer(spec.space, NAMED[search], spec.seed, directions, past)
            assert proposer.ask(number, 1) == [configurations[number]], f"trial {number}"


def _outcome(row, spec) -> list[float] | None:
    is_result = row["state"] in ("complete", "pruned")
    return [float(row[one.name]) for one in spec.objectives] if is_result else None


@pytest.mark.mpi
@pytest.mark.parametrize("search", ["tpe", "nsga2"])
def test_a_sweep_records_what_the_search_knew_so_that_each_proposal_can_be_made_again(
    folder, mpisweep: Run, search
):
    done = mpisweep("run", valley(folder, search), "-n", "3", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert len(trials) == 41
    assert len(np.unique(trials["x"])) == 41
    assert {"complete", "failed"} >= set(trials["state"])
    assert_reproducible(folder / "r.h5", search)


@pytest.mark.mpi
def test_a_killed_search_a_killed_master_and_a_killed_job_repeat_no_trial_and_lose_no_proposal(
    folder, environment, mpisweep: Run
):
    valley(folder, trials=60)
    sweep = start(folder, environment, "run", "s.toml", "-n", "3", "-o", "r.h5")
    wait_for(lambda: ended(folder / "r.h5") >= 8)
    _search_process(sweep).kill()
    wait_for(lambda: "another one continues" in stderr_of(folder))
    wait_for(lambda: ended(folder / "r.h5") >= 20)
    ranks_by_number(sweep)[0].kill()
    wait_for(lambda: ended(folder / "r.h5") >= 32)
    for process in [*psutil.Process(sweep.pid).children(recursive=True), psutil.Process(sweep.pid)]:
        if process.is_running():
            process.kill()
    sweep.wait()
    done = mpisweep("run", "s.toml", "-n", "3", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert len(trials) == 61
    assert len({tuple(row) for row in zip(trials["x"], trials["o"], strict=True)}) == 61
    assert (trials["proposed_after"] >= 0).sum() == 60
    assert_reproducible(folder / "r.h5")


def _search_process(sweep) -> psutil.Process:
    """The process in which the search runs."""
    processes = psutil.Process(sweep.pid).children(recursive=True)
    [found] = [process for process in processes if process.name() == "mpisweep-search"]
    return found


@pytest.mark.mpi
def test_a_sweep_with_more_trials_goes_on_from_what_it_has_learned(folder, mpisweep: Run):
    valley(folder, trials=10)
    assert mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5").returncode == 0
    before = package.load(folder / "r.h5").trials["x"].tolist()
    valley(folder, trials=20)
    done = mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    after = package.load(folder / "r.h5").trials
    assert after["x"].tolist()[:11] == before
    assert len(after) == 21
    assert_reproducible(folder / "r.h5")


@pytest.mark.mpi
def test_a_search_that_fails_stops_the_sweep_in_one_sentence_and_it_can_be_resumed(
    folder, environment, mpisweep: Run
):
    # The sampler imports it when it proposes for the second time.
    hide(folder, environment, "cmaes")
    valley(folder, "cmaes", trials=6)
    done = mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5")
    assert done.returncode == 3, done.stderr
    assert "the search failed: ImportError" in done.stderr
    # The baseline, the proposals made and those to come.
    assert "of 7 trials have ended" in done.stderr
    assert "of 7 trials have ended" in mpisweep("status", "r.h5").stdout
    assert "Traceback" not in done.stderr
    environment["PYTHONPATH"] = environment["PYTHONPATH"].partition(os.pathsep)[2]
    done = mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert len(package.load(folder / "r.h5").trials) == 7


def test_a_sampler_that_is_told_its_space_proposes_what_optuna_s_own_does():
    space = {
        "x": optuna.distributions.FloatDistribution(0.0, 1.0),
        "n": optuna.distributions.IntDistribution(1, 9),
    }
    found = []
    for known in (space, None):
        study = optuna.create_study()
        for number in range(30):
            study.sampler = make_sampler(NAMED["tpe"], seed=number, space=known)
            trial = study.ask(space)
            study.tell(trial, (trial.params["x"] - 0.3) ** 2 + trial.params["n"])
        found.append([trial.params for trial in study.trials])
    assert found[0] == found[1]


def test_the_normal_distribution_that_tpe_uses_is_optuna_s_own():
    assert _truncnorm._log_ndtr is log_ndtr, "proposals do not wait for a loop over values"
    values = np.concatenate([np.linspace(-60, 9, 5000), [-20.0, -1.0, 0.0, 6.0]])
    own = [_truncnorm._log_ndtr_single(value) for value in values.tolist()]
    assert _truncnorm._log_ndtr(values) == pytest.approx(own, rel=1e-12, abs=1e-15)
    assert _truncnorm._log_ndtr(np.array([-np.inf])) == -np.inf


def test_tpe_takes_the_best_candidate_that_is_new_and_does_not_repeat_itself():
    # 100 points; the best ones are soon known, and without this rule most proposals repeat one of them.
    search = History(NAMED["tpe"], ("n=1:10", "m=1:10"))
    asked = 0
    ask = optuna.Study.ask

    def count(*arguments):
        nonlocal asked
        asked += 1
        return ask(*arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(optuna.Study, "ask", count)
        for number in range(60):
            [point] = search.ask(1)
            told = [Told(number, [(float(point["n"]) - 6) ** 2 + (float(point["m"]) - 3) ** 2])]
            search.ends += told
            search.proposer.tell(told)
    assert asked < 70


def test_beside_what_a_sampler_repeats_the_nearest_new_configuration_is_taken(monkeypatch):
    class Stubborn(optuna.samplers.BaseSampler):
        infer_relative_search_space = sample_relative = lambda *_: {}

        def sample_independent(self, study, trial, name, distribution):
            return distribution.choices[1] if name == "o" else 5

    monkeypatch.setattr(proposing, "make_sampler", lambda *_, **__: Stubborn())
    search = History(NAMED["tpe"], ("n=1:20", "m=1:20", "o=sgd,adamw,lion", "x=0.0:9.0"))
    points = [search.ask(1)[0] for _ in range(30)]
    assert points[0] == {"n": 5, "m": 5, "o": "adamw", "x": 5.0}
    steps = [abs(p["n"] - 5) + abs(p["m"] - 5) + (p["o"] != "adamw") for p in points]
    # Six are one step away; all others are little farther.
    assert steps[1:4] == [1, 1, 1]
    assert max(steps) <= 6
    assert {p["o"] for p in points} == {"sgd", "adamw", "lion"}
    assert {p["x"] for p in points} == {5.0}


def test_after_many_trials_the_sampler_sees_the_best_ones_and_a_sample_of_the_others(monkeypatch):
    search = History(NAMED["tpe"])
    points = [
        search.space.from_unit([(i * a) % 1.0 for a in (0.618, 0.414, 0.732, 0.236, 0.65)])
        for i in range(900)
    ]
    search.configurations, search.known = points, [-1] * 900
    search.ends = [Told(number, [loss(points[number])]) for number in range(900)]
    seen = []
    sample = optuna.samplers.TPESampler.sample_relative

    def spy(self, study, trial, space):
        seen.extend(
            study._storage.get_all_trials(study._study_id, False, (optuna.trial.TrialState.COMPLETE,))
        )
        return sample(self, study, trial, space)

    monkeypatch.setattr(optuna.samplers.TPESampler, "sample_relative", spy)
    search.rebuilt().ask(900, 1)
    assert len(seen) == SHOWN
    best = sorted(end.outcome for end in search.ends)[:BEST]
    assert sorted(trial.values for trial in seen)[:BEST] == best


@pytest.mark.mpi
def test_check_counts_the_trials_to_come_and_predicts_their_time(folder, mpisweep: Run):
    valley(folder, trials=12)
    assert mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5").returncode == 0
    valley(folder, trials=1012)
    told = mpisweep("check", "s.toml", "-o", "r.h5", "-n", "2").stdout
    assert "13 of 1,013 trials have ended" in told
    # A thousand trials of about 20 ms on two workers.
    assert "with 2 workers about" in told


def test_a_rebuilt_search_sees_the_same_sample_although_the_sampler_repeated_itself(monkeypatch):
    monkeypatch.setattr(thinning, "BEST", 5)
    monkeypatch.setattr(thinning, "SHOWN", 20)
    # Of so few points the sampler repeats many, which a rebuilt study does not contain.
    search = History(NAMED["tpe"], ("x=1:12", "n=1:6"))
    for number in range(50):
        search.ask(1)
        search.end(number)
    assert search.rebuilt().ask(50, 6) == search.ask(6)
