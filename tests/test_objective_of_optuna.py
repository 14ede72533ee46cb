"""Objectives of Optuna run as they are, and the search over what they suggest is reproducible."""

from __future__ import annotations

import json
import re
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import optuna
import pytest
from test_reliability import ended, ranks_by_number, stderr_of
from test_run import start
from waiting import wait_for

import mpisweep as package
from mpisweep.master.best import BestSoFar
from mpisweep.records import Direction
from mpisweep.search.past import End, Past
from mpisweep.search.samplers import make_sampler
from mpisweep.search.suggesting import SuggestingProposer
from mpisweep.spec import SamplerChoice, Spec, SpecError, parse_spec
from mpisweep.spec.suggested import place_of_choice, seed_of, space_of, stored_choice
from mpisweep.spec.units import configuration_text, number_text
from mpisweep.workloads.objective import ObjectiveTrial, runner
from mpisweep.workloads.trial import Trial

Run = Callable[..., subprocess.CompletedProcess[str]]

HEAD = 'name = "s"\nworkload = "mine.py:objective"\nsearch = "tpe"\ntrials = 9\n'


def spec_of(text: str = "", head: str = HEAD) -> Spec:
    return parse_spec(head + text, source="s.toml", folder=Path())


class Asked:
    """A trial as its process makes it, and what it sent."""

    def __init__(self, number: int = 0, proposed: dict | None = None, spec: Spec | None = None) -> None:
        self.spec = spec or spec_of()
        self.is_stopped = self.is_hopeless = False
        self.sent: list[dict] = []
        self.trial = Trial(
            number,
            dict(proposed or {}),
            sweep_seed=self.spec.seed,
            device="cpu",
            cores=1,
            folder=Path(),
            send=self.sent.append,
            stop_asked=lambda: self.is_stopped,
            is_pruned=lambda: self.is_hopeless,
            objectives=[one.name for one in self.spec.objectives],
        )
        self.passed = ObjectiveTrial(self.trial, self.spec)

    def run(self, objective) -> object:
        return runner(objective, self.spec)(self.trial)


def test_the_best_so_far_has_the_parameters_that_its_trial_has_asked_for():
    best = BestSoFar(spec_of().objectives)
    best.note([0, 1, 2], [[2.0, 1.0, float("nan")]], [None, {"params": {"x": 1}}, {"params": {"x": 2}}])
    assert best.asked_for == {"x": 1}
    best.note([3], [[3.0]], [{"params": {"x": 3}}])
    assert best.asked_for == {"x": 1}, "another one is still the best"
    best.note([4], [[0.5]], [{"params": {"y": 4}}])
    assert (best.number, best.asked_for) == (4, {"y": 4})
    best.note([5], [[0.25]], [None])
    assert (best.number, best.asked_for) == (5, {})


# ------------------------------------------------------------------------------------- the trial


def test_a_proposed_value_is_taken_and_any_other_is_drawn_from_seed_number_and_name():
    proposed = {"x": 0.25, "n": 40, "kind": "b", "unused": 1.0}
    trial = Asked(3, proposed).passed
    assert trial.suggest_float("x", 0, 1) == 0.25
    # A value outside of what this trial asks for.
    n = trial.suggest_int("n", 1, 9)
    assert 1 <= n <= 9
    assert trial.suggest_categorical("kind", ["a", "b", None]) == "b"
    y = trial.suggest_float("y", 1e-5, 1e-1, log=True)
    again = Asked(3, {"x": 0.5}).passed
    # In another order, with other proposals: the next attempt, or another rank of the trial.
    assert again.suggest_float("y", 1e-5, 1e-1, log=True) == y
    assert again.suggest_int("n", 1, 9) == n
    others = {Asked(number).passed.suggest_float("y", 1e-5, 1e-1, log=True) for number in range(20)}
    assert len(others) == 20
    assert trial.params == {"x": 0.25, "n": n, "kind": "b", "y": y}
    assert trial.suggested["params"] == trial.params
    assert isinstance(trial, optuna.trial.BaseTrial)


