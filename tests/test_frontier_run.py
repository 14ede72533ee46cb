"""The memory frontier with real ranks, real tensors and a real limit."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

import mpisweep as package

Run = Callable[..., subprocess.CompletedProcess[str]]

#: One MiB per unit of size, never touched: the limit counts reserved memory.
ARRAYS = """
import numpy as np

def train(trial):
    held = np.empty((trial.params["size"], 1 << 20), dtype=np.uint8)
    return {"loss": 1.0 / len(held), "speed": float(min(len(held), 60))}
"""
SIZES = """
workload = "mine:train"
[parameters]
size = {{ from = 1, to = {to}, memory = "increasing" }}
[limits]
memory = "{limit}"
"""


def states(path) -> dict[str, list[int]]:
    trials = package.load(path).trials
    return {
        state: trials["size"][trials["state"] == state].tolist()
        for state in ("complete", "failed", "infeasible")
    }


@pytest.mark.long
def test_of_seven_hundred_sizes_about_ten_run_out_of_memory_and_a_larger_limit_opens_the_rest(
    folder, mpisweep: Run
):
    (folder / "mine.py").write_text(ARRAYS)
    sweep, results = folder / "s.toml", folder / "r.h5"
    sweep.write_text(SIZES.format(to=700, limit="500MB"))
    done = mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5", "--quiet")
    assert done.returncode == 0, done.stderr
    first = states(results)
    largest = max(first["complete"])
    assert 50 < largest < 650
    assert first["complete"] == list(range(1, largest + 1))
    assert len(first["failed"]) <= 10
    assert min(first["failed"]) == largest + 1
    assert len(first["infeasible"]) == 700 - largest - len(first["failed"])
    loaded = package.load(results)
    infeasible = loaded.trials[loaded.trials["state"] == "infeasible"]
    assert "ran out of memory on cpu with 0.466 GiB of main memory" in infeasible["message"][0]
    assert set(infeasible["attempt"].tolist()) <= {0, 1, 2}
    said = mpisweep("status", "r.h5").stdout
    assert f"largest size that fits in memory: {largest}" in said
    assert f"{len(first['infeasible'])} infeasible" in said

    # A larger space: still larger sizes are infeasible without a run.
    attempts = len(loaded.attempts)
    sweep.write_text(SIZES.format(to=800, limit="500MB"))
    assert mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5", "--quiet").returncode == 0
    grown = states(results)
    assert grown["complete"] == first["complete"]
    assert len(grown["infeasible"]) == len(first["infeasible"]) + 100
    assert len(package.load(results).attempts) == attempts

    # More memory: earlier failures no longer count.
    sweep.write_text(SIZES.format(to=800, limit="700MB"))
    assert mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5", "--quiet").returncode == 0
    more = states(results)
    assert largest + 150 < max(more["complete"]) < largest + 230
    assert len(more["failed"]) <= len(first["failed"]) + 10

    # Without the memory key every trial runs.
    sweep.write_text(SIZES.format(to=800, limit="700MB").replace(', memory = "increasing"', ""))
    assert mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5", "--quiet").returncode == 0
    assert states(results)["infeasible"] == []


def test_tensors_have_a_frontier(folder, mpisweep: Run):
    (folder / "mine.py").write_text(
        "import torch\n"
        "def train(trial):\n"
        "    held = torch.zeros(trial.params['size'], 1 << 18)\n"
        "    return float(held.sum())\n"
    )
    (folder / "s.toml").write_text(
        SIZES.format(to=1500, limit="1.2GB").replace("from = 1,", "from = 50, step = 50,")
    )
    done = mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5", "--quiet")
    assert done.returncode == 0, done.stderr
    found = states(folder / "r.h5")
    assert max(found["complete"]) + 50 == min(found["failed"])
    assert len(found["complete"]) == max(found["complete"]) // 50
    assert len(found["failed"]) <= 5


def test_the_largest_and_the_fastest_are_found_in_about_log2_trials(folder, mpisweep: Run):
    (folder / "mine.py").write_text(ARRAYS)
    text = SIZES.format(to=700, limit="500MB").replace(', memory = "increasing"', "")
    (folder / "s.toml").write_text('search = "largest_batch"\nobjective = "speed"\n' + text)
    assert "about 17 configurations" in mpisweep("check", "s.toml").stdout
    done = mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5", "--quiet")
    assert done.returncode == 0, done.stderr
    found = states(folder / "r.h5")
    assert len(found["complete"] + found["failed"]) <= 20
    assert max(found["complete"]) + 1 in found["failed"]
    loaded = package.load(folder / "r.h5")
    assert loaded.best()["speed"][0] == 60
    # The search has its answer and adds no trials.
    assert mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5", "--quiet").returncode == 0
    assert len(package.load(folder / "r.h5").trials) == len(loaded.trials)


def test_a_program_that_reports_out_of_memory_has_a_frontier_too(folder, mpisweep: Run):
    (folder / "s.toml").write_text(
        "workload = { command = \"python -c 'print(len(bytearray({x} << 20)))'\" }\n"
        '[parameters]\nx = { from = 100, to = 3000, step = 100, memory = "increasing" }\n'
        "[metrics]\nloss = '^'\n[limits]\nmemory = '1 GiB'\n"
    )
    done = mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5", "--quiet")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    assert sweep.trials["x"][sweep.trials["state"] == "complete"].tolist() == list(range(100, 1100, 100))[:10]
    assert (sweep.trials["state"] == "failed").sum() <= 5
    # A program has its own process, so it does not run again.
    assert "not_fresh" not in sweep.attempts["end"].tolist()


def test_resnet50_has_a_frontier_on_a_cpu(folder, mpisweep: Run):
    (folder / "s.toml").write_text(
        'workload = "resnet50"\n'
        '[parameters]\nbatch_size = { from = 32, to = 480, step = 64, memory = "increasing" }\n'
        '[fixed]\nnum_iter = 1\nimage_size = 64\nnum_classes = 10\n[limits]\nmemory = "1.8GB"\n'
    )
    done = mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5", "--quiet")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    complete = trials["batch_size"][trials["state"] == "complete"]
    out = trials["batch_size"][trials["cause"] == "out_of_memory"]
    # About one in a hundred trials without enough memory crashes in a library that does not check.
    crashed = trials["cause"] == "crash"
    assert len(complete) > 0
    assert max(complete) < min(out)
    assert len(out) <= 4
    assert crashed.sum() <= 1
    assert (trials["state"] == "infeasible").sum() == 8 - len(complete) - len(out) - crashed.sum()


def test_the_region_that_does_not_fit_is_shaded(folder, mpisweep: Run):
    from mpisweep.views.figures import draw_metric, metric_series

    (folder / "mine.py").write_text(ARRAYS)
    (folder / "s.toml").write_text(
        SIZES.format(to=40, limit="500MB").replace("from = 1,", "from = 10, step = 30,").replace("40", "1000")
    )
    done = mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5", "--quiet")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    series = metric_series(sweep, "size", "loss")
    [(low, high)] = series.too_large
    assert low == max(series.x) + 15
    assert high == 1000
    labels = draw_metric(sweep, "size", "loss").axes[0].get_legend_handles_labels()[1]
    assert f"too large for memory: {series.infeasible} not run" in labels
