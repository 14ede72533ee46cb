"""Split sweeps: several runs on one sweep are killed, stopped and restarted, and end with one file."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import psutil
import pytest
from started import end, family, remember
from test_learning import assert_reproducible
from test_reliability import ranks_by_number
from test_run import sweep_file
from waiting import PATIENCE_S, wait_for

import mpisweep as package
from mpisweep.results.shares.folder import members, read_leases

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.mpi

#: After this silence, in seconds, a member is declared dead.
SILENCE = "[limits]\nsilence = 3\n"

WORKLOAD = """
import os, time
from pathlib import Path

def run(trial):
    with open("begun.txt", "a") as begun:
        begun.write(f"{trial.number} {os.getpid()}\\n")
    for step in range(3):
        time.sleep(0.02)
        trial.report(step, loss=trial.params["x"] + step)
    with open("ended.txt", "a") as ended:
        ended.write(f"{trial.number} {os.getpid()}\\n")
    return {"loss": trial.params["x"] * 2.0}

def half(trial):
    Path("ended.txt").touch()
    while not Path("go").exists() and len(Path("ended.txt").read_text().splitlines()) >= 8:
        time.sleep(0.005)
    return run(trial)

def gated(trial):
    Path(f"begun.{trial.number}").touch()
    while not Path("go").exists():
        time.sleep(0.005)
    return run(trial)