def test_a_name_that_is_asked_for_again_keeps_its_value():
    trial = Asked().passed
    assert trial.suggest_float("x", 0, 1) == trial.suggest_float("x", 0, 1)
    with pytest.raises(ValueError, match="distribution kind"):
        trial.suggest_int("x", 0, 1)


def test_choices_of_any_type_come_back_as_they_are():
    choices = [None, True, 1.5, "text", (1, 2)]
    for choice in choices:
        with warnings.catch_warnings():
            # Optuna warns of choices that its storages cannot hold.
            warnings.simplefilter("ignore", UserWarning)
            trial = Asked(proposed={"c": stored_choice(choice)}).passed
            assert trial.suggest_categorical("c", choices) is choice
        json.dumps(trial.suggested)
    # As a column of several types is read back, and one of booleans of which some are absent.
    assert place_of_choice([1, "a", 2.5], "2.5") == 2
    assert place_of_choice([1, 2.5], 1.0) == 0
    assert place_of_choice([True, 1], 1) == 1
    assert place_of_choice(["a"], "b") is None


def test_choices_with_the_same_text_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="choose among names"):
        Asked().passed.suggest_categorical("c", [None, "None"])


def test_reports_are_those_of_optuna():
    asked = Asked()
    asked.passed.report(3, 0)
    with pytest.warns(UserWarning, match="reported before"):
        asked.passed.report(4, 0)
    asked.passed.report(2.5, 7)
    asked.trial.flush()
    curves = [(list(c.step), list(c.value)) for sent in asked.sent for c in sent.values()]
    assert [pair for steps, values in curves for pair in zip(steps, values, strict=True)] == [
        (0, 3),
        (7, 2.5),
    ]
    for wrong, error in (((1.0, -1), ValueError), (("x", 1), TypeError), ((1.0, "x"), TypeError)):
        with pytest.raises(error):
            asked.passed.report(*wrong)
    several = Asked(spec=spec_of('objective = ["a", "b"]\n'))
    with pytest.raises(NotImplementedError):
        several.passed.report(1.0, 0)


def pruning(trial):
    if trial.should_prune():
        raise optuna.TrialPruned
    return 1.0


def test_a_hopeless_trial_is_pruned_and_one_that_is_stopped_runs_again():
    hopeless = Asked()
    hopeless.is_hopeless = True
    assert hopeless.run(pruning) is None
    assert hopeless.trial.is_pruned
    stopped = Asked()
    stopped.is_stopped = True
    assert stopped.run(pruning) is None
    assert stopped.trial.told_to_stop
    assert not stopped.trial.is_pruned

    def own_decision(trial):
        raise optuna.TrialPruned

    own = Asked()
    own.run(own_decision)
    assert own.trial.is_pruned


def test_what_an_objective_returns_is_checked_as_optuna_does():
    assert Asked().run(lambda trial: 2) == 2.0
    two = spec_of('objective = ["a", "b"]\n')
    assert Asked(spec=two).run(lambda trial: (1, 2)) == [1.0, 2.0]
    for returned, spec in ((None, None), ("x", None), ((1.0, None), two)):
        with pytest.raises(TypeError, match="expected"):
            Asked(spec=spec).run(lambda trial, returned=returned: returned)
    with pytest.raises(ValueError, match="2 values"):
        Asked().run(lambda trial: (1.0, 2.0))


def test_user_attributes_are_what_json_holds():
    import numpy as np

    trial = Asked().passed
    trial.set_user_attr("scores", np.array([1.5, 2.0], dtype=np.float32))
    trial.set_user_attr("n", 3)
    assert trial.suggested["user_attrs"] == {"scores": [1.5, 2.0], "n": 3}
    with pytest.raises(TypeError, match="JSON cannot hold a set"):
        trial.set_user_attr("s", {1})


