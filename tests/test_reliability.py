"""The guarantees of docs/reliability.md, one test each: real processes are killed, stopped and starved."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import psutil
import pytest
import storm
from test_run import start, sweep_file
from waiting import PATIENCE_S, wait_for

import mpisweep as package

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.mpi


def workload(folder: Path, text: str) -> None:
    (folder / "mine.py").write_text("import os, signal, subprocess, sys, time\n" + text, encoding="utf-8")


def my_sweep(folder: Path, last: int, limits: str = "") -> str:
    (folder / "s.toml").write_text(
        'name = "s"\n'
        'workload = "mine:run"\n'
        "[parameters]\n"
        f"x = {{ from = 1, to = {last} }}\n"
        "[limits]\n"
        f"{limits}\n",
        encoding="utf-8",
    )
    return "s.toml"


def python_path(folder: Path, environment: dict[str, str]) -> str:
    """Value of PYTHONPATH with the folder first."""
    return os.pathsep.join(filter(None, [str(folder), environment.get("PYTHONPATH")]))


def stderr_of(folder: Path) -> str:
    return (folder / "stderr.txt").read_text(encoding="utf-8")


def ended(path: Path) -> int:
    try:
        return int((package.load(path).trials["state"] == "complete").sum())
    except package.ResultsError:
        return 0


SLOW = """
def run(trial):
    with open("ran.txt", "a") as ran:
        ran.write(f"{trial.number} {os.getpid()} begun\\n")
    for step in range(4):
        time.sleep(0.03)
        trial.report(step, loss=step)
        trial.flush()
    with open("ran.txt", "a") as ran:
        ran.write(f"{trial.number} {os.getpid()} ended\\n")
    return trial.params["x"] * 2
