"""Every way in which a run can end, with real processes: what the launcher returns, prints, and leaves in the file."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import test_launch
from test_launch import on_node
from test_run import family, start, sweep_file
from waiting import PATIENCE_S, wait_for

import mpisweep as package

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.mpi

#: Three nodes that are this machine, each with a host name of its own.
pjm = test_launch.pjm


def stderr_of(folder: Path) -> str:
    return (folder / "stderr.txt").read_text(encoding="utf-8")


def last_line(text: str) -> str:
    return text.rstrip("\n").rpartition("\n")[2]


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything that the sweep has on disk."""
    return {os.fspath(path): path.read_bytes() for path in sorted(folder.rglob("r.h5*")) if path.is_file()}


def begun(folder: Path, count: int) -> Callable[[], bool]:
    return lambda: len(list(folder.glob("begun.*"))) >= count


# ------------------------------------------------------------------------------------- ranks that hang, launchers that sleep


def test_a_rank_that_hangs_alone_on_its_node_does_not_keep_the_allocation(folder, pjm, tell):
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("giving nodes that are this machine host names of their own takes root and unshare")
    process = start(folder, pjm, "run", sweep_file(folder, "gated", 12, "[limits]\nsilence = 2\n"), "-o", "r.h5")
    wait_for(begun(folder, 3))
    ranks = [member for member in family(process) if on_node(member) == "vn2" and "OMPI_COMM_WORLD_RANK" in member.environ()]
    rank = next(member for member in ranks if member.environ()["OMPI_COMM_WORLD_RANK"] != "0")
    members = family(process)
    rank.suspend()
    (folder / "go").touch()
    wait_for(lambda: not (folder / "r.h5.journal").exists())
    ended_at = time.monotonic()
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    tell(f"a hung rank keeps mpirun for {time.monotonic() - ended_at:.1f} s after the end of its run")
    assert last_line(stderr_of(folder)).endswith("s: complete; 12 of 12 trials have ended")
    assert package.load(folder / "r.h5").allocations["end"].tolist() == ["complete"]
    _, alive = psutil.wait_procs(members, timeout=PATIENCE_S)
    assert alive == []


def frozen_launch(folder: Path, environment: dict[str, str], last: int) -> subprocess.Popen[str]:
    """A launch whose launcher sleeps, and whose ranks are gone without a word."""
    process = start(folder, environment, "run", sweep_file(folder, "gated", last), "-n", "2", "-o", "r.h5")
    wait_for(begun(folder, 2))
    os.kill(process.pid, signal.SIGSTOP)
    below = psutil.Process(process.pid).children(recursive=True)
    for act in (psutil.Process.suspend, psutil.Process.kill):
        for member in below:
            # What has ended meanwhile need not be frozen.
            with contextlib.suppress(psutil.NoSuchProcess):
                act(member)
    # The launcher's own children stay until it wakes up.
    wait_for(lambda: all(not member.is_running() or member.status() == psutil.STATUS_ZOMBIE for member in below))
    return process


def test_a_launcher_that_wakes_up_after_another_run_has_had_the_sweep_touches_nothing(folder, environment, mpisweep: Run):
    process = frozen_launch(folder, environment, 6)
    (folder / "go").touch()
    assert mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5").returncode == 0
    before = files_of(folder)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(timeout=PATIENCE_S) == 3
    assert files_of(folder) == before
    assert "another run has taken this sweep over (on " in last_line(stderr_of(folder))
    assert "starting the ranks again" not in stderr_of(folder)


def test_a_launcher_that_wakes_up_while_another_run_has_the_sweep_leaves_it_alone(folder, environment):
    process = frozen_launch(folder, environment, 6)
    for path in folder.glob("begun.*"):
        path.unlink()
    errors = (folder / "stderr.txt").rename(folder / "first.txt")
    other = start(folder, environment, "run", "s.toml", "-n", "2", "-o", "r.h5")
    wait_for(begun(folder, 2))
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(timeout=PATIENCE_S) == 3
    assert "another run has taken this sweep over (on " in last_line(errors.read_text())
    (folder / "go").touch()
    assert other.wait(timeout=PATIENCE_S) == 0
    assert package.load(folder / "r.h5").allocations["end"].tolist() == ["", "complete"]


def test_a_launcher_that_wakes_up_after_its_own_run_has_ended_returns_its_end_whatever_came_later(folder, environment, mpisweep: Run):
    process = start(folder, environment, "run", sweep_file(folder, "gated", 4), "-n", "2", "-o", "r.h5")
    wait_for(begun(folder, 2))
    os.kill(process.pid, signal.SIGSTOP)
    (folder / "go").touch()
    wait_for(lambda: (folder / "r.h5").exists() and not (folder / "r.h5.journal").exists())
    assert mpisweep("run", sweep_file(folder, "gated", 5), "-n", "2", "-o", "r.h5").returncode == 0
    before = files_of(folder)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert files_of(folder) == before
