"""``mpisweep init``: what it writes for scripts, functions and programs passes check and runs."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for

import mpisweep as package
from mpisweep.cli import main
from mpisweep.drafting.flags import Flag, flags_in_help, flags_in_source
from mpisweep.drafting.guessing import domain_of, is_setting, objective_of
from mpisweep.drafting.objectives import objectives_in
from mpisweep.drafting.prints import metrics_in_binary, metrics_in_source
from mpisweep.spec.commandline import parse_pattern

TORCH = '''
"""Train a small network."""
import argparse

import torch
from torch import nn

EPOCHS = 3
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=1e-3, help="learning rate")
parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images per step")
parser.add_argument("-w", "--weight-decay", type=float, default=0.0)
parser.add_argument("--optimizer", choices=["sgd", "adamw"], default="adamw")
parser.add_argument("--epochs", type=int, default=EPOCHS)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--data", required=True)
parser.add_argument("--amp", action="store_true")


def main():
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    model = nn.Linear(4, 1)
    kind = torch.optim.SGD if args.optimizer == "sgd" else torch.optim.AdamW
    optimizer = kind(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    x = torch.randn(args.batch_size, 4)
    print("Using device", x.device)
    for epoch in range(args.epochs):
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"Epoch {epoch}: loss {loss.item():.4f}, val loss: {loss.item() + 1:.4f}")


main()
'''

CLICK = """
import click


@click.command()
@click.option("--width", default=64, show_default=True, help="hidden units")
@click.option("--dropout", type=click.FloatRange(0, 0.4), default=0.1)
@click.option("--solver", type=click.Choice(["lbfgs", "adam"]), default="adam")
@click.option("--verbose/--quiet", default=False)
@click.argument("dataset")
def main(width, dropout, solver, verbose, dataset):
    click.echo("test error: %.3f" % (dropout / width))


main()
"""

HEAT_C = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    double dt = 0.01;
    int cells = 32;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help")) {
            puts("usage: heat [options]\n"
                 "  -n, --cells N          number of cells (default 32)\n"
                 "  --dt DT                time step, in s\n"
                 "                         (default: 0.01)\n"
                 "  --scheme {euler,heun}  integrator [default: euler]\n"
                 "  --quiet                print less");
            return 0;
        }
        if (!strncmp(argv[i], "--dt=", 5)) dt = atof(argv[i] + 5);
        if (!strncmp(argv[i], "--cells=", 8)) cells = atoi(argv[i] + 8);
    }
    for (int step = 0; step < 5; step++) printf("step %d residual = %.6e\n", step, dt / (step + cells));
    printf("wall time: %g s\n", 0.1);
    return 0;
}
"""

MODEL = """
def helper(x):
    return x


def train(trial):
    p = trial.params
    lr, width = p["learning_rate"], trial.params["width"]
    for step in range(3):
        trial.report(step, loss=lr * width)
    return {"val_loss": lr * width, "accuracy": p.get("dropout", 0.1)}
"""

Init = Callable[..., dict[str, Any]]