"""


# ------------------------------------------------------------------------------------- failing trials


def test_a_traceback_is_kept_whole_in_the_log_and_its_end_in_the_file(folder, mpisweep: Run):
    workload(
        folder, "def deep(n):\n    return 1 / 0 if n == 0 else deep(n - 1)\ndef run(trial):\n    deep(9)\n"
    )
    done = mpisweep("run", my_sweep(folder, 2, "same_failures = 0"), "-n", "1", "-o", "r.h5")
    assert done.returncode == 4
    assert (
        package.load(folder / "r.h5")
        .trials["message"][0]
        .startswith("ZeroDivisionError: division by zero\n  at")
    )
    logs = "".join(log.read_text() for log in (folder / "r.h5.logs").iterdir())
    assert logs.count("Previous line repeated") == 2
    assert logs.count("in run\n") == 2
    assert "Traceback" not in done.stderr


def test_out_of_memory_in_a_fresh_process_fails_with_the_peak_and_the_next_trial_gets_a_fresh_process(
    folder, mpisweep: Run
):
    workload(
        folder,
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "def run(trial):\n"
        "    if trial.number == 1:\n"
        "        trial.directory.joinpath(f'{trial.attempt}').write_text(str(os.getpid()))\n"
        "        bytearray(4 << 30)\n"
        "    return os.getpid()\n",
    )
    done = mpisweep("run", my_sweep(folder, 4), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    trials, attempts = sweep.trials, sweep.attempts
    assert trials["cause"].tolist() == ["", "out_of_memory", "", ""]
    # If its turn comes before the new process has started, it is reclaimed once more.
    tried = attempts[(attempts["trial"] == 1) & (attempts["end"] != "reclaimed")]
    assert tried["end"].tolist() == ["not_fresh", "ended"]
    assert "peak" in trials["message"][1]
    assert "GiB" in trials["message"][1]
    used, fresh = (
        int((folder / "r.h5.trials" / "1" / str(attempt)).read_text()) for attempt in tried["attempt"]
    )
    assert used == trials["loss"][0]
    assert fresh not in trials["loss"].tolist()
    assert used not in trials["loss"][2:].tolist()


def test_a_trial_that_hangs_is_ended_with_all_processes_it_started(folder, mpisweep: Run):
    workload(
        folder,
        "def run(trial):\n"
        "    if trial.number == 0:\n"
        "        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "        child = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "        open('child', 'w').write(str(child.pid))\n"
        "        import re\n"
        "        re.match(r'(a+)+$', 'a' * 60 + 'b')\n"  # holds the GIL forever
        "    return 1\n",
    )
    done = mpisweep("run", my_sweep(folder, 3, "timeout = 1"), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert package.load(folder / "r.h5").trials["cause"].tolist() == ["timeout", "", ""]
    assert not psutil.pid_exists(int((folder / "child").read_text()))


def test_a_trial_whose_reports_stop_is_ended(folder, mpisweep: Run):
    workload(
        folder,
        "def run(trial):\n"
        "    for step in range(8):\n"
        "        trial.report(step, loss=step)\n"
        "        time.sleep(1000 if (trial.number, step) == (1, 3) else 0.2)\n"
        "    return 1\n",
    )
    done = mpisweep("run", my_sweep(folder, 2, "stall = 1"), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert trials["cause"].tolist() == ["", "timeout"]
    assert trials["message"][1] == "killed after 1 s without a report (limits.stall)"


def test_processes_that_a_trial_leaves_running_are_ended_before_the_next_one_starts(folder, mpisweep: Run):
    workload(
        folder,
        "def run(trial):\n"
        "    alive = [p for p in map(int, open('left').read().split()) if os.path.exists(f'/proc/{p}')]\n"
        "    child = subprocess.Popen(['sh', '-c', 'setsid sleep 1000 & echo $!; sleep 0.01'], "
        "stdout=subprocess.PIPE)\n"
        "    with open('left', 'a') as left:\n"
        "        left.write(f'{child.pid} ' + child.stdout.readline().decode())\n"
        "    return len(alive)\n",
    )
    (folder / "left").touch()
    done = mpisweep("run", my_sweep(folder, 5), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert package.load(folder / "r.h5").trials["loss"].tolist() == [0.0] * 5
    assert not [p for p in map(int, (folder / "left").read_text().split()) if psutil.pid_exists(p)]


@pytest.mark.parametrize("returned", ["float('nan')", "float('inf')", "'seven'", "{'other': 1.0}", "None"])
def test_odd_metrics_are_recorded_ranked_last_and_flagged(folder, mpisweep: Run, returned):
    workload(folder, f"def run(trial):\n    return {returned} if trial.number == 0 else 1.0 * trial.number\n")
    done = mpisweep("run", my_sweep(folder, 3), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    assert sweep.trials["state"].tolist() == ["complete"] * 3
    assert sweep.trials["diverged"].tolist() == [True, False, False]
    assert sweep.best(3)["number"].tolist() == [1, 2, 0]
    assert mpisweep("top", "r.h5").returncode == 0


def test_a_clock_that_jumps_does_not_change_durations(folder, mpisweep: Run):
    workload(folder, "def run(trial):\n    time.sleep(0.05)\n    time.time = lambda: 0.0\n    return 1\n")
    done = mpisweep("run", my_sweep(folder, 3), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert all(0.05 <= seconds < 5 for seconds in package.load(folder / "r.h5").trials["wall_time"])


# ------------------------------------------------------------------------------------- lost ranks


def running(folder: Path, environment: dict[str, str], last: int, ranks: int, limits: str = ""):
    """Start a sweep of slow trials and wait for four ends; return the launcher and the ranks by number."""
    workload(folder, SLOW)
    process = start(
        folder, environment, "run", my_sweep(folder, last, limits), "-o", "r.h5", "-n", str(ranks)
    )
    wait_for(lambda: ended(folder / "r.h5") >= 4)
    return process, ranks_by_number(process)


def ranks_by_number(process) -> dict[int, psutil.Process]:
    found = storm.ranks_of(psutil.Process(process.pid))
    return {int(rank.environ()["OMPI_COMM_WORLD_RANK"]): rank for rank in found}


def assert_done_once(folder: Path, last: int) -> list[list[str]]:
    sweep = package.load(folder / "r.h5")
    assert sweep.trials["state"].tolist() == ["complete"] * last
    assert sweep.trials["loss"].tolist() == [2.0 * x for x in range(1, last + 1)]
    for number in range(last):
        assert sweep.curve(number, "loss").step.tolist() == [0, 1, 2, 3]
    return [line.split() for line in (folder / "ran.txt").read_text().splitlines()]


def test_a_killed_worker_costs_at_most_its_running_trial(folder, environment, tell):
    process, ranks = running(folder, environment, 60, 4)
    own = {child.pid for child in storm.trials_of(ranks[2])}
    killed = time.time()
    ranks[2].kill()
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    ran = assert_done_once(folder, 60)
    assert sum(event == "ended" for _, _, event in ran) <= 61
    assert_repeated_only_those_of(ran, own)
    # Repeated: the running trial, and the one before it if its end had not arrived.
    assert len([1 for _, _, event in ran if event == "begun"]) <= 62
    sweep = package.load(folder / "r.h5")
    assert len(sweep.allocations) == 1, "the others went on"
    assert sorted(sweep.attempts["end"].tolist()).count("lost") <= 1
    tell(
        f"recovery after a killed worker: {recovery_s(sweep, 2, killed):.3f} s from kill to the next "
        "assignment"
    )


def assert_repeated_only_those_of(ran: list[list[str]], processes: set[int]) -> None:
    """Assert that every trial that began more than once had begun in one of these processes."""
    begun = [(number, int(pid)) for number, pid, event in ran if event == "begun"]
    numbers = [number for number, _ in begun]
    assert {number for number in numbers if numbers.count(number) > 1} <= {
        number for number, pid in begun if pid in processes
    }


def recovery_s(sweep, rank: int, killed_at: float) -> float:
    """Seconds from the kill to the first assignment after the loss was recorded."""
    workers = sweep.workers
    left_at = workers["left_at"][workers["rank"] == rank][0]
    later = sweep.attempts["assigned_at"][sweep.attempts["assigned_at"] >= left_at - 0.001]
    return float(later.min() - killed_at)


def test_a_killed_master_stops_no_running_trial_and_loses_and_repeats_nothing(folder, environment, tell):
    process, ranks = running(folder, environment, 60, 4)
    before = {
        int(n)
        for n in package.load(folder / "r.h5").trials["number"][
            package.load(folder / "r.h5").trials["state"] == "complete"
        ]
    }
    survivors = {child.pid for number in (1, 2, 3) for child in storm.trials_of(ranks[number])}
    own = {child.pid for child in storm.trials_of(ranks[0])}
    killed = time.time()
    ranks[0].kill()
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    ran = assert_done_once(folder, 60)
    begun = [number for number, _, event in ran if event == "begun"]
    assert all(begun.count(str(number)) == 1 for number in before), "an acknowledged trial ran again"
    assert_repeated_only_those_of(ran, own)
    assert {int(pid) for _, pid, _ in ran[-6:]} <= survivors, (
        "the survivors' trial processes are still the same"
    )
    sweep = package.load(folder / "r.h5")
    assert len(sweep.allocations) == 1
    assert "rank 1 is the master now" in stderr_of(folder)
    next_at = sweep.attempts["assigned_at"][sweep.attempts["assigned_at"] > killed].min()
    tell(f"recovery after a killed master: {next_at - killed:.3f} s from kill to the next assignment")


def test_masters_may_die_one_after_another_down_to_one_survivor(folder, environment):
    process, ranks = running(folder, environment, 80, 4)
    for number in range(3):
        ranks[number].kill()
        wait_for(lambda: f"rank {number + 1} is the master now" in stderr_of(folder))  # noqa: B023
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert_done_once(folder, 80)


@pytest.mark.parametrize("numbers", [(0, 1), (1, 3), (0, 2, 3)])
def test_several_ranks_may_die_at_once(folder, environment, numbers):
    process, ranks = running(folder, environment, 60, 4)
    for number in numbers:
        ranks[number].kill()
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert_done_once(folder, 60)
    assert len(package.load(folder / "r.h5").allocations) == 1


@pytest.mark.parametrize("number", [0, 2])
def test_a_rank_that_hangs_counts_as_lost_and_is_ended(folder, environment, number):
    process, ranks = running(folder, environment, 60, 3, "silence = 2")
    ranks[number].suspend()
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert_done_once(folder, 60)
    assert not ranks[number].is_running() or ranks[number].status() == psutil.STATUS_ZOMBIE
    assert "no message from it for 2 s" in stderr_of(folder)


def test_when_all_ranks_are_gone_the_launcher_restarts_them(folder, environment):
    process, ranks = running(folder, environment, 60, 2)
    for rank in ranks.values():
        rank.kill()
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert_done_once(folder, 60)
    sweep = package.load(folder / "r.h5")
    assert len(sweep.allocations) == 2
    assert sweep.allocations["end"].tolist() == ["", "complete"]
    assert len(set(sweep.allocations["launch"].tolist())) == 1


def test_the_launcher_stops_restarting_ranks_without_progress(folder, environment):
    workload(
        folder,
        "import psutil\ndef run(trial):\n"
        "    for parent in psutil.Process().parents()[1:2]:\n        parent.kill()\n    time.sleep(1000)\n",
    )
    process = start(
        folder, environment, "run", my_sweep(folder, 1, "retries = 1000"), "-o", "r.h5", "-n", "2"
    )
    assert process.wait(timeout=PATIENCE_S) == 3, stderr_of(folder)
    assert "no trial has ended in 3 starts in a row" in stderr_of(folder)


def test_a_trial_that_always_kills_its_worker_is_lost_after_its_retries(folder, mpisweep: Run):
    workload(
        folder,
        "import psutil\ndef run(trial):\n    time.sleep(0.05)\n"
        "    if trial.number == 5:\n        psutil.Process().parents()[1].kill()\n        time.sleep(1000)\n"
        "    return 1\n",
    )
    done = mpisweep("run", my_sweep(folder, 30, "retries = 1"), "-n", "4", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert trials["cause"][5] == "lost"
    assert trials["attempt"][5] >= 2
    assert (trials["state"] == "complete").sum() == 29


def test_a_sweep_recovers_from_a_killed_fork_server_and_a_killed_snapshot_process(folder, environment):
    process, ranks = running(folder, environment, 60, 3)
    [writer] = storm.writers_of(ranks[0])
    writer.kill()
    [server] = ranks[1].children()
    server.kill()
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert_done_once(folder, 60)
    # The other ranks were notified and did not wait for `silence`.
    assert "rank 1 is lost (it died)" in stderr_of(folder)


# ------------------------------------------------------------------------------------- stopping


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGXCPU])
@pytest.mark.parametrize("target", ["launcher", "mpirun", "rank"])
def test_a_signal_to_any_process_stops_the_sweep_cleanly(folder, environment, mpisweep: Run, number, target):
    process, ranks = running(folder, environment, 200, 2)
    victim = {
        "launcher": psutil.Process(process.pid),
        "mpirun": psutil.Process(process.pid).children()[0],
        "rank": ranks[1],
    }[target]
    victim.send_signal(number)
    assert process.wait(timeout=PATIENCE_S) == 3, stderr_of(folder)
    sweep = package.load(folder / "r.h5")
    assert sweep.state == "stopped by a signal"
    assert set(sweep.trials["state"]) == {"complete", "waiting"}
    assert stderr_of(folder).count("running trials have") == 1  # no matter how many ranks received it
    assert not (folder / "r.h5.journal").exists()


def test_a_stop_file_stops_the_sweep_and_is_removed(folder, environment):
    process, _ = running(folder, environment, 200, 2)
    (folder / "r.h5.stop").touch()
    assert process.wait(timeout=PATIENCE_S) == 3, stderr_of(folder)
    assert not (folder / "r.h5.stop").exists()
    assert package.load(folder / "r.h5").state == "stopped on request"


STUBBORN = """
from pathlib import Path