def test_the_study_is_named_and_what_it_does_not_know_is_refused():
    trial = Asked(spec=spec_of('direction = "maximize"\n')).passed
    assert trial.study.direction is optuna.study.StudyDirection.MAXIMIZE
    assert trial.study.study_name == "s"
    assert trial.number == 0
    assert not hasattr(trial.study, "best_trial")
    with pytest.raises(AttributeError, match=r"mpisweep\.load"):
        _ = trial.study.best_params
    with pytest.raises(AttributeError, match="not available"):
        _ = trial.storage
    with pytest.raises(NotImplementedError, match="constraint"):
        trial.set_constraint("c", 1.0)


# ------------------------------------------------------------------------------------- the sweep file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[fixed]\nepochs = 3\n", "fixed.epochs: has no effect on an objective of Optuna"),
        ("[baseline]\nx = 3\n", "baseline: needs the searched parameters"),
        ("repeats = 3\n", "repeats: needs the searched parameters"),
        ('import = ["a.csv"]\n', "import: needs the searched parameters"),
    ],
)
def test_keys_that_need_the_parameters_are_refused(text: str, said: str):
    with pytest.raises(SpecError, match=said):
        spec_of(text)


def test_a_number_of_trials_is_enough_for_a_search_that_learns():
    spec = spec_of(head=HEAD.replace('search = "tpe"\n', ""))
    assert (spec.search, spec.is_defined_by_run) == ("tpe", True)
    with pytest.raises(SpecError, match="trials: does not apply to a grid"):
        spec_of("[parameters]\nx = [1, 2]\n", HEAD.replace('search = "tpe"\n', ""))


def test_an_objective_of_optuna_in_a_grid_is_told_what_to_set():
    with pytest.raises(AttributeError, match=r"suggest_float.*objective of Optuna.*number of trials"):
        _ = Asked().trial.suggest_float
    with pytest.raises(AttributeError, match=r"no attribute 'loss'$"):
        _ = Asked().trial.loss


def test_a_search_that_does_not_learn_says_which_one_an_objective_needs():
    with pytest.raises(SpecError, match=r"objective of Optuna.*tpe"):
        spec_of(head=HEAD.replace("tpe", "random"))
    with pytest.raises(SpecError, match=r"at least one parameter$"):
        spec_of(head=HEAD.replace('"mine.py:objective"', '"resnet50"'))


def test_a_space_is_the_union_of_what_trials_asked_for():
    def asked(**names: optuna.distributions.BaseDistribution) -> dict:
        return {n: json.loads(optuna.distributions.distribution_to_json(d)) for n, d in names.items()}

    floats, integers = optuna.distributions.FloatDistribution, optuna.distributions.IntDistribution
    choices = optuna.distributions.CategoricalDistribution
    space = space_of(
        [
            asked(x=floats(0.1, 1, log=True), n=integers(2, 8, step=2), c=choices(["a", "b"])),
            asked(
                x=floats(0.5, 2, log=True), n=integers(1, 9), c=choices(["b", "c"]), y=floats(0, 1, step=0.5)
            ),
            {"x": {"name": "FloatDistribution"}, "z": {}},
        ]
    )
    assert [parameter.describe() for parameter in space.parameters] == [
        "numbers from 0.1 to 2 on a log scale",
        "integers from 1 to 9",
        "'a', 'b', 'c'",
        "3 numbers from 0 to 1",
    ]


# ------------------------------------------------------------------------------------- the search


def conditional(trial: optuna.trial.BaseTrial) -> float:
    """A branch, a range that depends on another value, choices of several types, and a late name."""
    x = trial.suggest_float("x", -5, 5)
    n = trial.suggest_int("n", 1, 20)
    kind = trial.suggest_categorical("kind", ["linear", "tree", None])
    loss = (x - 2) ** 2 + abs(n - 10) / 10
    if kind == "tree":
        loss += trial.suggest_int("depth", 1, n) / 10
    if trial.number > 12:
        loss += trial.suggest_float("late", 1e-4, 1.0, log=True)
    if trial.number % 7 == 3:
        raise optuna.TrialPruned
    return loss


