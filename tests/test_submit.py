"""Submitting: real sweeps in jobs of stand-ins for PJM, PBS and Grid Engine; chains, stop and status."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from named_nodes import CAN_NAME_NODES
from waiting import PATIENCE_S, wait_for

import mpisweep as package
from mpisweep.batch.chain import (
    Began,
    Record,
    Standing,
    Stopped,
    Submitted,
    jobs_file,
    note,
    read_record,
    why_over,
)
from mpisweep.batch.gridengine import GRID_ENGINE
from mpisweep.batch.jobfacts import JobState, QueuedJob
from mpisweep.batch.jobs import cancel_waiting, submit_link
from mpisweep.batch.pbs import PBS
from mpisweep.batch.pjm import PJM
from mpisweep.batch.queue import parse_answer
from mpisweep.batch.slurm import SLURM
from mpisweep.batch.submit import SubmitError, submit
from mpisweep.cli import main
from mpisweep.results import shares_folder

ROOT = Path(__file__).parent.parent
Run = Callable[..., subprocess.CompletedProcess[str]]

WORKLOADS = '''
import os
import time
from pathlib import Path


def half(trial):
    return trial.params["x"] * 0.5


def gated(trial):
    """Runs until the file `go` exists; records that it has begun."""
    Path(f"begun.{trial.number}").touch()
    while not Path("go").exists():
        if trial.should_stop():
            return None
        time.sleep(0.002)
    return {"loss": float(trial.params["x"])}


def one_a_job(trial):
    """The first trials of every job request a stop, like a time limit, and end in time."""
    Path("r.h5.stop").touch()
    while Path("r.h5.stop").exists():
        time.sleep(0.002)
    return {"loss": float(trial.params["x"])}


def first_of_its_job(trial):
    """The first trial of each job ends and requests a stop, like a time limit; the others do not end."""
    job = Path("job." + next(os.environ[name] for name in ("PJM_SUBJOBID", "SLURM_JOB_ID", "PBS_JOBID", "JOB_ID") if name in os.environ))
    if not job.exists():
        job.touch()
        Path("r.h5.stop").touch()
        return {"loss": float(trial.params["x"])}
    while not trial.should_stop():
        time.sleep(0.002)
    return None


def together(trial):
    """Ends once a trial of another job has begun, too."""
    Path(f"begun.{trial.params['x']}").touch()
    while len(list(Path().glob("begun.*"))) < 2:
        time.sleep(0.002)
    return {"loss": float(trial.params["x"])}


def never_done(trial):
    """Is stopped before it ends, in every job."""
    Path("r.h5.stop").touch()
    while not trial.should_stop():
        time.sleep(0.002)
    return None
'''


# ------------------------------------------------------------------------------------- the rule of chains

LINKS = tuple(Submitted(f"9_{n}", "pjm", "job.sh", "/", 100.0 + n, "c", n + 1, 5) for n in range(5))


def record(*ended: int, stopped_at: float = 0.0) -> Record:
    return Record(LINKS, {f"9_{n}": Began(f"9_{n}", count, 0.0) for n, count in enumerate(ended)}, stopped_at)


@pytest.mark.parametrize(
    ("known", "link", "standing", "words"),
    [
        (record(), "9_0", Standing(), ""),
        (record(), "9_0", Standing(7, 7), ""),  # the first job always runs: the sweep may have grown
        (record(0), "9_1", Standing(5, 10), ""),
        (record(0), "9_1", Standing(10, 10), "all 10 trials have ended"),
        (
            record(0),
            "9_1",
            Standing(3, 10, "stopped because the first trials all failed alike"),
            "stopped because the first trials all failed alike",
        ),
        (record(0), "9_1", Standing(0, 10), ""),  # one job without progress may have had a bad node
        (record(0, 0), "9_2", Standing(0, 10), "no trial has ended in the last 2 jobs"),
        (record(0, 4), "9_2", Standing(4, 10), ""),
        (record(0, 4, 4), "9_3", Standing(4, 10), "no trial has ended in the last 2 jobs"),
        (record(0, 4, 4), "9_3", Standing(5, 10), ""),
        (record(0, stopped_at=99.0), "9_1", Standing(1, 10), ""),  # before this chain
        (record(0, stopped_at=105.0), "9_1", Standing(1, 10), "mpisweep stop"),
        (record(stopped_at=105.0), "9_0", Standing(), "mpisweep stop"),
        (record(0, 0, stopped_at=105.0), "somebody else's", Standing(10, 10), ""),
    ],
)
def test_a_chain_ends_by_its_rule(known: Record, link: str, standing: Standing, words: str):
    over = why_over(known, link, standing)
    assert words in over
    assert bool(over) == bool(words)


def test_a_job_that_never_began_does_not_count_as_a_job_without_progress():
    known = Record(LINKS, {"9_0": Began("9_0", 0, 0.0), "9_2": Began("9_2", 0, 0.0)})
    assert why_over(known, "9_3", Standing(1, 10)) == ""


def test_the_first_job_of_a_chain_that_begins_runs_the_sweep():
    assert why_over(record(), "9_1", Standing(1, 10)) == ""


def test_the_record_is_append_only_and_skips_unreadable_lines(tmp_path: Path):
    results = tmp_path / "r.h5"
    assert read_record(results) == Record()
    note(results, [LINKS[0], LINKS[1]])
    with jobs_file(results).open("ab") as file:
        file.write(
            b'{"what": "submitted", "job_id": 3}\n{"what": "alien"}\n[1]\nnull\n\xff{"\n{"what": "began", "job_id": "9_0"'
        )
        file.write(b"\n")
    note(results, [Began("9_0", 3, 1.0), Stopped(7.0)])
    found = read_record(results)
    assert found == Record(LINKS[:2], {"9_0": Began("9_0", 3, 1.0)}, 7.0)
    assert [link.job_id for link in found.chain("c")] == ["9_0", "9_1"]
    assert found.chain("") == []


# ------------------------------------------------------------------------------------- output of the systems


def test_a_refusal_with_exit_code_0_is_still_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "pjsub").write_text(
        "#!/bin/sh\necho '[ERR.] PJM 0007 pjsub Staging option error (3).'\necho '  Refer to the file.'\n"
    )
    (tmp_path / "pjsub").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(
        SubmitError,
        match=r"pjsub refused job.sh: \[ERR.\] PJM 0007 pjsub Staging option error \(3\). Refer to the file.",
    ):
        submit(PJM, tmp_path / "job.sh", folder=tmp_path)


def test_jobs_of_a_chain_use_each_system_s_dependencies():
    assert PJM.follow_options(chained=False, after="") == []
    assert PJM.follow_options(chained=True, after="") == ["--step"]
    assert PJM.follow_options(chained=True, after="64856_0") == [
        "--step",
        "--sparam",
        "jid=64856,sn=1,sd=ec==0:after:0",
    ]
    assert SLURM.follow_options(chained=True, after="") == []
    assert SLURM.follow_options(chained=True, after="42") == ["--dependency=afterany:42"]
    assert PBS.follow_options(chained=True, after="7.server") == ["-W", "depend=afterany:7.server"]
    assert GRID_ENGINE.follow_options(chained=True, after="") == []
    assert GRID_ENGINE.follow_options(chained=True, after="42") == ["-hold_jid", "42"]


PJSTAT = """
JOB_ID  JOB_NAME  MD  ST   USER   START_DATE      ELAPSE_LIM  NODE_REQUIRE  VNODE  CORE  V_MEM
238     job.sh    NM  RUN  user1  11/17 09:01:41  0001:00:00  12:2x3x2      -      -     -
240_1   step.sh   ST  QUE  user1  -               0001:00:00  2             -      -     -
241     job2.sh   NM  HLD  user1  -               0001:00:00  2             -      -     -
242     job3.sh   NM  NEW  user1  -               0001:00:00  2             -      -     -
"""
OTHER_PJSTAT = """
JOB_ID       JOB_NAME         STATUS   PROJECT   RSCGROUP         START_DATE       ELAPSE           TOKEN NODE GPU
238          job.sh           RUNNING  gk77      regular-a        11/17 09:01:41   00:12:01         1.2   2    -
240_1        step.sh          QUEUED   gk77      regular-a        -                -                -     2    -
"""
QSTAT = """Job Id: 1.server
    Job_Name = sweep
    job_state = R
    comment = Job run at Tue Nov 24 at 19:00