def run(trial):
    while not trial.should_stop():
        time.sleep(0.005)
    Path(f"told.{trial.number}").touch()
    while not Path("go").exists():
        time.sleep(0.005)
"""


def test_a_stop_survives_the_master_that_received_it(folder, environment):
    workload(folder, STUBBORN)
    process = start(folder, environment, "run", my_sweep(folder, 20, "grace = 600"), "-o", "r.h5", "-n", "3")
    wait_for((folder / "r.h5").exists)
    ranks = ranks_by_number(process)
    (folder / "r.h5.stop").touch()
    wait_for(lambda: len(list(folder.glob("told.*"))) == 3)
    ranks[0].kill()
    wait_for(lambda: "rank 1 is the master now" in stderr_of(folder))
    (folder / "go").touch()
    assert process.wait(timeout=PATIENCE_S) == 3, stderr_of(folder)
    assert set(package.load(folder / "r.h5").trials["state"]) == {"waiting"}


def test_a_second_ctrl_c_stops_at_once_and_loses_nothing_acknowledged(folder, environment, mpisweep: Run):
    workload(
        folder,
        SLOW + "\ndef deaf(trial):\n    time.sleep(1000 if os.path.exists('deaf') else 0.01)\n    return 1\n",
    )
    (folder / "s.toml").write_text(
        'name = "s"\nworkload = "mine:deaf"\n[parameters]\nx = { from = 1, to = 4000 }\n'
        "[limits]\ngrace = 1000\n"
    )
    process = start(folder, environment, "run", "s.toml", "-o", "r.h5", "-n", "2")
    wait_for(lambda: ended(folder / "r.h5") >= 15)
    members = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    (folder / "deaf").touch()
    before = ended(folder / "r.h5")
    process.send_signal(signal.SIGINT)
    wait_for(lambda: "stopped by a signal" in stderr_of(folder))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE_S) == 3
    _, alive = psutil.wait_procs(members, timeout=PATIENCE_S)
    assert alive == []
    assert ended(folder / "r.h5") >= before


def test_near_the_walltime_only_trials_that_still_fit_start(folder, mpisweep: Run):
    """About 12 trials of 0.4 s fit; the next one would be interrupted and does not start."""
    workload(folder, "def run(trial):\n    time.sleep(0.4)\n    return 1\n")
    done = mpisweep("run", my_sweep(folder, 60, "grace = 1"), "-o", "r.h5", "-n", "1", "--walltime", "8")
    assert done.returncode == 3, done.stderr
    sweep = package.load(folder / "r.h5")
    assert sweep.state == "stopped before the walltime"
    [took_s] = sweep.allocations["ended_at"] - sweep.allocations["started_at"]
    assert took_s + sweep.allocations["closing_time"][0] < 8
    # Nor did it start too few: the worker was busy most of the time.
    busy_s = sweep.trials["wall_time"][sweep.trials["state"] == "complete"].sum()
    assert busy_s > 0.6 * took_s
    assert set(sweep.attempts["end"]) <= {"ended", "reclaimed"}, "nothing was begun in vain"


def test_a_sweep_stops_before_the_end_that_slurm_reports_without_a_walltime(
    folder, mpisweep: Run, environment
):
    workload(folder, "def run(trial):\n    time.sleep(0.2)\n    return 1\n")
    environment |= {"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(int(time.time()) + 9)}
    process = start(folder, environment, "run", my_sweep(folder, 500, "grace = 1"), "-o", "r.h5", "-n", "2")
    assert process.wait(timeout=PATIENCE_S) == 3, stderr_of(folder)
    sweep = package.load(folder / "r.h5")
    assert sweep.state == "stopped before the walltime"
    assert sweep.allocations["job_id"].tolist() == ["7"]
    assert sweep.allocations["ended_at"][0] <= float(environment["SLURM_JOB_END_TIME"])


# ------------------------------------------------------------------------------------- disks


@pytest.fixture
def small_disk(folder: Path):
    """A file system of 512 kB for the results; the sweep's other files are outside of it."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "none", disk], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system takes root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_an_unwritable_place_is_refused_in_one_sentence(folder, small_disk, mpisweep: Run):
    workload(folder, "def run(trial):\n    return 1.0\n")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for workers in "12":
        done = mpisweep("run", my_sweep(folder, 4), "-n", workers, "-o", "disk/r.h5")
        assert done.returncode == 2, done.stderr
        assert (
            "disk/r.h5.journal: cannot be written: Read-only file system; -o names another place"
            in done.stderr
        )
        assert "Traceback" not in done.stderr