class History:
    """A search over an objective and what happened in it, so that another process can continue."""

    def __init__(self, sampler: SamplerChoice) -> None:
        self.sampler = sampler
        self.proposed: list[dict] = []
        self.known: list[int] = []
        self.ends: list[End] = []
        self.search = self.rebuilt()

    def rebuilt(self, *, from_file: bool = False) -> SuggestingProposer:
        configurations = [dict(one) for one in self.proposed]
        for end in self.ends if from_file else ():
            if end.suggested is not None:
                # The columns of an ended trial hold what it has asked for.
                configurations[end.number] = dict(end.suggested["params"])
        past = Past(configurations, dict(enumerate(self.known)), list(self.ends))
        return SuggestingProposer(self.sampler, 7, [Direction.MINIMIZE], past)

    def ask(self, count: int) -> None:
        self.known += [self.search.ends] * count
        self.proposed += self.search.ask(len(self.proposed), count)

    def end(self, number: int, *, is_lost: bool = False) -> None:
        asked = Asked(number, self.proposed[number])
        returned = asked.run(conditional)
        suggested = {name: asked.trial.suggested[name] for name in ("params", "distributions")}
        if is_lost:
            end = End(number, None)
        elif asked.trial.is_pruned:
            end = End(number, [50.0], 4, suggested)
        else:
            end = End(number, [returned], -1, suggested)
        self.ends.append(end)
        self.search.tell([end])


@pytest.mark.parametrize(
    "sampler",
    [
        SamplerChoice("TPESampler", {"multivariate": True, "n_startup_trials": 4}),
        SamplerChoice("TPESampler", {"multivariate": True, "group": True, "constant_liar": True}),
        SamplerChoice("NSGAIISampler", {"population_size": 4}),
        SamplerChoice("CmaEsSampler", {"n_startup_trials": 2}),
        SamplerChoice("RandomSampler", {}),
    ],
    ids=lambda sampler: "-".join([sampler.name, *sampler.options]),
)
def test_another_process_proposes_what_the_first_one_would_have(sampler: SamplerChoice):
    history = History(sampler)
    running: list[int] = []
    for turn in range(12):
        first = len(history.proposed)
        history.ask(2)
        running += range(first, first + 2)
        # Out of the order of the numbers, and some stay running.
        for number in running[-3:-1] if turn % 3 else running[:1]:
            running.remove(number)
            history.end(number, is_lost=number == 8)
        if turn % 4 == 3:
            expected = history.rebuilt().ask(len(history.proposed), 3)
            assert history.rebuilt(from_file=True).ask(len(history.proposed), 3) == expected
            # The first one goes on last, because asking changes it.
            history.known += [history.search.ends] * 3
            assert history.search.ask(len(history.proposed), 3) == expected
            running += range(len(history.proposed), len(history.proposed) + 3)
            history.proposed += expected
    assert {"x", "n", "kind", "depth", "late"} <= history.proposed[-1].keys()


def test_a_name_that_changes_its_kind_is_left_out_of_the_later_trials():
    search = SuggestingProposer(SamplerChoice("TPESampler", {}), 0, [Direction.MINIMIZE], Past([], {}, []))
    kinds = [lambda trial: trial.suggest_float("x", 0, 1), lambda trial: trial.suggest_int("x", 2, 9)]
    for number, kind in enumerate(kinds):
        asked = Asked(number, search.ask(number, 1)[0])
        value = asked.run(lambda trial, kind=kind: kind(trial) + trial.suggest_float("y", 0, 1))
        search.tell([End(number, [value], -1, asked.trial.suggested)])
    assert [sorted(trial.params) for trial in search._study.trials] == [["x", "y"], ["y"]]
    assert 0 <= search.ask(2, 1)[0]["x"] <= 1


def test_it_proposes_what_optuna_itself_does():
    """One trial after another: the same as a study of Optuna with the same sampler."""

    def simple(trial: optuna.trial.BaseTrial) -> float:
        return (trial.suggest_float("x", -5, 5) - 1) ** 2 + trial.suggest_int("n", 1, 9)

    choice = SamplerChoice("TPESampler", {"n_startup_trials": 3, "multivariate": True})
    search = SuggestingProposer(choice, 0, [Direction.MINIMIZE], Past([], {}, []))
    study = optuna.create_study()
    for number in range(12):
        asked = Asked(number, search.ask(number, 1)[0])
        value = asked.run(simple)
        params = asked.trial.suggested["params"]
        search.tell([End(number, [value], -1, asked.trial.suggested)])
        if not number:
            # Drawn by the trial, because nothing was known.
            study.enqueue_trial(params)
        study.sampler = make_sampler(choice, seed=seed_of(0, f"{number}:0"))
        trial = study.ask()
        assert simple(trial) == value
        assert trial.params == params
        study.tell(trial, value)


