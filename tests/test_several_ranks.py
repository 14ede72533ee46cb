"""Trials of several ranks as users run them: torch.distributed over gloo, with real ranks and kills."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import storm
from test_reliability import ranks_by_number, stderr_of
from test_run import start
from waiting import PATIENCE_S, wait_for

import mpisweep as package

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.mpi

HEAD = "import os, sys, time\nfrom pathlib import Path\n"


def sweep(folder: Path, code: str, parameters: str, more: str = "") -> str:
    (folder / "mine.py").write_text(HEAD + code, encoding="utf-8")
    (folder / "s.toml").write_text(f'name = "s"\nworkload = "mine:run"\n{more}\n[parameters]\n{parameters}\n')
    return "s.toml"


TOGETHER = """
def run(trial):
    import torch
    import torch.distributed as dist
    torch.set_num_threads(1)
    if trial.ranks == 1:
        return {"loss": 0.0, "size": 1}
    dist.init_process_group("gloo")
    total = torch.tensor([float(trial.rank), 1.0])
    dist.all_reduce(total)
    dist.destroy_process_group()
    return {"loss": float(total[0]), "size": float(total[1])}
"""


def test_ranks_of_trials_of_any_size_find_each_other(folder, mpisweep: Run):
    file = sweep(folder, TOGETHER, "ranks_per_trial = [1, 2, 4]\nx = { from = 1, to = 3 }")
    done = mpisweep("run", file, "-o", "r.h5", "-n", "4")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert trials["size"].tolist() == trials["ranks_per_trial"].tolist()
    assert trials["loss"].tolist() == [sum(range(ranks)) for ranks in trials["ranks_per_trial"]]


def test_the_file_records_the_worker_of_every_rank_and_its_busy_time(folder, mpisweep: Run):
    code = (
        "def run(trial):\n"
        "    time.sleep(0.1)\n"
        "    trial.report(0, loss=trial.rank)\n"
        "    return {'loss': trial.rank}\n"
    )
    done = mpisweep(
        "run", sweep(folder, code, "x = { from = 1, to = 4 }", "ranks_per_trial = 2"), "-o", "r.h5", "-n", "2"
    )
    assert done.returncode == 0, done.stderr
    found = package.load(folder / "r.h5")
    assert found.trials["loss"].tolist() == [0.0] * 4, "a trial's result is that of its rank 0"
    assert [found.curve(number, "loss").value.tolist() for number in range(4)] == [[0.0]] * 4
    assert found.ranks["trial"].tolist() == [0, 1, 2, 3]
    assert set(found.ranks["rank"].tolist()) == {1}
    assert all(found.ranks["worker"] != found.attempts["worker"])
    assert found.workers["trials_done"].tolist() == [4, 4]
    assert min(found.workers["busy_time"]) >= 0.4


PROGRAM = """
import json, os, sys
names = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"]
import torch
import torch.distributed as dist
torch.set_num_threads(1)
dist.init_process_group("gloo")
seen = [None] * dist.get_world_size()
dist.all_gather_object(seen, {name: os.environ[name] for name in names})
dist.destroy_process_group()
if os.environ["RANK"] == "0":
    print(json.dumps({"ranks": len({each["RANK"] for each in seen}), "local": len({each["LOCAL_RANK"] for each in seen}),
        "ports": len({each["MASTER_PORT"] for each in seen}), "loss": float(sys.argv[1])}))