CHATTY = (
    "def run(trial):\n"
    "    for step in range(3000):\n"
    "        trial.report(step, loss=step)\n"
    "    time.sleep(0.02)\n"
    "    return trial.params['x']\n"
)


def test_a_disk_that_stays_full_ends_the_run_with_nothing_lost(folder, small_disk, mpisweep: Run):
    workload(folder, CHATTY)
    done = mpisweep("run", my_sweep(folder, 40, "disk = 3"), "-n", "2", "-o", "disk/r.h5")
    assert done.returncode == 3, done.stderr
    assert "cannot be" in done.stderr
    assert "free disk space, then run the same command to resume" in done.stderr
    before = ended(small_disk / "r.h5")
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert mpisweep("run", "s.toml", "-n", "2", "-o", "disk/r.h5").returncode == 0
    sweep = package.load(small_disk / "r.h5")
    assert before >= 1
    assert sweep.trials["state"].tolist() == ["complete"] * 40
    assert all(len(sweep.curve(number, "loss").step) == 3000 for number in range(40))


def test_a_disk_that_is_full_for_a_while_only_delays_the_sweep(folder, small_disk, environment):
    workload(folder, CHATTY)
    process = start(folder, environment, "run", my_sweep(folder, 40), "-n", "2", "-o", "disk/r.h5")
    wait_for(lambda: "cannot be written" in stderr_of(folder) or "cannot be replaced" in stderr_of(folder))
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    sweep = package.load(small_disk / "r.h5")
    assert sweep.trials["state"].tolist() == ["complete"] * 40
    assert all(len(sweep.curve(number, "loss").step) == 3000 for number in range(40))