# ------------------------------------------------------------------------------------- whole sweeps

OBJECTIVE = """
import os
import time
from pathlib import Path

import optuna


def objective(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", -5, 5)
    kind = trial.suggest_categorical("kind", ["plain", "deep", None])
    loss = (x - 2) ** 2
    if kind == "deep":
        loss += trial.suggest_int("depth", 1, 9) / 10
    trial.set_user_attr("ran", trial.number)
    with open("ran", "a") as file:
        print(trial.number, file=file)
    while not Path("go").exists() and trial.number >= 12:
        time.sleep(0.02)
    if trial.number == 5:
        raise ValueError("five")
    for step in range(4):
        trial.report(loss + 4 - step, step)
        if trial.should_prune() or trial.number == 6:
            raise optuna.TrialPruned
    return loss
"""


@pytest.mark.mpi
def test_an_objective_runs_unchanged_and_goes_on_after_its_ranks_are_killed(
    folder, mpisweep: Run, environment
):
    (folder / "mine.py").write_text(OBJECTIVE)
    command = ["run", "mine.py:objective", "--search", "tpe", "--prune", "median", "-n", "2"]
    run = start(folder, environment, *command, "--trials", "20")
    path = folder / "mine-objective.h5"
    wait_for(lambda: ended(path) >= 8)
    before = package.load(path)
    for process in ranks_by_number(run).values():
        process.kill()
    (folder / "go").touch()
    assert run.wait() == 0, stderr_of(folder)
    grown = mpisweep(*command, "--trials", "24")
    assert grown.returncode == 0, grown.stderr
    sweep = package.load(path)
    trials = sweep.trials
    assert [parameter.name for parameter in sweep.spec.space.parameters] == ["x", "kind", "depth"]
    ran = (folder / "ran").read_text().split()
    for number, row in enumerate(before.trials):
        if row["ended_at"] == row["ended_at"]:
            # What has ended stays, and does not run again.
            assert ran.count(str(number)) == 1
            assert sweep.searched(number) == before.searched(number)
    assert trials["state"][5] == "failed"
    assert trials["state"][6] == "pruned"
    assert set(trials["proposed_after"]) != {0}
    for number in range(24):
        found = sweep.searched(number)
        assert found.keys() == {"x", "kind", *(["depth"] if found["kind"] == "deep" else [])}
        if trials["state"][number] == "complete":
            assert trials["loss"][number] == pytest.approx(
                (found["x"] - 2) ** 2 + int(found.get("depth", 0)) / 10
            )
    with h5py.File(path) as file:
        assert sorted(file["suggested/trial"][()]) == list(range(24))
        assert json.loads(file["suggested/user_attrs"].asstr()[3])["ran"] == file["suggested/trial"][3]
    shown = mpisweep("top", path.name, "-k", "3").stdout
    assert "depth" in shown
    # The same values are suggested, and the same loss comes out.
    best = int(sweep.best()[0]["number"])
    # The line about progress names the parameters, also those of a best trial of an earlier run.
    last = re.findall(r"best loss (\S+) \((.*)\)", grown.stderr)[-1]
    assert last == (number_text(float(trials["loss"][best])), configuration_text(sweep.searched(best)))
    assert mpisweep("replay", path.name, str(best)).returncode == 0


def test_an_objective_cannot_be_split(folder, mpisweep: Run):
    (folder / "mine.py").write_text(OBJECTIVE)
    refused = mpisweep("run", "mine.py:objective", "--search", "tpe", "--trials", "4", "--split", "2")
    assert refused.returncode == 2
    assert "remove --split" in refused.stderr
