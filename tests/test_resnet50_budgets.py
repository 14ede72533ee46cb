"""Budgets and targets of ResNet50 trials: steps, samples, seconds; also after a resume."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import fastjsonschema
import pytest
import torch
from test_resnet50 import Gpu, Small, captured, gpu, small, trial  # noqa: F401  (fixtures)

from mpisweep.cli import main
from mpisweep.spec import SpecError, load_spec, parse_spec
from mpisweep.spec.catalogue import BUILTIN
from mpisweep.spec.preflight import check_startable
from mpisweep.spec.schema import schema
from mpisweep.spec.training import Target, contradiction, parse_target, planned_steps
from mpisweep.workloads.resnet50 import experiment, run
from mpisweep.workloads.resnet50.clock import GpuClock
from mpisweep.workloads.resnet50.history import History
from mpisweep.workloads.resnet50.train_time import TrainTime

RESNET50 = BUILTIN["resnet50"]


def options(**given) -> dict:
    return RESNET50.defaults_beside(given) | given


def curve_of(one, name: str) -> list[tuple[int, float]]:
    return [(step, metrics[name]) for step, metrics in one.reports if name in metrics]


# ------------------------------------------------------------------------------------- steps and samples


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 300),
        ({"num_samples": 1000, "batch_size": 300}, 4),
        ({"num_samples": 900, "batch_size": 300}, 3),
        ({"num_samples": 1000, "batch_size": 300, "num_iter": 2}, 2),
        ({"num_samples": 10**17 + 1, "batch_size": 1}, 10**17 + 1),
        ({"seconds": 5}, None),
        ({"seconds": 5, "num_iter": 7}, 7),
        ({"seconds": 5, "num_iter": 7, "ends_at": "last"}, None),
        ({"num_samples": 1000, "batch_size": 300, "num_iter": 2, "ends_at": "last"}, 4),
    ],
)
def test_budgets_are_rounded_up_to_whole_steps_and_replace_the_default_num_iter(given: dict, expected):
    assert planned_steps(options(**given)) == expected


@pytest.mark.usefixtures("small")
def test_a_budget_of_samples_is_used_in_whole_steps():
    one = trial(num_iter=0, num_samples=10, batch_size=4)
    metrics = run(one)
    assert len(one.losses) == 3
    assert (metrics["steps"], metrics["samples"]) == (3, 12)


# ------------------------------------------------------------------------------------- seconds


@pytest.fixture
def steps_of_10_ms(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> Gpu:  # noqa: F811
    """Make each step take 10 ms on a fake GPU's clock, and read losses in groups as on a GPU."""
    monkeypatch.setattr(experiment, "make_clock", lambda device: GpuClock())
    monkeypatch.setattr(experiment._Experiment, "_reads_each", False)
    monkeypatch.setattr(experiment, "READ_EVERY_S", 1e9)
    gpu.each_ms = 10.0
    return gpu


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("warmup", "expected"), [(0, 26), (1, 26), (5, 26)])
def test_a_budget_of_seconds_ends_the_trial_with_the_step_that_uses_it_up(
    steps_of_10_ms: Gpu, warmup: int, expected: int
):
    one = trial(num_iter=0, seconds=0.255, warmup_iter=warmup)
    metrics = run(one)
    assert len(one.losses) == expected, "although up to 20 steps are read together"
    assert metrics["train_time"] == pytest.approx(0.26)
    assert curve_of(one, "train_time")[-1] == (expected - 1, metrics["train_time"])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("bounds", "steps"),
    [
        ({"num_iter": 4, "num_samples": 48, "seconds": 0.255}, {"steps": 4, "samples": 12, "seconds": 26}),
        ({"num_iter": 30, "num_samples": 48, "seconds": 0.055}, {"steps": 30, "samples": 12, "seconds": 6}),
        ({"num_iter": 7, "num_samples": 9}, {"steps": 7, "samples": 3}),
    ],
)
def test_a_trial_that_ends_at_its_last_bound_has_the_losses_at_each(
    steps_of_10_ms: Gpu, bounds: dict, steps: dict
):
    one = trial(**bounds, ends_at="last", batch_size=4, data="digits", val_every=0, until="loss_mean = 99")
    metrics = run(one)
    assert metrics["steps"] == max(steps.values())
    expected = 10 if metrics["steps"] >= 10 else pytest.approx(float("nan"), nan_ok=True)
    assert metrics["steps_to_target"] == expected, "the target is noted and does not end the trial"
    validated = dict(curve_of(one, "val_loss"))
    assert sorted(validated) == sorted({step - 1 for step in steps.values()}), "once at each bound"
    for axis, step in steps.items():
        tail = one.losses[:step][-max(1, step // 10) :]
        assert metrics[f"loss_mean_at_{axis}"] == pytest.approx(sum(tail) / len(tail))
        assert metrics[f"val_loss_at_{axis}"] == validated[step - 1]
    assert not {f"val_loss_at_{axis}" for axis in {"steps", "samples", "seconds"} - set(steps)} & set(metrics)


@pytest.mark.usefixtures("small")
def test_a_trial_that_was_stopped_at_a_bound_validates_there(tmp_path: Path):
    def attempt(stop_after: int):
        one = trial(num_iter=6, num_samples=48, ends_at="last", batch_size=4, val_every=0)
        one.has_directory, one.directory, one.stop_after = True, tmp_path, stop_after
        return one, run(one)

    first, stopped = attempt(6)
    assert stopped == {}
    assert len(first.losses) == 6
    again, metrics = attempt(10**9)
    assert metrics["val_loss_at_steps"] == dict(curve_of(again, "val_loss"))[5]
    assert metrics["val_loss_at_samples"] == dict(curve_of(again, "val_loss"))[11]


def test_a_schedule_does_not_fit_several_budgets():
    given = {"ends_at": "last", "num_iter": 5, "num_samples": 50, "lr_schedule": "cosine"}
    found = contradiction(options(**given))
    assert found is not None
    assert found[0] == "lr_schedule"


@pytest.mark.usefixtures("small")
def test_the_bound_that_is_reached_first_ends_the_trial(steps_of_10_ms: Gpu):
    by_steps, by_seconds = (trial(num_iter=n, seconds=0.055) for n in (4, 40))
    assert (run(by_steps)["steps"], run(by_seconds)["steps"]) == (4, 6)


@pytest.mark.usefixtures("small")
def test_seconds_used_before_a_stop_count_after_it(steps_of_10_ms: Gpu, tmp_path: Path):
    def attempt(stop_after: int):
        one = trial(num_iter=0, seconds=0.095, warmup_iter=2)
        one.has_directory, one.directory, one.stop_after = True, tmp_path, stop_after
        return one, run(one)

    first, stopped = attempt(5)
    assert stopped == {}
    assert 5 <= len(first.losses) < 10
    again, metrics = attempt(10**9)
    assert len(again.losses) == 10
    assert metrics["train_time"] == pytest.approx(0.1)


@pytest.mark.usefixtures("small")
def test_a_trial_that_was_stopped_with_its_budget_used_up_ends_without_another_step(tmp_path: Path):
    """A GPU's times are read after the stop, and may show only then that the budget is used up."""
    cut = trial(num_iter=5)
    cut.has_directory, cut.directory, cut.stop_after = True, tmp_path, 3
    assert run(cut) == {}
    shorter = trial(num_iter=3, val_every=0)
    saved = tmp_path / "checkpoint.pt"
    state = torch.load(saved, weights_only=True)
    state["belongs_to"]["params"] = shorter.params
    torch.save(state, saved)
    shorter.has_directory, shorter.directory = True, tmp_path
    metrics = run(shorter)
    assert shorter.losses == cut.losses
    assert metrics["steps"] == 3
    assert metrics["val_loss"] > 0


@pytest.mark.usefixtures("small")
def test_a_stop_after_the_last_step_leaves_it_complete(tmp_path: Path):
    one = trial(num_iter=3)
    one.has_directory, one.directory, one.stop_after = True, tmp_path, 3
    assert run(one)["steps"] == 3


def test_compiling_in_the_first_step_uses_up_no_seconds():
    time = TrainTime()
    seen = []
    for number, seconds in enumerate([24.0, 0.3, 0.2, 0.1, 0.1, 0.3]):
        time.add(seconds, is_warm=number < 3)
        seen.append(time.until_now)
    # Estimates: no time for one warm-up step, the fastest so far, then the median of the steady steps.
    assert seen == pytest.approx([0.0, 0.6, 0.6, 0.4, 0.5, 0.8])
    assert [time.after(n) for n in range(3)] == pytest.approx([0.1, 0.2, 0.3])


def test_time_does_not_run_backwards():
    time = TrainTime()
    seen = []
    for number, seconds in enumerate([9.0, 9.0, 9.0, 2.0, 0.1, 0.1, 0.1]):
        time.add(seconds, is_warm=number < 3)
        seen.append(time.until_now)
    assert seen[3:] == sorted(seen[3:])


# ------------------------------------------------------------------------------------- targets


def judged(target: Target, losses: list[float], seconds: float = 1.0) -> History:
    history = History(trial(), batch_size=8, warmup=0, target=target)
    history.begin_attempt()
    history.add([seconds] * len(losses), [(loss, 1 - loss) for loss in losses])
    return history


def test_a_target_is_judged_over_the_last_tenth_of_the_steps_and_at_least_ten():
    lucky = judged(Target("loss_mean", 0.5), [0.0, *[2.0] * 30])
    assert not lucky.has_reached_target
    # The mean of ten steps is 0.5 when six of them are 0 and four are 1.25.
    falls = judged(Target("loss_mean", 0.5), [1.25] * 20 + [0.0] * 6)
    assert falls.has_reached_target
    assert not judged(Target("loss_mean", 0.5), [1.25] * 20 + [0.0] * 5).has_reached_target
    # After 200 steps the window is 20 steps.
    assert not judged(Target("loss_mean", 0.5), [1.25] * 200 + [0.0] * 10).has_reached_target
    assert judged(Target("loss_mean", 0.5), [1.25] * 200 + [0.0] * 13).has_reached_target
    assert judged(Target("accuracy", 0.5), [1.0] * 20 + [0.0] * 5).has_reached_target


def test_steps_samples_and_seconds_to_the_target_are_those_of_its_step():
    reached = judged(Target("loss_mean", 0.5), [1.25] * 20 + [0.0] * 9, seconds=0.5)
    metrics = reached.metrics(real_labels=True)
    assert (metrics["reached_target"], metrics["steps_to_target"]) == (1, 26)
    assert (metrics["samples_to_target"], metrics["seconds_to_target"]) == (26 * 8, 13.0)
    assert metrics["steps"] == 29, "steps that were read together"
    missed = judged(Target("loss_mean", 0.5), [1.25] * 20).metrics(real_labels=True)
    assert missed["reached_target"] == 0
    assert all(math.isnan(missed[f"{name}_to_target"]) for name in ("steps", "samples", "seconds"))
    assert not any(name.endswith("target") for name in history_without_target().metrics(real_labels=True))


def history_without_target() -> History:
    history = History(trial(), batch_size=8, warmup=0)
    history.begin_attempt()
    history.add([1.0], [(0.0, 1.0)])
    return history


def test_a_training_that_diverged_reaches_no_target():
    diverged = judged(Target("loss_mean", 0.5), [2.0] * 20 + [math.nan] + [0.0] * 20)
    assert not diverged.has_reached_target


@pytest.mark.usefixtures("small")
def test_a_trial_ends_at_its_target_and_a_resumed_one_at_the_same_step(tmp_path: Path):
    asked = {"num_iter": 200, "batch_size": 16, "learning_rate": 0.05, "until": "loss_mean <= 2.3125"}
    whole = trial(**asked)
    metrics = run(whole)
    assert 10 <= metrics["steps"] < 200
    assert metrics["reached_target"] == 1
    assert metrics["steps_to_target"] == metrics["steps"] == len(whole.losses)
    last = whole.losses[-max(10, len(whole.losses) // 10) :]
    assert sum(last) / len(last) <= 2.3125
    cut = trial(**asked)
    cut.has_directory, cut.directory, cut.stop_after = True, tmp_path, len(whole.losses) - 2
    assert run(cut) == {}
    again = trial(**asked)
    again.has_directory, again.directory = True, tmp_path
    assert run(again)["steps_to_target"] == metrics["steps_to_target"]
    assert again.losses == whole.losses


@pytest.mark.usefixtures("small")
def test_a_target_of_held_out_images_is_judged_at_each_validation():
    one = trial(num_iter=9, val_every=2, until="val_loss = 100")
    metrics = run(one)
    assert (metrics["steps"], metrics["steps_to_target"], metrics["samples_to_target"]) == (2, 2, 4)
    assert [step for step, _ in curve_of(one, "val_loss")] == [1]


@pytest.mark.usefixtures("small")
def test_a_validation_that_a_stop_prevented_runs_after_the_resume(tmp_path: Path):
    whole, cut, again = (trial(num_iter=6, val_every=2) for _ in range(3))
    run(whole)
    for one, stop_after in ((cut, 2), (again, 10**9)):
        one.has_directory, one.directory, one.stop_after = True, tmp_path, stop_after
    assert run(cut) == {}
    assert curve_of(cut, "val_loss") == []
    run(again)
    assert curve_of(again, "val_loss") == curve_of(whole, "val_loss")


# ------------------------------------------------------------------------------------- the sweep file

HEAD = "workload = 'resnet50'\nobjective = 'steps_to_target'\n[parameters]\nbatch_size = [16, 32]\n[fixed]\n"


@pytest.mark.parametrize("written", ["{ loss_mean = 0.5 }", "'loss_mean = 0.5'"])
def test_a_target_is_a_table_or_a_string(tmp_path: Path, written: str):
    spec = parse_spec(f"{HEAD}until = {written}\n", source="s.toml", folder=tmp_path)
    assert spec.fixed["until"] == "loss_mean = 0.5"
    assert parse_target(str(spec.fixed["until"])) == Target("loss_mean", 0.5)
    recorded = parse_spec(spec.text, source="s.h5", folder=tmp_path, is_recorded=True)
    assert spec.differences(recorded) == []
    check_startable(spec)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("until = { loss_men = 0.5 }", "fixed.until: is 'loss_men = 0.5'; 'loss_men' cannot be a target; did "
         "you mean 'loss_mean'?"),
        ("until = { loss = 0.5 }", "fixed.until: is 'loss = 0.5'; 'loss' cannot be a target; did you mean"),
        ("until = { loss_mean = 0.5, accuracy = 0.9 }", "fixed.until: is {'loss_mean': 0.5, 'accuracy': 0.9}; "
         "expected a metric and its value, such as { loss_mean = 0.5 }"),
        ("until = 'loss_mean >= 0.5'", "fixed.until: is 'loss_mean >= 0.5'; a smaller loss_mean is better, so "
         "expected <="),
        ("until = 'val_accuracy <= 0.5'", "a larger val_accuracy is better, so expected >="),
        ("until = 0.5", "fixed.until: is 0.5; expected a metric and its value"),
        ("until = { loss_mean = inf }", "fixed.until: is 'loss_mean = inf'; expected a metric and its value"),
        ("image_size = { loss_mean = 0.5 }", "fixed.image_size: is {'loss_mean': 0.5}; expected one number"),
        ("num_samples = -1", "fixed.num_samples: is -1; expected an integer of at least 0"),
    ],
)  # fmt: skip
def test_an_invalid_target_is_refused(tmp_path: Path, line: str, message: str):
    with pytest.raises(SpecError) as caught:
        parse_spec(f"{HEAD}{line}\n", source="s.toml", folder=tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("num_iter = 0", "fixed.num_iter: is 0, as are num_samples and seconds; a trial needs one of them"),
        ("num_samples = 0", "fixed.num_iter: is 0, as are num_samples and seconds"),
        ("seconds = 9\nlr_schedule = 'cosine'", "fixed.lr_schedule: is 'cosine', which needs a number of steps"),
        ("data = 'digits'\nuntil = { val_loss = 1 }", "fixed.until: needs val_loss during the training; set val"),
        ("data = 'digits'\nval_every = 0\nuntil = { val_loss = 1 }", "fixed.until: needs val_loss during"),
        ("until = { accuracy = 0.9 }", "fixed.until: needs accuracy, which synthetic images do not have"),
        ("val_every = 5", "fixed.val_every: needs real data"),
        ("data = 'imagefolder'\ndata_root = '.'\nval_every = 0", "fixed.val_root: is missing; val_every needs"),
        ("data = 'imagefolder'\ndata_root = '.'\nval_every = 0\nval_root = 'no'",
         "fixed.val_root: folder {folder}/no does not exist"),
    ],
)  # fmt: skip
def test_contradicting_options_are_refused_before_any_trial_runs(tmp_path: Path, lines: str, message: str):
    (tmp_path / "s.toml").write_text(f"{HEAD}{lines}\n", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        check_startable(load_spec(tmp_path / "s.toml"))
    assert message.format(folder=tmp_path) in str(caught.value)


def test_a_searched_option_that_contradicts_a_fixed_one_is_refused(tmp_path: Path):
    text = HEAD.replace("[fixed]", "lr_schedule = ['constant', 'cosine']\n[fixed]") + "seconds = 9\n"
    with pytest.raises(
        SpecError, match=r"parameters\.lr_schedule: is 'cosine', which needs a number of steps"
    ):
        check_startable(parse_spec(text, source="s.toml", folder=tmp_path))
    with_steps = parse_spec(text + "num_iter = 9\n", source="s.toml", folder=tmp_path)
    check_startable(with_steps)


def test_the_trial_refuses_options_that_no_check_has_seen():
    with pytest.raises(ValueError, match="num_iter is 0, as are num_samples and seconds"):
        run(trial(num_iter=0))


def test_check_warns_that_a_metric_of_a_target_needs_until(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "s.toml").write_text(HEAD, encoding="utf-8")
    assert main(["check", str(tmp_path / "s.toml"), "-n", "1"]) == 0
    assert "steps_to_target is only measured with until" in capsys.readouterr().out


def test_the_schema_for_editors_accepts_a_table_where_the_parser_does():
    accepts = fastjsonschema.compile(schema())

    def check(line: str) -> None:
        accepts(tomllib.loads(f"{HEAD}{line}\n"))

    check("until = { loss_mean = 0.5 }")
    check("until = 'loss_mean <= 0.5'")
    for line in (
        "until = 5",
        "until = { loss_mean = 'x' }",
        "until = { a = 1, b = 2 }",
        "image_size = { a = 1 }",
    ):
        with pytest.raises(fastjsonschema.JsonSchemaException):
            check(line)
