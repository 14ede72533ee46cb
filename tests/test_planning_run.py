"""`mpisweep check --plan` from end to end: what it knows, what it says, and what it refuses."""

from __future__ import annotations

import json

import pytest

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
