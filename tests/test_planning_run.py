"""`mpisweep check --plan` from end to end: what it knows, what it says, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from waiting import PATIENCE_S, wait_for

import mpisweep as package
from mpisweep.records import EndReason, TrialState

pytestmark = pytest.mark.mpi

SLEEPS = """
import time


def train(trial):
    time.sleep(0.002 * trial.params["size"] * trial.params.get("factor", 1))
    return {"loss": 1.0}
"""


@pytest.fixture
def sleepy(folder):
    """Writes a sweep of a function that sleeps, and returns its file's name."""
    (folder / "sleeps.py").write_text(SLEEPS)

    def write(parameters: str = "size = { from = 1, to = 40 }", more: str = "", name: str = "s") -> str:
        (folder / f"{name}.toml").write_text(
            f'name = "{name}"\nworkload = "sleeps:train"\n{more}\n[parameters]\n{parameters}\n'
        )
        return f"{name}.toml"

    return write


def planned(mpisweep, *arguments: str) -> dict:
    done = mpisweep("check", *arguments, "--plan", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["plan"]
    assert isinstance(found, dict)
    return found


def test_without_any_knowledge_one_sentence_says_what_to_do(mpisweep, sleepy):
    done = mpisweep("check", sleepy(), "--plan")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "mpisweep: s.toml: --plan: no duration is known, because no trial of the sweep has been measured; add "
        "--pilot 5 to `mpisweep check` to run five, or --from with an earlier results file, or set "
        "limits.timeout for an upper bound"
    )


def test_a_timeout_gives_upper_bounds(mpisweep, sleepy):
    name = sleepy(more="[limits]\ntimeout = 60\ngrace = 5\n")
    found = planned(mpisweep, name, "-n", "4", "--nodes", "1,2")
    assert found["is_bound"]
    assert [row["nodes"] for row in found["rows"]] == [1, 2]
    assert found["rows"][0]["bound_s"] == pytest.approx(10 * 60 + found["rows"][0]["startup_s"], abs=1)
    text = mpisweep("check", name, "--plan", "-n", "4").stdout
    assert "even if every one takes its timeout" in text
    # 40 trials of a minute on one node of four workers.
    assert "upper bounds, from the timeout" in text


def test_an_earlier_sweep_says_how_long_trials_take_and_other_fixed_values_scale_it(mpisweep, sleepy):
    old = sleepy("size = { from = 20, to = 60, step = 10 }", "[fixed]\nepochs = 1\n", name="old")
    assert mpisweep("run", old, "-n", "1", "-q").returncode == 0
    new = sleepy("size = { from = 1, to = 40 }", "[fixed]\nepochs = 10\n", name="new")
    found = planned(mpisweep, new, "--from", "old.h5", "-n", "1", "--nodes", "1")
    assert (found["measured"], found["measured_elsewhere"]) == (5, 5)
    assert "a trial has 10 times the work that it had in old.h5; so has its duration" in found["notes"]
    [row] = found["rows"]
    # 820 units of 2 ms, ten times.
    assert 0.4 < (row["time_s"] - row["startup_s"]) / 16.4 < 2.5
    other = sleepy("width = [1, 2, 3]", name="other")
    done = mpisweep("check", other, "--plan", "--from", "old.h5")
    assert done.returncode == 2
    assert "old.h5: has no parameter of this sweep (width)" in done.stderr
    missing = mpisweep("check", new, "--plan", "--from", "nothing.h5")
    assert missing.returncode == 2
    assert "nothing.h5: no such results file" in missing.stderr


def test_repeats_and_conditions_are_counted(mpisweep, sleepy):
    name = sleepy(
        'size = { from = 10, to = 14 }\nmode = ["a", "b"]\n'
        "factor = { values = [1, 2], when = \"mode == 'b'\" }",
        "repeats = 2\n[limits]\ntimeout = 30\n",
    )
    found = planned(mpisweep, name, "-n", "2", "--nodes", "1")
    # Five sizes, with one or two factors, twice.
    assert found["trials"] == 5 * 3 * 2


def test_trials_of_several_ranks_are_planned_for_nodes_with_enough_workers(mpisweep, sleepy):
    name = sleepy("size = [1, 2]\nranks_per_trial = [1, 4]", "[limits]\ntimeout = 60\n")
    found = planned(mpisweep, name, "-n", "2")
    assert found["rows"][0]["workers"] == 4
    done = mpisweep("check", name, "--plan", "-n", "2", "--nodes", "1")
    assert done.returncode == 2
    assert "--nodes: a trial of the sweep has up to 4 ranks" in done.stderr