"""


def my_sweep(folder: Path, last: int, function: str = "run", more: str = "", name: str = "s.toml") -> str:
    (folder / "mine.py").write_text(WORKLOAD, encoding="utf-8")
    (folder / name).write_text(
        f'name = "s"\nworkload = "mine:{function}"\n[parameters]\nx = {{ from = 1, to = {last} }}\n'
        f"[baseline]\nx = 2\n{SILENCE}{more}",
        encoding="utf-8",
    )
    return name


@pytest.fixture
def member(folder: Path, environment: dict[str, str]) -> Callable[..., subprocess.Popen[str]]:
    """Start ``mpisweep run`` with some arguments; its stderr goes to ``member-NUMBER.txt``."""
    numbers = itertools.count()

    def start(*arguments: str) -> subprocess.Popen[str]:
        with (folder / f"member-{next(numbers)}.txt").open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "mpisweep", "run", *arguments],
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        return remember(process)

    return start


def stderr_of_member(folder: Path, number: int) -> str:
    return (folder / f"member-{number}.txt").read_text(encoding="utf-8")


def check_complete(folder: Path, last: int) -> package.Sweep:
    """Check that every trial ran once, with the results of an unsplit run, and that only the file is left."""
    sweep = package.load(folder / "r.h5")
    assert sweep.trials["state"].tolist() == ["complete"] * last
    assert sweep.trials["number"].tolist() == list(range(last))
    assert sweep.trials["x"].tolist() == list(range(1, last + 1))
    assert sweep.trials["loss"].tolist() == [2.0 * x for x in range(1, last + 1)]
    for number in range(last):
        assert sweep.curve(number, "loss").value.tolist() == [number + 1.0, number + 2.0, number + 3.0]
    assert sweep.baseline["number"] == 1
    assert not list(folder.glob("r.h5.shares*"))
    assert not (folder / "r.h5.journal").exists()
    ends = sweep.attempts[sweep.attempts["end"] == "ended"]
    assert sorted(ends["trial"].tolist()) == list(range(last))
    pairs = list(zip(sweep.attempts["trial"].tolist(), sweep.attempts["attempt"].tolist(), strict=True))
    assert len(pairs) == len(set(pairs))
    with h5py.File(folder / "r.h5") as file:
        assert len(file["trials/state"]) == last
    return sweep


def runs_of(folder: Path) -> Counter[int]:
    lines = (folder / "begun.txt").read_text().splitlines()
    return Counter(int(line.split()[0]) for line in lines)


def ended_in(path: Path) -> int:
    try:
        return int((package.load(path).trials["state"] == "complete").sum())
    except package.ResultsError:
        return 0


def shares(folder: Path) -> Path:
    return folder / "r.h5.shares"


def members_with_lease(folder: Path) -> int:
    """Number of members that hold a lease."""
    with contextlib.suppress(FileNotFoundError):
        return len({lease.member for lease in read_leases(shares(folder))})
    return 0


@pytest.mark.parametrize("workers", [("1", "1"), ("1", "1", "1"), ("2", "2")])
def test_members_complete_one_sweep_together_and_every_trial_runs_once(folder, member, workers):
    sweep = my_sweep(folder, 60)
    running = [member(sweep, "-o", "r.h5", "-n", n, "--split", str(len(workers))) for n in workers]
    codes = [process.wait(PATIENCE_S) for process in running]
    done = check_complete(folder, 60)
    # A member without work exits with 3 and names the others if they are still active.
    assert 0 in codes
    assert set(codes) <= {0, 3}
    assert set(runs_of(folder).values()) == {1}
    assert len(done.allocations) == len(workers)
    for number, code in enumerate(codes):
        assert (code == 3) == (
            "other runs of the sweep are active: process" in stderr_of_member(folder, number)
        )
        assert "Traceback" not in stderr_of_member(folder, number)
    assert sum(done.workers["trials_done"].tolist()) == 60


def test_a_member_that_joins_a_complete_sweep_ends_at_once(folder, mpisweep: Run):
    sweep = my_sweep(folder, 5)
    for _ in range(2):
        done = mpisweep("run", sweep, "-o", "r.h5", "-n", "1", "--split", "4")
        assert done.returncode == 0, done.stderr
    assert len(check_complete(folder, 5).allocations) == 1
    assert "every trial has ended" in done.stderr


def test_a_killed_members_share_is_taken_over(folder, member):
    sweep = my_sweep(folder, 80)
    first = member(sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    second = member(sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    wait_for(lambda: members_with_lease(folder) == 2 and ended_in(folder / "r.h5") >= 10)
    before = package.load(folder / "r.h5").trials
    kept = before["number"][before["state"] == "complete"].tolist()
    end(first)
    assert second.wait(PATIENCE_S) == 0, stderr_of_member(folder, 1)
    check_complete(folder, 80)
    runs = runs_of(folder)
    # Only running or unacknowledged trials are repeated, none that was read as ended.
    assert all(runs[number] == 1 for number in kept)
    assert sum(runs.values()) <= 80 + 2


def test_a_member_that_returns_after_a_silence_changes_no_result(folder, member):
    sweep = my_sweep(folder, 80)
    first = member(sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    wait_for(lambda: members_with_lease(folder) == 1 and ended_in(folder / "r.h5") >= 3)
    second = member(sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    wait_for(lambda: members_with_lease(folder) == 2)
    frozen = family(first)
    for process in frozen:
        process.suspend()
    wait_for(lambda: any(lease.epoch > 1 for lease in read_leases(shares(folder))))
    for process in frozen:
        process.resume()
    codes = {first.wait(PATIENCE_S), second.wait(PATIENCE_S)}
    assert 0 in codes
    assert codes <= {0, 3}
    check_complete(folder, 80)
    assert "this member was silent and was declared dead" in stderr_of_member(folder, 0)
    # Some trials run twice: the other member may take one more chunk before it sees that this one is back,
    # and this one learns that later.
    assert sum(runs_of(folder).values()) <= 80 + 20


def test_a_member_that_wakes_up_after_the_end_exits_and_changes_nothing(folder, member):
    sweep = my_sweep(folder, 20)
    first = member(sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    wait_for(lambda: ended_in(folder / "r.h5") >= 3)
    frozen = family(first)
    for process in frozen:
        process.suspend()
    second = member(sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    assert second.wait(PATIENCE_S) == 0, stderr_of_member(folder, 1)
    before = (folder / "r.h5").read_bytes()
    for process in frozen:
        process.resume()
    assert first.wait(PATIENCE_S) == 0, stderr_of_member(folder, 0)
    assert (folder / "r.h5").read_bytes() == before
    check_complete(folder, 20)
    assert "others have ended the sweep without it" in stderr_of_member(folder, 0)


def test_a_new_member_resumes_after_all_members_were_killed(folder, member, mpisweep: Run):
    sweep = my_sweep(folder, 60)
    running = [member(sweep, "-o", "r.h5", "-n", "1", "--split", "2") for _ in range(2)]
    wait_for(lambda: members_with_lease(folder) == 2 and ended_in(folder / "r.h5") >= 10)
    for process in running:
        end(process)
    kept = ended_in(folder / "r.h5")
    again = mpisweep("run", sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    assert again.returncode == 0, again.stderr
    done = check_complete(folder, 60)
    assert len(done.allocations) == 3
    # Each member repeats only running or unacknowledged trials.
    assert sum(runs_of(folder).values()) <= 60 + 2 * 2
    assert kept >= 10


def test_a_run_without_split_merges_the_parts_and_resumes(folder, member, mpisweep: Run):
    sweep = my_sweep(folder, 30, "half")
    first = member(sweep, "-o", "r.h5", "-n", "1", "--split", "3")
    wait_for(lambda: ended_in(folder / "r.h5") >= 5)
    refused = mpisweep("run", sweep, "-o", "r.h5", "-n", "1")
    assert refused.returncode == 2
    assert "the sweep is running in 3 shares: process" in refused.stderr
    assert "join with --split 3" in refused.stderr
    end(first)
    (folder / "go").touch()
    alone = mpisweep("run", sweep, "-o", "r.h5", "-n", "1")
    assert alone.returncode == 0, alone.stderr
    assert "was split between several runs; their parts are merged" in alone.stderr
    check_complete(folder, 30)


def test_a_crashed_run_without_split_can_be_split_and_grown(folder, member, mpisweep: Run):
    sweep = my_sweep(folder, 30, "half")
    first = member(sweep, "-o", "r.h5", "-n", "1")
    wait_for(lambda: ended_in(folder / "r.h5") >= 5)
    refused = mpisweep("run", sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    assert refused.returncode == 2
    assert "another run is writing it" in refused.stderr
    end(first)
    (folder / "go").touch()
    shared = mpisweep("run", sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    assert shared.returncode == 0, shared.stderr
    check_complete(folder, 30)
    grown = mpisweep("run", my_sweep(folder, 40, "half"), "-o", "r.h5", "-n", "1", "--split", "2")
    assert grown.returncode == 0, grown.stderr
    assert len(check_complete(folder, 40).allocations) == 3
    assert sum(runs_of(folder).values()) <= 40 + 2


def test_a_member_with_other_settings_is_refused_with_the_differences(folder, member, mpisweep: Run):
    sweep = my_sweep(folder, 20, "gated")
    first = member(sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    wait_for(lambda: list(folder.glob("begun.*")))
    other = mpisweep(
        "run", my_sweep(folder, 21, "gated", name="t.toml"), "-o", "r.h5", "-n", "1", "--split", "3"
    )
    assert other.returncode == 2
    assert "trials: the members have 20, t.toml gives 21" in other.stderr
    assert "--split: the members use 2, this run uses 3" in other.stderr
    assert re.search(r"r\.h5: process \d+ on \S+, since .* is running it with other settings:", other.stderr)
    fresh = mpisweep("run", sweep, "-o", "r.h5", "-n", "1", "--split", "2", "--fresh")
    assert fresh.returncode == 2
    assert "--fresh with --split" in fresh.stderr
    another = my_sweep(folder, 20, "run", name="u.toml")
    end(first)
    # No member is active: another K is accepted, another workload is not.
    other = mpisweep("run", another, "-o", "r.h5", "-n", "1", "--split", "2")
    assert other.returncode == 2
    assert "workload: the results file has 'mine:gated', u.toml has 'mine:run'" in other.stderr
    (folder / "go").touch()
    again = mpisweep("run", sweep, "-o", "r.h5", "-n", "1", "--split", "5")
    assert again.returncode == 0, again.stderr
    check_complete(folder, 20)


def test_fresh_moves_the_merged_parts_of_several_runs_aside(folder, member, mpisweep: Run):
    sweep = my_sweep(folder, 20)
    first = member(sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    wait_for(lambda: ended_in(folder / "r.h5") >= 3)
    end(first)
    done = mpisweep("run", sweep, "-o", "r.h5", "-n", "1", "--fresh")
    assert done.returncode == 0, done.stderr
    assert len(check_complete(folder, 20).allocations) == 1
    (old,) = folder.glob("r.2*.h5")
    assert ended_in(old) >= 3


def test_a_request_to_stop_stops_all_members_and_the_sweep_can_be_resumed(folder, member, mpisweep: Run):
    sweep = my_sweep(folder, 200)
    running = [member(sweep, "-o", "r.h5", "-n", "1", "--split", "2") for _ in range(2)]
    wait_for(lambda: members_with_lease(folder) == 2)
    asked = mpisweep("stop", "r.h5")
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.count("process ") == 2
    assert "stopped; " in asked.stdout
    assert [process.wait(PATIENCE_S) for process in running] == [3, 3]
    assert not (folder / "r.h5.stop").exists()
    stopped = package.load(folder / "r.h5")
    assert set(stopped.allocations["end"].tolist()) == {"stopped on request"}
    # The file alone is complete, for tools that do not read parts.
    with h5py.File(folder / "r.h5") as file:
        states = file["trials/state"][()].tolist()
    assert states.count(2) == ended_in(folder / "r.h5")
    # A leftover stop file does not stop a later run.
    (folder / "r.h5.stop").touch()
    again = mpisweep("run", sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    assert again.returncode == 0, again.stderr
    check_complete(folder, 200)


def test_a_stop_with_no_wait_does_not_stop_the_next_run(folder, member, mpisweep: Run):
    sweep = my_sweep(folder, 100)
    running = [member(sweep, "-o", "r.h5", "-n", "1", "--split", "2") for _ in range(2)]
    wait_for(lambda: members_with_lease(folder) == 2)
    assert mpisweep("stop", "r.h5", "--no-wait").returncode == 0
    assert [process.wait(PATIENCE_S) for process in running] == [3, 3]
    assert not (folder / "r.h5.stop").exists()
    alone = mpisweep("run", sweep, "-o", "r.h5", "-n", "1")
    assert alone.returncode == 0, alone.stderr
    check_complete(folder, 100)


def test_a_signal_stops_one_member_and_the_other_takes_its_share(folder, member):
    sweep = my_sweep(folder, 80)
    running = [member(sweep, "-o", "r.h5", "-n", "1", "--split", "2") for _ in range(2)]
    wait_for(lambda: members_with_lease(folder) == 2)
    running[0].send_signal(signal.SIGTERM)
    assert running[0].wait(PATIENCE_S) == 3
    assert "other runs of the sweep are active: process" in stderr_of_member(folder, 0)
    assert running[1].wait(PATIENCE_S) == 0
    check_complete(folder, 80)


def test_another_rank_of_the_member_replaces_a_killed_master(folder, member):
    sweep = my_sweep(folder, 120)
    first = member(sweep, "-o", "r.h5", "-n", "3", "--split", "2")
    second = member(sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    wait_for(lambda: members_with_lease(folder) == 2 and ended_in(folder / "r.h5") >= 5)
    ranks_by_number(first)[0].kill()
    codes = {first.wait(PATIENCE_S), second.wait(PATIENCE_S)}
    assert 0 in codes
    assert codes <= {0, 3}
    done = check_complete(folder, 120)
    assert len(done.allocations) == 2
    assert "is the master now" in stderr_of_member(folder, 0)


def test_a_split_sweep_can_be_read_while_members_are_active(folder, member, mpisweep: Run):
    sweep = my_sweep(folder, 40)
    running = [member(sweep, "-o", "r.h5", "-n", "1", "--split", "2") for _ in range(2)]
    seen: dict[int, float] = {}
    while any(process.poll() is None for process in running):
        with contextlib.suppress(package.ResultsError):
            trials = package.load(folder / "r.h5").trials
            ended = trials[trials["state"] == "complete"]
            now = (
                dict(zip(ended["number"].tolist(), ended["loss"].tolist(), strict=True)) if len(ended) else {}
            )
            # A trial that was once read as ended stays unchanged.
            assert seen.items() <= now.items()
            seen = now
    check_complete(folder, 40)
    status = mpisweep("status", "r.h5")
    assert "40 of 40 trials have ended" in status.stdout


def test_failing_trials_end_as_in_an_unsplit_sweep(folder, member):
    sweep = sweep_file(folder, "unlucky", 12, f"{SILENCE}timeout = 1\n")
    running = [member(sweep, "-o", "r.h5", "-n", "1", "--split", "2") for _ in range(2)]
    assert 0 in [process.wait(PATIENCE_S) for process in running]
    sweep_ = package.load(folder / "r.h5")
    causes = dict(zip(sweep_.trials["x"].tolist(), sweep_.trials["cause"].tolist(), strict=True))
    assert causes == {
        1: "", 2: "exception", 3: "crash", 4: "crash", 5: "timeout", 6: "out_of_memory", 7: "",
        8: "exception", 9: "", 10: "", 11: "", 12: "",
    }  # fmt: skip


def test_damaged_shares_are_reported_by_name(folder, mpisweep: Run):
    sweep = my_sweep(folder, 3)
    shares(folder).mkdir()
    (shares(folder) / "sweep.json").write_text("{", encoding="utf-8")
    done = mpisweep("run", sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    assert done.returncode == 2
    assert "sweep.json: is damaged" in done.stderr
    assert "Traceback" not in done.stderr
    shutil.rmtree(shares(folder))


def test_a_damaged_part_is_repaired_and_the_original_is_kept(folder, member, mpisweep: Run):
    sweep = my_sweep(folder, 40)
    first = member(sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    wait_for(lambda: ended_in(folder / "r.h5") >= 10)
    end(first)
    (name,) = members(shares(folder))
    part = shares(folder) / f"{name}.h5"
    wait_for(part.exists)
    data = bytearray(part.read_bytes())
    data[-1] ^= 255
    part.write_bytes(data)
    refused = mpisweep("run", sweep, "-o", "r.h5", "-n", "1")
    assert refused.returncode == 2
    assert f"mpisweep repair r.h5.shares/{name}.h5" in refused.stderr
    repaired = mpisweep("repair", "r.h5")
    assert repaired.returncode == 0, repaired.stderr
    assert not shares(folder).exists()
    done = mpisweep("run", sweep, "-o", "r.h5", "-n", "1")
    assert done.returncode == 0, done.stderr
    check_complete(folder, 40)


def test_a_member_leaves_a_part_like_any_results_file(folder, member):
    sweep = my_sweep(folder, 30)
    first = member(sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    wait_for(lambda: ended_in(folder / "r.h5") >= 5)
    end(first)
    (name,) = members(shares(folder))
    part = package.load(shares(folder) / f"{name}.h5")
    assert len(part.trials) == 30
    assert part.parameters == ("x",)


# ------------------------------------------------------------------------------------- searches that learn

VALLEY = """
import os, time

