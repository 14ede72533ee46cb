"""The scripts of `make paper` and of the acceptance run on a GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from waiting import PATIENCE_S

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "paper"), str(ROOT / "benchmarks")]

import comparing  # noqa: E402
import poster  # noqa: E402
import sweep as paper_sweep  # noqa: E402
import training  # noqa: E402
import verdicts  # noqa: E402

import mpisweep  # noqa: E402
from mpisweep.spec import parse_spec  # noqa: E402


def runs(sizes: list[int], steps: int = 1, seconds=lambda size: 1.0, repeats: int = 1) -> comparing.Runs:
    """Return trials of so many steps, each of `seconds(size)`."""
    pairs = [(size, repeat) for size in sizes for repeat in range(repeats)]
    size = np.array([size for size, _ in pairs])
    return comparing.Runs(
        number=np.arange(len(pairs)),
        size=size,
        repeat=np.array([repeat for _, repeat in pairs]),
        wall_time_s=steps * np.array([float(seconds(one)) for one in size]),
        last_loss=np.ones(len(pairs)),
        steps=np.full(len(pairs), float(steps)),
        samples=steps * size.astype(float),
        seconds=steps * np.array([float(seconds(one)) for one in size]),
    )


def test_budgets_are_those_that_most_sizes_reach():
    found = runs([2, 4, 6, 8, 10], 10, seconds=lambda size: size)
    assert [comparing.budget_text(budget) for budget in comparing.budgets_for(found)] == [
        "10 iterations", "40 samples", "60 samples", "40 seconds", "60 seconds",
    ]  # fmt: skip


def simulated(
    rng: np.random.Generator, truth: np.ndarray, repeats: int, noise: float
) -> comparing.Comparison:
    sizes = list(range(2, 2 + 2 * len(truth), 2))
    found = runs(sizes, repeats=repeats)
    values = np.repeat(truth, repeats) * np.exp(rng.normal(0, noise, len(truth) * repeats))
    compared = comparing.compare(found, comparing.Budget("step", 1), values)
    assert compared is not None
    return compared


def test_the_indistinguishable_sizes_include_the_best_in_95_percent_of_simulated_sweeps():
    rng, truth = np.random.default_rng(1), np.array([1.4, 1.2, 1.05, 1.0, 1.0, 1.02, 1.1, 1.3])
    sweeps = [simulated(rng, truth, 3, 0.1) for _ in range(400)]
    best = int(np.argmin(truth))
    held = sum(bool(one.alike[best]) for one in sweeps) / len(sweeps)
    assert held >= 0.95
    # The set is not trivially large: sizes far from the best are excluded.
    assert sum(not one.alike[0] for one in sweeps) / len(sweeps) > 0.5
    assert np.mean([one.noise for one in sweeps]) == pytest.approx(0.1, rel=0.1)
    assert {one.source for one in sweeps} == {"repeats"}


def test_without_repeats_the_noise_comes_from_neighbouring_sizes():
    rng, truth = np.random.default_rng(2), np.exp(np.linspace(1.0, 0.0, 30) ** 2)
    sweeps = [simulated(rng, truth, 1, 0.1) for _ in range(100)]
    assert {one.source for one in sweeps} == {"neighbouring sizes"}
    assert np.sqrt(np.mean([one.noise**2 for one in sweeps])) == pytest.approx(0.1, rel=0.1)


def test_each_repeat_has_its_own_winner():
    found = runs([2, 4, 6], repeats=2)
    values = np.array([3.0, 1.0, 2.0, 2.0, 1.0, 3.0])
    compared = comparing.compare(found, comparing.Budget("step", 1), values)
    assert compared is not None
    assert compared.winners == (6, 2)


def test_runs_needed_agree_with_simulated_tests():
    noise, gap = 0.05, 0.04
    count = verdicts.runs_needed(noise, gap)
    rng = np.random.default_rng(3)
    one = rng.normal(0, noise, (4000, count)).mean(1)
    other = rng.normal(np.log1p(gap), noise, (4000, count)).mean(1)
    seen = (other - one > 1.96 * noise * np.sqrt(2 / count)).mean()
    assert seen == pytest.approx(0.8, abs=0.03)


def test_the_losses_in_the_poster_s_table_are_in_ascending_order():
    losses = [row.loss for row in (*poster.TABLE_1, poster.DEFAULT)]
    assert losses == sorted(losses)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(1e6, (2, 3)), (320, (4, 3)), (110, (15, 2)), (1, (15, 1))]
)
def test_the_spacing_is_the_finest_that_fits_the_time(seconds, expected):
    plan = paper_sweep.PLANS["CPU"]
    # A pilot of three sizes predicts the seconds of each trial: 4 s with 2 images to 19 s with 32.
    sizes = np.array([32, 2, 12])
    pilot = SimpleNamespace(trials=Columns(batch_size=sizes, wall_time=3.0 + sizes / 2))
    spacing, repeats, predicted_s = paper_sweep.choose(plan, pilot, seconds)
    assert (spacing, repeats) == expected
    assert predicted_s <= seconds or expected == (15, 1)


class Columns(dict):
    """Columns of a table whose rows a mask selects, as in :class:`TrialTable`."""

    def __getitem__(self, key):
        if isinstance(key, str):
            return super().__getitem__(key)
        return Columns({name: column[key] for name, column in self.items()})


def test_the_repeats_of_a_size_have_different_seeds_and_readings_are_those_of_top(tmp_path: Path):
    plan = paper_sweep.PLANS["CPU"]
    spec = parse_spec(paper_sweep.sweep_text(plan, [2, 12, 32], 3), source="sweep.toml", folder=tmp_path)
    assert (spec.repeats.first, spec.space.names) == (3, ("batch_size",))
    # The recorded results are older: their repeats are values of a parameter.
    sweep = mpisweep.load(ROOT / "docs" / "results" / "paper.h5")
    found = comparing.runs_of(sweep)
    assert sorted(found.repeat.tolist()) == sorted([0, 1, 2] * 11)
    budget = comparing.Budget("samples", 320)
    at = comparing.readings(sweep, found, budget)
    size, repeat = (found.size == 16), (found.repeat == 1)
    assert at[size & repeat] == sweep.at(samples=320).trials["loss_mean"][found.number[size & repeat]]
    assert found.samples[size].tolist() == [640.0] * 3


def test_the_page_in_the_documentation_is_generated_from_the_results_beside_it(tmp_path: Path):
    results = ROOT / "docs" / "results"
    for name in ("paper.h5", "paper.json"):
        shutil.copy(results / name, tmp_path / name)
    subprocess.run(
        [sys.executable, str(ROOT / "paper" / "run.py"), "--page-only", "-o", str(tmp_path)], check=True
    )
    assert (tmp_path / "README.md").read_text() == (results / "README.md").read_text()
    assert all((tmp_path / name).exists() for name in ("figure1.png", "figure2.png", "budgets.png"))


# ------------------------------------------------------------------------------------- acceptance

PARTS = """
import json, subprocess, sys, time
from pathlib import Path
name, output, budget = sys.argv[1:4]
folder = Path(output) / name
def say(status, *checks):
    found = {"status": status, "checks": checks, "numbers": {}, "not_run": []}
    (folder / "result.json").write_text(json.dumps(found))
