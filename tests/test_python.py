"""mpisweep.run and mpisweep.submit from scripts: one sweep in all its forms, its end, and interrupts."""

from __future__ import annotations

import enum
import functools
import inspect
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from started import remember
from waiting import PATIENCE_S, wait_for

import mpisweep as package
from mpisweep.api.functions import named_function
from mpisweep.api.keys import SweepKeys
from mpisweep.spec import SpecError, parse_spec
from mpisweep.spec.keys import names_of
from mpisweep.spec.mapping import sweep_text
from mpisweep.spec.wording import Wording

ROOT = Path(__file__).parent.parent
Run = Callable[..., subprocess.CompletedProcess[str]]

SWEEP = """
name = "halves"
workload = "workloads:half"
[parameters]
x = { from = 1, to = 4 }
[fixed]
y = 2.5
"""


@pytest.fixture(autouse=True)
def no_trial_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of trial processes, which import this module, may have run in this process before."""
    monkeypatch.delitem(sys.modules, "mpisweep.workloads.serve", raising=False)


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the workloads as the working directory of this process."""
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def script(folder: Path, environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python NAME.py`` in the folder."""

    def run(text: str, name: str = "script.py") -> subprocess.CompletedProcess[str]:
        (folder / name).write_text(text, encoding="utf-8")
        return subprocess.run(
            [sys.executable, name], cwd=folder, env=environment, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    return run


# ------------------------------------------------------------------------------------- one sweep in all forms


@pytest.mark.mpi
def test_a_file_a_dict_keywords_and_a_shell_give_the_same_sweep(here: Path, mpisweep: Run):
    (here / "s.toml").write_text(SWEEP)
    assert mpisweep("run", "s.toml", "-n", "1", "-o", "shell.h5").returncode == 0
    keys: dict[str, Any] = {
        "name": "halves",
        "parameters": {"x": range(1, 5)},
        "fixed": {"y": np.float64(2.5)},
    }
    sweeps = [
        package.load("shell.h5"),
        package.run("s.toml", workers=1, output="file.h5", progress=False),
        package.run({"workload": "workloads:half", **keys}, workers=1, output="dict.h5", progress=False),
        package.run("workloads:half", workers=1, output="keys.h5", progress=False, **keys),
    ]
    first, *others = sweeps
    for other in others:
        assert other.ended == "complete"
        # A user would type it so; the report prints it.
        assert "--master" not in other.environment["command"]
        for column in ("number", "state", "x", "y", "loss", "repeat"):
            assert (other.trials[column] == first.trials[column]).all()
        assert other.spec.space == first.spec.space
    # What Python began, a shell resumes.
    done = mpisweep("run", "dict.h5.toml", "-n", "1", "-o", "dict.h5")
    assert done.returncode == 0, done.stderr
    assert len(package.load("dict.h5").allocations) == 2


@pytest.mark.mpi
def test_a_script_runs_a_function_of_its_own_and_of_a_module_elsewhere(folder: Path, script):
    (folder / "code").mkdir()
    (folder / "code" / "elsewhere.py").write_text("def train(trial):\n    return trial.params['x'] * 2.0\n")
    (folder / "points.csv").write_text("x\n3\n5\n")
    done = script("""
import sys
import mpisweep
sys.path.append("code")
from elsewhere import train

def square(trial):
    return trial.params["x"] ** 2

if __name__ == "__main__":
    own = mpisweep.run(square, parameters={"x": [1, 2, 3]}, workers=2)
    print(own.trials["loss"].tolist(), own.path)
    # Relative paths start in the working directory, not beside the module.
    print(mpisweep.run(train, points="points.csv", output="e.h5", workers=1).trials["loss"].tolist())
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-3:] == ["[1.0, 4.0, 9.0] script-square-x.h5", "[6.0, 10.0]", ""]
    # A log has lines: no bar, and no marks of one.
    assert "script-square-x: complete; 3 of 3 trials have ended" in done.stderr
    assert not re.search("[\x1b\x1e\r]", done.stdout + done.stderr)


