"""Whole sweeps under a real Slurm: a controller and three node daemons that the tests start on this machine.

Skipped without root, or if Slurm's and munge's programs are not installed; `.ci/run` installs them.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from private_slurm import DAEMONS, NODES, Cluster
from waiting import wait_for

import mpisweep as package
from mpisweep.views.report import page

pytestmark = [pytest.mark.mpi, pytest.mark.slurm]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if os.geteuid() != 0:
        pytest.skip("starting a Slurm takes root")
    missing = [name for name in DAEMONS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (Debian: slurmctld slurmd slurm-client munge)")
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    made = Cluster(tmp_path_factory.mktemp("slurm"), outside | {"PATH": path})
    try:
        made.start()
        yield made
    finally:
        made.stop()


WORKLOAD = """
import os, time


def note(trial, what):
    with open("ran.txt", "a") as ran:
        ran.write(f"{trial.number} {os.environ['SLURMD_NODENAME']} {what}\\n")


def run(trial):
    note(trial, "begun")
    for step in range(10):
        time.sleep(0.02)
        if trial.should_stop():
            return None
    note(trial, "ended")
    return 2.0 * trial.params["x"]
"""

RUN = f"{sys.executable} -m mpisweep run s.toml -o r.h5"


def sweep(folder: Path, last: int) -> None:
    (folder / "mine.py").write_text(WORKLOAD)
    (folder / "s.toml").write_text(
        'name = "s"\n'
        'workload = "mine:run"\n'
        "[parameters]\n"
        f"x = {{ from = 1, to = {last} }}\n"
        "[limits]\n"
        "grace = 2\n"
    )


def ran(folder: Path, what: str) -> list[tuple[int, str]]:
    path = folder / "ran.txt"
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [(int(number), node) for number, node, event in lines if event == what]


def ended(folder: Path) -> set[int]:
    try:
        trials = package.load(folder / "r.h5").trials
    except package.ResultsError:
        return set()
    return set(trials["number"][trials["state"] == "complete"].tolist())


def log_of(folder: Path) -> str:
    return (folder / "log").read_text() if (folder / "log").exists() else ""


def rc(folder: Path) -> int:
    return int((folder / "rc").read_text())


def resume(cluster: Cluster, folder: Path, last: int, known: set[int]) -> None:
    """Submit again; check that the sweep completes, keeps every known end and reruns none of them."""
    before = ran(folder, "begun")
    cluster.wait(cluster.submit(folder, RUN))
    assert rc(folder) == 0, log_of(folder)
    assert ended(folder) == set(range(last))
    assert package.load(folder / "r.h5").trials["loss"].tolist() == [2.0 * x for x in range(1, last + 1)]
    assert not known & {number for number, _ in ran(folder, "begun")[len(before) :]}


def test_plain_run_works_on_every_node_of_the_allocation(cluster: Cluster, folder: Path):
    sweep(folder, 60)
    # The job waits for one that has all nodes for three seconds.
    cluster.ask("sbatch", "--nodes=3", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    dry_run = f"{RUN} --dry-run > dry.txt"
    times = "squeue --noheader --jobs=$SLURM_JOB_ID --format='%V %S' > times"
    cluster.wait(cluster.submit(folder, times, dry_run, RUN, options=("--time=5",)))
    assert rc(folder) == 0, log_of(folder)
    assert {node for _, node in ran(folder, "ended")} == set(NODES)
    assert sorted(number for number, _ in ran(folder, "begun")) == list(range(60))
    found = package.load(folder / "r.h5")
    assert found.trials["state"].tolist() == ["complete"] * 60
    assert found.allocations["ranks"].tolist() == [3]
    assert found.allocations["batch_system"].tolist() == ["slurm"]
    dry = (folder / "dry.txt").read_text()
    assert "Slurm job" in dry
    assert "3 nodes, 3 ranks asked for" in dry
    assert "--map-by ppr:1:node" in dry
    assert "(scontrol)" in dry
    submitted, started = map(datetime.fromisoformat, (folder / "times").read_text().split())
    waited_s = (started - submitted).total_seconds()
    assert waited_s >= 2
    assert found.allocations["queue_wait"].tolist() == [waited_s]
    assert f"own job waited {waited_s:.2g} s in the queue" in page(found)


def test_a_sweep_stops_before_the_end_that_slurm_reports_and_the_next_job_resumes_it(
    cluster: Cluster, folder: Path
):
    sweep(folder, 400)
    # Time limits are in minutes; an end time is exact to a second.
    shorten = "scontrol update JobId=$SLURM_JOB_ID EndTime=$(date -d '+16 seconds' +%Y-%m-%dT%H:%M:%S)"
    job = cluster.submit(
        folder,
        shorten,
        "squeue --noheader --jobs=$SLURM_JOB_ID --format=%e > end",
        RUN,
        options=("--time=5",),
    )
    cluster.wait(job)
    assert rc(folder) == 3, log_of(folder)
    stopped = package.load(folder / "r.h5")
    assert stopped.state == "stopped before the walltime"
    assert "CANCELLED" not in log_of(folder)
    assert not (folder / "r.h5.journal").exists()
    assert stopped.allocations["closing_time"][0] > 0
    known = ended(folder)
    assert 0 < len(known) < 400
    # Make the remaining trials short.
    (folder / "mine.py").write_text(WORKLOAD.replace("range(10)", "range(0)"))
    resume(cluster, folder, 400, known)


@pytest.mark.parametrize("how", [("--signal=USR1",), ()], ids=["asked by a signal", "cancelled"])
def test_a_job_that_is_ended_from_outside_can_be_resumed(
    cluster: Cluster, folder: Path, how: tuple[str, ...]
):
    sweep(folder, 90)
    job = cluster.submit(folder, RUN)
    wait_for(lambda: len(ended(folder)) >= 6)
    known = ended(folder)
    cluster.ask("scancel", *how, job)
    cluster.wait(job)
    found = package.load(folder / "r.h5")
    assert set(found.trials["state"].tolist()) <= {"complete", "waiting", "running"}, (
        "nothing is blamed on a trial"
    )
    assert known <= ended(folder)
    if how:
        assert rc(folder) == 3, log_of(folder)
        assert found.state == "stopped by a signal"
    resume(cluster, folder, 90, ended(folder))


def test_when_a_node_is_lost_the_others_complete_the_sweep_in_the_same_job(cluster: Cluster, folder: Path):
    sweep(folder, 90)
    job = cluster.submit(folder, RUN, options=("--no-kill",))
    wait_for(lambda: {"n2", "n3"} <= {node for _, node in ran(folder, "ended")} and len(ended(folder)) >= 6)
    known, began = ended(folder), time.time()
    try:
        cluster.lose("n2")
        wait_for(lambda: "no longer answers" in log_of(folder))
        seen = len(ran(folder, "begun"))
        wait_for(lambda: (folder / "rc").exists() and (folder / "rc").read_text())
    finally:
        cluster.start_node("n2")
    cluster.wait(job)
    assert rc(folder) == 0, log_of(folder)
    assert "n2 no longer answers; continuing with 2 ranks on 2 of 3 nodes" in log_of(folder)
    found = package.load(folder / "r.h5")
    assert found.trials["state"].tolist() == ["complete"] * 90
    assert found.allocations["ranks"].tolist() == [3, 2]
    assert {node for _, node in ran(folder, "begun")[seen:]} == {"n1", "n3"}
    begun = [number for number, _ in ran(folder, "begun")]
    assert all(begun.count(number) == 1 for number in known), "an acknowledged trial ran again"
    print(f"recovery after a lost node: {found.allocations['started_at'][1] - began:.1f} s")
