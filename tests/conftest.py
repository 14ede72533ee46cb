"""Shared fixtures: mpisweep as users run it, workloads, and stand-ins for batch systems."""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from started import end_all
from waiting import PATIENCE_S, wait_for

WORKLOADS = '''
import os, signal, sys, time
from pathlib import Path


def half(trial):
    return trial.params["x"] * 0.5


def gated(trial):
    """Run until the file `go` exists; note each begin and each end in files."""
    Path(f"begun.{trial.number}").touch()
    while not Path("go").exists():
        if trial.should_stop():
            return None
        time.sleep(0.002)
    with open("ran.txt", "a") as ran:
        ran.write(f"{trial.number}\\n")
    return {"loss": float(trial.params["x"])}


def slowly(trial):
    for step in range(5):
        trial.report(step, loss=trial.params["x"] + step)
        time.sleep(0.01)
    return {"loss": float(trial.params["x"])}


def unlucky(trial):
    x = trial.params["x"]
    if x == 2:
        raise ValueError("x is two")
    if x == 3:
        os._exit(7)
    if x == 4:
        os.kill(os.getpid(), signal.SIGSEGV)
    if x == 5:
        time.sleep(1000)
    if x == 6:
        raise MemoryError("pretend")
    if x == 7:
        return "seven"
    if x == 8:
        sys.exit(3)
    if x == 9:
        return float("nan")
    return {"loss": float(x)}


def strayed(trial):
    """Number of variables that would make this process look like an MPI rank."""
    return sum(name.startswith(("OMPI_COMM_", "PMIX_", "PMI_")) for name in os.environ)


def seeded(trial):
    return {"loss": float(trial.seed % 1000003)}
'''


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Print a measured number in the summary at the end of the tests."""
    return lambda text: record_property("measured", text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for found in terminalreporter.stats.values() for report in found]
    told = [
        str(text)
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, text in report.user_properties
        if name == "measured"
    ]
    if told:
        terminalreporter.section("measured")
        for text in told:
            terminalreporter.write_line(text)


@pytest.fixture(autouse=True)
def _temporary_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Give each test a folder for temporary files, as each job has one.

    A later mpirun with the same process id must not find files that a killed Open MPI left there; see
    mpisweep.batch.launchers.session_variables.  The path is short because it holds sockets.
    """
    tmp_path_factory.getbasetemp()  # chosen before TMPDIR changes
    with tempfile.TemporaryDirectory(prefix="mpisweep-test-", ignore_cleanup_errors=True) as made:
        monkeypatch.setenv("TMPDIR", made)
        monkeypatch.setattr(tempfile, "tempdir", made)
        yield


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    yield
    end_all()
    # Loaders of images stay from trial to trial; a trial that ran in this process leaves them here.
    loading = sys.modules.get("mpisweep.workloads.folder.loading")
    if loading is not None:
        loading.drop_loaders()
        wait_for(lambda: not multiprocessing.active_children())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a hostile name that holds the workloads."""
    made = tmp_path / "a 'b\" ü"
    made.mkdir()
    (made / "workloads.py").write_text(WORKLOADS, encoding="utf-8")
    return made


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of a user's shell, with the variables that Open MPI requires of root."""
    # Without ^ofi MPI_Init waits a second for a fabric; see mpisweep.batch.launchers.one_host_variables.
    root = {"OMPI_MCA_btl": "^ofi"} | dict.fromkeys(
        (
            "OMPI_ALLOW_RUN_AS_ROOT",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
            "PRTE_ALLOW_RUN_AS_ROOT",
            "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM",
            "OMPI_MCA_mpi_yield_when_idle",
        ),
        "1",
    )
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | root | {"PATH": path}


@pytest.fixture
def mpisweep(folder: Path, environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``mpisweep ARGUMENTS`` to its end in the folder; ``ranks=N`` runs it under mpirun."""

    def run(*arguments: str, ranks: int | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mpisweep", *arguments]
        if ranks is not None:
            command = ["mpirun", "--oversubscribe", "-n", str(ranks), *command]
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    return run


class Standins:
    """Stand-ins for PJM, PBS and Grid Engine: folder of jobs and environment of the commands."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def use(self, system: str) -> None:
        """Select the system that qsub, qstat and qdel belong to; without a call it is PBS."""
        own = str(Path(__file__).parent / "standins" / "gridengine" / "bin" / "lx-amd64")
        path = [part for part in self.environment["PATH"].split(os.pathsep) if part != own]
        self.environment["PATH"] = os.pathsep.join([own, *path] if system == "gridengine" else path)

    def job(self, job_id: str) -> dict[str, Any]:
        """The present record of a job."""
        found: dict[str, Any] = json.loads((self.folder / f"{job_id}.json").read_text())
        return found

    def wait_for(self, job_id: str, state: str = "ended") -> dict[str, Any]:
        """Wait until a job is in this state or has ended, and return its record."""
        wait_for(lambda: self.job(job_id)["state"] in (state, "ended"))
        return self.job(job_id)

    def log(self, job_id: str) -> str:
        """The output of a job."""
        return Path(self.job(job_id)["output"]).read_text()

    def end_all(self) -> None:
        """Delete all jobs and wait until they have ended."""
        jobs = [path.stem for path in self.folder.glob("*.json")]
        for job_id in jobs:
            (self.folder / f"{job_id}.delete").touch()
        for job_id in jobs:
            self.wait_for(job_id)


@pytest.fixture
def standins(tmp_path: Path, environment: dict[str, str]) -> Iterator[Standins]:
    """Stand-ins for PJM, PBS and Grid Engine, and a `venv` for their jobs; see tests/standins."""
    folder, home, scripts = tmp_path / "standins", tmp_path / "home", tmp_path / "venv" / "bin"
    for made in (folder, home, scripts):
        made.mkdir(parents=True)
    root = Path(__file__).parent.parent
    python = shlex.quote(sys.executable)
    (scripts / "activate").write_text(
        f"export PATH={shlex.quote(str(scripts))}:$PATH PYTHONPATH={shlex.quote(str(root))}\n"
    )
    (scripts / "mpisweep").write_text(
        f'#!/bin/sh\nexport PYTHONPATH={shlex.quote(str(root))}\nexec {python} -m mpisweep "$@"\n'
    )
    (scripts / "mpisweep").chmod(0o755)
    found = Standins(
        folder,
        environment
        | {
            "STANDIN_FOLDER": str(folder),
            "STANDIN_KILL_S": "10",
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home),
            "STANDIN_MODULES": str(Path(sys.executable).parent),
            "PYTHONPATH": str(root),
            "PATH": os.pathsep.join([str(root / "tests" / "standins"), environment["PATH"]]),
        },
    )
    yield found
    found.end_all()
