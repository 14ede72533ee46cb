"""Pruning in whole sweeps: functions, programs, trials of several ranks, and kills of everything."""

from __future__ import annotations

import io
import math
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from rich.console import Console
from test_reliability import ended, ranks_by_number, stderr_of
from test_run import start
from waiting import wait_for

import mpisweep as package
from mpisweep.batch.bar import Bar
from mpisweep.views.running import look_at
from mpisweep.workloads.resnet50.experiment import READ_EVERY_S

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.mpi

#: Prunes every trial at its first report of more than 5.
ABOVE_5 = 'prune = { pruner = "threshold", upper = 5.0 }'
#: Longer than any test: a trial that takes this long was not told.
FOREVER = "for step in range(10**9):"


def sweep_of(
    folder: Path,
    code: str,
    last: int = 6,
    *,
    more: str = ABOVE_5,
    limits: str = "",
    workload: str = "mine:run",
) -> str:
    (folder / "mine.py").write_text(code)
    text = workload if workload.startswith("{") else f'"{workload}"'
    (folder / "s.toml").write_text(
        f'name = "s"\nworkload = {text}\n{more}\n[parameters]\nx = {{ from = 1, to = {last} }}\n'
        f"[limits]\n{limits}\n"
    )
    return "s.toml"


def states(path: Path) -> list[str]:
    return package.load(path).trials["state"].tolist()


# ------------------------------------------------------------------------------------- functions

FUNCTION = f"""
import time
def run(trial):
    x = trial.params["x"]
    {FOREVER}
        trial.report(2 * step, loss=x + step / 1000, other=step)
        if trial.should_stop():
            return {{"loss": -1.0, "other": -1.0}}
        if x <= 5 and step == 3:
            return {{"loss": float(x)}}
        time.sleep(0.01)
"""


