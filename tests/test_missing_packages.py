"""An installation without torch, or without another package, as `pip install --no-deps` leaves it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from voice import ROOT
from waiting import PATIENCE_S

import mpisweep as package
from mpisweep import errors
from mpisweep.errors import missing_package
from mpisweep.spec import parse_spec
from mpisweep.spec.preflight import check_startable

#: Makes modules unknown to a Python that finds this file on its path.
HIDING = """
import os, sys
from importlib.machinery import PathFinder
HIDDEN = os.environ["HIDDEN_MODULES"].split()
class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
"""

#: Everything that `pip install --no-deps mpisweep` and docs/questions.md leave out.
LEFT_OUT = "torch torchvision matplotlib sklearn pynvml shtab optuna cmaes pandas lightning"

#: Commands -> how their refusal ends, without the packages that no sweep can do without.
REFUSED = {
    "top r.h5": "needs h5py, which is not installed; `pip install h5py` adds it",
    "run -p x=1:2 -- true {x}": "mpisweep needs h5py, which is not installed; `pip install h5py` adds it",
    "check -p x=1:2 -- true {x}": "mpisweep needs h5py, which is not installed; `pip install h5py` adds it",
}

#: The same without what draws and completes.
REFUSED_TO_DRAW = {
    "report r.h5": "needs matplotlib, which is not installed; `pip install matplotlib` adds it",
    "figure metric r.h5 -o f.png": "needs matplotlib, which is not installed; `pip install matplotlib` adds it",
    "completion bash": "needs shtab, which is not installed; `pip install shtab` adds it",
}

#: The same with what a sweep needs, but without SciPy, mpi4py and what LEFT_OUT names.
REFUSED_LATER = {
    "top r.h5": "needs scipy, which is not installed; `pip install scipy` adds it",
    "compare r.h5 r.h5": "needs scipy, which is not installed; `pip install scipy` adds it",
    "run resnet50 -p batch_size=1:2": "'resnet50' needs torch and torchvision, which are not installed; "
    "`pip install torch torchvision` adds them",
    "run -p x=1:2 --search sobol --trials 2 -n 1 -- true {x}": "'sobol' needs scipy, which is not installed; "
    "`pip install scipy` adds it",
    "run -p x=1:2 --repeats 2:4 -n 1 -- true {x}": "a race needs scipy, which is not installed; "
    "`pip install scipy` adds it",
    "run -p x=1:2 --search tpe --trials 2 -n 1 -- true {x}": "`pip install optuna cmaes` adds them, or choose a "
    "search that does not learn, such as 'sobol'",
    "run -p x=1:2 --prune median -n 1 -- true {x}": "`pip install optuna cmaes` adds them, or remove it",
    "run -p x=1:2 -n 2 -- true {x}": "ranks need mpi4py, which is not installed; `pip install mpi4py` adds it, or "
    "use one worker (-n 1), which needs no MPI",
}


@pytest.fixture
def hide(tmp_path: Path, environment: dict[str, str]):
    """An environment whose Pythons lack some modules."""

    def hidden(modules: str) -> dict[str, str]:
        folder = tmp_path / "hiding"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(HIDING, encoding="utf-8")
        path = os.pathsep.join(filter(None, (str(folder), environment.get("PYTHONPATH", ""))))
        return environment | {"PYTHONPATH": path, "HIDDEN_MODULES": modules}

    return hidden


#: Runs several commands in one process, and prints exit code and message of each.
SEVERAL = """
import contextlib, io, shlex, sys
from mpisweep.cli import main
for line in sys.stdin.read().splitlines():
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(shlex.split(line))
    print(code, said.getvalue().strip().replace("\\n", " / "))
"""


@pytest.mark.parametrize(
    ("hidden", "refused"),
    [
        ("h5py rich", REFUSED),
        ("matplotlib shtab", REFUSED_TO_DRAW),
        (f"{LEFT_OUT} scipy mpi4py", REFUSED_LATER),
    ],
    ids=["without h5py and rich", "without matplotlib and shtab", "without scipy and mpi4py"],
)
def test_every_command_says_in_one_sentence_which_package_it_lacks(tmp_path, hide, hidden, refused):
    shutil.copy(ROOT / "docs" / "results" / "paper.h5", tmp_path / "r.h5")
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL], input="\n".join(refused), cwd=tmp_path, env=hide(hidden),
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == len(refused)
    for command, answer in zip(refused, answers, strict=True):
        assert answer.startswith("2 mpisweep"), (command, answer)
        assert answer.endswith(refused[command]), (command, answer)
        assert " / " not in answer


def test_digits_need_scikit_learn(tmp_path: Path, hide):
    done = subprocess.run(
        [sys.executable, "-m", "mpisweep", "check", "resnet50", "-p", "batch_size=1:2", "-p", "data=digits"],
        cwd=tmp_path, env=hide("sklearn"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "mpisweep: command line: workload: 'resnet50' needs sklearn, which is not installed; "
        "`pip install scikit-learn` adds it\n"
    )


def test_a_package_is_looked_for_once_however_many_configurations_need_it(monkeypatch):
    looked: list[str] = []

    def find_spec(name: str) -> object:
        looked.append(name)
        return importlib.util.find_spec(name)

    monkeypatch.setattr(errors, "find_spec", find_spec)
    text = 'workload = "resnet50"\n[parameters]\nbatch_size = [1, 2, 3]\n[fixed]\ndata = "digits"\n'
    check_startable(parse_spec(text, source="s.toml", folder=Path()))
    assert looked.count("sklearn") == 1


def test_a_rank_without_mpi4py_says_so(tmp_path: Path, hide):
    done = subprocess.run(
        [sys.executable, "-m", "mpisweep", "run", "-p", "x=1:2", "--", "true", "{x}"], cwd=tmp_path,
        env=hide("mpi4py") | {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "mpisweep run: needs mpi4py, which is not installed; `pip install mpi4py` adds it\n"


def test_a_module_that_mpisweep_does_not_use_stays_an_error():
    """An import that fails in a plugin or in mpisweep itself is no missing package of ours."""
    assert missing_package(ModuleNotFoundError("No module named 'x'", name="x")) == ""
    assert missing_package(ModuleNotFoundError("no name")) == ""
    assert missing_package(ModuleNotFoundError(name="sklearn.datasets")) == (
        "needs sklearn, which is not installed; `pip install scikit-learn` adds it"
    )


@pytest.mark.mpi
def test_a_c_program_is_swept_without_torch(tmp_path: Path, hide):
    for path in (ROOT / "examples" / "c").iterdir():
        shutil.copy(path, tmp_path)
    subprocess.run(["cc", "-O2", "-o", "pi", "pi.c", "-lm"], cwd=tmp_path, check=True)
    environment = hide(LEFT_OUT)
    for command in ("run sweep.toml -n 2 -o r.h5", "top r.h5"):
        done = subprocess.run(
            [sys.executable, "-m", "mpisweep", *command.split()], cwd=tmp_path, env=environment,
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stderr)
    assert package.load(tmp_path / "r.h5").best(1)["error"][0] < 1e-12
