"""mpisweep imports nothing from the folder of a sweep and reports shadowed files there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import PATIENCE_S

import mpisweep as package

Run = Callable[..., subprocess.CompletedProcess[str]]

#: Modules that ranks import, from the standard library and from packages, and one that does not exist.
NAMES = ("random", "queue", "signal", "mmap", "numpy", "h5py", "mpi4py", "rich", "yaml_that_nobody_has")


@pytest.fixture
def hostile(folder: Path) -> Path:
    """A folder with files of these names that record their import."""
    for name in NAMES:
        (folder / f"{name}.py").write_text(
            f"open({str(folder / 'imported')!r}, 'a').write({name!r})\nmine = True\n"
        )
    return folder


def run(folder: Path, environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )


def ways(environment: dict[str, str]) -> dict[str, list[str]]:
    console = shutil.which("mpisweep", path=environment["PATH"])
    module = [sys.executable, "-m", "mpisweep"]
    typed = ["mpirun", "--oversubscribe", "-n", "2"]
    found = {"module": module, "module, typed mpirun": [*typed, *module]}
    return found | ({"console": [console], "console, typed mpirun": [*typed, console]} if console else {})


@pytest.mark.mpi
@pytest.mark.parametrize("way", ["module", "module, typed mpirun", "console", "console, typed mpirun"])
def test_ranks_import_nothing_that_lies_beside_a_program(hostile, environment, way):
    command = ways(environment).get(way)
    if command is None:
        pytest.skip("mpisweep is not installed as a command")
    workers = [] if "typed" in way else ["-n", "2"]
    done = run(
        hostile,
        environment,
        *command,
        "run",
        "-p",
        "x=1:3",
        "--metric",
        "loss=loss: ",
        *workers,
        "-o",
        "r.h5",
        "--",
        "echo",
        "loss: 0.{x}",
    )
    assert done.returncode == 0, done.stderr
    assert package.load(hostile / "r.h5").trials["loss"].tolist() == [0.1, 0.2, 0.3]
    assert not (hostile / "imported").exists()


def test_a_single_rank_imports_nothing_that_lies_beside_a_program(hostile, mpisweep: Run):
    done = mpisweep(
        "run", "-p", "x=1:3", "--metric", "loss=loss: ", "-n", "1", "-o", "r.h5", "--", "echo", "loss: 0.{x}"
    )
    assert done.returncode == 0, done.stderr
    assert "imported instead" not in done.stderr
    assert not (hostile / "imported").exists()


def test_a_program_keeps_its_usual_import_path(folder, mpisweep: Run):
    (folder / "beside.py").write_text("loss = 0.5\n")
    (folder / "program.py").write_text(
        "import beside, os\nassert 'PYTHONSAFEPATH' not in os.environ\nprint(f'loss: {beside.loss}')\n"
    )
    done = mpisweep(
        "run",
        "-p",
        "x=1:2",
        "--metric",
        "loss=loss: ",
        "-n",
        "1",
        "-o",
        "r.h5",
        "--",
        "python",
        "program.py",
        "{x}",
    )
    assert done.returncode == 0, done.stderr


FUNCTION = """
import random, sys
import yaml_that_nobody_has

def run(trial):
    assert not hasattr(random, "mine") and yaml_that_nobody_has.mine
    assert sys.path.index({folder!r}) == len(sys.path) - 1, sys.path
    assert sys.path.count({folder!r}) == 1
    return 1.0
"""


@pytest.mark.mpi
@pytest.mark.parametrize("workers", ["1", "2"])
def test_for_a_function_the_folder_comes_last_and_shadowed_files_are_reported(
    hostile, mpisweep: Run, workers
):
    (hostile / "mine.py").write_text(FUNCTION.format(folder=str(hostile)))
    said = (
        f"{hostile}: h5py.py, mmap.py, mpi4py.py, numpy.py, queue.py, random.py, rich.py and "
        "signal.py are shadowed by installed modules of the same names"
    )
    for command in (
        ["check", "mine:run", "-p", "x=1:2"],
        ["run", "mine:run", "-p", "x=1:2", "-n", workers, "-o", "r.h5"],
    ):
        done = mpisweep(*command)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(said) == 1, done.stderr
    assert set(package.load(hostile / "r.h5").trials["state"]) == {"complete"}
    assert (hostile / "imported").read_text().replace("yaml_that_nobody_has", "") == ""


@pytest.mark.mpi
def test_under_mpirun_shadowed_files_are_reported_once(hostile, mpisweep: Run):
    (hostile / "mine.py").write_text(FUNCTION.format(folder=str(hostile)))
    done = mpisweep("run", "mine:run", "-p", "x=1:2", "-o", "r.h5", ranks=2)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("are shadowed by installed modules") == 1


@pytest.mark.parametrize(
    ("module", "what"), [("random", "the standard library"), ("h5py", os.sep), ("test", os.sep)]
)
def test_a_workload_whose_module_is_hidden_is_refused(hostile, mpisweep: Run, module, what):
    (hostile / f"{module}.py").write_text("def run(trial):\n    return 1.0\n")
    done = mpisweep("run", f"{module}:run", "-p", "x=1:2", "-n", "1")
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"mpisweep: command line: workload: {hostile / module}.py cannot be imported: a module in {what}"
    )
    assert len(done.stderr.splitlines()) == 1


def test_the_users_pythonpath_is_kept_and_comes_first(folder, tmp_path, environment, mpisweep: Run):
    library = tmp_path / "library"
    library.mkdir()
    (library / "mine.py").write_text("def run(trial):\n    return 3.0\n")
    (folder / "mine.py").write_text("raise RuntimeError('the one of PYTHONPATH comes first')\n")
    # An empty entry would mean the working directory.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), str(library)]))
    done = mpisweep("check", "mine:run", "-p", "x=1:2")
    assert done.returncode == 2
    assert "cannot be imported: a module in" in done.stderr
    (folder / "mine.py").unlink()
    assert mpisweep("check", "mine:run", "-p", "x=1:2").returncode == 0


@pytest.mark.mpi
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ranks_run_the_mpisweep_that_was_started_even_from_the_folder_of_the_sweep(
    folder, environment, workers
):
    shutil.copytree(Path(package.__file__).parent, folder / "mpisweep")
    (folder / "mine.py").write_text(
        "import mpisweep\n"
        "def run(trial):\n"
        "    open('which', 'a').write(mpisweep.__file__ + '\\n')\n"
        "    return 1.0\n"
    )
    module = [sys.executable, "-m", "mpisweep"]
    done = run(folder, environment, *module, "run", "mine:run", "-p", "x=1:3", "-n", workers, "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert set((folder / "which").read_text().splitlines()) == {str(folder / "mpisweep" / "__init__.py")}