Job Id: 2.server
    job_state = H
"""
QSTAT_XML = """<?xml version='1.0'?>
<job_info  xmlns:xsd="http://example.org/qstat.xsd">
  <queue_info>
    <job_list state="running">
      <JB_job_number>238</JB_job_number>
      <JB_name>a job</JB_name>
      <state>r</state>
      <JAT_start_time>2026-11-17T09:01:41</JAT_start_time>
    </job_list>
    <job_list state="running">
      <JB_job_number>240</JB_job_number>
      <state>dr</state>
      <tasks>3</tasks>
    </job_list>
  </queue_info>
  <job_info>
    <job_list state="pending">
      <JB_job_number>241</JB_job_number>
      <state>hqw</state>
    </job_list>
    <job_list state="pending">
      <JB_job_number>242</JB_job_number>
      <state>qw</state>
    </job_list>
  </job_info>
</job_info>
"""
QSTAT_TABLE = """job-ID     prior   name       user         state submit/start at     queue                          jclass                         slots ja-task-ID
------------------------------------------------------------------------------------------------------------------------------------------------
       238 0.55500 sweep      user1        r     11/17/2026 09:01:41 all.q@n1                                                          8
       241 0.00000 sweep      user1        hqw   11/17/2026 09:01:42                                                                   8
       243 0.00000 sweep      user1        Eqw   11/17/2026 09:01:42                                                                   8
       244 0.00000 sweep      user1        S     11/17/2026 09:01:42 all.q@n1                                                          8