def test_a_finished_sweep_has_nothing_to_plan(mpisweep, sleepy):
    name = sleepy("size = [1, 2, 3]")
    assert mpisweep("run", name, "-n", "1", "-q").returncode == 0
    assert "all trials have ended" in mpisweep("check", name, "--plan").stdout
    assert json.loads(mpisweep("check", name, "--plan", "--json").stdout)["plan"] is None


def test_flags_of_the_planner_are_refused_without_a_plan(mpisweep, sleepy):
    done = mpisweep("check", sleepy(), "--nodes", "2", "--site", "slurm")
    assert done.returncode == 2
    assert "--nodes, --site: only applies with --plan" in done.stderr


# ------------------------------------------------------------------------------------- pilots


def test_a_pilot_is_a_real_run_whose_results_stay_and_the_next_run_is_compared_with_the_plan(
    folder, mpisweep, sleepy, tell
):
    name = sleepy("size = { from = 5, to = 200, step = 5 }")
    found = planned(mpisweep, name, "--pilot", "5", "-n", "2", "--nodes", "1,2")
    assert found["trials"] == 35
    assert found["measured"] == 5
    assert found["suggested"] is not None
    after = package.load(folder / "s.h5")
    assert after.allocations["end"].tolist() == [EndReason.PILOT.value]
    # Both ends of the space are measured.
    done = after.trials["state"] == "complete"
    assert {5, 200} <= set(after.trials["size"][done].tolist())
    attempts = after.trials["attempt"][done].tolist()
    # The same pilot has nothing left to run.
    again = mpisweep("run", name, "--pilot", "5", "-n", "2")
    assert again.returncode == 0
    assert "its pilot trials have ended; 5 of 40 trials have ended" in again.stderr
    assert package.load(folder / "s.h5").trials["attempt"][done].tolist() == attempts

    rest = mpisweep("run", name, "-q", ranks=2)
    assert rest.returncode == 0, rest.stderr
    status = json.loads(mpisweep("status", "s.h5", "--json").stdout)
    prediction = status["prediction"]
    assert status["state"] == "complete"
    assert prediction["after"] == 0
    assert prediction["end"] == "complete"
    tell(f"predicted {prediction['time_s']:.1f} s, took {prediction['actual_s']:.1f} s")
    # 35 trials of 0.2 s on two workers; on a busy machine they take longer than the pilot's.
    assert 1.5 < prediction["time_s"] < 20
    assert prediction["time_s"] <= prediction["bound_s"]
    lines = [line for line in mpisweep("status", "s.h5").stdout.splitlines() if "predicted" in line]
    assert len(lines) == 1
    assert "; took " in lines[0]
    assert mpisweep("report", "s.h5", "-o", "s.html").returncode == 0
    assert lines[0].strip() in (folder / "s.html").read_text(encoding="utf-8")


def test_a_pilot_under_mpirun_runs_its_trials_and_no_other(folder, mpisweep, sleepy):
    name = sleepy("size = { from = 1, to = 30 }\nfactor = [1, 2]", "repeats = 2\n")
    done = mpisweep("run", name, "--pilot", "7", ranks=3)
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "s.h5")
    assert sweep.count(TrialState.COMPLETE) == 7
    assert len(sweep.trials) == 120
    # Another repeat of the same configuration would tell nothing new.
    assert set(sweep.trials["repeat"][sweep.trials["state"] == "complete"].tolist()) == {0}


def test_a_pilot_runs_the_workload_that_was_checked(folder, mpisweep):
    """That of --folder; one of the same name in the working directory fails."""
    for place, seconds in (folder, "a"), (folder / "code", "0.01"):
        place.mkdir(exist_ok=True)
        (place / "nap.py").write_text(
            f"import time\n\ndef nap(trial):\n    time.sleep(float({seconds!r}))\n    return {{'loss': 1.0}}\n"
        )
    done = mpisweep(
        "check",
        "nap:nap",
        "-p",
        "x=1:9",
        "--folder",
        "code",
        "-o",
        "s.h5",
        "-n",
        "1",
        "--plan",
        "--pilot",
        "3",
    )
    assert done.returncode == 0, done.stderr
    assert package.load(folder / "s.h5").count(TrialState.COMPLETE) == 3


