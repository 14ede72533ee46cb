"""Every example under examples/ runs as its sweep file says, on two workers.

If each trial is a process that imports torch, a part of the sweep suffices; the whole sweep is marked `long`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE_S

import mpisweep
from mpisweep.views.scaling import scaling

EXAMPLES = Path(__file__).parent.parent / "examples"


#: Run a part of the sweep, and with `long` the whole.
LENGTHS = pytest.mark.parametrize(
    "is_whole", [False, pytest.param(True, marks=pytest.mark.long)], ids=["part", "whole"]
)


def run(
    tmp_path: Path,
    environment: dict[str, str],
    example: str,
    *,
    without: str = "",
    replaced: dict[str, str] | None = None,
) -> mpisweep.Sweep:
    """Run an example with the text `without` removed from its sweep file, and others replaced."""
    folder = tmp_path / example
    shutil.copytree(EXAMPLES / example, folder)
    said = (folder / "sweep.toml").read_text()
    assert without in said
    said = said.replace(without, "") if without else said
    for old, new in (replaced or {}).items():
        assert old in said
        said = said.replace(old, new)
    (folder / "sweep.toml").write_text(said)
    if example == "c":
        subprocess.run(["cc", "-O2", "-o", "pi", "pi.c", "-lm"], cwd=folder, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "mpisweep", "run", "sweep.toml", "-n", "2", "-o", "r.h5"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sweep = mpisweep.load(folder / "r.h5")
    assert set(sweep.trials["state"].tolist()) == {"complete"}
    return sweep


@pytest.mark.mpi
def test_an_objective_of_optuna(tmp_path: Path, environment):
    sweep = run(
        tmp_path,
        environment,
        "optuna",
        replaced={"trials    = 40": "trials    = 12", 'prune     = "median"\n': ""},
    )
    assert {"classifier"} < set(sweep.spec.space.names) <= {"classifier", "n_neighbors", "alpha"}
    assert sweep.best()["accuracy"][0] > 0.9


@pytest.mark.mpi
@LENGTHS
def test_pytorch_script(tmp_path: Path, environment, is_whole: bool):
    sweep = run(tmp_path, environment, "pytorch", without="" if is_whole else "16, 64, ")
    # The baseline is one of the nine; in the part it is added to the three with the largest batch.
    assert len(sweep.trials) == (9 if is_whole else 4)
    assert sweep.baseline["accuracy"] > 0.5
    assert sweep.curve(0, "loss").step.tolist() == [0, 1, 2]


@pytest.mark.mpi
@LENGTHS
def test_script_for_torchrun_on_one_rank_and_on_two(tmp_path: Path, environment, is_whole: bool):
    sweep = run(tmp_path, environment, "distributed", without="" if is_whole else ", 256")
    each = 2 if is_whole else 1
    assert sweep.trials["ranks_per_trial"].tolist() == [1] * each + [2] * each
    assert [curve.ranks.tolist() for curve in scaling(sweep, "images_per_second")] == [[1, 2]] * each
    alone, together = sweep.trials["loss"][[0, each]]
    assert together == pytest.approx(alone, rel=0.05), "the same batches, split"


@pytest.mark.mpi
def test_sklearn_estimator(tmp_path: Path, environment):
    sweep = run(tmp_path, environment, "sklearn")
    assert len(sweep.trials) == 8
    assert sweep.best(1)["accuracy"][0] > 0.9


@pytest.mark.mpi
def test_batch_size_of_a_small_network(tmp_path: Path, environment):
    sweep = run(tmp_path, environment, "batch-size")
    assert len(sweep.trials) <= 25
    steps, samples, _ = sweep.best_batch_sizes()
    assert samples.size < 64 < steps.high
    assert 5 < sweep.critical_batch_size().size < 200


@pytest.mark.mpi
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_c_program_replacedan_input_file(tmp_path: Path, environment):
    sweep = run(tmp_path, environment, "c")
    errors = sweep.trials["error"]
    assert errors[0] == pytest.approx(4 / (1 + 0.25) - 3.14159265, rel=1e-3)
    assert errors.min() < 1e-10


@pytest.mark.mpi
@pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="needs lightning")
def test_lightning_module(tmp_path: Path, environment):
    sweep = run(
        tmp_path,
        environment | {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "")},
        "lightning",
    )
    assert len(sweep.trials) == 4
    assert len(sweep.curve(0, "loss").value) == 57
    assert sweep.curve(0, "loss").value[-1] < sweep.curve(0, "loss").value[0]