def test_a_file_system_that_is_away_for_a_while_only_delays_the_sweep(folder, small_disk, environment):
    workload(folder, CHATTY)
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    view = folder / "view"
    view.mkdir()
    subprocess.run(["mount", "--bind", small_disk, view], check=True)
    try:
        process = start(folder, environment, "run", my_sweep(folder, 60), "-n", "2", "-o", "view/r.h5")
        wait_for(lambda: ended(small_disk / "r.h5") >= 4)
        subprocess.run(["umount", "-l", view], check=True)
        wait_for(lambda: "cannot be" in stderr_of(folder))
        subprocess.run(["mount", "--bind", small_disk, view], check=True)
        assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
        assert package.load(view / "r.h5").trials["state"].tolist() == ["complete"] * 60
        assert not (view / "r.h5.journal").exists()
    finally:
        subprocess.run(["umount", "-l", view], check=False)
    assert not list(view.iterdir()), "nothing was written into the place where the file system belongs"


# ------------------------------------------------------------------------------------- bugs and bad devices


def test_the_same_bug_in_every_trial_stops_the_sweep(folder, mpisweep: Run):
    workload(
        folder, "def run(trial):\n    time.sleep(0.02)\n    raise KeyError(f'no column {trial.number}')\n"
    )
    done = mpisweep("run", my_sweep(folder, 500, "same_failures = 8"), "-n", "2", "-o", "r.h5")
    assert done.returncode == 4, done.stderr
    assert "no column" in done.stderr
    assert "all failed alike" in done.stderr
    sweep = package.load(folder / "r.h5")
    assert 8 <= (sweep.trials["state"] == "failed").sum() < 30
    assert sweep.state == "stopped because the first trials all failed alike"


