"""The benchmark of searches: its landscape, its virtual time, what it says of sweeps, and a short run of it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from itertools import product
from math import inf
from pathlib import Path

import numpy as np
import pytest
from scripts import ROOT

import mpisweep

sys.path.insert(0, str(ROOT / "benchmarks"))

from searching.methods import Method
from searching.simulator import Ended, listed_sweep
from searching.summary import difference, follow, mean_interval, median_interval
from searching.tables import Table, load_table

from mpisweep.spec import Repeats

LANDSCAPE = ROOT / "benchmarks/landscapes"


def small_table(noise: float = 0.0) -> Table:
    """Configuration x has the loss x, and takes 1 + x seconds."""
    losses = [[x - noise, x + noise] for x in (0.0, 1.0, 2.0, 3.0)]
    return Table("small", "loss", {"x": [0, 1, 2, 3]}, losses, [[1.0 + x] * 2 for x in range(4)])


@pytest.mark.parametrize("name", ["digits", "digits_seeds"])
def test_a_landscape_is_a_complete_sweep_of_the_file_beside_it(name):
    sweep = mpisweep.load(LANDSCAPE / f"{name}.h5")
    written = (LANDSCAPE / f"{name}.toml").read_text(encoding="utf-8")
    assert mpisweep.spec.parse_spec(written, source=f"{name}.toml", folder=LANDSCAPE) == sweep.spec
    assert sweep.state == "complete"
    assert set(sweep.trials["state"]) == {"complete"}
    assert (LANDSCAPE / f"{name}.h5").stat().st_size < 1_000_000


def configurations(table: Table) -> list[dict[str, object]]:
    """All configurations of a table, in the order of its rows."""
    return [dict(zip(table.parameters, one, strict=True)) for one in product(*table.parameters.values())]


def test_the_landscapes_have_the_same_losses_for_the_same_seeds():
    digits, seeds = load_table("digits"), load_table("digits_seeds")
    assert (seeds.size, len(seeds.losses[0])) == (140, 20)
    rows = [digits.index(one) for one in configurations(seeds)]
    np.testing.assert_allclose(np.array(seeds.losses)[:, :5], np.array(digits.losses)[rows], rtol=1e-2)
    # The same repeat has the same seed in all configurations, and each sweep an order of its own.
    order = [[seeds.outcome(row, repeat, seed=3).loss for repeat in range(20)] for row in (5, 90)]
    runs = [
        [list(seeds.losses[row]).index(loss) for loss in found]
        for row, found in zip((5, 90), order, strict=True)
    ]
    assert runs[0] == runs[1] != [*range(20)]
    assert order[0] != [seeds.outcome(5, repeat, seed=4).loss for repeat in range(20)]


def test_the_table_of_digits_has_the_curves():
    table = load_table("digits")
    assert table.size == 196
    for row in (0, 100, 195):
        outcome = table.outcome(row, 0, seed=1)
        assert len(outcome.reports) == 27
        assert outcome.reports[-1] == pytest.approx((outcome.seconds, outcome.loss))


def test_its_workload_gives_the_recorded_losses():
    found = spec_from_file_location("digits_workload", LANDSCAPE / "digits.py")
    assert found is not None
    assert found.loader is not None
    workload = module_from_spec(found)
    found.loader.exec_module(workload)
    sweep = mpisweep.load(LANDSCAPE / "digits.h5")
    [number] = np.flatnonzero(
        (sweep.trials["batch_size"] == 64) & (sweep.trials[sweep.column("repeat")] == 3)
        & np.isclose(sweep.trials["learning_rate"], 4.0**0.5 * 1e-3**0.5, rtol=0.3)
    )[:1]  # fmt: skip

    class Recorded:
        params = sweep.configuration(int(number))

        def report(self, step: int, **metrics: float) -> None:
            recorded = sweep.curve(int(number), "val_loss").value[step - 1]
            assert metrics["val_loss"] == pytest.approx(recorded, rel=1e-2)

    assert workload.train(Recorded())["val_loss"] == pytest.approx(sweep.trials["val_loss"][number], rel=1e-2)


def test_a_sweep_in_virtual_time_runs_every_trial_for_its_time_and_no_worker_waits():
    table = small_table()
    trials = [{"x": x} for x in (3, 0, 1, 2)]
    sweep = listed_sweep(trials, lambda one, repeat: table.outcome(table.index(one), repeat, 0), workers=2)
    utilisation = sweep.run()
    # One worker has 3 and then 0, which it was given ahead; the other one 1 and 2.
    ends = {end.configuration["x"]: (end.when, end.loss) for end in sweep.ends}
    assert ends == {1: (2.0, 1.0), 3: (4.0, 3.0), 0: (5.0, 0.0), 2: (5.0, 2.0)}
    assert utilisation == 1.0


def repeated_table() -> Table:
    """Twelve configurations of which 0 is the best; a seed's luck is the same for all, and most of the noise."""
    random = np.random.default_rng(0)
    luck, own = 5.0 * random.standard_normal(10), random.standard_normal((12, 10))
    losses = (3.0 * np.arange(12)[:, None] + luck + own).tolist()
    seconds = [[1.0] * 10] * 12
    return Table("small", "loss", {"x": [*range(12)]}, losses, seconds, has_common_seeds=True)


