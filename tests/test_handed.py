"""What a launcher hands to its ranks is what they would find out from the command line and the sweep file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mpisweep as package
from mpisweep.batch.variables import HANDED_VARIABLE, LAUNCH_VARIABLE
from mpisweep.cli import handed, launcher, main, rank
from mpisweep.cli.handed import Asked
from mpisweep.spec import Spec, load_spec

ROOT = Path(__file__).parent.parent
FUNCTION = "def train(trial):\n    return {'loss': trial.params['x']}\n"
SWEEP = """
name     = "all"
workload = "mine:train"
seed     = 7
repeats  = 2
where    = "x != 2"
stage_data = "data"

[parameters]
x = [1, 2, 3]
kind = ["a", "b"]
rate = { from = 0.1, to = 1.0, points = 2, scale = "log", when = "kind == 'a'" }

[limits]
timeout = "1h"
silence = 20

[stop]
patience = 100

[hooks]
before_sweep = ["true"]
"""
#: Command lines of `run`, beside -n and the sweep.
FLAGS: list[list[str]] = [
    [],
    ["-q", "--walltime", "1:00:00", "--master", "idle"],
    ["-o", "other.h5", "--stage-env", "--pilot", "5"],
    ["--stage-data", "other", "--stage-to", "/tmp", "--stage-keep"],
    ["--planned", "10,20", "--fresh"],
]


def said(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], dict[str, str]]:
    """What the launcher of this command hands over, and the environment of its ranks."""
    found: dict[str, Any] = {}

    def launch(start: Any, **given: Any) -> None:
        found.update(given["handed"])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(launcher, "launch", launch)
        assert main(["run", *arguments]) == 130
    return found, {HANDED_VARIABLE: json.dumps(found), LAUNCH_VARIABLE: "x"}


def taken(call: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Spec, Asked]:
    """The sweep and the options that a rank has in the end."""
    found: list[tuple[Spec, Asked]] = []
    with monkeypatch.context() as patched:
        patched.setattr(rank, "run_as_rank", lambda spec, asked: found.append((spec, asked)) or 0)
        assert call() == 0
    return found[0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FUNCTION)
    for name in ("data", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "all.toml").write_text(SWEEP)
    return tmp_path


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
@pytest.mark.parametrize(
    "sweep", [["all.toml"], ["mine:train", "-p", "x=1:3", "--timeout", "5m"]], ids=["file", "flags"]
)
def test_a_rank_takes_what_it_would_parse(
    sweep: list[str], flags: list[str], monkeypatch: pytest.MonkeyPatch
):
    arguments = [*sweep, *flags, "-n", "2"]
    given, variables = said(arguments, monkeypatch)
    assert given
    with monkeypatch.context() as patched:
        patched.setenv(LAUNCH_VARIABLE, "x")
        parsed = taken(lambda: main(["run", *arguments]), monkeypatch)
        patched.setenv(HANDED_VARIABLE, variables[HANDED_VARIABLE])
        found = taken(handed.run_handed, monkeypatch)
    assert found == parsed


@pytest.mark.parametrize("file", sorted(ROOT.glob("examples/**/*.toml")), ids=lambda file: file.name)
def test_every_example_can_be_handed_over(file: Path):
    asked = Asked(Path("r.h5"), "auto", None, False, None, False, "", False, 0, None)
    assert handed.hand_over(load_spec(file), asked)


def test_a_long_sweep_is_not_handed_over(here: Path, monkeypatch: pytest.MonkeyPatch):
    text = SWEEP.replace("[1, 2, 3]", str(list(range(5000))))
    (here / "all.toml").write_text(text)
    given, _ = said(["all.toml", "-n", "2"], monkeypatch)
    assert given == {}


@pytest.mark.mpi
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("length", [0, 30_000])
def test_ranks_read_no_sweep_file_unless_it_is_long(folder: Path, mpisweep: Any, workers: int, length: int):
    (folder / "mine.py").write_text(
        "import os\n"
        "def train(trial):\n"
        "    left = [name for name in os.environ if name in ('MPISWEEP_HANDED', 'MPISWEEP_LAUNCH')]\n"
        "    return {'loss': trial.params['x'], 'left': len(left)}\n"
    )
    sweep = folder / "sweep.toml"
    sweep.write_text(
        f'workload = "mine:train"\n#{"x" * length}\n[parameters]\nx = [1, 2, 3]\n'
        '[hooks]\nbefore_sweep = ["mv", "sweep.toml", "moved.toml"]\n'
    )
    done = mpisweep("run", "sweep.toml", "-o", "r.h5", "-n", str(workers))
    if length:
        assert done.returncode == 2
        assert "sweep.toml" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    found = package.load(folder / "r.h5")
    assert found.trials["loss"].tolist() == [1, 2, 3]
    assert found.trials["left"].tolist() == [0, 0, 0]


@pytest.mark.usefixtures("here")
def test_other_commands_ignore_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    _, variables = said(["all.toml", "-n", "2"], monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["mpisweep", "sites"])
    assert main() == 0
    assert "flow" in capsys.readouterr().out