def run(trial):
    with open("begun.txt", "a") as begun:
        begun.write(f"{trial.number} {os.getpid()}\\n")
    while not os.path.exists("go"):
        time.sleep(0.01)
    time.sleep(0.1)
    return abs(trial.params["x"] - 33.3) / 10 + (trial.params["o"] != "b")
"""


def learning_sweep(folder: Path, search: str = "tpe", trials: int = 40, more: str = "") -> str:
    (folder / "mine.py").write_text(VALLEY, encoding="utf-8")
    (folder / "s.toml").write_text(
        f'name = "s"\nworkload = "mine:run"\nsearch = "{search}"\ntrials = {trials}\nseed = 5\n{more}\n'
        "[parameters]\nx = { from = 1.0, to = 100.0 }\no = ['a', 'b', 'c']\n"
        f"[baseline]\nx = 50.0\no = 'a'\n{SILENCE}",
        encoding="utf-8",
    )
    return "s.toml"


def check_learned(folder: Path, trials: int, search: str = "tpe") -> package.Sweep:
    """Check that as many were proposed as the sweep asks for, each once, and each from what was known."""
    sweep = package.load(folder / "r.h5")
    assert sweep.trials["state"].tolist() == ["complete"] * (trials + 1)
    assert sweep.trials["number"].tolist() == list(range(trials + 1))
    points = list(zip(sweep.trials["x"].tolist(), sweep.trials["o"].tolist(), strict=True))
    assert len(set(points)) == trials + 1, "no configuration comes twice"
    assert sorted(sweep.trials["end_order"].tolist()) == list(range(trials + 1))
    assert (sweep.trials["proposed_after"] >= 0).sum() == trials
    assert not list(folder.glob("r.h5.shares*"))
    assert_reproducible(folder / "r.h5", search)
    return sweep


@pytest.mark.parametrize("search", ["tpe", "nsga2"])
def test_members_propose_together_each_from_what_all_have_found(folder, member, search):
    sweep = learning_sweep(folder, search)
    running = [member(sweep, "-o", "r.h5", "-n", n, "--split", "2") for n in ("1", "2")]
    wait_for(lambda: members_with_lease(folder) == 2)
    (folder / "go").touch()
    codes = [process.wait(PATIENCE_S) for process in running]
    assert 0 in codes, stderr_of_member(folder, 0) + stderr_of_member(folder, 1)
    assert set(codes) <= {0, 3}
    done = check_learned(folder, 40, search)
    assert set(runs_of(folder).values()) == {1}
    assert len(done.allocations) == 2
    assert all(done.workers["trials_done"] > 0), "both have proposed and run trials"
    # Some proposal of each member, or of the busier one, was made from an end of the other.
    trials, member_of_worker = done.trials, done.workers["allocation"]
    member_of_trial = member_of_worker[trials["worker"]]
    known = [
        set(member_of_trial[(trials["end_order"] >= 0) & (trials["end_order"] < after)].tolist())
        for after in trials["proposed_after"]
    ]
    assert any(1 - own in ends for own, ends in zip(member_of_trial.tolist(), known, strict=True))


def search_of(process: subprocess.Popen[str]) -> psutil.Process:
    """The process in which a member's search runs."""
    found: list[psutil.Process] = []

    def is_there() -> bool:
        found[:] = [one for one in family(process) if one.name() == "mpisweep-search"]
        return bool(found)

    wait_for(is_there)
    return found[0]


