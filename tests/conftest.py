"""What several tests need: a way to run mpisweep as users do, and workloads that take no time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

WORKLOADS = '''
import os, signal, sys, time
from pathlib import Path


def half(trial):
    return trial.params["x"] * 0.5


def gated(trial):
    """Runs until the file `go` is there; says that it has begun, and how often it ran to its end."""
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
    """How many variables would make this process take itself for an MPI rank."""
    return sum(name.startswith(("OMPI_COMM_", "PMIX_", "PMI_")) for name in os.environ)


def seeded(trial):
    return {"loss": float(trial.seed % 1000003)}
'''


_MEASURED = pytest.StashKey[list[str]]()


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Have a measured number printed at the end of the tests, where it can be seen."""
    return request.config.stash.setdefault(_MEASURED, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if measured := config.stash.get(_MEASURED, []):
        terminalreporter.section("measured")
        for text in measured:
            terminalreporter.write_line(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a hostile name and the workloads in it."""
    made = tmp_path / "a 'b\" ü"
    made.mkdir()
    (made / "workloads.py").write_text(WORKLOADS, encoding="utf-8")
    return made


@pytest.fixture
def environment() -> dict[str, str]:
    """What a user's shell has, with what Open MPI asks of root."""
    root = dict.fromkeys(("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "PRTE_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_mpi_yield_when_idle"), "1")  # fmt: skip
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | root | {"PATH": path}


@pytest.fixture
def mpisweep(folder: Path, environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``mpisweep ARGUMENTS`` to its end in the folder; ``ranks=N`` has a typed mpirun start it."""

    def run(*arguments: str, ranks: int | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mpisweep", *arguments]
        if ranks is not None:
            command = ["mpirun", "--oversubscribe", "-n", str(ranks), *command]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    return run
