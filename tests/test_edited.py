"""Code of the user edited between two runs: the next run reports and records it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

import mpisweep as package
from mpisweep.master.known import KnownSweep, trials_text
from mpisweep.rank.environment import describe_sources
from mpisweep.rank.main import _environment
from mpisweep.records import AttemptEnd, TrialState
from mpisweep.spec import spec_from_flags

Run = Callable[..., subprocess.CompletedProcess[str]]

TOML = 'name = "s"\nworkload = {workload}\n[parameters]\nx = {{ from = 1, to = {last} }}\n'


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sweep_of(folder: Path, workload: str, last: int) -> str:
    more = "[metrics]\nloss = 'loss='\n" if "command" in workload else ""
    (folder / "s.toml").write_text(TOML.format(workload=workload, last=last) + more)
    return "s.toml"


@pytest.mark.parametrize(("workload", "files", "edited", "said"), [
    ('"mine:f"', {"mine.py": "import model\n"
                             "def f(trial): return model.loss(trial)\n", "model.py": "def loss(trial): "
                                                                                     "return 1.0\n"},
     ["mine.py"], "mine.py has changed since trials 0 to 3 ran"),
    # An imported module is part of the code.
    ('"mine:f"', {"mine.py": "from model import loss\n"
                             "def f(trial): return loss(trial)\n", "model.py": "def loss(trial): return "
                                                                               "1.0\n"},
     ["model.py"], "model.py has changed since trials 0 to 3 ran"),
    ('"lib.mine:f"', {"lib/__init__.py": "", "lib/mine.py": "from . import model\n"
                                                            "def f(trial): return model.loss(trial)\n",
                      "lib/model.py": "def loss(trial): return 1.0\n"},
     ["lib/mine.py", "lib/model.py"], "lib/mine.py and lib/model.py have changed since trials 0 to 3 ran"),
    ('{ command = "python train.py {x}" }', {"train.py": "import model\nprint('loss=1')\n", "model.py": ""},
     ["train.py"], "train.py has changed since trials 0 to 3 ran"),
    ('{ command = "./train {x}" }', {"train": "#!/bin/sh\n"
                                              "echo loss=1\n"}, ["train"], "train has changed since trials 0 to 3 ran"),
    ('{ command = "cat {template}", template = "in.txt" }', {"in.txt": "loss={{x}}\n"}, ["in.txt"], "in.txt has changed since trials 0 to 3 ran"),
])  # fmt: skip
def test_code_that_was_edited_between_two_runs_is_reported_once_and_recorded(
    folder: Path, mpisweep: Run, workload: str, files: dict[str, str], edited: list[str], said: str
):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    first = mpisweep("run", sweep_of(folder, workload, 4), "-n", "1", "-o", "r.h5")
    assert first.returncode == 0, first.stderr
    assert "changed since" not in first.stderr
    before = {name: digest(folder / name) for name in files}
    for name in edited:
        with (folder / name).open("a") as file:
            file.write("\n")
    done = mpisweep("run", sweep_of(folder, workload, 6), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert [line.partition(" ")[2] for line in done.stderr.splitlines() if "changed since" in line] == [said]
    sweep = package.load(folder / "r.h5")
    assert sweep.count(TrialState.COMPLETE) == 6
    recorded = [json.loads(code) for code in sweep.allocations["code"]]
    assert recorded == [before, {name: digest(folder / name) for name in files}]
    with h5py.File(folder / "r.h5") as file:
        assert [json.loads(text) for text in file["allocations/code"].asstr()] == recorded


def test_unchanged_code_is_not_reported(folder: Path, mpisweep: Run):
    text = "def f(trial): return 1.0\n"
    said = []
    for last, more in enumerate(["", "", "# other\n", ""], 3):
        (folder / "mine.py").write_text(text + more)
        done = mpisweep("run", sweep_of(folder, '"mine:f"', last), "-n", "1", "-o", "r.h5")
        assert done.returncode == 0, done.stderr
        said.append([line.partition(" ")[2] for line in done.stderr.splitlines() if "changed since" in line])
    # After the edit is undone, only the trial between the edits ran with other code.
    assert said == [
        [],
        [],
        ["mine.py has changed since trials 0 to 3 ran"],
        ["mine.py has changed since trial 4 ran"],
    ]


def test_only_trials_that_have_ended_are_compared_with_the_code():
    """Trial 0 has ended, 1 was lost, 2 runs, 3 waits for a retry, 4 ended on an unknown worker."""
    complete, waiting, running = (
        int(state) for state in (TrialState.COMPLETE, TrialState.WAITING, TrialState.RUNNING)
    )
    ends = [AttemptEnd.ENDED, AttemptEnd.LOST, AttemptEnd.RUNNING, AttemptEnd.ENDED, AttemptEnd.ENDED]
    known = KnownSweep(
        {"x": [1, 2, 3, 4, 5]}, [complete, waiting, running, waiting, complete], [1] * 5, None,
        attempts_table={"trial": [0, 1, 2, 3, 4], "worker": [0, 0, 0, 0, -1], "end": [*map(int, ends)]},
        workers_table={"allocation": [0]},
        allocations_table={"code": ['{"mine.py": "1", "gone.py": "2"}']},
    )  # fmt: skip
    assert known.edited({"mine.py": "3"}) == (["mine.py"], [0])
    assert known.edited({"mine.py": "1", "new.py": "4"}) == ([], [])
    assert known.edited({}) == ([], [])


def test_a_file_of_an_earlier_version_has_no_record_of_code(folder: Path, mpisweep: Run):
    (folder / "mine.py").write_text("def f(trial): return 1.0\n")
    assert mpisweep("run", sweep_of(folder, '"mine:f"', 3), "-n", "1", "-o", "r.h5").returncode == 0
    with h5py.File(folder / "r.h5", "a") as file:
        del file["allocations/code"]
        del file["environment"].attrs["code"]
    (folder / "mine.py").write_text("def f(trial): return 2.0\n")
    done = mpisweep("run", sweep_of(folder, '"mine:f"', 4), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert "changed since" not in done.stderr
    assert [bool(code) for code in package.load(folder / "r.h5").allocations["code"]] == [False, True]


def test_a_damaged_record_of_code_stops_no_run(folder: Path, mpisweep: Run):
    (folder / "mine.py").write_text("def f(trial): return 1.0\n")
    assert mpisweep("run", sweep_of(folder, '"mine:f"', 3), "-n", "1", "-o", "r.h5").returncode == 0
    with h5py.File(folder / "r.h5", "a") as file:
        file["allocations/code"][0] = "{no JSON"
    done = mpisweep("run", sweep_of(folder, '"mine:f"', 4), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr


def test_the_code_in_the_folder_belongs_to_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "installed.py").write_text("import numpy, helper\n")
    (other / "helper.py").write_text("")
    monkeypatch.syspath_prepend(other)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.py").write_text("import json, b.c, numpy\nfrom b import *\nfrom .d import x\nimport a\n")
    (folder / "b").mkdir()
    for name in ("b/__init__.py", "b/c.py", "d.py", "unused.py", "data.csv", "run.sh"):
        (folder / name).write_text("")
    (folder / "c.py").write_text("def broken(:\n")

    def names(**what: object) -> list[str]:
        text = describe_sources(folder, **what)  # type: ignore[arg-type]
        return sorted(json.loads(text)) if text else []

    assert names(module="a") == ["a.py", "b/__init__.py", "b/c.py", "d.py"]
    assert names(module="c") == ["c.py"]
    # Of an installed module only its own file counts, not its imports.
    assert names(module="installed") == [str(other / "installed.py")]
    assert names(
        arguments=[sys.executable, "-u", "c.py", "--data=data.csv", "data.csv", "{x}", "run.sh"]
    ) == ["c.py", "run.sh"]
    assert names(arguments=["/bin/ls", "-l"]) == []
    assert names(module="nowhere") == []
    assert names() == []


def test_any_source_can_be_described(tmp_path: Path):
    (tmp_path / "m.py").write_bytes(b"\xff\x00import os\nimport n" + b"(" * 5000)
    (tmp_path / "n.py").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    assert json.loads(describe_sources(tmp_path, module="m")).keys() == {"m.py"}
    assert describe_sources(tmp_path, arguments=["python", "pipe.py", "n.py", "x" * 5000, "nul\0byte"]) == ""
    # The text must fit into an attribute of HDF5.
    for number in range(400):
        (tmp_path / f"{'long' * 40}{number}.py").write_text("")
    (tmp_path / "all.py").write_text("import " + ", ".join(f"{'long' * 40}{n}" for n in range(400)))
    text = describe_sources(tmp_path, module="all")
    assert "all.py" in json.loads(text)
    assert len(text) <= 30_000


@pytest.mark.parametrize(("numbers", "text"), [
    ([3], "trial 3"), ([0, 1, 2], "trials 0 to 2"), ([0, 1, 5], "trials 0 to 1 and 5"), ([0, 2, 4], "trials "
                                                                                                    "0, 2 "
                                                                                                    "and 4"),
    ([*range(0, 40, 2)], "trials 0, 2, 4, 6, 8 and 15 more"),
])  # fmt: skip
def test_lists_of_trials_are_abbreviated(numbers: list[int], text: str):
    assert trials_text(numbers) == text


def test_a_built_in_workload_has_no_code_of_the_user(folder: Path):
    (folder / "resnet50.py").write_text("")
    for workload, names in (("resnet50", set()), ("workloads:half", {"workloads.py"})):
        facts = _environment(spec_from_flags(workload, ["batch_size=1:3"], folder=folder))
        assert set(json.loads(facts.get("code", "{}"))) == names
