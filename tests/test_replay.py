"""mpisweep replay: rerun one trial with its original configuration and seed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from test_results import NAN, curve, write_journal

import mpisweep as package
from mpisweep.blocks import EndedBlock, ReportBlock, TrialsBlock
from mpisweep.results.comparison import compare
from mpisweep.views.comparison import print_rerun

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.mpi

MODULE = """
import random

def train(trial):
    if trial.params["x"] == 3:
        raise ValueError("three")
    chance = random.Random(trial.seed)
    for step in range(10):
        loss = chance.random() * SCALE
        trial.report(step, loss=loss)
    return {"loss": loss, "number": trial.number}
"""


@pytest.fixture
def swept(folder: Path, mpisweep: Run) -> Path:
    (folder / "mine.py").write_text(MODULE.replace("SCALE", "1.0"))
    (folder / "s.toml").write_text(
        "workload = 'mine:train'\nseed = 7\n[parameters]\nx = { from = 1, to = 4 }\n"
    )
    done = mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    return folder


def test_the_same_trial_gives_the_same_numbers_and_leaves_no_trace(swept: Path, mpisweep: Run):
    before = (swept / "r.h5").read_bytes()
    done = mpisweep("replay", "r.h5", "1")
    assert done.returncode == 0, done.stderr
    assert "x=2" in done.stdout.splitlines()[0]
    assert "curve of loss: the same at every step" in done.stdout
    loss = package.load(swept / "r.h5").trials["loss"][1]
    assert f"{loss:.8g}" in done.stdout
    assert done.stdout.count("none") >= 2
    assert (swept / "r.h5").read_bytes() == before
    assert not (swept / "r.h5.journal").exists()


def test_changed_code_shows_where_it_differs(swept: Path, mpisweep: Run):
    (swept / "mine.py").write_text(MODULE.replace("SCALE", "(1.0 if step < 4 else 1.5)"))
    done = mpisweep("replay", "r.h5", "0")
    assert done.returncode == 0, done.stderr
    assert "curve of loss: differs from step 4 on; at most 33 %" in done.stdout


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ([3.0, 2.0], "the same until one of the two ends, before step 2"),
        ([3.0, 2.0, 1.0, 0.5], "the same until one of the two ends, before step 3"),
        ([3.0, 2.0, NAN], "differs from step 2 on; at most nan % (1 then, nan now)"),
        ([3.0, 2.5, 1.0], "differs from step 1 on; at most 20 % (2 then, 2.5 now)"),
        ([3.0, 2.0, 1.0], "the same at every step"),
    ],
)
def test_the_first_and_largest_difference_of_two_curves_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], now: list[float], told: str
):
    write_journal(tmp_path / "s.h5", [
        TrialsBlock([0], {"x": [1]}), ReportBlock(0, 0, 1, {"loss": curve(3.0, 2.0, 1.0)}),
        EndedBlock(0, 0, [0], [1], [2], [1001.0], [1.0], {"loss": [1.0]}),
    ])  # fmt: skip
    sweep = package.load(tmp_path / "s.h5")
    ended = EndedBlock(0, 0, [0], [1], [2], [1001.0], [1.0], {"loss": [1.0]})
    print_rerun(compare(sweep, 0, ended, {"loss": curve(*now)}, ""), sweep, 0)
    assert f"curve of loss: {told}\n" in capsys.readouterr().out


def test_a_failed_trial_shows_how_it_fails(swept: Path, mpisweep: Run):
    done = mpisweep("replay", "r.h5", "2")
    assert done.returncode == 0, done.stderr
    assert "state: failed then, failed now" in done.stdout
    assert "exception: ValueError: three" in done.stdout
    (swept / "mine.py").write_text(MODULE.replace("SCALE", "1.0").replace("== 3", "== 99"))
    done = mpisweep("replay", "r.h5", "2")
    assert done.returncode == 4
    assert "state: failed then, complete now" in done.stdout


def test_a_trial_that_cannot_be_replayed_is_refused_in_one_sentence(swept: Path, mpisweep: Run):
    for arguments, complaint in (
        (("r.h5", "4"), "there is no trial 4; the last is 3"),
        (("missing.h5", "0"), "missing.h5"),
        (("r.h5", "0", "--folder", "nowhere"), "set --folder"),
    ):
        done = mpisweep("replay", *arguments)
        assert done.returncode == 2
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr


def test_the_file_records_the_code_that_ran(folder: Path, mpisweep: Run, environment):
    (folder / "mine.py").write_text(MODULE.replace("SCALE", "1.0"))
    (folder / "s.toml").write_text("workload = 'mine:train'\n[parameters]\nx = { from = 1, to = 2 }\n")
    environment["LOADEDMODULES"] = "gcc/13:openmpi/5"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "mine.py"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    (folder / "mine.py").write_text(MODULE.replace("SCALE", "2.0") + "# " + "ü" * 50_000)
    assert mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5").returncode == 0
    facts = package.load(folder / "r.h5").environment
    assert facts["git_dirty"] == "yes"
    assert "+        loss = chance.random() * 2.0" in facts["git_diff"]
    assert "more characters are left out" in facts["git_diff"]
    assert facts["loaded_modules"] == "gcc/13:openmpi/5"
    assert len(facts["git_commit"]) == 40