def test_a_function_that_asks_is_pruned_and_keeps_its_reports(folder, mpisweep: Run):
    done = mpisweep("run", sweep_of(folder, FUNCTION, 8), "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    trials = sweep.trials
    assert trials["state"].tolist() == ["complete"] * 5 + ["pruned"] * 3
    for number in (5, 6, 7):
        curve = sweep.curve(number, "loss")
        assert len(curve.value) >= 1
        assert trials["loss"][number] == curve.value[-1], "the metrics are the last reports"
        assert trials["other"][number] == sweep.curve(number, "other").value[-1]
        assert trials["pruned_at"][number] == curve.step[-1] == 2 * (len(curve.value) - 1)
    assert trials["pruned_at"][:5].tolist() == [-1] * 5
    assert "5 complete, 3 pruned" in mpisweep("status", "r.h5").stdout
    # A pruned trial has ended: the same command runs nothing.
    again = mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5")
    assert again.returncode == 0, again.stderr
    assert package.load(folder / "r.h5").trials["started_at"].tolist() == trials["started_at"].tolist()


def test_pruned_trials_are_told_in_the_line_of_progress_by_watch_and_in_the_report(folder, mpisweep: Run):
    file = sweep_of(folder, FUNCTION, 8)
    done = mpisweep("run", file, "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert re.search(r"8/8 trials, 0 running, 3 pruned, .*best loss 1 \(x=1\)", done.stderr)
    assert "8/8 trials, 0 running, 3 pruned" in mpisweep("watch", "r.h5").stdout
    # On a terminal the same numbers are in the bar.
    screen = io.StringIO()
    with Bar(Console(file=screen, force_terminal=True, width=120)) as bar:
        bar.show(look_at(package.load(folder / "r.h5"), 0.0).progress)
    assert "3 pruned" in screen.getvalue()
    assert mpisweep("report", "r.h5", "-o", "page.html").returncode == 0
    page = (folder / "page.html").read_text()
    [table] = re.findall(r"<h3>Trials by state</h3>(.*?)</table>", page, re.DOTALL)
    rows = re.findall(r"<tr><th[^>]*>(\w+)</th><td[^>]*>(\d+)</td>", table)
    assert rows == [("complete", "5"), ("pruned", "3")]


RESNET50 = """
name = "resnet50"
workload = "resnet50"
prune = { pruner = "threshold", upper = 1000.0 }
points = [{ learning_rate = 1e-6, num_iter = 2 }, { learning_rate = 1e6, num_iter = 1000000 }]
[fixed]
batch_size = 2
image_size = 32
num_classes = 10
data = "digits"
"""


def test_resnet50_is_pruned_within_one_report_and_keeps_its_curve(folder, mpisweep: Run):
    (folder / "s.toml").write_text(RESNET50)
    done = mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    assert sweep.trials["state"].tolist() == ["complete", "pruned"]
    whole, cut = sweep.curve(0, "loss"), sweep.curve(1, "loss")
    assert len(whole.value) == 2
    assert cut.step.tolist() == list(range(len(cut.step))), "no report is missing"
    assert sweep.trials["pruned_at"].tolist() == [-1, cut.step[-1]]
    hopeless = np.flatnonzero(~(cut.value <= 1000.0))
    assert len(hopeless), "the curve shows why"
    # Losses are read back twice a second: the block after the one that shows it is the last.
    first, told = cut.time[hopeless[0]], cut.time[-1]
    assert told - first <= 2 * READ_EVERY_S + 2 * float(np.diff(cut.time).max())


def test_a_function_that_never_asks_runs_to_its_end_and_is_complete(folder, mpisweep: Run):
    code = (
        "import time\n"
        "def run(trial):\n"
        "    for step in range(30):\n"
        "        trial.report(step, loss=9.0)\n"
        "        time.sleep(0.01)\n"
        "    return 9.0\n"
    )
    done = mpisweep("run", sweep_of(folder, code, 2), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert states(folder / "r.h5") == ["complete"] * 2


def test_optuna_s_exception_ends_a_pruned_trial_as_its_users_expect(folder, mpisweep: Run):
    code = (
        "import time\n"
        "class TrialPruned(Exception):\n    pass\n"
        "def run(trial):\n"
        f"    {FOREVER}\n"
        "        trial.report(step, loss=float(trial.params['x']))\n"
        "        if trial.should_stop():\n"
        "            raise TrialPruned\n"
        "        if trial.params['x'] == 1:\n"
        "            raise TrialPruned\n"
        "        time.sleep(0.01)\n"
    )
    more = 'prune = { pruner = "threshold", upper = 1.5 }'
    done = mpisweep("run", sweep_of(folder, code, 2, more=more), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert states(folder / "r.h5") == ["failed", "pruned"], "one that was not told has failed"


def test_a_search_whose_trials_report_nothing_is_told_once(folder, mpisweep: Run):
    code = "def run(trial):\n    return float(trial.params['x'])\n"
    done = mpisweep("run", sweep_of(folder, code, more='prune = "median"'), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    told = "prune has nothing to decide by: trial 0 reported no loss during training"
    assert done.stderr.count("prune has nothing to decide by") == 1
    assert told[:46] in done.stderr
    assert "report it with trial.report(...)" in done.stderr


# ------------------------------------------------------------------------------------- programs

PROGRAM = """
import signal, sys, time
x, how = int(sys.argv[1]), sys.argv[2]
if how == "traps":
    def save(*_):
        print("loss=77", flush=True)
        open(f"saved.{x}", "w").close()
        sys.exit(0)
    signal.signal(signal.SIGTERM, save)
if how == "ignores":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
step = 0
while x > 5 or step < 3:
    print(f"loss={x + step / 1000}", flush=True)
    step += 1
    time.sleep(0.02)
"""


@pytest.mark.parametrize("how", ["traps", "ignores", "dies"])
def test_a_program_gets_sigterm_grace_and_sigkill_and_is_pruned(folder, mpisweep: Run, how):
    (folder / "program.py").write_text(PROGRAM)
    command = f'{{ command = "python program.py {{x}} {how}" }}'
    file = sweep_of(folder, "", 7, more=ABOVE_5, limits='grace = "1s"', workload=command)
    text = (folder / file).read_text()
    (folder / file).write_text(text + '[metrics]\nloss = "loss="\n')
    done = mpisweep("run", file, "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    assert sweep.trials["state"].tolist() == ["complete"] * 5 + ["pruned"] * 2
    for number in (5, 6):
        curve = sweep.curve(number, "loss")
        assert len(curve.value) >= 1
        assert sweep.trials["loss"][number] == curve.value[-1]
        assert (curve.value[-1] == 77.0) == (how == "traps"), "what it printed after SIGTERM belongs to it"
        assert (folder / f"saved.{number + 1}").exists() == (how == "traps")
    if how == "ignores":
        assert min(sweep.trials["wall_time"][5:]) > 1.0


# ------------------------------------------------------------------------------------- several ranks

TEAM = f"""
import time
def run(trial):
    x = trial.params["x"]
    {FOREVER}
        trial.report(step, loss=float(x) if trial.rank == 0 else 99.0)
        if trial.should_stop():
            time.sleep(0.2 * trial.rank)
            return None
        if x <= 5 and step > 3:
            return float(x)
        time.sleep(0.01)
"""


def test_a_trial_of_two_ranks_is_told_on_both_and_is_pruned_once(folder, mpisweep: Run):
    file = sweep_of(folder, TEAM, 7, more=f"{ABOVE_5}\nranks_per_trial = 2")
    done = mpisweep("run", file, "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    assert sweep.trials["state"].tolist() == ["complete"] * 5 + ["pruned"] * 2
    assert sweep.trials["loss"].tolist() == [float(x) for x in range(1, 8)], "rank 0's"
    assert sweep.trials["attempt"].tolist() == [1] * 7
    assert sorted(sweep.trials["end_order"].tolist()) == list(range(7))


RING = """
import os, socket, sys, time
x, rank = int(sys.argv[1]), int(os.environ["RANK"])
address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]) + 0
if rank == 0:
    server = socket.create_server(address)
    other, _ = server.accept()
else:
    while True:
        try:
            other = socket.create_connection(address)
            break
        except OSError:
            time.sleep(0.01)
for step in range(10**9 if x > 5 else 4):
    if rank == 0:
        print(f"loss={x}", flush=True)
    other.sendall(b"x")
    if not other.recv(1):
        sys.exit("the other rank is gone")
    time.sleep(0.02)
"""


def test_a_program_of_two_ranks_that_break_each_other_off_is_pruned(folder, mpisweep: Run):
    (folder / "program.py").write_text(RING)
    file = sweep_of(
        folder,
        "",
        6,
        more=f"{ABOVE_5}\nranks_per_trial = 2",
        workload='{ command = "python program.py {x}" }',
    )
    (folder / file).write_text((folder / file).read_text() + '[metrics]\nloss = "loss="\n')
    done = mpisweep("run", file, "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert states(folder / "r.h5") == ["complete"] * 5 + ["pruned"]


# ------------------------------------------------------------------------------------- diverged

DIVERGES = f"""
import math, time
def run(trial):
    x = trial.params["x"]
    {FOREVER}
        try:
            value = math.nan if x % 2 == 0 and step == 3 else float(x)
            trial.report(step, loss=value if trial.rank == 0 else 1.0)
        except Exception:
            pass
        if trial.rank == 0 and x % 2 and step == 6:
            return float(x)
        if trial.rank and (step == 6 and x % 2 or step == 10**6):
            return None
        time.sleep(0.002)
"""
DIVERGING_PROGRAM = """
import sys, time
x = int(sys.argv[1])
for step in range(10**9 if x % 2 == 0 else 6):
    print("loss=" + ("nan" if x % 2 == 0 and step == 3 else str(x)), flush=True)
    time.sleep(0.01)
"""


@pytest.mark.parametrize("kind", ["function", "program", "two ranks"])
def test_a_trial_that_diverges_ends_at_once_if_asked_for(folder, mpisweep: Run, kind):
    (folder / "program.py").write_text(DIVERGING_PROGRAM)
    file = sweep_of(
        folder, DIVERGES, 4, limits='diverged = "stop"',
        more="ranks_per_trial = 2" if kind == "two ranks" else "",
        workload='{ command = "python program.py {x}" }' if kind == "program" else "mine:run",
    )  # fmt: skip
    if kind == "program":
        (folder / file).write_text((folder / file).read_text() + '[metrics]\nloss = "loss="\n')
    done = mpisweep("run", file, "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    trials = sweep.trials
    assert trials["state"].tolist() == ["complete", "pruned"] * 2
    assert trials["message"][1] == "diverged: loss is nan at step 3 (limits.diverged)"
    assert trials["diverged"].tolist() == [False, True] * 2
    assert trials["pruned_at"].tolist() == [-1, 3] * 2
    assert np.isnan(trials["loss"][1])
    assert [math.isnan(value) for value in sweep.curve(1, "loss").value] == [False] * 3 + [True]
    assert done.stderr.count("diverged: loss is nan") == 1
    assert "2 completed or pruned trials have no finite loss" in mpisweep("status", "r.h5").stdout
    assert "of 2" not in mpisweep("top", "r.h5").stdout


def test_a_trial_that_diverges_goes_on_unless_that_is_asked_for(folder, mpisweep: Run):
    code = "def run(trial):\n    trial.report(0, loss=float('nan'))\n    trial.report(1, loss=1.0)\n"
    done = mpisweep("run", sweep_of(folder, code, 2, more=""), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert states(folder / "r.h5") == ["complete"] * 2


# ------------------------------------------------------------------------------------- kills

MARATHON = f"""
import time
def run(trial):
    x = trial.params["x"]
    with open("begun.txt", "a") as begun:
        begun.write(f"{{trial.number}}\\n")
    {FOREVER}
        trial.report(step, loss=float(x % 10))
        if trial.should_stop() or (x % 10 <= 5 and step == 20):
            return float(x % 10)
        time.sleep(0.01)
"""


def pruner_of(sweep) -> psutil.Process:
    processes = psutil.Process(sweep.pid).children(recursive=True)
    [found] = [process for process in processes if process.name() == "mpisweep-prune"]
    return found


def test_a_killed_pruner_a_killed_master_and_a_killed_job_end_every_trial_once(
    folder, environment, mpisweep: Run
):
    file = sweep_of(folder, MARATHON, 60)
    sweep = start(folder, environment, "run", file, "-n", "3", "-o", "r.h5")
    wait_for(lambda: ended(folder / "r.h5") >= 8)
    pruner_of(sweep).kill()
    wait_for(lambda: "another one continues" in stderr_of(folder))
    wait_for(lambda: ended(folder / "r.h5") >= 20)
    ranks_by_number(sweep)[0].kill()
    wait_for(lambda: ended(folder / "r.h5") >= 36)
    for process in [*psutil.Process(sweep.pid).children(recursive=True), psutil.Process(sweep.pid)]:
        if process.is_running():
            process.kill()
    sweep.wait()
    before = package.load(folder / "r.h5").trials
    done = mpisweep("run", file, "-n", "3", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    hopeless = trials["x"] % 10 > 5
    assert trials["state"].tolist() == ["pruned" if one else "complete" for one in hopeless]
    assert sorted(trials["end_order"].tolist()) == list(range(60)), "every trial ended once"
    over = before["end_order"] >= 0
    assert over.sum() >= 36
    assert trials["attempt"][over].tolist() == before["attempt"][over].tolist(), "no ended trial ran again"
    begun = (folder / "begun.txt").read_text().split()
    assert len(begun) <= 60 + 3 + 3, "only what ran on the dead ran again"


def test_a_pruner_that_was_killed_decides_by_what_the_files_hold(folder, environment):
    """The curves that the median rests on were reported before the kill."""
    code = f"""
import time
from pathlib import Path
def run(trial):
    x = trial.params["x"]
    if x > 6:
        while not Path("go").exists():
            time.sleep(0.01)
    {FOREVER}
        trial.report(step, loss=float(x))
        if trial.should_stop() or (x <= 6 and step == 3):
            return float(x)
        time.sleep(0.01)
"""
    more = 'prune = { pruner = "median", n_startup_trials = 6 }\norder = "spread"'
    file = sweep_of(folder, code, 7, more=more)
    sweep = start(folder, environment, "run", file, "-n", "2", "-o", "r.h5")
    wait_for(lambda: ended(folder / "r.h5") == 6)
    pruner_of(sweep).kill()
    wait_for(lambda: "another one continues" in stderr_of(folder))
    (folder / "go").touch()
    assert sweep.wait() == 0
    assert states(folder / "r.h5") == ["complete"] * 6 + ["pruned"]