@pytest.fixture
def init(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Init:
    """Run ``mpisweep init`` in the folder, check the file, and return its content."""
    monkeypatch.chdir(folder)

    def run(target: str, output: str = "sweep.toml") -> dict[str, Any]:
        assert main(["init", target, "-o", output]) == 0, capsys.readouterr().err
        assert main(["check", output]) == 0, capsys.readouterr().err
        capsys.readouterr()
        return tomllib.loads(Path(output).read_text())

    return run


def test_a_pytorch_script(folder: Path, init: Init):
    (folder / "train.py").write_text(TORCH)
    made = init("train.py")
    assert made["workload"]["command"] == (
        "python train.py --lr={lr} --batch-size={batch_size} --weight-decay={weight_decay} "
        "--optimizer={optimizer} --data={data}"
    )
    assert made["parameters"] == {
        "lr": {"from": 1e-4, "to": 1e-2, "scale": "log"},
        "batch_size": {"from": 16, "to": 256, "scale": "log"},
        "weight_decay": {"from": 0.0, "to": 0.01},
        "optimizer": ["sgd", "adamw"],
    }
    assert made["baseline"] == {"lr": 1e-3, "batch_size": 64, "weight_decay": 0.0, "optimizer": "adamw"}
    assert made["fixed"] == {"data": "FILL-IN"}
    assert (made["objective"], made["direction"]) == ("val_loss", "minimize")
    text = (folder / "sweep.toml").read_text()
    assert "#   epochs = { from = 1, to = 12 }  default 3\n" in text
    assert "#   --amp is a switch, which takes no value\n" in text
    assert max(map(len, text.splitlines())) < 200


def test_the_drafted_sweep_of_a_pytorch_script_runs_and_finds_its_metrics(
    folder: Path, init: Init, mpisweep: Any
):
    (folder / "train.py").write_text(TORCH)
    init("train.py")
    path = folder / "sweep.toml"
    path.write_text(path.read_text().replace("trials    = 20", "trials    = 1"))
    done = mpisweep("run", "sweep.toml", "-n", "1", "-q")
    assert done.returncode == 0, done.stderr
    found = package.load(folder / "train.h5")
    assert set(found.metrics) == {"loss", "val_loss"}
    curve = found.curve(0, "loss")
    assert curve.step.tolist() == [0, 1, 2]
    # Each pattern reads its own number of the line.
    assert found.curve(0, "val_loss").value == pytest.approx(curve.value + 1, abs=2e-4)


def test_a_click_script(folder: Path, init: Init):
    (folder / "fit.py").write_text(CLICK)
    made = init("fit.py")
    assert made["workload"]["command"] == (
        "python fit.py --width={width} --dropout={dropout} --solver={solver} {dataset}"
    )
    assert made["parameters"] == {
        "width": {"from": 16, "to": 256, "scale": "log"},
        "dropout": {"from": 0.0, "to": 0.4},
        "solver": ["lbfgs", "adam"],
    }
    assert made["fixed"] == {"dataset": "FILL-IN"}
    assert (made["objective"], made["metrics"]) == ("test_error", {"test_error": r"\btest\s+error"})


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler")
def test_a_c_program_from_its_help_and_its_format_strings(folder: Path, init: Init, mpisweep: Any):
    (folder / "heat.c").write_text(HEAT_C)
    subprocess.run(["gcc", "-O1", "heat.c", "-o", "heat"], cwd=folder, check=True)
    made = init("./heat")
    assert made["workload"] == {"command": "./heat --cells={cells} --dt={dt} --scheme={scheme}"}
    assert made["parameters"] == {
        "cells": {"from": 8, "to": 128, "scale": "log"},
        "dt": {"from": 0.001, "to": 0.1, "scale": "log"},
        "scheme": ["euler", "heun"],
    }
    assert made["objective"] == "residual"
    path = folder / "sweep.toml"
    path.write_text(path.read_text().replace("trials    = 20", "trials    = 2"))
    assert mpisweep("run", "sweep.toml", "-n", "1", "-q").returncode == 0
    found = package.load(folder / "heat.h5")
    assert set(found.metrics) == {"residual", "wall_time"}
    assert found.curve(0, "residual").step.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.skipif(shutil.which("gfortran") is None, reason="there is no Fortran compiler")
def test_a_fortran_program(folder: Path, init: Init):
    source = "program flow\n  real :: r = 0.5\n  print *, 'residual =', r\nend program\n"
    (folder / "flow.f90").write_text(source)
    subprocess.run(["gfortran", "flow.f90", "-o", "flow"], cwd=folder, check=True)
    made = init("./flow")
    assert made["metrics"] == {"residual": r"\bresidual"}
    assert made["parameters"] == {"x": [1, 2, 3]}


def test_a_function_and_a_module(folder: Path, init: Init):
    (folder / "model.py").write_text(MODEL)
    made = init("model.py")
    assert made["workload"] == "model:train"
    assert made["parameters"] == {
        "learning_rate": {"from": 1e-4, "to": 0.1, "scale": "log"},
        "width": {"from": 16, "to": 512, "scale": "log"},
        "dropout": {"from": 0.0, "to": 0.5},
    }
    assert made["objective"] == "val_loss"
    assert init("model:train", "other.toml") == made


STUDY = """
import argparse
import optuna


def layers(model, trial):
    return [trial.suggest_int(f"units_{i}", 1, 9) for i in range(trial.suggest_int("depth", 1, 3))]


def noise(trial):
    return trial.suggest_float("noise", 0, 1)


def objective(trial, data=None):
    def unused():
        return secret

    error = trial.suggest_float("rate", 1e-5, 1e-1, log=True) + sum(layers(None, trial)) + noise(trial)
    for step in range(3):
        trial.report(error + 1 - step, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return error


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--n-trials", type=int, default=9)
    sampler = optuna.samplers.CmaEsSampler(seed=1)
    study = optuna.create_study(sampler=sampler, pruner=optuna.pruners.HyperbandPruner(min_resource=1))
    study.optimize(objective, n_trials=8)
"""


def test_an_objective_of_optuna(folder: Path, init: Init, mpisweep: Any):
    (folder / "study.py").write_text(STUDY)
    made = init("study.py")
    assert made == {
        "name": "study", "workload": "study:objective", "objective": "error", "direction": "minimize",
        "search": "tpe", "trials": 8, "prune": "hyperband", "limits": {},
    }  # fmt: skip
    text = " ".join(Path("sweep.toml").read_text().replace("\n#", "").split())
    assert "asks for rate, units_{i}, depth, noise." in text
    assert "The study has CmaEsSampler(seed=1);" in text
    assert "The study has HyperbandPruner(min_resource=1)." in text
    assert init("study:objective", "second.toml") == init("study.py:objective", "third.toml") == made
    assert init("study:noise", "noise.toml")["workload"] == "study:noise"
    done = mpisweep("run", "sweep.toml", "-n", "1")
    assert done.returncode == 0, done.stderr
    sweep = package.load("study.h5")
    assert set(sweep.trials["state"].tolist()) <= {"complete", "pruned"}
    assert len(sweep.trials) == 8
    assert {"rate", "depth", "noise", "units_0"} <= set(sweep.parameters)


@pytest.mark.parametrize(
    ("study", "returned", "found"),
    [
        ("study = create_study(direction='maximize')", "acc", (("acc",), ("maximize",))),
        ("study = optuna.create_study()", "acc", (("acc",), ("minimize",))),
        ("create_study(directions=['minimize', optuna.study.StudyDirection.MAXIMIZE])", "a, b",
         (("a", "b"), ("minimize", "maximize"))),
        ("create_study(directions=['minimize', 'maximize'])", "f(x)",
         (("value_0", "value_1"), ("minimize", "maximize"))),
        ("create_study(directions=DIRECTIONS)", "a, b", (("a", "b"), ())),
        ("", "x", (("value",), ())),
        ("", "score(model)", (("value",), ())),
    ],
)  # fmt: skip
def test_an_objective_has_the_names_of_what_it_returns_and_the_directions_of_its_study(
    study, returned, found
):
    source = f"def f(t):\n    x = t.suggest_float('x', 0, 1)\n    return {returned}\n{study}\n"
    [objective] = objectives_in(ast.parse(source))
    assert (objective.returns, objective.directions) == found


def test_functions_that_take_no_trial_alone_are_no_objectives():
    source = (
        "def two(trial, data):\n    return trial.suggest_int('n', 1, 2)\n"
        "def keyword(trial, *, data):\n    return trial.suggest_int('n', 1, 2)\n"
        "def params(trial):\n    return trial.params['n']\n"
        "def other(model):\n    return suggest_int('n', 1, 2)\n"
    )
    assert objectives_in(ast.parse(source)) == []


def test_the_built_in_workload_and_no_script_at_all(
    folder: Path, init: Init, capsys: pytest.CaptureFixture[str]
):
    made = init("resnet50")
    assert made["workload"] == "resnet50"
    Path("sweep.toml").unlink()
    assert main(["init"]) == 0
    assert tomllib.loads(Path("sweep.toml").read_text()) == made


def test_a_script_without_options_gets_a_placeholder(folder: Path, init: Init):
    (folder / "my script.py").write_text("print('accuracy', 0.5)\n")
    made = init("my script.py")
    assert made["workload"]["command"] == ["python", "my script.py", "{x}"]
    assert (made["name"], made["parameters"]) == ("my-script", {"x": [1, 2, 3]})
    assert (made["objective"], made["direction"]) == ("accuracy", "maximize")


def test_a_script_that_may_not_know_help_is_not_started(folder: Path, init: Init):
    (folder / "train.py").write_text("import pathlib\npathlib.Path(__file__).with_name('started').touch()\n")
    init("train.py")
    assert not (folder / "started").exists()


def test_a_script_whose_options_are_not_in_its_text_is_asked_for_its_help(folder: Path, init: Init):
    (folder / "train.py").write_text(
        "import argparse\np = argparse.ArgumentParser()\nadd = p.add_argument\n"
        "add('--lr', type=float, default=0.1, help='step size (default: %(default)s)')\np.parse_args()\n"
    )
    made = init("train.py")
    assert made["parameters"] == {"lr": {"from": 0.01, "to": 1.0, "scale": "log"}}


def test_a_program_that_does_not_answer_is_killed_with_all_it_started(
    folder: Path, init: Init, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mpisweep.drafting.looking._HELP_S", 0.5)
    script = folder / "slow"
    script.write_text('#!/bin/sh\nsleep 1000 &\necho $! > "$(dirname "$0")/pid"\nwait\n')
    script.chmod(0o755)
    made = init("./slow")
    assert made["parameters"] == {"x": [1, 2, 3]}
    child = int((folder / "pid").read_text())
    stat = Path(f"/proc/{child}/stat")
    wait_for(lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.parametrize(("target", "sentence"), [
    ("trian.py", "trian.py: no such script or program; did you mean 'train.py'?"),
    ("nothing.at.all", "nothing.at.all: no such script or program; expected a Python script, a program or module:function"),
    ("heat.f90", "heat.f90: is source code; compile it, and give the program"),
    ("data.txt", "data.txt: is not executable; expected a Python script or a program"),
    ("model:trian", "model.py: has no function 'trian' of one argument; did you mean 'train'?"),
    ("broken.py", "broken.py:1: is not Python: invalid syntax"),
    (".", ".: is a folder; expected a script, a program or module:function"),
])  # fmt: skip
def test_what_cannot_be_drafted_is_refused_in_one_sentence(
    target: str,
    sentence: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(folder)
    (folder / "model.py").write_text(MODEL)
    for name in ("train.py", "heat.f90", "data.txt"):
        (folder / name).write_text("print(1)\n")
    (folder / "broken.py").write_text("a b\n")
    assert main(["init", target]) == 2
    assert capsys.readouterr().err == f"mpisweep: {sentence}\n"
    assert not (folder / "sweep.toml").exists()


def test_nothing_is_overwritten(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(folder)
    (folder / "sweep.toml").write_text("mine")
    assert main(["init"]) == 2
    assert (
        capsys.readouterr().err == "mpisweep: sweep.toml: exists; set -o to another file, or move it aside\n"
    )
    assert (folder / "sweep.toml").read_text() == "mine"


def test_a_sweep_file_elsewhere_finds_the_script(folder: Path, init: Init):
    (folder / "train.py").write_text(TORCH)
    (folder / "sweeps").mkdir()
    made = init("train.py", "sweeps/a.toml")
    assert made["workload"]["command"].startswith("python ../train.py --lr={lr}")


# ------------------------------------------------------------------------------------------ the parts


def test_options_in_the_help_of_other_programs():
    text = """
Usage: solve [OPTIONS]

  --tol FLOAT            Tolerance.  [default: 1e-6]
  --size INTEGER RANGE   Size.  [default: 100; x>=1]
  -m, --method [cg|gmres]
                         Method (default is cg)
  -k N                   restarts
  --help                 Show this message and exit.
"""
    found = {flag.name: flag for flag in flags_in_help(text)}
    assert set(found) == {"tol", "size", "method", "k"}
    assert (found["tol"].kind, found["tol"].default) == ("number", 1e-6)
    assert (found["size"].kind, found["size"].default) == ("integer", 100)
    assert (found["method"].choices, found["method"].default) == (("cg", "gmres"), "cg")
    assert (found["k"].kind, found["k"].placed) == ("integer", ("-k", "{k}"))


def test_options_that_no_single_word_can_pass_are_not_varied():
    source = (
        "p.add_argument('--sizes', type=int, nargs='+', default=[1])\np.add_argument('--n', action='count')\n"
    )
    assert [flag.kind for flag in flags_in_source(ast.parse(source))] == ["switch", "switch"]


@pytest.mark.parametrize(("flag", "domain"), [
    (Flag("n", "--n", "integer", 4), "{ from = 1, to = 16 }"),
    (Flag("n", "--n", "integer", 1000), '{ from = 250, to = 4000, scale = "log" }'),
    (Flag("a", "--a", "number", -2.0), "{ from = -8.0, to = -0.5 }"),
    (Flag("a", "--a", "number", 0.0), "{ from = 0.0, to = 1.0 }"),
    (Flag("momentum", "--momentum", "number", 0.9), "{ from = 0.8, to = 0.99 }"),
    (Flag("n", "--n", "integer", 1, low=1, high=1), "{ from = 1, to = 2 }"),
    (Flag("a", "--a", "number"), "{ from = 1.0, to = 10.0 }"),
])  # fmt: skip
def test_ranges_reach_around_the_default(flag: Flag, domain: str):
    found = domain_of(flag)
    assert found is not None
    assert found.text == domain


def test_settings_of_a_program_are_no_parameters():
    names = [
        "epochs",
        "seed",
        "num_workers",
        "log_interval",
        "device",
        "data_dir",
        "batch_size",
        "lr",
        "time_step",
    ]
    assert [name for name in names if is_setting(Flag(name, f"--{name}", "integer", 1))] == [
        "epochs", "seed", "num_workers", "log_interval", "device", "data_dir", "time_step",
    ]  # fmt: skip


def test_metrics_from_every_way_to_print():
    source = """
print("loss:", loss)
print("epoch %d: train acc = %.2f%%" % (epoch, acc))
logging.info("val_loss={:.3f}".format(loss))
print(f"{mse=}")
print("saved to", path)
print(f"took {seconds:.1f} s")
"""
    found = dict(metrics_in_source(ast.parse(source)))
    assert found == {
        "loss": r"\bloss",
        "train_acc": r"\bepoch\W*(?P<step>\d+).*?\btrain\s+acc[:=\s]*(?P<value>\S+)",
        "val_loss": r"\bval_loss",
        "mse": r"\bmse",
        "took": r"\btook",
    }
    for name, pattern in found.items():
        parse_pattern(name, pattern)


def test_metrics_whose_labels_contain_each_other_are_told_apart():
    found = dict(metrics_in_source(ast.parse("print('val loss:', a)\nprint('loss:', b)\n")))
    lines = "val loss: 2", "loss: 1"
    assert [bool(re.search(found["loss"], line)) for line in lines] == [False, True]
    assert [bool(re.search(found["val_loss"], line)) for line in lines] == [True, False]


def test_metrics_from_the_texts_of_a_fortran_program():
    data = b"\0\x01At line 3 of file\0 residual =\0 wrote file:\0 energy: \0\xff"
    assert [name for name, _ in metrics_in_binary(data)] == ["residual", "energy"]


def test_the_objective_prefers_validation_and_knows_directions():
    assert objective_of(["loss", "val_loss", "acc"]) == ("val_loss", "minimize")
    assert objective_of(["acc", "other"]) == ("acc", "maximize")
    assert objective_of(["speed"]) == ("speed", "minimize")
    assert objective_of([]) == ("", "")
