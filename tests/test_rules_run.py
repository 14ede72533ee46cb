"""Sweeps with `where`, `when` and `order`: running, resuming, splitting and repairing them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from test_results import opening, write_journal

import mpisweep as package
from mpisweep.blocks import TrialsBlock
from mpisweep.cli import main
from mpisweep.records import TrialState
from mpisweep.results.load import Sweep

Run = Callable[..., subprocess.CompletedProcess[str]]

WORKLOAD = """
def train(trial):
    with open("seen.txt", "a") as seen:
        seen.write(f"{trial.number} {sorted(trial.params.items())}\\n")
    return {"loss": float(trial.params["size"]) + trial.params.get("depth", 100)}
"""
SWEEP = """
name = "rules"
workload = "rules:train"
order = "spread"
where = "size * width <= 12"

[parameters]
size  = { from = 1, to = 6 }
kind  = ["deep", "flat"]
depth = { from = 1, to = 3, when = "kind == 'deep'" }
exact = { values = [true, false], when = "kind == 'deep' and depth > 1" }
way   = { values = ["x", "y"], when = "kind == 'flat'" }

[fixed]
width = 4
"""


def expected(limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for size in range(1, limit + 1):
        found.append({"size": size, "kind": "deep", "depth": 1, "width": 4})
        found += [
            {"size": size, "kind": "deep", "depth": d, "exact": e, "width": 4}
            for d in (2, 3)
            for e in (True, False)
        ]
        found += [{"size": size, "kind": "flat", "way": way, "width": 4} for way in ("x", "y")]
    return found


@pytest.fixture
def rules(folder: Path) -> Path:
    (folder / "rules.py").write_text(WORKLOAD, encoding="utf-8")
    (folder / "rules.toml").write_text(SWEEP, encoding="utf-8")
    return folder


def configurations(sweep: Sweep) -> list[dict[str, Any]]:
    return [sweep.configuration(number) for number in range(len(sweep.trials))]


def test_a_trial_gets_its_active_parameters_and_the_file_keeps_their_types(
    rules: Path, mpisweep: Run
) -> None:
    done = mpisweep("run", "rules.toml", "-n", "2")
    assert done.returncode == 0, done.stderr
    sweep = package.load(rules / "rules.h5")
    assert configurations(sweep) == expected(3)
    kinds = {name: type(value) for c in configurations(sweep) for name, value in c.items()}
    assert kinds == {"size": int, "kind": str, "depth": int, "exact": bool, "way": str, "width": int}
    seen = (rules / "seen.txt").read_text(encoding="utf-8").splitlines()
    assert sorted(seen) == sorted(f"{n} {sorted(c.items())}" for n, c in enumerate(expected(3)))
    with h5py.File(rules / "rules.h5") as file:
        columns = file["trials/parameters"]
        assert columns["size"].dtype == np.int64
        assert columns["depth"].attrs["type"] == "integer"
        assert np.isnan(columns["depth"][()]).tolist() == ["depth" not in c for c in expected(3)]
        assert columns["exact"].attrs["type"] == "boolean"
        assert columns["way"].asstr()[()].tolist() == [c.get("way", "") for c in expected(3)]
    rows = mpisweep("export", "rules.h5", "--format", "json").stdout
    assert [row["depth"] for row in json.loads(rows)["trials"]] == [c.get("depth") for c in expected(3)]
    top = mpisweep("top", "rules.h5", "-k", "21").stdout
    assert "nan" not in top
    for command in ("status", "report"):
        assert mpisweep(command, "rules.h5").returncode == 0


def test_a_looser_constraint_adds_trials_with_new_numbers_and_repeats_none(
    rules: Path, mpisweep: Run
) -> None:
    assert mpisweep("run", "rules.toml", "-n", "1").returncode == 0
    (rules / "rules.toml").write_text(SWEEP.replace("<= 12", "<= 20"), encoding="utf-8")
    assert mpisweep("run", "rules.toml", "-n", "1").returncode == 0
    assert configurations(package.load(rules / "rules.h5")) == expected(5)
    numbers = [line.split()[0] for line in (rules / "seen.txt").read_text(encoding="utf-8").splitlines()]
    assert sorted(map(int, numbers)) == list(range(35))


@pytest.mark.parametrize("split", [[], ["--split", "1"]])
def test_waiting_trials_that_a_tighter_constraint_excludes_do_not_run(
    rules: Path, mpisweep: Run, split: list[str]
) -> None:
    names = ("size", "kind", "depth", "exact", "way", "width")
    columns: dict[str, Any] = {name: [c.get(name) for c in expected(3)] for name in names}
    record = replace(opening(spec=SWEEP), source="rules.toml")
    write_journal(rules / "rules.h5", [TrialsBlock(list(range(21)), columns)], record)
    (rules / "rules.toml").write_text(SWEEP.replace("<= 12", "<= 8"), encoding="utf-8")
    done = mpisweep("run", "rules.toml", "-n", "1", *split)
    assert done.returncode == 0, done.stderr
    sweep = package.load(rules / "rules.h5")
    assert configurations(sweep) == expected(3)
    states = sweep.trials["state"].tolist()
    assert states == ["complete"] * 14 + ["infeasible"] * 7
    assert set(sweep.trials["message"][14:]) == {"where: 'size * width <= 8' does not hold for it"}
    # With a looser constraint they run.
    (rules / "rules.toml").write_text(SWEEP, encoding="utf-8")
    assert mpisweep("run", "rules.toml", "-n", "1").returncode == 0
    assert package.load(rules / "rules.h5").trials["state"].tolist() == ["complete"] * 21


def test_a_split_sweep_numbers_its_trials_as_an_unsplit_one(rules: Path, mpisweep: Run) -> None:
    done = mpisweep("run", "rules.toml", "-n", "1", "--split", "2")
    assert done.returncode == 0, done.stderr
    assert configurations(package.load(rules / "rules.h5")) == expected(3)
    assert len((rules / "seen.txt").read_text(encoding="utf-8").splitlines()) == 21


def test_repair_and_the_journal_keep_absent_values(rules: Path) -> None:
    columns: dict[str, Any] = {"size": 1, "kind": ["deep", "flat"], "depth": [2, None], "way": [None, "x"]}
    path = rules / "rules.h5"
    write_journal(path, [TrialsBlock([0, 1], columns)], replace(opening(spec=SWEEP), source="rules.toml"))
    assert not list(rules.glob("*.damaged"))
    wanted = [{"size": 1, "kind": "deep", "depth": 2}, {"size": 1, "kind": "flat", "way": "x"}]
    assert configurations(package.load(path)) == wanted
    assert main(["repair", str(path)]) == 0
    assert path.is_file()
    assert configurations(package.load(path)) == wanted


def test_check_prints_the_rules(rules: Path, mpisweep: Run) -> None:
    printed = mpisweep("check", "rules.toml").stdout
    assert "search      grid, 21 configurations, spread evenly" in printed
    assert "where       size * width <= 12" in printed
    assert "depth       integers from 1 to 3, when kind == 'deep', else absent" in printed


def test_rules_are_given_on_the_command_line(folder: Path, mpisweep: Run) -> None:
    (folder / "points.csv").write_text("x,y\n1,a\n2,b\n3,c\n", encoding="utf-8")
    words = ["workloads:half", "--points", "points.csv", "--where", "x != 2", "--order", "spread"]
    done = mpisweep("run", *words, "-o", "p.h5", "-n", "1")
    assert done.returncode == 0, done.stderr
    assert configurations(package.load(folder / "p.h5")) == [{"x": 1, "y": "a"}, {"x": 3, "y": "c"}]
    script = mpisweep(
        "jobscript", *words, "--site", "slurm", "--gpus", "0", "--ranks", "2", "--elapse", "1:00:00"
    )
    assert script.returncode == 0, script.stderr
    assert "--points points.csv" in script.stdout
    assert "--where 'x != 2'" in script.stdout
    refused = mpisweep("check", "workloads:half", "-p", "x=1:3", "--where", "x > 3")
    assert refused.returncode == 2
    assert refused.stderr == (
        "mpisweep: command line: --where: 'x > 3' is never true: no point satisfies it\n"
    )


def test_figures_leave_out_trials_without_the_parameter(rules: Path, mpisweep: Run) -> None:
    assert mpisweep("run", "rules.toml", "-n", "1").returncode == 0
    from mpisweep.views.figures.metric import metric_series

    series = metric_series(package.load(rules / "rules.h5"), "depth", "loss")
    assert len(series.x) == 15
    assert np.isfinite(series.x).all()


def test_a_trial_that_a_constraint_excludes_is_no_memory_limit(rules: Path, mpisweep: Run) -> None:
    sweep = (
        'name = "rules"\nworkload = { command = "echo loss={x}" }\n'
        '[parameters]\nx = { from = 1, to = 9, memory = "increasing" }\n'
    )
    record = replace(opening(spec=sweep), source="rules.toml")
    write_journal(rules / "rules.h5", [TrialsBlock(list(range(9)), {"x": list(range(1, 10))})], record)
    (rules / "rules.toml").write_text('where = "x <= 4"\n' + sweep, encoding="utf-8")
    done = mpisweep("run", "rules.toml", "-n", "1")
    assert done.returncode == 0, done.stderr
    assert package.load(rules / "rules.h5").count(TrialState.INFEASIBLE) == 5
    assert "fits in memory" not in mpisweep("status", "rules.h5").stdout