"""


def test_a_program_gets_the_variables_that_torchrun_would_set(folder, mpisweep: Run):
    (folder / "program.py").write_text(PROGRAM)
    done = mpisweep(
        "run", "-p", "ranks_per_trial=2", "-p", "x=1:2", "--name", "s", "-o", "r.h5", "-n", "2",
        "--", "python", "program.py", "{x}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert trials["loss"].tolist() == [1.0, 2.0]
    assert trials["ranks"].tolist() == trials["local"].tolist() == [2.0, 2.0]
    assert trials["ports"].tolist() == [1.0, 1.0]
    assert "==== attempt 1: rank 1 of 2, exit code 0 ====" in mpisweep("output", "r.h5", "0").stdout


SPLIT = """
def run(trial):
    import torch
    from torch import nn
    from mpisweep.workloads.ranks import Ranks
    torch.set_num_threads(1)
    ranks = Ranks(trial, torch.device("cpu"), 7)
    torch.manual_seed(0)
    images, labels = torch.randn(7, 5, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    model = nn.Linear(5, 1, dtype=torch.float64)
    whole = ranks.together(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(5):
        loss = ((whole(images[ranks.piece])[:, 0] - labels[ranks.piece]) ** 2).mean()
        optimizer.zero_grad()
        ranks.weighted(loss).backward()
        optimizer.step()
        trial.report(step, loss=ranks.mean(loss.detach()[None]).item())
    ranks.leave()
"""


def test_a_trial_of_several_ranks_is_replayed_with_the_same_number(folder, mpisweep: Run):
    assert (
        mpisweep("run", sweep(folder, SPLIT, "ranks_per_trial = [1, 3]"), "-o", "r.h5", "-n", "3").returncode
        == 0
    )
    done = mpisweep("replay", "r.h5", "1")
    assert done.returncode == 0, done.stderr
    assert "the same" in done.stdout, done.stdout


def test_batches_that_are_split_unequally_train_the_same_model(folder, mpisweep: Run):
    done = mpisweep("run", sweep(folder, SPLIT, "ranks_per_trial = [1, 2, 3]"), "-o", "r.h5", "-n", "3")
    assert done.returncode == 0, done.stderr
    found = package.load(folder / "r.h5")
    alone, *others = (found.curve(number, "loss").value for number in range(3))
    assert len(alone) == 5
    for several in others:
        np.testing.assert_allclose(several, alone, rtol=1e-12)


FAILS = """
def run(trial):
    how = trial.params["how"]
    if trial.rank == 1:
        time.sleep(0.1)
        if how == "raises":
            raise ValueError("rank 1 has had enough")
        if how == "exits":
            os._exit(3)
        if how == "forgets":
            raise MemoryError("nothing is left")
        return {"loss": 0.0}
    if how == "fine":
        return {"loss": 1.0}
    time.sleep(600)
"""


def test_a_trial_fails_with_the_cause_of_its_failing_rank_and_the_sweep_continues(folder, mpisweep: Run):
    file = sweep(folder, FAILS, 'how = ["raises", "exits", "forgets", "fine"]', "ranks_per_trial = 3")
    done = mpisweep("run", file, "-o", "r.h5", "-n", "3")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert trials["state"].tolist() == ["failed", "failed", "failed", "complete"]
    assert trials["cause"].tolist() == ["exception", "crash", "out_of_memory", ""]
    assert trials["message"][0].startswith("rank 1 of 3: ValueError: rank 1 has had enough")
    assert trials["message"][1].startswith("rank 1 of 3: the trial process exited with code 3")


SLOW = """
def run(trial):
    with open("ran.txt", "a") as ran:
        ran.write(f"{trial.number} {trial.rank} {os.getpid()}\\n")
    for step in range(30):
        time.sleep(0.02)
        trial.report(step, loss=trial.params["x"] + step)
        trial.flush()
    return {"loss": trial.params["x"]}
"""


def slow(folder: Path, environment: dict[str, str], last: int):
    """Start a sweep of two-rank trials on four workers; return the launcher and the ranks by number."""
    file = sweep(folder, SLOW, f"x = {{ from = 1, to = {last} }}", "ranks_per_trial = 2")
    process = start(folder, environment, "run", file, "-o", "r.h5", "-n", "4")
    wait_for(
        lambda: (folder / "ran.txt").exists() and len((folder / "ran.txt").read_text().splitlines()) >= 8
    )
    return process, ranks_by_number(process)


def assert_done_once(folder: Path, last: int) -> None:
    found = package.load(folder / "r.h5")
    assert found.trials["state"].tolist() == ["complete"] * last
    assert found.trials["loss"].tolist() == [float(x) for x in range(1, last + 1)]
    for number in range(last):
        assert found.curve(number, "loss").step.tolist() == list(range(30))
    assert len(found.allocations) == 1, "the others went on"


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_killed_worker_costs_its_trial_one_attempt(folder, environment, number):
    process, ranks = slow(folder, environment, 12)
    ranks[number].kill()
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert_done_once(folder, 12)
    assert package.load(folder / "r.h5").attempts["end"].tolist().count("lost") <= 1


def test_a_killed_master_leaves_the_wide_trials_of_the_others_running(folder, environment):
    process, ranks = slow(folder, environment, 12)
    survivors = {child.pid for number in (1, 2, 3) for child in storm.trials_of(ranks[number])}
    own = {child.pid for child in storm.trials_of(ranks[0])}
    ranks[0].kill()
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    assert_done_once(folder, 12)
    ran = [line.split() for line in (folder / "ran.txt").read_text().splitlines()]
    begun = [number for number, rank, _ in ran if rank == "0"]
    assert {number for number in begun if begun.count(number) > 1} <= {
        number for number, _, pid in ran if int(pid) in own
    }
    assert sum(int(pid) in survivors for _, _, pid in ran) >= 16


def test_a_killed_trial_process_ends_its_trial_and_no_other(folder, environment):
    process, ranks = slow(folder, environment, 10)
    victim = storm.trials_of(ranks[3])[0]
    victim.kill()
    assert process.wait(timeout=PATIENCE_S) == 0, stderr_of(folder)
    trials = package.load(folder / "r.h5").trials
    assert sorted(trials["state"].tolist()) == ["complete"] * 9 + ["failed"]
    [message] = trials["message"][trials["state"] == "failed"]
    assert "of 2: the trial process was killed by signal 9 (SIGKILL)" in message


def test_more_ranks_than_workers_are_refused_before_anything_starts(folder, mpisweep: Run):
    file = sweep(folder, SLOW, "x = [1, 2]", "ranks_per_trial = 3")
    refused = mpisweep("run", file, "-n", "2")
    assert refused.returncode == 2
    assert refused.stderr.strip().splitlines()[-1] == (
        "mpisweep: s.toml: ranks_per_trial: trials have up to 3 ranks, but there are 2 workers; "
        "set -n 3, or run the sweep with more devices"
    )
    by_hand = mpisweep("run", file, ranks=2)
    assert by_hand.returncode == 2
    assert "trials have up to 3 ranks, but there are 2 workers; start more ranks" in by_hand.stderr
    assert "Traceback" not in by_hand.stderr


RESNET = """
name = "s"
workload = "resnet50"
ranks_per_trial = 2
[parameters]
batch_size = [5]
[fixed]
num_iter = 12
image_size = 33
num_classes = 10
data = "digits"
learning_rate = 0.01
[limits]
grace = 60
"""


@pytest.mark.long
def test_resnet50_on_two_ranks_resumes_bit_for_bit(folder, environment, mpisweep: Run):
    (folder / "s.toml").write_text(RESNET)
    assert mpisweep("run", "s.toml", "-o", "whole.h5", "-n", "2").returncode == 0
    process = start(folder, environment, "run", "s.toml", "-o", "cut.h5", "-n", "2")

    def reported() -> int:
        try:
            return len(package.load(folder / "cut.h5").curve(0, "loss").value)
        except (package.ResultsError, KeyError, IndexError):
            return 0

    wait_for(lambda: reported() >= 3)
    psutil.Process(process.pid).terminate()
    assert process.wait(timeout=PATIENCE_S) == 3, stderr_of(folder)
    assert (folder / "cut.h5.trials" / "0" / "checkpoint.pt").exists()
    before = reported()
    assert 3 <= before < 12
    assert mpisweep("run", "s.toml", "-o", "cut.h5", "-n", "2").returncode == 0
    whole, cut = package.load(folder / "whole.h5"), package.load(folder / "cut.h5")
    assert cut.curve(0, "loss").value.tolist() == whole.curve(0, "loss").value.tolist()
    assert not (folder / "cut.h5.trials").exists(), "the checkpoint of a trial that has ended is removed"