if name == "replay":
    say("PASS", ["first", True, "fine"])
    # The part that hangs has a child in another session.
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    (folder / "child").write_text(str(child.pid))
    time.sleep(1000)
if name == "failures":
    raise SystemExit("broken")
say("PASS", ["second", True, "fine"])
"""


def test_a_part_that_hangs_ends_at_its_budget_with_all_its_processes(tmp_path: Path):
    (tmp_path / "acceptance_parts.py").write_text(PARTS)
    program = (
        "import sys, gpu_acceptance as it; from pathlib import Path; "
        f"it.HERE = Path({str(tmp_path)!r}); it.PARTS = tuple(it.Part(p.name, 3.0, p.what) for p in it.PARTS[:3]); "
        f"sys.argv[1:] = ['-o', {str(tmp_path / 'out')!r}]; sys.exit(it.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}"},
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {name: one["status"] for name, one in found.items()} == {
        "replay": "FAIL", "failures": "FAIL", "curves": "PASS",
    }  # fmt: skip
    assert found["replay"]["problem"] == "took longer than its 3 s and was ended"
    assert found["replay"]["checks"] == [["first", True, "fine"]]
    child = int((tmp_path / "out" / "replay" / "child").read_text())
    assert not Path(f"/proc/{child}").exists()
    assert "replay FAIL, failures FAIL, curves PASS" in (tmp_path / "out" / "results.txt").read_text()


def test_the_budgets_of_the_parts_sum_to_at_most_twelve_minutes():
    import gpu_acceptance

    assert sum(part.budget_s for part in gpu_acceptance.PARTS) <= 720


def test_the_built_in_loop_is_compared_with_the_best_bare_one():
    cells = [
        training.Cell(64, 8, execution, loop, rates)
        for execution, loop, rates in (
            ("eager", "bare", [10.0, 12.0, 11.0]), ("eager", "built in", [9.0, 9.9, 10.5]),
            ("compile", "bare", [20.0]), ("compile", "built in", [18.0]),
        )
    ]  # fmt: skip
    ratio = training.ratio_of(cells, "cpu")
    assert (ratio["best_bare"], ratio["best_built_in"], ratio["default"]) == ("compile", "compile", "eager")
    assert ratio["best_over_best_bare"] == pytest.approx(0.9)
    assert ratio["default_over_best_bare"] == pytest.approx(9.9 / 20)
    assert ratio["same_execution"] == pytest.approx({"eager": 0.9, "compile": 0.9})