def test_the_first_expectation_of_a_run_without_a_plan_is_recorded(folder, mpisweep, sleepy):
    assert mpisweep("run", sleepy("size = { from = 60, to = 90 }"), "-n", "2", "-q").returncode == 0
    row = package.load(folder / "s.h5").allocations[0]
    assert row["predicted_after"] >= 3
    assert 0 < row["predicted_time"] <= row["predicted_bound"]


def test_a_pilot_that_cannot_be_is_refused_in_a_sentence(mpisweep, sleepy):
    few = mpisweep("run", sleepy(), "--pilot", "2")
    assert few.returncode == 2
    assert "durations are predicted from 3 trials on, and 2 are fewer; use e.g. 5" in few.stderr
    search = sleepy(more='search = "largest_batch"\n', parameters="size = { from = 1, to = 40 }")
    done = mpisweep("run", search, "--pilot", "5")
    assert done.returncode == 2
    split = mpisweep("run", sleepy(), "--pilot", "5", "--split", "2")
    assert split.returncode == 2
    assert "--pilot with --split" in split.stderr


# ------------------------------------------------------------------------------------- submit --plan


def test_a_job_script_takes_nodes_and_time_from_the_plan(folder, mpisweep, sleepy):
    (folder / "site.toml").write_text(
        'system = "pjm"\ngpus_per_node = 4\nlocal_folders = []\ngroup = "small"\n'
        '[groups.small]\nlimits = [{ nodes = 4, elapse = "0:20:00" }]\n'
    )
    name = sleepy("size = { from = 1, to = 200 }", "[limits]\ntimeout = 60\ngrace = 5\n")
    arguments = ("jobscript", name, "--site", "./site.toml")
    done = mpisweep(*arguments, "--plan")
    assert done.returncode == 0, done.stderr
    # 200 trials of up to a minute on four nodes of four GPUs: 13 minutes, and the end of the job.
    assert "#PJM -L node=4\n" in done.stdout
    assert "#PJM -L elapse=0:14:00\n" in done.stdout
    assert "mpisweep: plan: 4 nodes x 0:14:00 ends all 200 trials" in done.stderr
    # The timeout is no prediction.
    assert "--planned" not in done.stdout
    own = mpisweep(*arguments, "--plan", "--nodes", "3", "--elapse", "0:20:00")
    assert "#PJM -L node=3\n" in own.stdout
    none = mpisweep(*arguments, "--plan", "--nodes", "1")
    assert none.returncode == 2
    assert none.stdout == ""
    assert len(none.stderr.strip().splitlines()) == 1
    unknown = mpisweep("jobscript", sleepy(name="u"), "--site", "./site.toml", "--plan")
    assert unknown.returncode == 2
    assert "no duration is known" in unknown.stderr
    both = mpisweep(*arguments, "--plan", "--split", "2")
    assert "remove --split" in both.stderr


def test_a_submitted_job_carries_the_plan_and_status_compares_it(mpisweep, sleepy, folder, standins):
    (folder / "site.toml").write_text(
        'system = "pjm"\ngpus_per_node = 0\nranks_per_node = 1\nlocal_folders = []\ngroup = "small"\n'
    )
    old = sleepy("size = { from = 20, to = 120, step = 20 }", name="old")
    assert mpisweep("run", old, "-n", "1", "-q").returncode == 0
    new = sleepy("size = { from = 10, to = 120, step = 10 }", "[limits]\ngrace = 2\n", name="new")
    command = [sys.executable, "-m", "mpisweep", "submit", new, "--site", "./site.toml", "--plan"]
    done = subprocess.run(
        [*command, "--from", "old.h5", "--nodes", "1", "--venv", str(standins.folder.with_name("venv"))], cwd=folder, env=standins.environment,
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    script = (folder / "new.h5.job.sh").read_text(encoding="utf-8")
    assert "--planned" in script
    wait_for(lambda: (folder / "new.h5").exists() and package.load(folder / "new.h5").state == "complete")
    row = package.load(folder / "new.h5").allocations[-1]
    assert row["predicted_after"] == 0
    assert f"--planned {row['predicted_time']:.1f},{row['predicted_bound']:.1f}" in script