def test_different_bugs_do_not_stop_the_sweep(folder, mpisweep: Run):
    workload(folder, "def run(trial):\n    raise [KeyError, ValueError][trial.number % 2]('no')\n")
    done = mpisweep("run", my_sweep(folder, 60, "same_failures = 8"), "-n", "1", "-o", "r.h5")
    assert done.returncode == 4
    assert package.load(folder / "r.h5").trials["state"].tolist() == ["failed"] * 60


def test_a_device_that_fails_while_others_do_not_is_quarantined(folder, mpisweep: Run):
    workload(
        folder,
        "def run(trial):\n"
        "    time.sleep(0.03)\n"
        "    try:\n"
        "        os.close(os.open('bad', os.O_CREAT | os.O_EXCL))\n"
        "        open('bad', 'w').write(str(os.getppid()))\n"
        "    except FileExistsError:\n"
        "        pass\n"
        "    if trial.number > 6 and open('bad').read() == str(os.getppid()):\n"
        "        raise RuntimeError('uncorrectable ECC error')\n"
        "    return 1\n",
    )
    done = mpisweep("run", my_sweep(folder, 60), "-n", "4", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    assert (sweep.trials["state"] == "complete").sum() >= 55
    assert sum(bool(why) for why in sweep.workers["quarantine"]) == 1
    assert done.stderr.count("quarantined: ") >= 2, "when it happens, and at the end"
    assert "  quarantined: " in mpisweep("status", "r.h5").stdout
    assert "suspect" in sweep.attempts["end"].tolist()


# ------------------------------------------------------------------------------------- damage


def ends_beyond_the_file(folder: Path) -> list[tuple[Path, int]]:
    """Segment and offset of each record of an end that the HDF5 file does not cover."""
    with h5py.File(folder / "r.h5") as file:
        covered = json.loads(file.attrs["covered"])
    return [
        (segment, found.start())
        for segment in sorted((folder / "r.h5.journal").glob("*.00*"))
        for found in re.finditer(b'"kind":"ended"', segment.read_bytes())
        if found.start() >= covered.get(segment.name, 0)
    ]


def test_damage_in_a_journal_is_reported_and_kept_and_everything_else_used(
    folder, environment, mpisweep: Run
):
    process, _ranks = running(folder, environment, 40, 2)
    # The journal is not read where the file covers it.  More records must follow the damaged one: the last
    # could also be torn by a kill.
    wait_for(lambda: (folder / "r.h5").exists() and len(ends_beyond_the_file(folder)) > 1)
    storm.kill(psutil.Process(process.pid), everything=True)
    process.wait()
    whole = package.load(folder / "r.h5")
    segment, place = ends_beyond_the_file(folder)[0]
    data = bytearray(segment.read_bytes())
    data[place + 10] ^= 0x10
    segment.write_bytes(data)
    done = mpisweep("repair", "r.h5")
    assert done.returncode == 0, done.stderr
    assert "could not be read" in done.stdout
    assert "original kept" in done.stdout
    assert (folder / "r.h5.damaged" / segment.name).read_bytes() == bytes(data)
    assert (package.load(folder / "r.h5").trials["state"] == "complete").sum() >= (
        whole.trials["state"] == "complete"
    ).sum() - 2
    assert mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5").returncode == 0
    assert package.load(folder / "r.h5").trials["state"].tolist() == ["complete"] * 40


def test_a_torn_file_is_refused_and_the_message_names_repair(folder, environment, mpisweep: Run):
    workload(folder, SLOW)
    assert mpisweep("run", my_sweep(folder, 6), "-n", "1", "-o", "r.h5").returncode == 0
    data = (folder / "r.h5").read_bytes()
    (folder / "r.h5").write_bytes(data[: len(data) // 2])
    refused = mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5")
    assert refused.returncode == 2
    assert "mpisweep repair" in refused.stderr
    assert mpisweep("repair", "r.h5").returncode == 2, "there is nothing to repair it from"
    assert (folder / "r.h5").read_bytes() == data[: len(data) // 2], "and it is left as it is"


def test_a_foreign_file_is_refused_and_left_unchanged(folder, mpisweep: Run):
    with h5py.File(folder / "r.h5", "w") as file:
        file["x"] = 1
    data = (folder / "r.h5").read_bytes()
    workload(folder, SLOW)
    for command in (
        ["run", my_sweep(folder, 2), "-n", "1", "-o", "r.h5"],
        ["repair", "r.h5"],
        ["status", "r.h5"],
    ):
        refused = mpisweep(*command)
        assert refused.returncode == 2
        assert "not a results file of mpisweep" in refused.stderr
    assert (folder / "r.h5").read_bytes() == data


# ------------------------------------------------------------------------------------- the storm, security


@pytest.mark.parametrize("strikes", [10, pytest.param(30, marks=pytest.mark.long)])
def test_a_storm(folder, tell, strikes: int):
    """A short storm at low priority; prints the strikes by kind.  `make storm` strikes hundreds of times."""
    done = subprocess.run(
        [
            "nice",
            "-n",
            "5",
            sys.executable,
            Path(storm.__file__),
            "--strikes",
            str(strikes),
            "--seed",
            os.environ.get("STORM_SEED", "1"),
            "--workers",
            "4",
            "--folder",
            folder / "storm",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=5 * PATIENCE_S,
    )
    tell("storm, " + done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_follow_the_umask(folder, environment):
    workload(folder, SLOW)
    previous = os.umask(0o027)
    try:
        process = start(folder, environment, "run", my_sweep(folder, 4), "-n", "1", "-o", "r.h5")
    finally:
        os.umask(previous)
    assert process.wait(timeout=PATIENCE_S) == 0
    assert (folder / "r.h5").stat().st_mode & 0o777 == 0o640


#: Makes every Python process record the ports that it binds.
NOTES_PORTS = """
import os, sys

def note(event, arguments):
    if event == "socket.bind" and isinstance(arguments[1], tuple):
        with open(os.environ["NOTED"], "a") as noted:
            noted.write(f"{os.getpid()} {arguments[1]}\\n")

sys.addaudithook(note)
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_mpisweep_opens_no_port(folder, environment, ranks):
    """Covers launcher, ranks, fork servers, trial processes and side processes, but not Open MPI's processes."""
    (folder / "sitecustomize.py").write_text(NOTES_PORTS)
    environment |= {"PYTHONPATH": python_path(folder, environment), "NOTED": str(folder / "noted")}
    # Trial 3 opens one, as a check that the recording works.
    opens = (
        "    if trial.number == 3:\n        import socket\n        socket.socket().bind(('127.0.0.1', 0))\n"
    )
    workload(folder, SLOW.replace("    return", opens + "    return"))
    process = start(folder, environment, "run", my_sweep(folder, 40), "-n", str(ranks), "-o", "r.h5")
    wait_for(lambda: ended(folder / "r.h5") >= 10)
    members = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    listening = [c for member in members for c in member.net_connections() if c.status == psutil.CONN_LISTEN]
    assert (listening == []) == (ranks == 1), "with one rank there is no MPI"
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    [opened] = [
        pid for number, pid, event in assert_done_once(folder, 40) if (number, event) == ("3", "ended")
    ]
    assert (folder / "noted").read_text() == f"{opened} ('127.0.0.1', 0)\n"


SLOW_END = """
import os
if os.environ.get("OMPI_COMM_WORLD_RANK") in ("0", "1"):
    import ctypes
    import mpisweep.rank.transport as transport
    real = transport.end_if_stuck

    def hang(seconds):
        real(1.0 if seconds else 0.0)
        if seconds:
            ctypes.PyDLL(None).sleep(1000)

    transport.end_if_stuck = hang
"""


def test_a_hanging_mpi_finalize_does_not_hang_the_sweep(folder, environment, mpisweep):
    """Open MPI's Finalize sometimes waits forever after a rank has died; here it never returns on two ranks."""
    (folder / "sitecustomize.py").write_text(SLOW_END)
    environment["PYTHONPATH"] = python_path(folder, environment)
    done = mpisweep("run", sweep_file(folder, "half", 10), "-n", "3", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    assert sweep.trials["state"].tolist() == ["complete"] * 10
    assert len(sweep.allocations) == 1
    assert "restarting the ranks" not in done.stderr