@pytest.mark.mpi
def test_a_program_is_a_list(here: Path):
    (here / "program.py").write_text("import sys\nprint('loss:', 3 * int(sys.argv[1]))\n")
    sweep = package.run(
        [sys.executable, "program.py", "{x}"], parameters={"x": [1, 2]}, metrics={"loss": "loss: "}, workers=1,
        progress=False,
    )  # fmt: skip
    assert sweep.path == Path("program-x.h5")
    assert sweep.trials["loss"].tolist() == [3.0, 6.0]


def test_values_of_python_and_numpy_become_toml(tmp_path: Path):
    class Colour(enum.StrEnum):
        RED = "red"

    text = sweep_text(
        {
            "workload": "m:f",
            "seed": np.int64(7),
            "name": None,
            "parameters": {
                "odd": range(1, 10, 2),
                "a": np.array([0.1, 0.2]),
                "b": (True, False),
                "c": [Colour.RED, 'q"\n'],
                "d": {"from": 1e-4, "to": 1.0, "scale": "log", "points": 5},
            },
            "fixed": {"path": Path("/data/x"), "tiny": 1e-300},
        },
        Wording("sweep"),
    )
    spec = parse_spec(text, source="sweep", folder=tmp_path)
    odd, a, b, c, d = spec.space.parameters
    assert [odd.at(i) for i in range(odd.count or 0)] == [1, 3, 5, 7, 9]
    assert [[one.at(i) for i in range(one.count or 0)] for one in (a, b, c)] == [
        [0.1, 0.2], [True, False], ["red", 'q"\n'],
    ]  # fmt: skip
    assert (d.count, spec.fixed, spec.seed) == (5, {"path": "/data/x", "tiny": 1e-300}, 7)


@pytest.mark.parametrize(("value", "problem"), [
    ({1, 2}, r"is \{1, 2\}; expected a number, a string, true or false, a list, a range or a table"),
    (b"x", r"is b'x'; expected a number.*"),
    ([1, None], r"\[1\]: is None; expected a number.*"),
    (range(3, 1), r"is range\(3, 1\); expected an ascending range that is not empty"),
    ({3: 1}, "has the key 3; expected names as strings"),
], ids=str)  # fmt: skip
def test_a_value_without_a_place_in_a_sweep_file_is_refused(value: object, problem: str):
    with pytest.raises(SpecError, match=f"^sweep: parameters.x.*{problem}$"):
        sweep_text({"parameters": {"x": value}}, Wording("sweep"))


def test_the_keywords_are_the_keys_of_a_sweep_file():
    assert {name.removesuffix("_") for name in SweepKeys.__annotations__} == set(names_of(""))


# ------------------------------------------------------------------------------------- what is refused


class Trainer:
    def method(self, trial):
        return 0.0


@pytest.mark.parametrize(("function", "problem"), [
    (lambda trial: 0.0, "workload: .*<lambda> is a lambda or is defined inside a function, .*; define it at the top level of a module"),
    (functools.partial(max, 1), r"workload: is functools.partial\(.*\), which trial processes cannot import; expected a function of a module"),
    (Trainer().method, "workload: is <bound method .*; expected a function of a module"),
])  # fmt: skip
def test_a_function_that_has_no_name_in_a_module_is_refused(function: Callable[..., Any], problem: str):
    with pytest.raises(package.InputError, match=f"^{problem}$"):
        named_function(function)


def test_a_function_of_a_package_and_of_an_installed_one_is_named(here: Path):
    from mpisweep.workloads.report import report

    assert named_function(report) == (
        "mpisweep.workloads.report:report",
        Path(package.__file__).parent.parent,
    )
    # On the path of every process: modules beside the working directory are found, too.
    assert named_function(np.linalg.norm).folder == Path.cwd()
    assert named_function(Trainer.method) == (f"{__name__}:Trainer.method", Path(__file__).parent)