@pytest.mark.long
def test_killed_searches_masters_and_members_propose_no_number_twice_and_no_trial_too_many(
    folder, member, mpisweep: Run
):
    sweep = learning_sweep(folder, trials=60)
    first = member(sweep, "-o", "r.h5", "-n", "2", "--split", "2")
    second = member(sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    wait_for(lambda: members_with_lease(folder) == 2)
    (folder / "go").touch()
    wait_for(lambda: ended_in(folder / "r.h5") >= 6)
    search_of(second).kill()
    wait_for(lambda: "another one continues" in stderr_of_member(folder, 1))
    ranks_by_number(first)[0].kill()
    wait_for(lambda: ended_in(folder / "r.h5") >= 20)
    end(first)
    wait_for(lambda: ended_in(folder / "r.h5") >= 35)
    end(second)
    before = package.load(folder / "r.h5").trials
    assert not (before["state"] == "failed").any()
    again = mpisweep("run", sweep, "-o", "r.h5", "-n", "2", "--split", "2")
    assert again.returncode == 0, again.stderr
    done = check_learned(folder, 60)
    over = before["state"] == "complete"
    assert over.sum() >= 35
    for name in ("x", "o", "loss", "attempt", "proposed_after"):
        assert done.trials[name][: len(over)][over].tolist() == before[name][over].tolist(), name
    # Each of the five that died, or whose master did, repeats at most what it was running.
    assert sum(runs_of(folder).values()) <= 61 + 2 + 2 + 1


def test_a_learning_sweep_may_be_split_grown_and_resumed_alone(folder, member, mpisweep: Run):
    (folder / "go").touch()
    sweep = learning_sweep(folder, trials=8)
    alone = mpisweep("run", sweep, "-o", "r.h5", "-n", "1")
    assert alone.returncode == 0, alone.stderr
    before = package.load(folder / "r.h5").trials
    learning_sweep(folder, trials=16)
    split = mpisweep("run", sweep, "-o", "r.h5", "-n", "1", "--split", "3")
    assert split.returncode == 0, split.stderr
    assert "the members propose 8 more configurations" in split.stderr
    (folder / "go").unlink()
    learning_sweep(folder, trials=24)
    first = member(sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    wait_for(lambda: members_with_lease(folder) == 1)
    learning_sweep(folder, trials=30)
    refused = mpisweep("run", sweep, "-o", "r.h5", "-n", "1", "--split", "2")
    assert refused.returncode == 2
    assert "trials: the members propose 24, s.toml has 30" in refused.stderr
    end(first)
    (folder / "go").touch()
    learning_sweep(folder, trials=24)
    status = mpisweep("status", "r.h5").stdout
    assert "17 of 25 trials have ended" in status
    alone = mpisweep("run", sweep, "-o", "r.h5", "-n", "1")
    assert alone.returncode == 0, alone.stderr
    done = check_learned(folder, 24)
    assert done.trials["x"][:9].tolist() == before["x"].tolist()
