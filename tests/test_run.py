"""Whole sweeps as users run them, with real ranks, kills and files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import h5py
import psutil
import pytest
from started import end, family, remember
from waiting import PATIENCE_S, wait_for

import mpisweep as package
from mpisweep.cli.arguments import master_policy
from mpisweep.records import FailureCause
from mpisweep.workloads.failure import cause_of

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.mpi


def sweep_file(folder: Path, function: str, last: int, more: str = "") -> str:
    text = (
        'name = "s"\n'
        f'workload = "workloads:{function}"\n'
        f"{more}\n"
        "[parameters]\n"
        f"x = {{ from = 1, to = {last} }}\n"
    )
    if more.lstrip().startswith("["):
        text = (
            'name = "s"\n'
            f'workload = "workloads:{function}"\n'
            "[parameters]\n"
            f"x = {{ from = 1, to = {last} }}\n"
            f"{more}\n"
        )
    (folder / "s.toml").write_text(text, encoding="utf-8")
    return "s.toml"


def start(
    folder: Path, environment: dict[str, str], *arguments: str, ranks: int | None = None
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mpisweep", *arguments]
    if ranks is not None:
        command = ["mpirun", "--oversubscribe", "-n", str(ranks), *command]
    with (folder / "stderr.txt").open("w") as stderr:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=stderr, text=True,
            start_new_session=True,
        )  # fmt: skip
    return remember(process)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_mpirun_called_by_hand_runs_every_trial_once(folder, mpisweep: Run, ranks):
    done = mpisweep("run", sweep_file(folder, "half", 300), "-o", "r.h5", ranks=ranks)
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    assert sweep.trials["state"].tolist() == ["complete"] * 300
    assert sweep.trials["loss"].tolist() == [x / 2 for x in range(1, 301)]
    assert sweep.allocations["ranks"].tolist() == [ranks]
    assert sweep.trials["attempt"].max() >= 1
    assert not (folder / "r.h5.journal").exists()


@pytest.mark.parametrize(("variables", "policy"), [
    ({}, "works"),
    ({"OMPI_COMM_WORLD_RANK": "0", "MPISWEEP_LAUNCH": "l"}, "works"),
    ({"OMPI_COMM_WORLD_RANK": "0"}, "auto"),
])  # fmt: skip
def test_with_a_number_of_workers_rank_0_is_one_of_those_that_we_start(monkeypatch, variables, policy):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert master_policy(Namespace(workers=3, master="auto")) == policy
    assert master_policy(Namespace(workers=3, master="idle")) == "idle"
    assert master_policy(Namespace(workers=None, master="auto")) == "auto"


@pytest.mark.parametrize("workers", [1, 2])
def test_the_launcher_starts_the_ranks_itself(folder, mpisweep: Run, workers):
    done = mpisweep("run", sweep_file(folder, "slowly", 12), "-o", "r.h5", "-n", str(workers))
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    assert len(sweep.workers) == workers
    # As it was typed, beside the name of the program.
    assert json.loads(sweep.environment["command"])[1:] == ["run", "s.toml", "-o", "r.h5", "-n", str(workers)]
    assert sweep.curve(3, "loss").value.tolist() == [4.0, 5.0, 6.0, 7.0, 8.0]
    assert sweep.curve(3, "loss").step.tolist() == [0, 1, 2, 3, 4]


def test_the_quick_form_needs_no_file(folder, mpisweep: Run):
    done = mpisweep("run", "workloads:half", "-p", "x=1:20", "--baseline", "x=7", "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert package.load(folder / "r.h5").baseline["x"] == 7


def test_an_idle_master_runs_no_trial(folder, mpisweep: Run):
    done = mpisweep("run", sweep_file(folder, "half", 20), "-o", "r.h5", "-n", "1", "--master", "idle")
    assert done.returncode == 0, done.stderr
    assert package.load(folder / "r.h5").workers["rank"].tolist() == [1]


def test_bad_trials_affect_only_themselves(folder, mpisweep: Run):
    done = mpisweep("run", sweep_file(folder, "unlucky", 12, "[limits]\ntimeout = 1\n"), "-n", "2")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "s.h5")
    causes = dict(zip(sweep.trials["x"].tolist(), sweep.trials["cause"].tolist(), strict=True))
    assert causes == {
        1: "", 2: "exception", 3: "crash", 4: "crash", 5: "timeout", 6: "out_of_memory", 7: "",
        8: "exception", 9: "", 10: "", 11: "", 12: "",
    }  # fmt: skip
    messages = dict(zip(sweep.trials["x"].tolist(), sweep.trials["message"].tolist(), strict=True))
    assert messages[2].startswith("ValueError: x is two\n  at ")
    assert "workloads.py" in messages[2]
    assert messages[3] == "the trial process exited with code 7"
    assert messages[4] == "the trial process was killed by signal 11 (SIGSEGV)"
    assert messages[5] == "killed after 1 s (limits.timeout)"
    assert sweep.best(1)["x"].tolist() == [1]


def test_a_sweep_in_which_no_trial_completes_exits_with_4(folder, mpisweep: Run):
    (folder / "workloads.py").write_text(
        "def never(trial):\n    raise RuntimeError('no')\n", encoding="utf-8"
    )
    done = mpisweep("run", sweep_file(folder, "never", 3), "-n", "1")
    assert done.returncode == 4, done.stderr


def test_a_trial_does_not_look_like_an_mpi_rank(folder, mpisweep: Run):
    done = mpisweep("run", sweep_file(folder, "strayed", 3), "-o", "r.h5", ranks=2)
    assert done.returncode == 0, done.stderr
    assert package.load(folder / "r.h5").trials["loss"].tolist() == [0.0] * 3


def test_seeds_depend_on_the_repeat_and_not_on_the_worker_or_the_configuration(folder, mpisweep: Run):
    spec = sweep_file(folder, "seeded", 10, "repeats = 3")
    assert mpisweep("run", spec, "-o", "one.h5", "-n", "1").returncode == 0
    assert mpisweep("run", spec, "-o", "two.h5", "-n", "2").returncode == 0
    one, two = (package.load(folder / name).trials["loss"].tolist() for name in ("one.h5", "two.h5"))
    assert one == two
    assert one == [one[0]] * 10 + [one[10]] * 10 + [one[20]] * 10
    assert len(set(one)) == 3


@pytest.mark.parametrize("ranks", [None, 2])
def test_killing_everything_in_the_middle_loses_and_repeats_nothing(
    folder, environment, mpisweep: Run, ranks
):
    spec = sweep_file(folder, "gated", 24)
    arguments = ["run", spec, "-o", "r.h5", *(["-n", "2"] if ranks is None else [])]
    process = start(folder, environment, *arguments, ranks=ranks)
    wait_for(lambda: len(list(folder.glob("begun.*"))) >= 2)
    (folder / "go").touch()
    wait_for(
        lambda: (
            (folder / "r.h5").exists()
            and (package.load(folder / "r.h5").trials["state"] == "complete").sum() >= 6
        )
    )
    (folder / "go").unlink()
    end(process)
    known = package.load(folder / "r.h5")
    ended = set(known.trials["number"][known.trials["state"] == "complete"].tolist())
    assert len(ended) >= 6
    with h5py.File(folder / "r.h5") as file:
        assert file.attrs["format"] == "mpisweep"
    (folder / "go").touch()
    done = mpisweep(*arguments, ranks=ranks)
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    assert sweep.trials["state"].tolist() == ["complete"] * 24
    assert sweep.trials["loss"].tolist() == [float(x) for x in range(1, 25)]
    ran = [int(line) for line in (folder / "ran.txt").read_text().split()]
    # Trials that ended before the kill ran once; only running or unacknowledged trials may have run twice.
    assert all(ran.count(number) == 1 for number in ended)
    assert set(ran) == set(range(24))
    assert len(sweep.allocations) == 2


def test_status_shows_that_a_run_was_killed(folder, environment, mpisweep: Run):
    process = start(folder, environment, "run", sweep_file(folder, "gated", 4), "-o", "r.h5", "-n", "1")
    wait_for(lambda: (folder / "begun.0").exists())
    assert mpisweep("status", "r.h5").stdout.startswith("s: running\n")
    end(process)
    said = mpisweep("status", "r.h5").stdout
    assert said.startswith("s: the last run died without closing; run the same command to resume\n")
    assert "running" not in said


def test_the_file_can_be_read_at_any_moment_of_the_run(folder, environment):
    process = start(folder, environment, "run", sweep_file(folder, "slowly", 60), "-n", "2", "-o", "r.h5")
    path = folder / "r.h5"
    wait_for(path.exists)
    h5dump = shutil.which("h5dump")
    looks = 0
    while process.poll() is None:
        with h5py.File(path) as file:
            assert file["trials/state"].shape == (60,)
        if h5dump is not None:
            subprocess.run([h5dump, "-H", path], check=True, stdout=subprocess.DEVNULL)
        sweep = package.load(path)
        assert len(sweep.trials) == 60
        looks += 1
    assert process.returncode == 0
    assert looks > 3


def test_no_process_outlives_its_rank(folder, environment):
    process = start(
        folder,
        environment,
        "run",
        sweep_file(folder, "gated", 4, "[limits]\nrestarts = 0"),
        "-n",
        "2",
        "-o",
        "r.h5",
    )
    wait_for(lambda: len(list(folder.glob("begun.*"))) >= 2)
    members = family(process)
    assert len(members) >= 8
    ranks = [p for p in members if "run" in p.cmdline() and "mpirun" not in p.name() and p.pid != process.pid]
    for rank in ranks:
        if rank.is_running():
            rank.kill()
    assert process.wait(timeout=PATIENCE_S) == 3
    _, alive = psutil.wait_procs(members, timeout=PATIENCE_S)
    assert alive == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_clean_stop_loses_nothing_and_can_be_resumed(folder, environment, mpisweep: Run, number):
    spec = sweep_file(folder, "gated", 6)
    process = start(folder, environment, "run", spec, "-n", "2", "-o", "r.h5")
    wait_for(lambda: len(list(folder.glob("begun.*"))) >= 2)
    process.send_signal(number)
    assert process.wait(timeout=PATIENCE_S) == 3
    stopped = package.load(folder / "r.h5")
    assert stopped.state == "stopped by a signal"
    assert stopped.trials["state"].tolist() == ["waiting"] * 6
    assert "interrupted" in stopped.attempts["end"].tolist()
    (folder / "go").touch()
    done = mpisweep("run", spec, "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert package.load(folder / "r.h5").trials["state"].tolist() == ["complete"] * 6


def test_a_trial_that_ignores_a_stop_is_killed_after_the_grace(folder, mpisweep: Run):
    (folder / "workloads.py").write_text(
        "import time\ndef deaf(trial):\n    time.sleep(1000)\n", encoding="utf-8"
    )
    spec = sweep_file(folder, "deaf", 3, "[limits]\ngrace = 0.5\n")
    done = mpisweep("run", spec, "-n", "1", "--walltime", "3")
    assert done.returncode == 3, done.stderr
    sweep = package.load(folder / "s.h5")
    assert sweep.trials["state"].tolist() == ["waiting"] * 3
    assert "interrupted" in sweep.attempts["end"].tolist()


def test_a_rank_that_waits_for_a_long_trial_uses_little_cpu(folder, environment, tell):
    process = start(folder, environment, "run", sweep_file(folder, "gated", 2), "-o", "r.h5", ranks=3)
    wait_for(lambda: len(list(folder.glob("begun.*"))) >= 2)
    ranks = psutil.Process(process.pid).children()
    assert len(ranks) == 3
    time.sleep(1.0)  # let the ranks become idle
    before = [sum(p.cpu_times()[:2]) for p in ranks]
    started = time.monotonic()
    time.sleep(4.0)  # the measurement: CPU time in this period
    share = [
        (sum(p.cpu_times()[:2]) - old) / (time.monotonic() - started)
        for p, old in zip(ranks, before, strict=True)
    ]
    (folder / "go").touch()
    assert process.wait(timeout=PATIENCE_S) == 0
    tell(
        "share of a core that a waiting rank takes, master first: "
        f"{', '.join(f'{100 * s:.1f}%' for s in share)}"
    )
    assert max(share) < 0.05


def test_the_walltime_is_kept(folder, mpisweep: Run):
    spec = sweep_file(folder, "gated", 6, "[limits]\ngrace = 1\n")
    done = mpisweep("run", spec, "-n", "1", "--walltime", "3")
    assert done.returncode == 3, done.stderr
    sweep = package.load(folder / "s.h5")
    assert sweep.state == "stopped before the walltime"
    [run] = sweep.allocations
    assert run["ended_at"] < run["deadline"] <= run["started_at"] + 3.1


def test_a_second_run_on_the_same_file_is_refused(folder, environment, mpisweep: Run):
    spec = sweep_file(folder, "gated", 4)
    process = start(folder, environment, "run", spec, "-n", "1", "-o", "r.h5")
    wait_for(lambda: list(folder.glob("begun.*")))
    done = mpisweep("run", spec, "-n", "2", "-o", "r.h5")
    assert done.returncode == 2
    assert re.search(r"r\.h5: another run is writing it: process \d+ on .*, since ", done.stderr)
    (folder / "go").touch()
    assert process.wait(timeout=PATIENCE_S) == 0


def test_resuming_a_complete_sweep_does_nothing(folder, mpisweep: Run):
    spec = sweep_file(folder, "half", 10)
    assert mpisweep("run", spec, "-n", "1").returncode == 0
    before = package.load(folder / "s.h5").trials["started_at"].tolist()
    assert mpisweep("run", spec, "-n", "1").returncode == 0
    assert package.load(folder / "s.h5").trials["started_at"].tolist() == before


def test_the_best_trial_of_an_earlier_run_is_still_the_best(folder, mpisweep: Run):
    assert mpisweep("run", sweep_file(folder, "half", 4), "-n", "1").returncode == 0
    done = mpisweep("run", sweep_file(folder, "half", 8), "-n", "1")
    assert "best loss 0.5 (x=1)" in done.stderr


def test_a_sweep_with_a_grown_space_is_resumed_and_keeps_its_numbers(folder, mpisweep: Run):
    assert mpisweep("run", sweep_file(folder, "half", 4, "[baseline]\nx = 9\n"), "-n", "1").returncode == 0
    assert mpisweep("run", sweep_file(folder, "half", 7, "[baseline]\nx = 9\n"), "-n", "1").returncode == 0
    sweep = package.load(folder / "s.h5")
    assert sweep.trials["x"].tolist() == [1, 2, 3, 4, 9, 5, 6, 7]
    assert sweep.baseline["x"] == 9
    assert sweep.trials["state"].tolist() == ["complete"] * 8


def test_a_changed_sweep_file_is_refused_with_the_differences_unless_fresh(folder, mpisweep: Run):
    assert mpisweep("run", sweep_file(folder, "half", 4), "-n", "1").returncode == 0
    old = (folder / "s.h5").read_bytes()
    changed = sweep_file(folder, "seeded", 3)
    done = mpisweep("run", changed, "-n", "1")
    assert done.returncode == 2
    assert "workload: the results file has 'workloads:half', s.toml has 'workloads:seeded'" in done.stderr
    assert (
        "parameters.x: the results file has integers from 1 to 4, s.toml has integers from 1 to 3"
        in done.stderr
    )
    assert "Traceback" not in done.stderr
    assert (folder / "s.h5").read_bytes() == old
    assert mpisweep("check", changed).returncode == 2
    assert mpisweep("run", changed, "-n", "1", "--fresh").returncode == 0
    [kept] = list(folder.glob("s.*.h5"))
    assert kept.read_bytes() == old
    assert len(package.load(folder / "s.h5").trials) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "no.toml"], "no.toml: cannot be read: No such file or directory"),
        (
            ["run", "resnet50", "-p", "batch_size=9:1"],
            "'from' is 9 and 'to' is 1; 'from' must not exceed 'to'",
        ),
        (
            ["run", "resnet50", "-p", "batch_size=1:9", "-o", "nowhere/x.h5"],
            "folder nowhere does not exist; create it first",
        ),
        (["check", "resnet50", "-p", "batchsize=1:9"], "did you mean 'batch_size'?"),
        (["top", "no.h5"], "no.h5: no such results file"),
        (["status", "workloads.py"], "workloads.py: is not a readable HDF5 file"),
        (["run", "workloads:half", "-p", "x=1:3", "-n", "0"], "'0' is not an integer of at least 1"),
    ],
)
def test_a_mistake_is_reported_in_one_sentence_with_exit_code_2(mpisweep: Run, arguments, message):
    done = mpisweep(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_top_and_status_print_the_results(folder, mpisweep: Run):
    import json

    mpisweep("run", sweep_file(folder, "half", 6, "[baseline]\nx = 4\n"), "-n", "1")
    top = mpisweep("top", "s.h5", "-k", "2").stdout
    assert re.search(r"1st\s+1\s+0\.5000", top)
    assert re.search(r"baseline\s+4\s+2\.0000", top)
    assert "3rd" not in top
    status = json.loads(mpisweep("status", "s.h5", "--json").stdout)
    assert (status["state"], status["complete"], status["best"]) == ("complete", 6, 0.5)
    assert "6 of 6 trials have ended" in mpisweep("status", "s.h5").stdout


def test_check_prints_the_size_of_the_sweep(folder, mpisweep: Run):
    done = mpisweep("check", sweep_file(folder, "half", 6))
    assert done.returncode == 0
    assert "grid, 6 configurations" in done.stdout
    assert (
        "time        unknown until three trials have run; set limits.timeout for an upper bound"
        in done.stdout
    )
    assert not list(folder.glob("*.h5*"))


def test_check_prints_the_duration_and_the_trials_that_fit_the_walltime(folder, mpisweep: Run):
    bounded = mpisweep(
        "check", sweep_file(folder, "half", 6, "[limits]\ntimeout = 60\n"), "-n", "2", "--walltime", "2:00"
    )
    assert bounded.returncode == 2
    assert "'2:00' is not a valid duration" in bounded.stderr
    bounded = mpisweep("check", "s.toml", "-n", "2", "--walltime", "0:02:30")
    assert "up to 6 min of trials; with 2 workers up to 3 min" in bounded.stdout
    assert "4 of 6 trials fit into 2 min, if every trial takes its timeout" in bounded.stdout
    assert mpisweep("run", "s.toml", "-n", "1").returncode == 0
    grown = mpisweep(
        "check", sweep_file(folder, "half", 9, "[limits]\ntimeout = 60\n"), "--walltime", "0:02:30"
    )
    assert "6 of 9 trials have ended" in grown.stdout
    assert "about 0 s of trials" in grown.stdout
    assert "all fit into 2 min" in grown.stdout


def test_an_objective_that_no_trial_reports_is_an_error(folder, mpisweep: Run):
    (folder / "other.py").write_text("def f(trial):\n    return {'los': 1.0}\n")
    done = mpisweep("run", "other:f", "-p", "x=1:3", "-n", "1", "-o", "r.h5")
    assert done.returncode == 4
    assert (
        "no completed trial has a finite objective; 3 of 3 trials have ended; no trial reported 'loss'; "
        "reported: los" in done.stderr
    )
    assert "3 completed trials have no finite loss" in mpisweep("status", "r.h5").stdout
    top = mpisweep("top", "r.h5")
    assert top.returncode == 2
    assert "no trial has reported the objective, 'loss'; metrics there are: los" in top.stderr


def test_a_named_objective_must_be_reported_even_if_no_metric_is_required(folder, mpisweep: Run):
    text = 'name = "s"\nworkload = {{ command = "echo accuracy: 5 at {{x}}" }}\n{}[parameters]\nx = [1, 2]\n'
    (folder / "s.toml").write_text(text.format('objective = "accuracy"\n'))
    done = mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5")
    assert done.returncode == 4
    assert "no completed trial has a finite objective; 2 of 2 trials have ended" in done.stderr
    (folder / "s.toml").write_text(text.format(""))
    assert mpisweep("run", "s.toml", "-n", "1", "-o", "files.h5").returncode == 0


def test_a_sweep_without_parameters_is_one_trial(folder, mpisweep: Run):
    (folder / "one.toml").write_text('workload = "resnet50"\nname = "one"\n[limits]\ntimeout = 1\n')
    assert "grid, 1 configuration\n" in mpisweep("check", "one.toml").stdout
    assert mpisweep("run", "one.toml", "-n", "1").returncode == 4
    assert package.load(folder / "one.h5").trials["cause"].tolist() == ["timeout"]


def test_ranks_started_by_mpirun_also_refuse_a_workload_that_cannot_be_loaded(folder, mpisweep: Run):
    done = mpisweep("run", "nonsense_1:f", "-p", "x=1:3", "-o", "r.h5", ranks=2)
    assert done.returncode == 2, done.stderr
    assert (
        "workload: nonsense_1:f cannot be loaded: ModuleNotFoundError: No module named 'nonsense_1'"
        in done.stderr
    )
    assert "Traceback" not in done.stderr
    assert not list(folder.glob("r.h5*"))


def test_progress_is_a_line_in_a_log_and_quiet_is_quiet(folder, mpisweep: Run):
    spec = sweep_file(folder, "half", 6)
    assert re.search(
        r"\n\d\d:\d\d:\d\d s: complete; 6 of 6 trials have ended\n$", mpisweep("run", spec, "-n", "1").stderr
    )
    assert mpisweep("run", spec, "-n", "1", "--fresh", "--quiet").stderr == ""


def test_a_progress_bar_is_shown_on_a_terminal(folder, environment):
    pid, terminal = os.forkpty()
    if pid == 0:
        os.chdir(folder)
        os.execve(
            sys.executable,
            [
                sys.executable,
                "-m",
                "mpisweep",
                "run",
                "workloads:slowly",
                "-p",
                "x=1:20",
                "-n",
                "2",
                "-o",
                "r.h5",
            ],
            environment | {"TERM": "xterm", "COLUMNS": "160"},
        )
    seen = b""
    try:
        while data := os.read(terminal, 65536):
            seen += data
    except OSError:
        # Linux raises this when the last process on the terminal has ended.
        pass
    assert os.waitpid(pid, 0)[1] == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert "20/20" in text
    assert "best loss 1 (x=1)" in text
    assert "\x1e" not in text


def test_a_sweep_full_of_crashes_and_long_trials_ends_with_every_trial_once(folder, mpisweep: Run):
    (folder / "workloads.py").write_text(
        "import os, time\n"
        "def stormy(trial):\n"
        "    x = trial.params['x']\n"
        "    if x % 97 == 0: os._exit(3)\n"
        "    if x % 89 == 0: os.kill(os.getpid(), 9)\n"
        "    if x % 50 == 0: time.sleep(0.03)\n"
        "    return x * 2\n",
        encoding="utf-8",
    )
    done = mpisweep("run", sweep_file(folder, "stormy", 2000), "-n", "3", "-q")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "s.h5").trials
    crashing = (trials["x"] % 97 == 0) | (trials["x"] % 89 == 0)
    assert (trials["state"][crashing] == "failed").all()
    assert (trials["cause"][crashing] == "crash").all()
    assert (trials["state"][~crashing] == "complete").all()
    assert (trials["loss"][~crashing] == 2 * trials["x"][~crashing]).all()


MEMORY = """
import torch