@pytest.mark.parametrize(("arguments", "keys", "problem"), [
    (["s.toml"], {"trials": 3, "seed": 1}, "trials, seed: only applies without a sweep file; set it in s.toml"),
    (["missing.toml"], {}, "missing.toml: cannot be read: No such file or directory"),
    (["workloads:half"], {"parameters": {"x": {"from": 3, "to": 1}}}, "sweep: parameters.x: 'from' is 3 and 'to' is 1; .*"),
    (["workloads:half"], {"workload": "resnet50"}, "workload: is given twice, as the first argument and by name"),
    ([{"workload": "workloads:half"}], {"sede": 3}, "sweep: sede: is not a known key; did you mean 'seed'[?]"),
    (["workloads:half"], {"parameters": {"x": [1]}, "output": "no/x.h5"}, "no/x.h5: folder no does not exist; create it first"),
    (["workloads:half"], {"parameters": {"x": [1]}, "output": "."}, r"\.: is a folder; set output to a file, e.g. .*"),
    ([], {}, "sweep: workload: is missing; .*"),
    # These come from the command, which alone knows the machine.
    (["workloads:halff"], {"parameters": {"x": [1]}, "output": "x.h5"}, ".*has no function 'halff'.*; did you mean 'half'[?]"),
    (["workloads:half"], {"parameters": {"x": [1]}, "walltime": 1, "limits": {"grace": 60}}, "--walltime: .*"),
    (["workloads:half"], {"parameters": {"x": [1]}, "walltime": "soon"}, ".*'soon' is not a valid duration.*"),
])  # fmt: skip
def test_wrong_input_is_one_sentence(
    here: Path, arguments: list[Any], keys: dict[str, Any], problem: str, capfd
):
    (here / "s.toml").write_text(SWEEP)
    with pytest.raises(package.InputError, match=f"^{problem}$") as error:
        package.run(*arguments, **keys)
    assert "\n" not in str(error.value)
    # It is raised, and not printed as well.
    assert str(error.value) not in capfd.readouterr().err
    assert not list(here.glob("*.h5"))


@pytest.mark.mpi
def test_a_call_without_a_guard_is_refused_where_trials_would_repeat_it(script, folder: Path):
    done = script("""
import mpisweep

def square(trial):
    return trial.params["x"] ** 2

mpisweep.run(square, parameters={"x": [1, 2]}, workers=1)
""")
    assert done.returncode == 1
    assert re.search(
        "InputError: script-square-x.h5.toml: workload: script:square cannot be loaded: .*mpisweep.run is called where "
        'the module of a workload is imported; put the call under `if __name__ == "__main__":`',
        done.stderr,
    ), done.stderr
    assert not (folder / "script-square-x.h5").exists()


def test_a_call_by_a_rank_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    with pytest.raises(package.InputError, match="starts the ranks itself; run the script without mpirun"):
        package.run("workloads:half", parameters={"x": [1]})


def test_a_file_of_the_user_is_not_overwritten(here: Path):
    (here / "x.h5.toml").write_text("# mine\n")
    with pytest.raises(package.InputError, match=r"^x\.h5\.toml: was not written by mpisweep; move it aside"):
        package.run("workloads:half", parameters={"x": [1]}, output="x.h5")
    assert (here / "x.h5.toml").read_text() == "# mine\n"


# ------------------------------------------------------------------------------------- how runs end


@pytest.mark.mpi
def test_a_sweep_in_which_nothing_completes_raises_with_its_trials(here: Path, capfd):
    with pytest.raises(package.SweepError, match=r"^x\.h5: no trial completed; .*status x.h5") as error:
        package.run("workloads:unlucky", parameters={"x": [2, 3]}, output="x.h5", workers=1)
    assert error.value.exit_code == 4
    assert error.value.sweep is not None
    assert error.value.sweep.trials["cause"].tolist() == ["exception", "crash"]


GATED = """
import mpisweep

if __name__ == "__main__":
    try:
        sweep = mpisweep.run("workloads:gated", parameters={"x": range(1, 6)}, output="x.h5", workers=2)
    except KeyboardInterrupt as error:
        print("interrupted:", error)
        print(mpisweep.load("x.h5").ended)
        raise SystemExit(130)
    print(sweep.ended, sweep.ended.exit_code, sweep.ended.is_final)
"""