"""


@pytest.mark.parametrize(
    ("system", "text", "states"),
    [
        (PJM, PJSTAT, {"238": "running", "240_1": "waiting", "241": "held", "242": "waiting"}),
        (PJM, OTHER_PJSTAT, {"238": "running", "240_1": "waiting"}),
        (PJM, "", {}),
        (
            SLURM,
            "42 RUNNING None\n43 PENDING Dependency\n44 COMPLETING None\n",
            {"42": "running", "43": "waiting", "44": "running"},
        ),
        (PBS, QSTAT, {"1.server": "running", "2.server": "held"}),
        (GRID_ENGINE, QSTAT_XML, {"238": "running", "240.3": "running", "241": "held", "242": "waiting"}),
        (GRID_ENGINE, QSTAT_TABLE, {"238": "running", "241": "held", "243": "held", "244": "running"}),
        (GRID_ENGINE, "", {}),
    ],
)
def test_the_states_of_jobs_are_read_by_header_and_name(system, text: str, states: dict[str, str]):
    assert {job: str(found.state) for job, found in parse_answer(system, text).items()} == states


def test_the_system_s_reason_for_waiting_is_shown():
    assert parse_answer(SLURM, "43 PENDING Dependency\n")["43"].words == "PENDING, Dependency"
    assert parse_answer(PBS, QSTAT)["1.server"].words == "R, Job run at Tue Nov 24 at 19:00"
    assert parse_answer(PJM, PJSTAT)["242"].state is JobState.WAITING


# ------------------------------------------------------------------------------------- with the stand-ins


@pytest.fixture
def here(tmp_path: Path, standins) -> Iterator[Path]:
    """A folder with a sweep, and a site for each of PJM, PBS and Grid Engine whose jobs have one rank."""
    folder = tmp_path / "a 'b\" ü"
    folder.mkdir()
    (folder / "workloads.py").write_text(WORKLOADS)
    for system in ("pjm", "pbs", "gridengine"):
        size = 'size = "-pe mpi {ranks}"\n' if system == "gridengine" else ""
        (folder / f"{system}.toml").write_text(
            f'system = "{system}"\n'
            "gpus_per_node = 0\n"
            "ranks_per_node = 1\n"
            "local_folders = []\n"
            'group = "small"\n'
            f"{size}"
        )
    yield folder
    (folder / "go").touch()


@pytest.fixture
def run(here: Path, standins) -> Run:
    def run_it(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = (
            list(arguments)
            if arguments[0] in ("pjsub", "pjdel", "qsub", "qdel")
            else [sys.executable, "-m", "mpisweep", *arguments]
        )
        return subprocess.run(
            command,
            cwd=here,
            env=standins.environment | environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    return run_it


#: Other systems differ from PJM only in their commands, which shorter tests use too.
SYSTEMS = ["pjm", *(pytest.param(one, marks=pytest.mark.long) for one in ("pbs", "gridengine"))]


def sweep(here: Path, workload: str, trials: int, **limits: float) -> None:
    lines = [
        'name = "r"\n'
        f'workload = "workloads:{workload}"\n'
        "[parameters]\n"
        f"x = {{ from = 1, to = {trials} }}\n"
        "[limits]\n"
        "grace = 1"
    ]
    (here / "s.toml").write_text(
        "\n".join([*lines, *(f"{key} = {value}" for key, value in limits.items())]) + "\n"
    )


def submit_it(run: Run, standins, system: str, *options: str) -> list[str]:
    standins.use(system)
    done = run(
        "submit", "s.toml", "--site", f"./{system}.toml", "--elapse", "1:00:00", "-o", "r.h5",
        "--venv", str(standins.folder.parent / "venv"), *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line.split(" job ")[1].split(":")[0].split(",")[0] for line in done.stdout.splitlines()]


@pytest.mark.mpi
@pytest.mark.parametrize("system", ["pjm", "pbs", "gridengine"])
def test_a_submitted_sweep_runs_in_its_job(here: Path, run: Run, standins, system: str):
    sweep(here, "half", 5)
    [job_id] = submit_it(run, standins, system)
    job = standins.wait_for(job_id)
    assert job["code"] == 0, standins.log(job_id)
    assert len(package.load(here / "r.h5").best(9)) == 5
    assert "best trials by smallest loss" in standins.log(job_id)
    assert (here / "r.h5.job.sh").exists()


@pytest.mark.parametrize(
    ("system", "options", "words"),
    [
        (
            "pjm",
            ["--nodes", "32"],
            "pjsub refused r.h5.job.sh: [ERR.] PJM 0057 pjsub node=32 is greater than the upper limit (24).",
        ),
        ("pjm", ["--group", "tiny"], "Resource group does not exist"),
        (
            "pbs",
            ["--nodes", "32"],
            "qsub refused r.h5.job.sh: qsub: Job violates queue and/or server resource limits",
        ),
        (
            "gridengine",
            ["--nodes", "32"],
            "qsub refused r.h5.job.sh: Unable to run job: job is not allowed to run in any queue. Exiting.",
        ),
        ("gridengine", ["--directive", "-l gpus=1"], 'Unable to run job: unknown resource "gpus". Exiting.'),
    ],
)
def test_the_output_of_a_refused_submission_is_shown(
    here: Path, run: Run, standins, system: str, options: list[str], words: str
):
    standins.use(system)
    sweep(here, "half", 5)
    done = run(
        "submit", "s.toml", "--site", f"./{system}.toml", "--elapse", "1:00:00", "-o", "r.h5", *options,
        STANDIN_LIMITS=json.dumps({"small": {"node": 24, "elapse": 86400}}),
    )  # fmt: skip
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (here / "r.h5.jobs").exists()


def test_an_invalid_submission_is_refused_before_anything_is_written(here: Path, run: Run, standins):
    sweep(here, "half", 5)
    arguments = ["submit", "s.toml", "--elapse", "1:00:00", "-o", "r.h5", "--site"]
    without = os.pathsep.join(
        p for p in standins.environment["PATH"].split(os.pathsep) if "standins" not in p
    )
    for site, environment, words in (
        ("./pjm.toml", {"PATH": without}, "pjsub is not on PATH"),
        ("flow-cx", {}, "the sweep is in"),
        ("workstation", {}, "has no batch system"),
        ("nowhere", {}, "there is no such site"),
        ("./none.toml", {}, "cannot be read"),
    ):
        done = run(*arguments, site, **environment)
        assert done.returncode == 2
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
    done = run("submit", "s.toml", "--elapse", "1:00:00")
    assert (done.returncode, "--site: is missing" in done.stderr) == (2, True)
    assert not list(here.glob("r.h5*"))


@pytest.mark.mpi
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_chain_continues_until_the_sweep_is_complete_and_then_ends(
    here: Path, run: Run, standins, system: str
):
    sweep(here, "one_a_job", 3)
    ids = submit_it(run, standins, system, "--chain", "6")
    assert len(ids) == 6
    jobs = [standins.wait_for(job_id) for job_id in ids]
    ended = package.load(here / "r.h5")
    assert set(ended.trials["state"].tolist()) == {"complete"}
    ran = [job for job in jobs if job["started"] is not None]
    assert 2 <= len(ran) < 6
    # PJM deletes the jobs after one that exits with 0; elsewhere the job that finds nothing to do cancels them.
    assert [job["code"] for job in ran][-1] == 0
    assert all(job["code"] is None for job in jobs[len(ran) :])


@pytest.mark.mpi
def test_a_chain_until_complete_submits_its_next_job_itself(here: Path, run: Run, standins):
    sweep(here, "one_a_job", 5)
    ids = submit_it(run, standins, "pjm", "--chain", "complete")
    assert len(ids) == 2
    known = 0
    while known != len(read_record(here / "r.h5").submitted):
        known = len(read_record(here / "r.h5").submitted)
        for job in read_record(here / "r.h5").submitted:
            standins.wait_for(job.job_id)
    assert known > 2
    assert set(package.load(here / "r.h5").trials["state"].tolist()) == {"complete"}


@pytest.mark.mpi
@pytest.mark.parametrize("system", SYSTEMS)
def test_jobs_of_a_split_sweep_are_submitted_at_once_and_work_together(
    here: Path, run: Run, standins, system: str
):
    sweep(here, "together", 6)
    ids = submit_it(run, standins, system, "--split", "2")
    assert len(ids) == 2
    codes = [standins.wait_for(job_id)["code"] for job_id in ids]
    assert codes in ([0, 0], [0, 3], [3, 0]), [standins.log(job_id) for job_id in ids]
    ended = package.load(here / "r.h5")
    assert set(ended.trials["state"].tolist()) == {"complete"}
    assert set(ended.trials["attempt"].tolist()) == {1}


@pytest.mark.mpi
@pytest.mark.parametrize(("system", "length"), [
    ("pjm", "complete"), *(pytest.param(one, "7", marks=pytest.mark.long) for one in ("pjm", "pbs", "gridengine")),
])  # fmt: skip
def test_each_job_of_a_split_sweep_begins_a_chain(here: Path, run: Run, standins, system: str, length: str):
    sweep(here, "first_of_its_job", 5)
    ids = submit_it(run, standins, system, "--split", "2", "--chain", length)
    assert len(ids) == (4 if length == "complete" else 14)
    known: set[str] = set()
    while known != (jobs := {job.job_id for job in read_record(here / "r.h5").submitted}):
        known = jobs
        for job_id in known:
            standins.wait_for(job_id)
    assert len({job.chain for job in read_record(here / "r.h5").submitted}) == 2
    ended = package.load(here / "r.h5")
    assert set(ended.trials["state"].tolist()) == {"complete"}
    assert len({standins.job(job_id)["started"] for job_id in known} - {None}) > 4
    assert not (here / "r.h5.shares").exists()


@pytest.mark.mpi
def test_jobs_of_a_split_sweep_are_stopped_together_and_waiting_ones_are_cancelled(
    here: Path, run: Run, standins
):
    sweep(here, "gated", 6)
    ids = submit_it(run, standins, "pjm", "--split", "2", "--chain", "2")
    wait_for(lambda: len(list(here.glob("begun.*"))) >= 2)
    done = run("stop", "r.h5")
    assert done.returncode == 0, done.stderr
    assert "2 waiting jobs cancelled" in done.stdout
    assert "stopped; 0 of 6 trials have ended" in done.stdout
    assert [standins.wait_for(job_id)["code"] for job_id in ids] == [3, None, 3, None]


@pytest.mark.mpi
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_chain_without_progress_ends(here: Path, run: Run, standins, system: str):
    sweep(here, "never_done", 2)
    ids = submit_it(run, standins, system, "--chain", "5")
    jobs = [standins.wait_for(job_id) for job_id in ids]
    assert [job["code"] for job in jobs] == [3, 3, 0, None, None]
    assert "no trial has ended in the last 2 jobs" in standins.log(ids[2])
    assert set(read_record(here / "r.h5").began) == set(ids[:2])


@pytest.mark.mpi
@pytest.mark.parametrize("system", ["pjm", "pbs", "gridengine"])
def test_status_shows_the_jobs_and_stop_ends_them(here: Path, run: Run, standins, system: str):
    sweep(here, "gated", 3)
    running, waiting = submit_it(run, standins, system, "--chain", "2")
    title, waits = {
        "pjm": ("PJM", "waiting (QUE)"),
        "pbs": ("PBS", "held (H)"),
        "gridengine": ("Grid Engine", "held (hqw)"),
    }[system]
    assert f"{title} job {waiting}: {waits}" in run("status", "r.h5").stdout
    wait_for((here / "begun.0").exists)
    printed = run("status", "r.h5").stdout
    assert f"{title} job {running}: running ({'r' if system == 'gridengine' else 'R'}" in printed
    state = json.loads(run("status", "r.h5", "--json").stdout)
    assert {(job["job"], job["state"]) for job in state["jobs"]} >= {(running, "running")}
    done = run("stop", "r.h5")
    assert done.returncode == 0, done.stderr
    assert "1 waiting job cancelled" in done.stdout
    assert "asked process" in done.stdout
    assert "stopped; 0 of 3 trials have ended" in done.stdout
    assert standins.wait_for(running)["code"] == 3
    assert standins.wait_for(waiting)["started"] is None
    assert f"no {title} job of this sweep is waiting or running" in run("status", "r.h5").stdout
    done = run("stop", "r.h5")
    assert (done.returncode, done.stdout) == (0, "r.h5: nothing is running\n")
    assert not (here / "r.h5.stop").exists()


def test_stop_refuses_a_sweep_that_does_not_exist(run: Run):
    done = run("stop", "none.h5")
    assert done.returncode == 2
    assert done.stderr == "mpisweep: none.h5: no such results file, and no job was submitted for it here\n"


def test_without_a_writable_record_the_submitted_job_is_named_and_stop_still_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    results = tmp_path / "r.h5"

    def full(path: Path, entries: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr("mpisweep.batch.jobs.note", full)
    monkeypatch.setattr("mpisweep.batch.jobs.submit", lambda *_, **__: "42")
    with pytest.raises(
        SubmitError,
        match=r"Slurm job 42 was submitted, but .*r.h5.jobs cannot be written: Disk quota exceeded",
    ):
        submit_link(results, Submitted("", "slurm", "job.sh", "/", 0.0), "")
    monkeypatch.setattr(
        "mpisweep.batch.jobs.ask", lambda system, ids: {"42": QueuedJob("42", JobState.RUNNING, "RUNNING")}
    )
    record = Record((Submitted("42", "slurm", "job.sh", "/", 0.0),))
    assert cancel_waiting(results, record) == ["Slurm job 42"]
    assert (
        "r.h5.jobs: cannot be written: Disk quota exceeded; jobs that begin later" in capsys.readouterr().out
    )


def test_stop_reports_jobs_of_a_split_sweep_that_have_not_reached_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    results = tmp_path / "r.h5"
    shares_folder(results).mkdir()
    note(results, [Submitted("42", "slurm", "job.sh", "/", 0.0)])
    for state, words in (
        (JobState.RUNNING, "Slurm job 42 started, but its sweep has not yet; run stop again when it has"),
        (JobState.GONE, "nothing is running"),
    ):
        job = QueuedJob("42", state, "")
        monkeypatch.setattr("mpisweep.batch.jobs.ask", lambda system, ids, job=job: {"42": job})
        assert main(["stop", str(results)]) == 0
        assert capsys.readouterr().out == f"{results}: {words}\n"


def test_when_grid_engine_does_not_answer_status_names_the_last_job(here: Path, run: Run, standins):
    standins.use("gridengine")
    note(here / "r.h5", [Submitted("9714", "gridengine", "job.sh", "/", 1.0)])
    assert (
        "qstat does not answer; the last job submitted was 9714"
        in run("status", "r.h5", STANDIN_QSTAT="broken").stdout
    )
    assert "no Grid Engine job of this sweep is waiting or running" in run("status", "r.h5").stdout


def test_status_works_when_the_batch_system_does_not_answer(here: Path, run: Run):
    note(here / "r.h5", [LINKS[0]])
    done = run("status", "r.h5", STANDIN_PJSTAT="broken")
    assert done.returncode == 0
    assert "pjstat does not answer; the last job submitted was 9_0" in done.stdout
    done = run("status", "r.h5", "--json", STANDIN_PJSTAT="broken")
    assert json.loads(done.stdout) == {"path": "r.h5", "state": "submitted", "jobs": None}


def test_jobs_are_found_with_the_columns_of_another_site(here: Path, run: Run, standins):
    (here / "wait.sh").write_text(
        "#PJM -L node=1\n#PJM -L elapse=0:10:00\nwhile [ ! -e go ]; do sleep 0.05; done\n"
    )
    job_id = PJM.submitted_id(run("pjsub", "wait.sh").stdout)
    standins.wait_for(job_id, "running")
    note(here / "r.h5", [Submitted(job_id, "pjm", "wait.sh", str(here), 1.0)])
    assert f"PJM job {job_id}: running (RUNNING)" in run("status", "r.h5", STANDIN_PJSTAT="wisteria").stdout


@pytest.mark.mpi
@pytest.mark.parametrize("system", ["pjm", pytest.param("gridengine", marks=pytest.mark.long)])
def test_at_the_limit_the_sweep_stops_cleanly_within_ten_seconds(here: Path, run: Run, standins, system: str):
    sweep(here, "gated", 3)
    [job_id] = submit_it(run, standins, system)
    wait_for((here / "begun.0").exists)
    (standins.folder / f"{job_id}.limit").touch()
    assert standins.wait_for(job_id)["code"] == 3
    assert "submit this script again to resume it" in standins.log(job_id)
    assert package.load(here / "r.h5").state == "stopped by a signal"
    (here / "go").touch()
    [again] = submit_it(run, standins, system)
    assert standins.wait_for(again)["code"] == 0
    assert set(package.load(here / "r.h5").trials["state"].tolist()) == {"complete"}


@pytest.mark.mpi
@pytest.mark.parametrize(("system", "command"), [
    ("pjm", "pjdel"), *(pytest.param(one, "qdel", marks=pytest.mark.long) for one in ("pbs", "gridengine")),
])  # fmt: skip
def test_a_deleted_job_ends_and_the_next_one_resumes(
    here: Path, run: Run, standins, system: str, command: str
):
    sweep(here, "gated", 3)
    [job_id] = submit_it(run, standins, system)
    wait_for((here / "begun.0").exists)
    assert run(command, job_id).returncode == 0
    assert standins.wait_for(job_id)["code"] == 3, standins.log(job_id)
    (here / "go").touch()
    [again] = submit_it(run, standins, system)
    assert standins.wait_for(again)["code"] == 0, standins.log(again)
    assert set(package.load(here / "r.h5").trials["state"].tolist()) == {"complete"}


@pytest.mark.mpi
def test_a_project_given_with_the_command_is_passed_to_every_job_of_a_chain(
    here: Path, run: Run, standins, monkeypatch
):
    """As on TSUBAME, where the project is not a directive; the first job submits the second."""
    sweep(here, "one_a_job", 3)
    site = here / "gridengine.toml"
    site.write_text(site.read_text() + 'project = "-g {project}"\nproject_with_command = true\n')
    standins.environment["STANDIN_PROJECTS"] = "tga-mine"
    ids = submit_it(run, standins, "gridengine", "--chain", "complete", "--project", "tga-mine")
    assert {job.options for job in read_record(here / "r.h5").submitted} == {"-g tga-mine"}
    known: list[Submitted] = []
    while known != (known := list(read_record(here / "r.h5").submitted)):
        for job in known:
            standins.wait_for(job.job_id)
    assert len(known) > len(ids)
    assert set(package.load(here / "r.h5").trials["state"].tolist()) == {"complete"}
    done = run("submit", "s.toml", "--site", "./gridengine.toml", "--elapse", "1:00:00", "-o", "r.h5")
    assert "h_rt can not be longer than 10 mins with this group" in done.stderr


# ------------------------------------------------------------------------------------- shipped scripts

#: For an mpirun called by hand: PJM sites configure pjrsh as the remote shell in their own settings.
SEVERAL_NODES = {"PRTE_MCA_plm_ssh_agent": "pjrsh", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}


@pytest.mark.mpi
@pytest.mark.parametrize("name", [
    "flow-cx", "pbs", "tsubame4", "workstation",
    *(pytest.param(one, marks=pytest.mark.long) for one in (
        "flow-cx-share", "flow-cx-singularity", "wisteria-aquarius", "pjm", "miyabi-g", "abci3", "gridengine",
    )),
])  # fmt: skip
def test_a_shipped_script_runs_a_sweep_to_its_end(here: Path, run: Run, standins, name: str):
    if name == "flow-cx-singularity" and not CAN_NAME_NODES:
        pytest.skip("needs root, for nodes with host names of their own")
    sweep(here, "half", 30)
    script = str(ROOT / "jobscripts" / f"{name}.sh")
    venv = standins.folder.parent / "venv"
    passed = {"MPISWEEP_SWEEP": "s.toml", "MPISWEEP_VENV": str(venv), "MPISWEEP_IMAGE": str(venv)}
    passed |= {
        key: value for key, value in standins.environment.items() if key.startswith(("OMPI_", "PRTE_"))
    }
    if name == "workstation":
        environment = standins.environment | passed | {"PATH": f"{venv}/bin:{standins.environment['PATH']}"}
        subprocess.run(
            ["bash", script, "-n", "1"], cwd=here, env=environment, check=True, capture_output=True
        )
    elif name in ("pbs", "miyabi-g", "abci3", "tsubame4", "gridengine"):
        grid_engine = name in ("tsubame4", "gridengine")
        standins.use("gridengine" if grid_engine else "pbs")
        nodes = "127.0.0.2 127.0.0.3" if grid_engine and CAN_NAME_NODES else ""
        command = ["qsub", *(["-g", "GROUP"] if name == "tsubame4" else [])]
        done = run(
            *command,
            "-v",
            ",".join(f"{key}={value}" for key, value in passed.items()),
            script,
            STANDIN_NODES=nodes,
        )
        assert done.returncode == 0, done.stderr
        job_id = (GRID_ENGINE if grid_engine else PBS).submitted_id(done.stdout)
        assert standins.wait_for(job_id)["code"] == 0, standins.log(job_id)
    else:
        options = [
            word for key, value in (passed | SEVERAL_NODES).items() for word in ("-x", f"{key}={value}")
        ]
        projects = "GROUP" if name.startswith("wisteria") else ""
        nodes = "127.0.0.2 127.0.0.3" if CAN_NAME_NODES else ""
        done = run("pjsub", *options, script, STANDIN_PROJECTS=projects, STANDIN_NODES=nodes)
        assert done.returncode == 0, done.stderr
        job_id = PJM.submitted_id(done.stdout)
        assert standins.wait_for(job_id)["code"] == 0, standins.log(job_id)
    assert len(package.load(here / "resnet50-batch-size.h5").best(99)) == 30
