"""The search for the best batch size with real ranks: what it runs, and kill -9 of everything."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import psutil
import pytest
from test_reliability import ended
from test_run import start
from waiting import wait_for

import mpisweep as package
from mpisweep.blocks import EndedBlock
from mpisweep.master.known import known_trials
from mpisweep.master.searching import make_search
from mpisweep.records import FailureCause, TrialState
from mpisweep.search import make_sampler
from mpisweep.search.numbering import number_trials
from mpisweep.spec import load_spec

Run = Callable[..., subprocess.CompletedProcess[str]]

#: The best sizes are 210 at equal steps and 60 at equal samples.
VALLEYS = """
import time
from math import log2

def train(trial):
    size = trial.params["batch_size"]
    if size > 500:
        raise MemoryError
    time.sleep(trial.params["pause"])
    at = {"steps": 210, "samples": 60}
    return {"loss": 1 + log2(size / 4) ** 2} | {f"loss_at_{axis}": 1 + log2(size / best) ** 2 for axis, best in at.items()}
"""
SWEEP = """
workload = "mine:train"
search = "batch_size"
[parameters]
batch_size = { from = 1, to = 700 }
[fixed]
pause = PAUSE
[baseline]
batch_size = 256
"""


@pytest.mark.mpi
def test_a_killed_job_goes_on_as_if_it_had_not_been_killed(folder, environment, mpisweep: Run):
    (folder / "mine.py").write_text(VALLEYS)
    (folder / "s.toml").write_text(SWEEP.replace("PAUSE", "0.1"))
    assert "at most 35 configurations of 700" in mpisweep("check", "s.toml").stdout
    sweep = start(folder, environment, "run", "s.toml", "-n", "2", "-o", "r.h5")
    wait_for(lambda: ended(folder / "r.h5") >= 16)
    for process in [*psutil.Process(sweep.pid).children(recursive=True), psutil.Process(sweep.pid)]:
        if process.is_running():
            process.kill()
    sweep.wait()
    done = mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert len(trials) == len(set(trials["batch_size"].tolist())) <= 35
    assert trials["state"][trials["batch_size"] > 500].tolist()
    assert set(trials["state"][trials["batch_size"] > 500].tolist()) == {"failed"}
    for axis, best in (("steps", 210), ("samples", 60)):
        complete = trials[trials["state"] == "complete"]
        found = complete["batch_size"][complete[f"loss_at_{axis}"].argmin()]
        assert abs(found - best) <= 2


@pytest.mark.mpi
def test_a_resumed_search_is_told_the_losses_at_the_budgets(folder, mpisweep: Run):
    (folder / "mine.py").write_text(VALLEYS)
    (folder / "s.toml").write_text(SWEEP.replace("PAUSE", "0.0"))
    done = mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5", "--quiet")
    assert done.returncode == 0, done.stderr
    (folder / "s.toml").write_text("trials = 60" + (folder / "s.toml").read_text())
    spec = load_spec(folder / "s.toml")
    known = known_trials(spec, folder / "r.h5")
    rebuilt = make_search(spec, make_sampler(spec), number_trials(spec, make_sampler(spec), known), known)

    told = make_sampler(spec)
    for number, row in enumerate(package.load(folder / "r.h5").trials):
        told.add(number, {"batch_size": int(row["batch_size"])})
        is_complete = row["state"] == "complete"
        state = TrialState.COMPLETE if is_complete else TrialState.FAILED
        cause = FailureCause.NONE if is_complete else FailureCause.OUT_OF_MEMORY
        losses = {f"loss_at_{axis}": [float(row[f"loss_at_{axis}"])] for axis in ("steps", "samples")}
        told.tell(EndedBlock(0, 0, [number], [1], [int(state)], [0.0], [1.0], losses, [int(cause)], [""]))
    assert rebuilt.ask() == told.ask() != []


@pytest.mark.mpi
def test_it_cannot_be_shared_between_jobs(folder, mpisweep: Run):
    (folder / "mine.py").write_text(VALLEYS)
    (folder / "s.toml").write_text(SWEEP.replace("PAUSE", "0.0"))
    refused = mpisweep("run", "s.toml", "--split", "2")
    assert refused.returncode == 2
    assert "'batch_size' chooses trials by earlier results" in refused.stderr