def _begun(folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start the script, and wait until two trials have begun."""
    (folder / "gated.py").write_text(GATED)
    process = remember(subprocess.Popen(
        [sys.executable, "gated.py"], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    ))  # fmt: skip
    wait_for(lambda: len(list(folder.glob("begun.*"))) == 2)
    return process


@pytest.mark.mpi
def test_ctrl_c_stops_cleanly_and_the_same_script_resumes(folder: Path, environment: dict[str, str]):
    process = _begun(folder, environment)
    # As a terminal does: the whole group of the script.
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, err
    assert out.splitlines()[-2:] == [
        "interrupted: x.h5: the run was interrupted; the same call resumes it", "stopped by a signal",
    ]  # fmt: skip
    (folder / "go").touch()
    again = subprocess.run(
        [sys.executable, "gated.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert again.stdout.splitlines()[-1] == "complete 0 True", again.stderr
    assert sorted((folder / "ran.txt").read_text().split()) == ["0", "1", "2", "3", "4"]


@pytest.mark.mpi
def test_a_sweep_that_was_stopped_is_returned(folder: Path, environment: dict[str, str], mpisweep: Run):
    process = _begun(folder, environment)
    assert mpisweep("stop", "x.h5").returncode == 0
    out, err = process.communicate(timeout=PATIENCE_S)
    assert out.splitlines()[-1] == "stopped on request 3 False", err
    assert process.returncode == 0


@pytest.mark.mpi
def test_a_script_that_is_killed_stops_its_sweep(folder: Path, environment: dict[str, str]):
    process = _begun(folder, environment)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    wait_for(lambda: (folder / "x.h5").exists() and package.load(folder / "x.h5").ended)
    assert package.load(folder / "x.h5").ended == "stopped by a signal"


@pytest.mark.mpi
def test_another_sweep_cannot_change_the_file_of_one_that_runs(
    folder: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    process = _begun(folder, environment)
    monkeypatch.chdir(folder)
    before = (folder / "x.h5.toml").read_text()
    with pytest.raises(
        package.InputError, match=r"^x\.h5\.toml: another sweep runs from this file; stop it first"
    ):
        package.run("workloads:half", parameters={"x": [1]}, output="x.h5")
    assert (folder / "x.h5.toml").read_text() == before
    (folder / "go").touch()
    out, err = process.communicate(timeout=PATIENCE_S)
    assert out.splitlines()[-1] == "complete 0 True", err


@pytest.mark.mpi
def test_a_terminal_gets_a_bar(folder: Path, environment: dict[str, str]):
    (folder / "script.py").write_text(
        "import mpisweep\nif __name__ == '__main__':\n"
        "    mpisweep.run('workloads:slowly', parameters={'x': range(1, 9)}, output='x.h5', workers=2)\n"
    )
    # `script` runs it on a terminal of its own.
    done = subprocess.run(
        ["script", "-qec", f"{sys.executable} script.py", "/dev/null"], cwd=folder,
        env=environment | {"TERM": "xterm", "COLUMNS": "120"}, capture_output=True, text=True, timeout=PATIENCE_S,
        check=True,
    )  # fmt: skip
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", done.stdout)
    assert re.search(r"trials ━+ 8/8 0 running", plain), plain
    assert "\x1e" not in done.stdout


# ------------------------------------------------------------------------------------- jobs


@pytest.fixture
def site(folder: Path, standins, monkeypatch: pytest.MonkeyPatch) -> str:
    """A site with PJM whose jobs have one rank; this process is on its login node."""
    (folder / "pjm.toml").write_text(
        'system = "pjm"\ngpus_per_node = 0\nranks_per_node = 1\nlocal_folders = []\ngroup = "small"\n'
    )
    monkeypatch.chdir(folder)
    for name, value in standins.environment.items():
        monkeypatch.setenv(name, value)
    return "./pjm.toml"


@pytest.mark.mpi
def test_a_submitted_sweep_is_waited_for(folder: Path, standins, site: str):
    venv = standins.folder.parent / "venv"
    job = package.submit(
        "workloads:gated", parameters={"x": [1, 2]}, output="x.h5", site=site, elapse="1:00:00", venv=venv
    )
    assert (job.ids, job.system, job.script.name, job.results) == (
        (job.id,), "pjm", "x.h5.job.sh", Path("x.h5"),
    )  # fmt: skip
    standins.wait_for(job.id, "running")
    wait_for(lambda: list(folder.glob("begun.*")))
    assert job.state == "running"
    assert len(job.sweep().trials) == 2
    with pytest.raises(TimeoutError, match=f"^job {job.id} is running after 0.1 s$"):
        job.wait(timeout=0.1, every=0.01)
    (folder / "go").touch()
    sweep = job.wait(every=0.1)
    assert (job.state, sweep.ended, sweep.trials["loss"].tolist()) == ("gone", "complete", [1.0, 2.0]), (
        standins.log(job.id)
    )


@pytest.mark.mpi
def test_the_jobs_of_a_chain_are_one_and_are_stopped_together(folder: Path, standins, site: str):
    venv = standins.folder.parent / "venv"
    job = package.submit(
        {"workload": "workloads:gated", "parameters": {"x": [1, 2]}, "limits": {"grace": 1}}, output="x.h5", site=site,
        elapse="1:00:00", chain=3, venv=venv, stage_to="$TMPDIR", stage_keep=True,
    )  # fmt: skip
    assert len(job.ids) == 3
    assert "--stage-to '$TMPDIR' --stage-keep" in job.script.read_text()
    wait_for(lambda: list(folder.glob("begun.*")))
    job.stop()
    assert job.wait(every=0.1).ended == "stopped on request"
    assert [standins.job(one)["started"] is None for one in job.ids] == [False, True, True]


@pytest.mark.parametrize("function", [package.run, package.submit])
def test_what_a_docstring_says_of_arguments_is_what_they_are(function: Callable[..., object]):
    text = inspect.getdoc(function) or ""
    section = text.split("\nArgs:\n")[1].split("\n\n")[0]
    assert re.findall(r"^    (\w+): ", section, flags=re.MULTILINE) == list(
        inspect.signature(function).parameters
    )


def test_a_job_that_is_refused_raises_the_batch_system_s_words(folder: Path, site: str):
    with pytest.raises(package.InputError, match=r"^--elapse: .*grace.*"):
        package.submit("workloads:half", parameters={"x": [1]}, site=site, elapse=1, limits={"grace": 60})
    with pytest.raises(package.InputError, match="did you mean 'pjm'"):
        package.submit("workloads:half", parameters={"x": [1]}, site="pjmm", elapse="1:00:00")
    assert not list(folder.glob("*.jobs"))


# ------------------------------------------------------------------------------------- imports and types


def test_importing_mpisweep_imports_nothing_heavy():
    code = (
        "import sys; before = set(sys.modules); import mpisweep; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"mpisweep", "typing", "_typing", "collections", "__future__"}


def test_the_examples_of_the_documentation_have_types(tmp_path: Path):
    """mypy --strict, as a user runs it, on every example that is Python."""
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(examples) > 5
    own = "from typing import Any\n\nimport mpisweep\n\n\ndef train(trial: mpisweep.Trial) -> dict[str, float]:\n    return {}\n"
    for name in ("my_train.py", "mytrial.py"):
        (tmp_path / name).write_text(own)
    for number, example in enumerate(examples):
        if not example.startswith("%%"):
            (tmp_path / f"example_{number}.py").write_text(example)
    (tmp_path / "wrong.py").write_text("import mpisweep\n\nmpisweep.run('s.toml', sede=1).best('5')\n")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        # As for an installed package: its types count, and errors in it do not.
        "--follow-imports=silent",
        "--cache-dir",
        str(tmp_path / "cache"),
        str(tmp_path),
    ]
    done = subprocess.run(
        command,
        env=os.environ | {"MYPYPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert [line.partition(":")[0] for line in errors] == ["wrong.py", "wrong.py"], done.stdout + done.stderr
    assert 'Unexpected keyword argument "sede"' in errors[0]
    assert 'has incompatible type "str"; expected "int"' in errors[1]
