"""The critical batch size: its fit, its interval in simulated sweeps, and the best size by a trend."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from math import inf

import numpy as np
import pytest

import mpisweep as package
from mpisweep.results.batch_sizes import best_size
from mpisweep.results.criticality import fit_critical_batch
from mpisweep.results.trial_table import TrialTable, structured
from mpisweep.views import figures

Run = Callable[..., subprocess.CompletedProcess[str]]

POWERS = 2.0 ** np.arange(10)


def simulated(random, sizes, critical, scatter, most=inf, least=200.0):
    steps = least * (1 + critical / sizes) * np.exp(scatter * random.standard_normal(len(sizes)))
    reached = steps <= most
    return fit_critical_batch(sizes, np.minimum(steps, most), reached)


def test_without_noise_the_fit_is_exact():
    found = simulated(np.random.default_rng(0), POWERS, 60.0, 0.0)
    assert found.size == pytest.approx(60, rel=0.01)
    assert found.least_steps == pytest.approx(200, rel=0.01)
    assert found.least_samples == pytest.approx(12_000, rel=0.02)


@pytest.mark.parametrize(("sizes", "critical", "scatter", "most"), [
    (POWERS, 60.0, 0.1, inf),
    (POWERS, 60.0, 0.5, inf),
    (POWERS[3:8], 60.0, 0.1, inf),
    (np.repeat(POWERS, 3), 20.0, 0.2, inf),
    (POWERS, 60.0, 0.2, 1000.0),
    (np.repeat(POWERS, 3), 60.0, 0.3, 1000.0),
    (POWERS, 2000.0, 0.1, inf),
])  # fmt: skip
def test_the_stated_95_percent_intervals_hold_the_truth_in_93_to_97_percent_of_sweeps(
    sizes, critical, scatter, most
):
    """Half of the last ones have no upper end: all sizes are far below the critical one."""
    random, sweeps = np.random.default_rng(1), 400
    held = 0
    for _ in range(sweeps):
        found = simulated(random, sizes, critical, scatter, most)
        held += found.low <= critical <= found.high
    # 400 sweeps say it to within 1.1% (one standard deviation).
    assert 0.93 - 0.022 <= held / sweeps <= 0.97 + 0.022


def test_trainings_that_did_not_reach_the_target_are_bounds():
    """Leaving them out would favour small sizes that were lucky."""
    random = np.random.default_rng(2)
    with_bounds, without = [], []
    for _ in range(100):
        sizes = np.repeat(POWERS, 2)
        steps = 200 * (1 + 60 / sizes) * np.exp(0.4 * random.standard_normal(len(sizes)))
        reached = steps <= 900
        with_bounds.append(np.log(fit_critical_batch(sizes, np.minimum(steps, 900), reached).size / 60))
        alone = fit_critical_batch(sizes[reached], steps[reached], np.ones(reached.sum(), dtype=bool))
        without.append(np.log(alone.size / 60))
    assert abs(np.mean(with_bounds)) < 0.2
    assert np.mean(without) < np.mean(with_bounds) - 0.1


def test_sizes_on_one_side_leave_the_other_end_open():
    random = np.random.default_rng(3)
    assert sum(simulated(random, POWERS, 1e6, 0.1).high == inf for _ in range(40)) >= 34
    assert sum(simulated(random, POWERS[4:], 0.01, 0.1).low == 0 for _ in range(40)) >= 34


def test_too_few_trainings_are_refused():
    with pytest.raises(ValueError, match="2 trials at 2 batch sizes reached the target; a fit needs 4"):
        fit_critical_batch(np.array([1.0, 2, 4]), np.array([9.0, 9, 9]), np.array([True, True, False]))


TRAIN = """
import math, random

def train(trial):
    size, rate = trial.params["batch_size"], trial.params.get("rate", 1.0)
    noise = math.exp(random.Random(trial.number).gauss(0, 0.05))
    steps = 50 * (1 + 40 / size) * noise * (1 + math.log(rate) ** 2)
    reached = steps <= 1500
    at = {"steps": 300, "samples": 20}
    losses = {f"loss_at_{axis}": 1 + 0.1 * math.log2(size / best) ** 2 for axis, best in at.items()}
    return {
        "loss": 1.0, "steps": min(steps, 1500), "noise_scale": 35.0,
        "steps_to_target": steps if reached else math.nan,
    } | losses