def train(trial):
    held = torch.ones(trial.params["x"] * 50_000_000 // 4)
    return float(held[-1])
"""


def test_a_memory_limit_fails_the_trials_that_need_more(folder, mpisweep: Run):
    (folder / "mine.py").write_text(MEMORY)
    (folder / "s.toml").write_text(
        "workload = 'mine:train'\n[parameters]\nx = [1, 2, 100, 200]\n[limits]\nmemory = '2.5GB'\n"
    )
    done = mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert trials["state"].tolist() == ["complete"] * 2 + ["failed"] * 2
    assert trials["cause"].tolist()[2:] == ["out_of_memory"] * 2
    assert "GiB of main memory" in trials["message"][2]


def test_a_program_inherits_the_memory_limit(folder, mpisweep: Run):
    (folder / "s.toml").write_text(
        f"workload = {{ command = '{sys.executable} -c \"b = bytearray({{x}}000000); print(1)\"' }}\n"
        "[parameters]\nx = [1, 4000]\n[metrics]\nloss = '^'\n[limits]\nmemory = '1 GiB'\n"
    )
    done = mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    assert package.load(folder / "r.h5").trials["cause"].tolist() == ["", "out_of_memory"]


@pytest.mark.parametrize("text", [
    "error return without exception set", "<function _find_and_load at 0x7f> returned NULL without setting "
                                          "an exception"
])  # fmt: skip
def test_an_interpreter_without_memory_for_the_exception_has_run_out_of_memory(text: str):
    """CPython 3.11 raised these in one of three imports of torch under a limit of 1 MiB."""
    found_cause = cause_of(SystemError(text), memory_is_limited=True, uses_gpu=False)
    assert found_cause == (FailureCause.OUT_OF_MEMORY, False)
    assert cause_of(SystemError(text), memory_is_limited=False, uses_gpu=False)[0] is FailureCause.EXCEPTION


def test_a_torch_library_without_memory_has_run_out_of_memory():
    """oneDNN says no more than this in the backward pass of ResNet50 under a limit of 1.8 GB."""
    error = RuntimeError("could not execute a primitive")
    assert cause_of(error, memory_is_limited=True, uses_gpu=False)[0] is FailureCause.OUT_OF_MEMORY
    assert cause_of(error, memory_is_limited=False, uses_gpu=False)[0] is FailureCause.EXCEPTION


def test_a_memory_limit_too_small_for_a_library_is_out_of_memory(folder, mpisweep: Run):
    (folder / "mine.py").write_text("def train(trial):\n    import torch\n    return float(torch.ones(1))\n")
    (folder / "s.toml").write_text(
        "workload = 'mine:train'\n[parameters]\nx = [1]\n[limits]\nmemory = '1MiB'\n"
    )
    done = mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5")
    assert done.returncode == 4, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert trials["cause"].tolist() == ["out_of_memory"]
    assert "of main memory" in trials["message"][0]


def test_a_link_to_a_results_file_is_kept_and_its_target_is_written(folder, mpisweep: Run):
    """The results are on scratch, with a link to them in the home folder."""
    scratch = folder / "scratch"
    scratch.mkdir()
    link = folder / "r.h5"
    link.symlink_to("scratch/real.h5")
    assert mpisweep("run", sweep_file(folder, "half", 3), "-n", "1", "-o", "r.h5").returncode == 0
    assert mpisweep("run", sweep_file(folder, "half", 5), "-n", "2", "-o", "r.h5").returncode == 0
    assert link.is_symlink()
    assert os.listdir(scratch) == ["real.h5"]
    assert len(package.load(link).trials) == len(package.load(scratch / "real.h5").trials) == 5
    assert "5 trials" in mpisweep("status", "r.h5").stdout
    assert mpisweep("repair", "r.h5").returncode == 0
    assert mpisweep("run", sweep_file(folder, "half", 5), "-n", "1", "-o", "r.h5", "--fresh").returncode == 0
    assert link.is_symlink()
    assert len(os.listdir(scratch)) == 2