def test_repeats_and_races_run_what_the_sweep_file_says_on_common_seeds():
    table = repeated_table()
    all_ten = Method("", "grid", repeats=Repeats(10, 10)).run(table, 3, 120, seed=1)
    race = Method("", "grid", repeats=Repeats(2, 10)).run(table, 3, 120, seed=1)
    by_repeat = {(end.configuration["x"], end.repeat): end.loss for end in all_ten}
    assert len(all_ten) == len(by_repeat) == 120
    # A race gives what the others give, and less of it: those that are far behind leave.
    assert all(by_repeat[end.configuration["x"], end.repeat] == end.loss for end in race)
    repeats = [max(end.repeat for end in race if end.configuration["x"] == x) + 1 for x in range(12)]
    assert min(repeats) == repeats[11] == 2
    assert len(race) < 60
    run = follow(table, race, workers=3, repeats=2)
    assert (run.ranks[-1], run.regrets[-1], run.trials) == (0.0, 0.0, len(race))


def test_a_search_that_learns_is_told_the_means_of_repeats():
    table = repeated_table()
    ends = Method("", "tpe", repeats=Repeats(3, 3)).run(table, 2, 30, seed=1)
    xs = [end.configuration["x"] for end in ends]
    assert (len(ends), len(set(xs))) == (30, 10)
    assert all(xs.count(x) == 3 for x in set(xs))


def test_with_repeats_the_chosen_configuration_is_that_of_the_best_mean():
    table = repeated_table()
    found = [(1, 0, 5.0), (2, 0, 4.0), (1, 1, 5.0), (2, 1, 7.0)]
    ends = [Ended(float(when), {"x": x}, loss, repeat) for when, (x, repeat, loss) in enumerate(found, 1)]
    truth = [table.regret(x) for x in (1, 2)]
    # 2 leads by its first run, and 1 by the means once 2 has run twice.
    assert follow(table, ends, workers=1, repeats=2).regrets == [truth[0], truth[1], truth[0]]
    assert follow(table, ends, workers=1).regrets == truth


def test_a_sweep_follows_what_was_chosen_and_says_how_good_it_truly_is():
    table = small_table()
    # 2 seems to be better than 0: it is chosen last, although it is not the best.
    ends = [
        Ended(2.0, {"x": 3}, 3.0),
        Ended(4.0, {"x": 0}, 0.5),
        Ended(5.0, {"x": 1}, None),
        Ended(10.0, {"x": 2}, 0.1),
    ]
    run = follow(table, ends, workers=5)
    assert table.usual_s == 2.5
    assert (run.times, run.ranks, run.regrets) == ([4.0, 8.0, 20.0], [0.75, 0.0, 0.5], [3.0, 0.0, 2.0])
    assert (run.trials, run.device_time, run.trials_to_best, run.time_to_best) == (4, 20.0, 2, 8.0)
    assert [run.regret_at(time) for time in (3.9, 4.0, 19.0, 50.0)] == [inf, 3.0, 0.0, 2.0]
    assert [run.rank_at(time) for time in (3.9, 4.0, 19.0, 50.0)] == [1.0, 0.75, 0.0, 0.5]


def test_a_table_gives_a_seed_its_runs_in_one_order_and_another_seed_others():
    table = small_table(noise=0.5)
    first = [
        [table.outcome(row, repeat, seed).loss - row for repeat in (0, 1, 2)] for row, seed in ((2, 1),) * 2
    ]
    assert first[0] == first[1]
    assert first[0] in ([-0.5, 0.5, -0.5], [0.5, -0.5, 0.5])
    assert len({table.outcome(2, 0, seed).loss for seed in range(20)}) == 2


def test_intervals_cover_the_truth_as_often_as_they_say():
    random = np.random.default_rng(0)
    held = [0, 0, 0]
    for _ in range(1000):
        sample = random.lognormal(size=20)
        _, low, high = median_interval(list(sample))
        held[0] += low <= 1.0 <= high
        mean, half = difference(list(random.normal(1, 1, 20)), list(random.normal(0, 1, 20)))
        held[1] += abs(mean - 1.0) <= half
        _, low, high = mean_interval(list(random.normal(1, 1, 20)))
        held[2] += low <= 1.0 <= high
    assert 940 <= held[0] <= 980
    assert 930 <= held[1] <= 970
    assert 930 <= held[2] <= 970
    assert mean_interval([1.0, inf]) == (inf, inf, inf)


def test_a_quick_run_prints_tables_and_writes_measurements_and_a_figure(tmp_path: Path):
    def run(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "benchmarks/search.py", *arguments, "--figure", str(tmp_path / "figure.png")],
            cwd=ROOT, check=True, capture_output=True, text=True, timeout=300,
        ).stdout  # fmt: skip

    output = run("--quick", "--json", str(tmp_path / "all.json"))
    found = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    cells = {(one["search"], one["workers"], one["side"]): one for one in found["cells"]}
    for search in ("random", "sobol", "exhaustive", "tpe", "cmaes", "nsga2"):
        for workers in (1, 8):
            assert cells[search, workers, "mpisweep"]["rank"]
            assert ((search, workers, "optuna") in cells) == (search in ("tpe", "cmaes", "nsga2"))
    assert cells["grid x 3", 8, "mpisweep"]["ran"] == [420] * 3
    assert max(cells["race 2:10", 8, "mpisweep"]["ran"]) < 1400
    assert "race 2:10" in output
    for cell in cells.values():
        assert all(0 <= rank < 1 for rank in cell["rank"])
        medians = [middle for _, middle, _, _ in cell["curve"] if middle is not None]
        assert 0 <= medians[-1] <= medians[0]
        # Of 30 pruned trials few are complete.
        assert medians[-1] < (0.5 if cell["group"] == "pruning" else 0.05)
    figure = (tmp_path / "figure.png").read_bytes()
    assert figure.startswith(b"\x89PNG")
    # The tables and the figure follow from the measurements alone.
    assert run("--read", str(tmp_path / "all.json")) == output
    assert (tmp_path / "figure.png").read_bytes() == figure