"""


def test_the_best_size_is_that_of_the_best_mean_and_not_of_the_luckiest_repeat():
    sizes = np.array([8, 16, 32, 64, 128])
    smooth = 1 + 0.1 * np.log2(sizes / 32) ** 2
    values = np.stack([smooth - 0.01, smooth, smooth + 0.01])  # (repeats, sizes)
    values[1, 4] = 0.1  # one lucky run of the largest size, and two of its worst
    values[[0, 2], 4] = 3.0, 3.2
    # A second configuration of size 8 has run once, with luck: one run speaks for none with three.
    columns = {
        "state": np.array(["complete"] * 16),
        "configuration": np.array([*np.tile(np.arange(5), 3), 5]),
        "repeat": np.array([*np.repeat(np.arange(3), 5), 0]),
        "batch_size": np.array([*np.tile(sizes, 3), 8]),
        "loss": np.array([*values.ravel(), 0.05]),
        "wall_time": np.ones(16),
    }
    found = best_size(TrialTable(structured(columns, 16)), "batch_size", "loss", larger_is_better=False)
    assert found.sizes.tolist() == sizes.tolist()
    assert found.values == pytest.approx([*smooth[:4], 2.1])
    assert found.runs.tolist() == [3] * 5
    assert found.half_widths[0] == pytest.approx(4.303 * 0.01 / np.sqrt(3), rel=1e-3)
    assert 16 <= found.size <= 64


@pytest.mark.mpi
def test_top_the_report_and_the_figures_answer_the_question(folder, mpisweep: Run, tmp_path):
    (folder / "mine.py").write_text(TRAIN)
    (folder / "s.toml").write_text(
        'workload = "mine:train"\nsearch = "batch_size"\n[parameters]\nbatch_size = { from = 1, to = 700 }\n'
    )
    done = mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5", "--quiet")
    assert done.returncode == 0, done.stderr
    sweep = package.load(folder / "r.h5")
    steps, samples = sweep.best_batch_sizes()
    assert steps.low <= 300 <= steps.high
    assert abs(np.log2(steps.size / 300)) < 0.2
    assert abs(np.log2(samples.size / 20)) < 0.2
    fit = sweep.critical_batch_size()
    assert fit.low <= 40 <= fit.high
    assert fit.bounds == (sweep.trials["batch_size"] == 1).sum()
    top = mpisweep("top", "r.h5").stdout
    for line in (
        f"smallest loss at equal steps: batch_size {steps.size:.0f} (95%: {steps.low:.0f} to ",
        f"smallest loss at equal samples: batch_size {samples.size:.0f} (95%: ",
        "critical batch size: ",
        "  gradient noise scale: 35 (median; 80% of the trials: 35 to 35)",
    ):
        assert line in top
    fields = json.loads(mpisweep("top", "r.h5", "--json").stdout)
    assert [one["metric"] for one in fields["batch_sizes"]] == ["loss_at_steps", "loss_at_samples"]
    assert [one["size"] for one in fields["batch_sizes"]] == [steps.size, samples.size]
    assert fields["critical_batch_size"]["high"] == fit.high
    assert mpisweep("report", "r.h5", "-o", "r.html").returncode == 0
    page = (folder / "r.html").read_text()
    assert "smallest loss at equal steps" in page
    assert "samples to the target" in page
    for draw in (figures.draw_batch_sizes, figures.draw_critical_batch):
        figures.save(draw(sweep), tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 10_000


@pytest.mark.mpi
def test_of_the_rates_of_a_size_the_fastest_speaks_for_it(folder, mpisweep: Run):
    (folder / "mine.py").write_text(TRAIN)
    (folder / "s.toml").write_text(
        'workload = "mine:train"\n[parameters]\nbatch_size = [4, 8, 16, 32, 64, 128, 256]\nrate = [0.2, 1.0, 3.0]\n'
    )
    assert mpisweep("run", "s.toml", "-n", "2", "-o", "r.h5", "--quiet").returncode == 0
    fit = package.load(folder / "r.h5").critical_batch_size()
    assert fit.reached == 7
    assert fit.low <= 40 <= fit.high
    assert fit.least_steps == pytest.approx(50, rel=0.15)


@pytest.mark.mpi
def test_a_sweep_whose_trials_miss_the_target_says_so(folder, mpisweep: Run):
    (folder / "mine.py").write_text(TRAIN.replace("steps <= 1500", "steps <= 51"))
    (folder / "s.toml").write_text('workload = "mine:train"\n[parameters]\nbatch_size = [64, 128, 256]\n')
    assert mpisweep("run", "s.toml", "-n", "1", "-o", "r.h5", "--quiet").returncode == 0
    assert "no critical batch size: 0 trials at 0 batch sizes" in mpisweep("top", "r.h5").stdout
    with pytest.raises(package.ResultsError, match="a fit needs 4"):
        package.load(folder / "r.h5").critical_batch_size()
