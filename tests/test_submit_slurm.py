"""Submitting to a real Slurm: chains, status, stop, the signal before the end, and the shipped script."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import test_slurm
from test_submit import WORKLOADS, sweep
from waiting import PATIENCE_S, wait_for

import mpisweep as package
from mpisweep.batch.chain import read_record
from mpisweep.batch.slurm import SLURM
from mpisweep.progress import counted

#: A controller and three node daemons of the tests; skips if Slurm is not installed.
cluster = test_slurm.cluster

pytestmark = [pytest.mark.mpi, pytest.mark.slurm]

ROOT = Path(__file__).parent.parent
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def here(tmp_path: Path, standins) -> Path:
    folder = tmp_path / "a 'b\" ü"
    folder.mkdir()
    (folder / "workloads.py").write_text(WORKLOADS)
    (folder / "mine.toml").write_text(
        'system = "slurm"\ngpus_per_node = 0\nranks_per_node = 1\nlocal_folders = []\n'
    )
    return folder


@pytest.fixture
def run(here: Path, standins, cluster) -> Run:
    environment = standins.environment | cluster.environment | {"PYTHONPATH": str(ROOT)}

    def run_it(*command: str) -> subprocess.CompletedProcess[str]:
        program = (
            list(command)
            if command[0] in ("sbatch", "scancel")
            else [sys.executable, "-m", "mpisweep", *command]
        )
        return subprocess.run(
            program,
            cwd=here,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    return run_it


def submit_it(run: Run, standins, *options: str) -> list[str]:
    done = run(
        "submit", "s.toml", "--site", "./mine.toml", "--elapse", "1:00:00", "-o", "r.h5",
        "--venv", str(standins.folder.parent / "venv"), *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line.split(" job ")[1].split(":")[0].split(",")[0] for line in done.stdout.splitlines()]


def log(here: Path, job_id: str) -> str:
    return (here / f"r.{job_id}.log").read_text()


def test_a_chain_continues_until_the_sweep_is_complete_and_cancels_the_rest(
    here: Path, run: Run, standins, cluster
):
    sweep(here, "one_a_job", 3)
    ids = submit_it(run, standins, "--chain", "9")
    for job_id in ids:
        cluster.wait(job_id)
    assert set(package.load(here / "r.h5").trials["state"].tolist()) == {"complete"}
    began = read_record(here / "r.h5").began
    assert 2 <= len(began) < 8
    last = ids[len(began)]
    assert "this job has nothing to do: all 3 trials have ended" in log(here, last)
    assert f"cancelled {counted(8 - len(began), 'job')} after it" in log(here, last)


@pytest.mark.long
def test_each_job_of_a_split_sweep_begins_a_chain(here: Path, run: Run, standins, cluster):
    sweep(here, "first_of_its_job", 6)
    ids = submit_it(run, standins, "--split", "2", "--chain", "7")
    assert len(ids) == 14
    for job_id in ids:
        cluster.wait(job_id)
    ended = package.load(here / "r.h5")
    assert set(ended.trials["state"].tolist()) == {"complete"}
    assert len(read_record(here / "r.h5").began) > 3
    assert not (here / "r.h5.shares").exists()


def test_status_shows_the_jobs_and_stop_ends_them(here: Path, run: Run, standins, cluster):
    sweep(here, "gated", 3)
    running, waiting = submit_it(run, standins, "--chain", "2")
    wait_for((here / "begun.0").exists)
    said = run("status", "r.h5").stdout
    assert f"Slurm job {running}: running (RUNNING)" in said
    assert f"Slurm job {waiting}: waiting (PENDING, Dependency)" in said
    done = run("stop", "r.h5")
    assert done.returncode == 0, done.stderr
    assert "1 waiting job cancelled" in done.stdout
    assert "stopped; 0 of 3 trials have ended" in done.stdout
    for job_id in (running, waiting):
        cluster.wait(job_id)
    assert "submit this script again to resume it" in log(here, running)
    assert not (here / f"r.{waiting}.log").exists()


def test_the_signal_before_the_end_reaches_the_shell_and_stops_the_sweep_cleanly(
    here: Path, run: Run, standins, cluster
):
    sweep(here, "gated", 3)
    [job_id] = submit_it(run, standins, "--nodes", "2")
    wait_for((here / "begun.0").exists)
    # As --signal=B:USR1 does before the time limit.
    assert run("scancel", "--batch", "--signal=USR1", job_id).returncode == 0
    cluster.wait(job_id)
    assert package.load(here / "r.h5").state == "stopped by a signal"
    assert "submit this script again" in log(here, job_id)


def test_slurm_s_refusal_is_shown(here: Path, run: Run, standins):
    sweep(here, "half", 3)
    done = run(
        "submit", "s.toml", "--site", "./mine.toml", "--elapse", "1:00:00", "-o", "r.h5", "--group", "nowhere"
    )
    assert done.returncode == 2
    assert "sbatch refused r.h5.job.sh: sbatch: error: " in done.stderr
    assert "invalid partition" in done.stderr.lower()


def test_the_shipped_script_runs_a_sweep_to_its_end(here: Path, run: Run, standins, cluster):
    sweep(here, "half", 30)
    passed = f"ALL,MPISWEEP_SWEEP=s.toml,MPISWEEP_VENV={standins.folder.parent / 'venv'}"
    # This Slurm has no GPUs and four cores per node; it grants everything else.
    done = run(
        "sbatch",
        "--gpus-per-node=0",
        "--cpus-per-task=1",
        f"--export={passed}",
        str(ROOT / "jobscripts" / "slurm.sh"),
    )
    assert done.returncode == 0, done.stderr
    cluster.wait(SLURM.submitted_id(done.stdout))
    said = "".join(path.read_text() for path in here.glob("*.log"))
    assert len(package.load(here / "resnet50-batch-size.h5").best(99)) == 30, said
