"""Means, sets and trends: stated coverages against simulated sweeps, and the edges of their input."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from test_results import opening, write_journal

import mpisweep as package
from mpisweep.blocks import AssignedBlock, EndedBlock, JoinedRecord, TrialsBlock
from mpisweep.statistics.best_set import best_set, is_worse
from mpisweep.statistics.means import means_of
from mpisweep.statistics.noise import noise_of
from mpisweep.statistics.trend import trend_of
from mpisweep.views import figures, tables
from mpisweep.views.findings import findings_of
from mpisweep.views.report import page

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import coverage

NORMAL, HEAVY = "normal", "Student's t, 3 degrees of freedom"
SKEWED, DIFFERENT = "lognormal, sigma 0.25", "normal, variances differ"

#: CPU time that only an algorithm of a higher order would take, in seconds; the usual time is one or two.
GROWTH_S = 60

# ------------------------------------------------------------------------------------- coverage


def holds_at_least_93(measured: coverage.Measured) -> bool:
    return measured.share + 3 * measured.error >= 0.93


def holds_at_most_97(measured: coverage.Measured) -> bool:
    return measured.share - 3 * measured.error <= 0.97


@pytest.mark.parametrize("repeats", [2, 3, 5, 10])
@pytest.mark.parametrize("noise", [NORMAL, HEAVY, SKEWED, DIFFERENT])
def test_the_interval_of_a_mean_holds_it_in_93_to_97_percent_of_simulated_sweeps(noise, repeats):
    measured = coverage.of_means(coverage.NOISES[noise], repeats, 40_000)
    assert 0.93 <= measured.share <= 0.97


@pytest.mark.parametrize("noise", [NORMAL, HEAVY, SKEWED, DIFFERENT])
@pytest.mark.parametrize(
    ("configurations", "repeats", "sweeps"),
    [(2, 2, 500), (3, 3, 400), (20, 2, 100), (20, 5, 100), (700, 3, 8)],
)
def test_the_set_holds_the_best_in_at_least_93_percent_of_simulated_sweeps(
    noise, configurations, repeats, sweeps
):
    measured = coverage.of_sets(coverage.NOISES[noise], configurations, repeats, sweeps)
    assert holds_at_least_93(measured), measured


@pytest.mark.parametrize(("configurations", "repeats", "sweeps"), [(2, 2, 600), (2, 5, 600), (20, 10, 150)])
def test_the_set_of_normal_noise_holds_the_best_in_at_most_97_percent(configurations, repeats, sweeps):
    measured = coverage.of_sets(coverage.NOISES[NORMAL], configurations, repeats, sweeps)
    assert holds_at_least_93(measured)
    assert holds_at_most_97(measured), measured


@pytest.mark.parametrize("noise", [NORMAL, DIFFERENT])
def test_the_set_holds_the_best_when_runs_are_missing(noise):
    measured = coverage.of_sets(coverage.NOISES[noise], 20, 4, 150, missing=0.25)
    assert holds_at_least_93(measured), measured


@pytest.mark.long
@pytest.mark.parametrize("noise", list(coverage.NOISES))
@pytest.mark.parametrize("repeats", [2, 3, 5, 10])
@pytest.mark.parametrize(
    ("configurations", "sweeps"), [(2, 4000), (3, 3000), (5, 2000), (20, 600), (100, 150), (700, 50)]
)
def test_the_set_holds_the_best_with_all_kinds_of_noise(noise, repeats, configurations, sweeps):
    measured = coverage.of_sets(coverage.NOISES[noise], configurations, repeats, sweeps)
    assert holds_at_least_93(measured), measured


@pytest.mark.parametrize("noise", [NORMAL, HEAVY])
@pytest.mark.parametrize("curve", list(coverage.CURVES))
def test_band_and_best_region_of_a_trend_hold_the_truth_in_at_least_93_percent_of_simulated_sweeps(
    curve, noise
):
    found = coverage.of_trends(coverage.CURVES[curve], noise, 60, 30)
    assert holds_at_least_93(found.band), found
    assert holds_at_least_93(found.region), found
    # It says something: the plateau alone is 0.4 of its axis.
    assert found.width < 0.75


@pytest.mark.long
@pytest.mark.parametrize("noise", [NORMAL, HEAVY, DIFFERENT])
@pytest.mark.parametrize("runs", [22, 200])
@pytest.mark.parametrize("curve", list(coverage.CURVES))
def test_trends_hold_the_truth_with_few_and_many_runs(curve, runs, noise):
    found = coverage.of_trends(coverage.CURVES[curve], noise, runs, 150)
    assert holds_at_least_93(found.band), found
    assert holds_at_least_93(found.region), found


# ------------------------------------------------------------------------------------- textbook cases


def test_the_interval_of_a_mean_is_student_s():
    values = np.array([[1.0, 2.0, 4.0], [1.0, np.nan, np.inf], [np.nan] * 3, [5.0, 5.0, np.nan]])
    found = means_of(values)
    assert found.count.tolist() == [3, 1, 0, 2]
    assert np.allclose(found.mean, [7 / 3, 1.0, np.nan, 5.0], equal_nan=True)
    low, high = stats.t.interval(0.95, 2, 7 / 3, stats.sem(values[0]))
    assert (found.low[0], found.high[0]) == (pytest.approx(low), pytest.approx(high))
    assert np.isnan(found.low[1:3]).all()
    assert np.isnan(found.spread[1:3]).all()
    assert (found.low[3], found.high[3], found.spread[3]) == (5.0, 5.0, 0.0)


@pytest.mark.parametrize("seed", range(40))
def test_two_configurations_are_compared_by_the_paired_t_test(seed):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((2, 4)) + 10 * rng.standard_normal(4)
    values[1] += 1.5
    found = best_set(values)
    assert found is not None
    # Which one is best is not known beforehand, so it is one-sided.
    p = stats.ttest_rel(values[1 - found.best], values[found.best], alternative="greater").pvalue
    assert found.is_in.all() == (p > 0.05)
    two_sided = stats.ttest_rel(*values).pvalue
    worse = int(np.argmax(values.mean(axis=1)))
    assert is_worse(values[worse], values[1 - worse]) == (two_sided <= 0.05)
    assert not is_worse(values[1 - worse], values[worse])


def test_equal_variances_are_compared_by_dunnett_s_test():
    rng = np.random.default_rng(3)
    agreed = 0
    for _ in range(30):
        values = rng.standard_normal((5, 12)) + np.array([[0.0, 0.6, 1.0, 1.2, 1.4]]).T
        if (noise := noise_of(values, common=False)) is None or np.isfinite(noise.freedom).any():
            continue
        found = best_set(values, common=False)
        assert found is not None
        # Being worse than some other is Dunnett's test with the configuration as the control.
        for row in range(5):
            others = [values[other] for other in range(5) if other != row]
            p = stats.dunnett(*others, control=values[row], alternative="less", rng=1).pvalue.min()
            # Near 5%, the integral's accuracy and the share for moment selection decide.
            if not 0.03 < p < 0.07:
                assert found.is_in[row] == (p > 0.05)
                agreed += 1
    assert agreed > 15


def test_a_luck_that_the_seeds_share_changes_nothing():
    rng = np.random.default_rng(5)
    values = rng.standard_normal((12, 3)) + np.linspace(0, 3, 12)[:, None]
    plain, shifted = best_set(values), best_set(values + np.array([0.0, 100.0, -300.0]))
    assert plain is not None
    assert shifted is not None
    assert plain.is_in.tolist() == shifted.is_in.tolist()
    assert plain.noise == pytest.approx(shifted.noise)
    # Seeds that differ from configuration to configuration leave all of that in the noise.
    apart = best_set(values + np.array([0.0, 100.0, -300.0]), common=False)
    assert apart is not None
    assert apart.is_in.all()
    assert not plain.is_in.all()


def test_a_configuration_that_lacks_an_unlucky_seed_gets_no_advantage():
    rng = np.random.default_rng(6)
    values = 0.1 * rng.standard_normal((8, 4)) + np.array([0.0, 0.0, 0.0, 50.0])
    values[1:] += 1.0
    values[3, 3] = np.nan
    found = best_set(values)
    assert found is not None
    assert found.best == 0
    assert found.is_in.tolist() == [True] + [False] * 7
    assert found.mean[3] == pytest.approx(found.mean[4], abs=1.0)


# ------------------------------------------------------------------------------------- power and edges


def test_clearly_worse_configurations_are_told_apart_and_do_not_count_in_the_correction():
    rng = np.random.default_rng(7)
    alone, among = 0, 0
    for _ in range(30):
        close = rng.standard_normal((3, 6)) + np.array([[0.0], [0.0], [2.4]])
        far = 100 + rng.standard_normal((200, 6))
        few, many = best_set(close), best_set(np.concatenate([close, far]))
        assert few is not None
        assert many is not None
        assert not many.is_in[3:].any()
        alone, among = alone + int(not few.is_in[2]), among + int(not many.is_in[2])
    # Their runs say more about the noise, and 200 rivals that are none take nothing away.
    assert among >= alone - 3
    assert among > 15


def runs_around(mean: float, spread: float, count: int, repeats: int, seed: int = 0) -> np.ndarray:
    """Runs of configurations whose means and spreads are exactly these."""
    drawn = np.random.default_rng(seed).standard_normal((count, repeats))
    drawn -= drawn.mean(axis=1, keepdims=True)
    return mean + spread * drawn / drawn.std(axis=1, ddof=1, keepdims=True)


def test_sixty_configurations_that_are_clearly_worse_do_not_hide_one_that_is_worse():
    # Alone it is told apart from a lead of 1.2 spreads on; corrected for 60 rivals, from 1.9 on.
    close = runs_around(0.0, 1.0, 2, 5) + np.array([[0.0], [1.5]])
    for values in (close, np.concatenate([close, runs_around(1000.0, 1.0, 60, 5)])):
        found = best_set(values, common=False)
        assert found is not None
        assert found.is_in[:2].tolist() == [True, False]


def test_noisy_configurations_do_not_blur_the_difference_of_quiet_ones():
    quiet = runs_around(0.0, 0.01, 2, 10) + np.array([[0.0], [0.5]])
    noisy = runs_around(0.3, 10.0, 10, 10, seed=1)
    found = best_set(np.concatenate([quiet, noisy]), common=False)
    assert found is not None
    assert found.is_in[:2].tolist() == [True, False]


def test_the_direction_turns_the_comparison_round():
    values = np.array([[1.0, 1.1, 0.9], [5.0, 5.1, 4.9], [9.0, 9.1, 8.9]])
    smallest, largest = best_set(values), best_set(values, minimize=False)
    assert smallest is not None
    assert largest is not None
    assert (smallest.best, smallest.is_in.tolist()) == (0, [True, False, False])
    assert (largest.best, largest.is_in.tolist()) == (2, [False, False, True])
    assert largest.mean.tolist() == pytest.approx([1.0, 5.0, 9.0])


def test_runs_that_are_not_finite_do_not_count_and_no_run_at_all_is_in_no_set():
    values = np.array([[1.0, 1.1, np.nan], [9.0, np.inf, 9.2], [np.nan] * 3, [1.05, -np.inf, 1.02]])
    found = best_set(values)
    assert found is not None
    assert found.is_in.tolist() == [True, False, False, True]
    assert np.isnan(found.mean[2])
    assert best_set(np.full((3, 2), np.nan)) is None
    assert best_set(np.empty((0, 0))) is None


def test_single_runs_tell_nothing_apart():
    found = best_set(np.array([[1.0], [2.0], [np.nan]]))
    assert found is not None
    assert (found.best, found.noise, found.is_in.tolist()) == (0, None, [True, True, False])
    alone = best_set(np.array([[1.0, 2.0, 3.0]]))
    assert alone is not None
    assert alone.is_in.tolist() == [True]


def test_runs_without_any_noise_are_told_apart_by_their_values():
    found = best_set(np.array([[1.0, 1.0], [1.0, 1.0], [1.5, 1.5]]))
    assert found is not None
    assert (found.noise, found.is_in.tolist()) == (0.0, [True, True, False])


def test_values_rounded_to_a_few_digits_have_no_less_noise_than_that():
    # Accuracies of ten test images: most pairs of runs agree by chance.
    rng = np.random.default_rng(8)
    held = [best_set(np.round(0.8 + 0.05 * rng.standard_normal((20, 2)), 1)) for _ in range(100)]
    assert np.mean([found.is_in.mean() for found in held if found is not None]) > 0.9


def test_a_configuration_with_more_runs_is_told_apart_more_surely():
    rng = np.random.default_rng(9)
    apart = np.zeros(2)
    for _ in range(40):
        values = np.full((12, 10), np.nan)
        values[:, :2] = rng.standard_normal((12, 2))
        values[0:2] = rng.standard_normal((2, 10))
        values[1] += 2.5
        values[2, :2] += 2.5
        found = best_set(values)
        assert found is not None
        apart += ~found.is_in[1:3]
    assert apart[0] > apart[1] + 5


def test_ten_thousand_configurations_take_seconds():
    rng = np.random.default_rng(10)
    values = rng.standard_normal((10_000, 2)) + np.linspace(0, 8, 10_000)[:, None]
    started = time.process_time()
    found = best_set(values)
    assert found is not None
    assert 0 < found.is_in.sum() < 10_000
    assert time.process_time() - started < GROWTH_S


# ------------------------------------------------------------------------------------- trends


def test_the_best_region_is_a_region_and_not_the_luckiest_point():
    rng = np.random.default_rng(11)
    x = np.arange(1.0, 701.0)
    y = 0.5 + 0.1 * np.log(x / 90) ** 2 + 0.05 * rng.standard_normal(700)
    started = time.process_time()
    found = trend_of(x, y, logarithmic=True)
    assert time.process_time() - started < GROWTH_S
    assert found is not None
    low, high = found.region
    assert 60 < low < 90 < high < 140
    assert 70 < found.x[found.best] < 120
    assert np.median(found.noise) == pytest.approx(0.05, rel=0.15)
    upwards = trend_of(x, -y, minimize=False, logarithmic=True)
    assert upwards is not None
    assert upwards.region == found.region
    assert np.allclose(upwards.high, -found.low)


def test_ten_thousand_runs_have_a_trend_within_seconds():
    rng = np.random.default_rng(12)
    x = np.arange(10_000.0)
    started = time.process_time()
    found = trend_of(x, (x / 10_000 - 0.3) ** 2 + 0.1 * rng.standard_normal(10_000))
    assert time.process_time() - started < GROWTH_S
    assert found is not None
    assert len(found.mean) == 10_000
    assert found.x[found.best] == pytest.approx(3000, abs=700)
    assert found.region[1] - found.region[0] < 4000


@pytest.mark.parametrize("runs", [62, 65, 300])
def test_the_band_of_a_trend_is_student_s_interval(runs: int, monkeypatch):
    """Also where a series stands for the distribution."""
    rng = np.random.default_rng(7)
    x = np.arange(1.0, runs + 1)
    y = np.sin(x / 20) + 0.1 * rng.standard_normal(runs)
    by_series = trend_of(x, y)
    monkeypatch.setattr("mpisweep.statistics.trend._MANY", math.inf)
    exact = trend_of(x, y)
    assert by_series is not None
    assert exact is not None
    assert by_series.high - by_series.mean == pytest.approx(exact.high - exact.mean, rel=1e-8)


def test_a_run_far_off_does_not_bend_the_trend():
    rng = np.random.default_rng(13)
    x = np.linspace(0, 1, 60)
    y = (x - 0.5) ** 2 + 0.01 * rng.standard_normal(60)
    without = trend_of(x, y)
    y[10] = -50.0
    y[40] = np.nan
    with_it = trend_of(x, y)
    assert without is not None
    assert with_it is not None
    assert len(with_it.x) == 59
    assert abs(with_it.x[with_it.best] - 0.5) < 0.15
    assert np.abs(np.interp(x, with_it.x, with_it.mean) - without.mean).max() < 0.05


def test_noise_that_grows_is_seen_where_it_is():
    rng = np.random.default_rng(14)
    x = np.linspace(0, 1, 300)
    found = trend_of(x, x + np.where(x < 0.5, 0.02, 0.2) * rng.standard_normal(300))
    assert found is not None
    assert found.noise[250] > 3 * found.noise[50]


def test_no_trend_without_enough_values_and_a_flat_one_without_noise():
    assert trend_of(np.arange(7.0), np.arange(7.0)) is None
    assert trend_of(np.repeat(np.arange(7.0), 3), np.arange(21.0)) is None
    assert trend_of(np.arange(9.0), np.array([np.nan, np.inf, *range(7)])) is None
    flat = trend_of(np.arange(9.0), np.full(9, 2.5))
    assert flat is not None
    assert flat.in_best_region.all()
    assert flat.mean.tolist() == flat.low.tolist() == [2.5] * 9


# ------------------------------------------------------------------------------------- of sweeps


def sweep_of(path: Path, losses: np.ndarray, direction: str = "minimize") -> package.Sweep:
    """A sweep over x = 0, 1, ... with the losses of shape (configurations, repeats); infinity is a failed trial."""
    count, repeats = losses.shape
    x = list(range(count)) * repeats
    spec = (
        f'name = "s"\nworkload = "m:f"\nobjective = "loss"\ndirection = "{direction}"\nrepeats = {repeats}\n'
        f"[parameters]\nx = {{ from = 0, to = {count - 1} }}\n"
    )
    records: list[object] = [
        TrialsBlock(
            list(range(len(x))), {"x": x}, baseline=None, configurations=list(x),
            repeats=[repeat for repeat in range(repeats) for _ in range(count)],
        ),
        JoinedRecord(0, "node", "cpu", 1, 1, 1000.0),
    ]  # fmt: skip
    for number, loss in enumerate(losses.T.ravel().tolist()):
        at = 1001.0 + number
        bad = np.isinf(loss)
        records.append(AssignedBlock([[0, 0]], at, [number], [1], {"x": x[number]}))
        records.append(
            EndedBlock(
                0, 0, [number], [1], [4 if bad else 2], [at], [0.5], {"loss": [None if bad else loss]},
                [1] if bad else [], ["no"] if bad else [],
            )
        )  # fmt: skip
    write_journal(path, records, opening(spec=spec))
    return package.load(path)


def repeated() -> np.ndarray:
    rng = np.random.default_rng(15)
    losses = 0.05 * rng.standard_normal((6, 4)) + np.array([0.0, 0.0, 5.0, 9.0])
    losses += np.array([1.0, 0.0, 0.01, 0.9, 2.0, 3.0])[:, None]
    losses[0, 1], losses[2, 3] = np.nan, np.inf
    losses[5] = np.inf
    return losses


def test_the_table_of_configurations_has_means_intervals_and_the_best_set(tmp_path):
    losses = repeated()
    table = sweep_of(tmp_path / "s.h5", losses).configurations
    assert table.names == ("number", "x", "n", "lost", "mean", "spread", "low", "high", "in_best_set")
    assert table["n"].tolist() == [3, 4, 3, 4, 4, 0]
    assert table["lost"].tolist() == [1, 0, 1, 0, 0, 4]
    assert table["in_best_set"].tolist() == [False, True, True, False, False, False]
    assert table["mean"][1] == pytest.approx(losses[1].mean())
    assert table["spread"][1] == pytest.approx(losses[1].std(ddof=1))
    assert table["low"][1] < table["mean"][1] < table["high"][1]
    assert repr(table).splitlines()[0].split() == list(table.names)
    assert len(table[table["in_best_set"]]) == 2


def test_the_table_of_configurations_has_a_row_for_those_without_result(tmp_path):
    table = sweep_of(tmp_path / "s.h5", np.full((3, 2), np.inf)).configurations
    assert (len(table), table["n"].sum(), table["in_best_set"].any()) == (3, 0, False)


def test_top_ranks_configurations_by_their_mean_and_says_which_cannot_be_told_apart(tmp_path, capsys):
    sweep = sweep_of(tmp_path / "s.h5", repeated())
    table = tables.top_table(sweep, 3)
    assert table.header == (
        "", "x", "mean loss", "± 95%", "runs", "in best set", "mean time [s]", "configuration",
    )  # fmt: skip
    # By the plain mean the second would be first: it lacks its unlucky seed.
    assert [(row.parameters, row.runs, row.in_best_set) for row in table.rows] == [
        (("1",), 4, True), (("2",), 3, True), (("3",), 4, False),
    ]  # fmt: skip
    fields = tables.top_fields(table, sweep)
    assert fields["finding"] == table.finding
    first = fields["configurations"][0]
    assert (first["configuration"], first["parameters"], first["runs"]) == (1, {"x": 1}, 4)
    assert first["half_width"] == pytest.approx(findings_of(sweep).half_width[1])
    assert first["in_best_set"] is True
    tables.print_top(table)
    printed = " ".join(capsys.readouterr().out.split())
    assert "best configurations by smallest mean loss" in printed
    assert "1 of the other 4 cannot be told apart from it (95%): x=2" in printed
    assert "different numbers of runs are compared on the seeds that they share" in printed
    assert "1 completed trial has no finite loss" in printed
    equal = sweep_of(tmp_path / "equal.h5", np.arange(8.0).reshape(4, 2))
    assert "seeds that they share" not in tables.top_table(equal, 3).finding
    upwards = tables.top_table(sweep, 1, "loss", "maximize")
    assert upwards.rows[0].parameters == ("4",)
    assert "it is told apart from the other 4 configurations (95%)" in upwards.finding


def test_single_runs_have_a_best_region_or_the_statement_that_luck_is_unknown(tmp_path):
    few = sweep_of(tmp_path / "few.h5", np.array([[3.0], [1.0], [2.0]]))
    said = tables.top_table(few).finding
    assert said.startswith("one run each: nothing says how far luck goes")
    assert "`repeats = 3`" in said
    assert not tables.top_table(few).is_repeated
    rng = np.random.default_rng(16)
    x = np.arange(200)
    many = sweep_of(tmp_path / "many.h5", ((x - 90) ** 2 / 4000 + 0.1 * rng.standard_normal(200))[:, None])
    with pytest.raises(KeyError):
        findings_of(many, "no such metric")
    found = findings_of(many)
    assert found.trend is not None
    low, high = found.trend.region
    assert 60 < low < 90 < high < 120
    assert f"from {low:g} to {high:g} may be" in tables.top_table(many).finding
    flat = sweep_of(tmp_path / "flat.h5", rng.standard_normal((40, 1)))
    assert "shows no value to be better than another" in tables.top_table(flat).finding


def test_the_figure_draws_means_with_repeats_and_a_trend_without(tmp_path):
    def labels(sweep: package.Sweep) -> list[str]:
        figure = figures.draw_metric(sweep, "x", "loss")
        figures.save(figure, tmp_path / "figure.png")
        return figure.axes[0].get_legend_handles_labels()[1]

    found = labels(sweep_of(tmp_path / "s.h5", repeated()))
    assert "not told apart from the best, mean ± 95%" in found
    assert any(text.startswith("best mean: loss") for text in found)
    x = np.arange(40)
    values = ((x - 15) ** 2 / 100 + 0.05 * np.random.default_rng(17).standard_normal(40))[:, None]
    found = labels(sweep_of(tmp_path / "t.h5", values))
    assert {"trend", "95% band"} <= set(found)
    assert any(text.startswith("trend's best: ") for text in found)


def test_the_report_says_what_was_found_and_how_sure_it_is(tmp_path):
    assert "1 of the other 4 cannot be told apart from it (95%): x=2; different numbers of runs" in page(
        sweep_of(tmp_path / "s.h5", repeated())
    )
