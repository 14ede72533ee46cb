"""The planner: laid out like the real scheduler, and right as often as it says."""

from __future__ import annotations

import time
from itertools import pairwise
from random import Random

import numpy as np
import pytest

from mpisweep.batch.request import Wishes
from mpisweep.batch.site import ResourceGroup, SiteError
from mpisweep.batch.sitefile import load_site
from mpisweep.batch.sizes import Machine, at_site, doubling
from mpisweep.blocks import EndedBlock, PredictedRecord, RunRecord, decode, encode
from mpisweep.records import EndReason, TrialState
from mpisweep.results.journal.checking import is_valid
from mpisweep.results.journal.reader import Entry
from mpisweep.results.replay import apply
from mpisweep.results.state import SweepState
from mpisweep.scheduling.decisions import Assign, End
from mpisweep.scheduling.drawing import Ahead, Drawn, Observed, draw_durations
from mpisweep.scheduling.durations import DurationModel, work_from_names
from mpisweep.scheduling.events import StopRequested, TrialsEnded, WorkerJoined
from mpisweep.scheduling.layout import lay_out
from mpisweep.scheduling.pilot import pilot_trials
from mpisweep.scheduling.plan import CONFIDENCE, Setting, Size, make_plan, plain_prediction
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.scheduling.simulation import Simulation

Columns = dict[str, list]


def unmeasured(count: int) -> DurationModel:
    return DurationModel({"x": list(range(count))}, None, count)


def measured(columns: Columns, durations, numbers) -> DurationModel:
    count = len(next(iter(columns.values())))
    model = DurationModel(columns, work_from_names(columns), count)
    model.observe(list(numbers), [float(durations[number]) for number in numbers])
    model.fit()
    return model


def alike(count: int, seconds: float, noise: float = 0.1, seed: int = 0) -> DurationModel:
    """Trials of one length, all of them measured in an earlier sweep."""
    random = np.random.default_rng(seed)
    columns: Columns = {"x": list(range(count))}
    return measured(columns, seconds * np.exp(random.normal(0, noise, count)), range(count))


def drawn_once(durations, widths=None) -> Drawn:
    """One draw, whose durations are known: the longest first, the widest before all."""
    durations = np.asarray(durations, dtype=float)
    widths = np.ones(len(durations), dtype=int) if widths is None else np.asarray(widths)
    order = np.lexsort((-durations, -widths))
    durations, widths = durations[order], widths[order]
    return Drawn(durations, widths, durations[None], durations[None], 1.0)


# ------------------------------------------------------------------------------------- the layout


@pytest.mark.parametrize("workers", [1, 3, 16, 64])
def test_the_layout_takes_as_long_as_the_real_scheduler(workers):
    random = np.random.default_rng(workers)
    drawn = drawn_once(np.exp(random.normal(3, 0.7, 200)))
    model = DurationModel.stated(drawn.expected_s.tolist(), 1.2)
    real = Simulation(model, drawn.durations_s[0].tolist(), workers, 0.001).run()
    assert lay_out(drawn, workers, 0.001).makespan_s[0] == pytest.approx(real, rel=1e-3)


@pytest.mark.parametrize("workers", [4, 8, 32])
def test_the_layout_of_trials_of_several_ranks_is_near_the_real_scheduler(workers):
    random = np.random.default_rng(workers)
    drawn = drawn_once(np.exp(random.normal(3, 0.5, 150)), random.choice([1, 1, 2, 4], 150))
    model = DurationModel.stated(drawn.expected_s.tolist(), 1.2)
    simulation = Simulation(
        model, drawn.durations_s[0].tolist(), workers, 0.001, widths=drawn.widths.tolist()
    )
    real = simulation.run()
    assert lay_out(drawn, workers, 0.001).makespan_s[0] == pytest.approx(real, rel=0.12)
    # No slot runs two trials at a time.
    work = (drawn.durations_s[0] * drawn.widths).sum()
    assert real >= work / workers
    assert len(simulation.spans) == 150


def test_a_sweep_of_very_many_trials_is_laid_out_in_bulk():
    random = np.random.default_rng(0)
    many, few = drawn_once(random.uniform(1, 5, 20_001)), drawn_once(random.uniform(1, 5, 20_000))
    assert lay_out(many, 64).makespan_s[0] == pytest.approx(lay_out(few, 64).makespan_s[0], rel=0.01)


# ------------------------------------------------------------------------------------- what is stated


def poster(random: Random) -> tuple[Columns, np.ndarray]:
    return {"batch_size": list(range(2, 302, 2))}, np.array([20 + 0.25 * size for size in range(2, 302, 2)])


def two_parameters(random: Random) -> tuple[Columns, np.ndarray]:
    widths = [random.choice([32, 64, 128, 256]) for _ in range(150)]
    layers = [random.randint(2, 40) for _ in range(150)]
    seconds = [100 * (w / 128) ** 0.6 * (n / 12) ** 0.7 for w, n in zip(widths, layers, strict=True)]
    return {"channels": widths, "layers": layers}, np.array(seconds)


def unexplained(random: Random) -> tuple[Columns, np.ndarray]:
    return {"x": [random.random() for _ in range(150)]}, np.full(150, 100.0)


def coverage(make, *, pilot: int, noise: float, sweeps: int = 80, workers: int = 8) -> tuple[float, float]:
    """In how many sweeps all trials ended within the stated bound, and the bound over the median."""
    held, width = [], []
    for seed in range(sweeps):
        random = np.random.default_rng(seed)
        columns, means = make(Random(seed))
        durations = means * np.exp(random.normal(0, noise, len(means)))
        chosen = pilot_trials(columns, work_from_names(columns), range(len(means)), pilot)
        model = measured(columns, durations, chosen)
        ahead = Ahead(model, sorted(set(range(len(means))) - set(chosen)))
        drawn = draw_durations(ahead, 400, np.random.default_rng(seed))
        assert drawn is not None
        times = lay_out(drawn, workers, 0.001).makespan_s
        order = ahead.in_order()
        truth = Drawn(means[order], np.ones(len(order), int), durations[order][None],
                      durations[order][None], 1.0)  # fmt: skip
        bound_s = np.quantile(times, CONFIDENCE)
        held.append(lay_out(truth, workers, 0.001).makespan_s[0] <= bound_s)
        width.append(bound_s / np.median(times))
    return float(np.mean(held)), float(np.mean(width))


def test_a_stated_95_percent_holds_in_90_to_99_percent_of_simulated_sweeps(tell):
    found = {
        make.__name__: coverage(make, pilot=30, noise=0.3) for make in (poster, two_parameters, unexplained)
    }
    tell(f"all trials ended within the 95% bound, and bound over median: {found}")
    shares = [share for share, _ in found.values()]
    assert 0.90 <= np.mean(shares) <= 0.99
    assert min(shares) >= 0.87
    assert max(width for _, width in found.values()) < 1.2


@pytest.mark.parametrize("make", [poster, two_parameters, unexplained])
def test_after_a_pilot_of_five_the_bound_is_wide_and_holds(make, tell):
    share, width = coverage(make, pilot=5, noise=0.15, sweeps=40)
    tell(
        f"{make.__name__}: the 95% bound after five trials held in {share:.0%}, {width:.2f} times the median"
    )
    assert share >= 0.92
    assert width > 1.1


def test_more_nodes_take_less_time_and_never_fewer_node_hours():
    ahead = Ahead(alike(300, 60.0, 0.3), range(300))
    plan = make_plan(ahead, [Size(n, 4 * n) for n in (1, 2, 4, 8, 16)], Setting())
    assert plan is not None
    times = [row.time_s for row in plan.rows]
    assert times == sorted(times, reverse=True)
    bounds = [row.bound_s for row in plan.rows]
    assert bounds == sorted(bounds, reverse=True)
    hours = [row.node_hours for row in plan.rows]
    assert all(more >= less * 0.995 for less, more in pairwise(hours))
    assert all(row.bound_s <= row.elapse_s for row in plan.rows)
    assert all(row.probability >= 0.95 for row in plan.rows)


def test_the_suggestion_is_the_shortest_job_that_costs_little_more_than_the_cheapest():
    ahead = Ahead(alike(300, 60.0), range(300))
    plan = make_plan(ahead, [Size(n, 4 * n) for n in (1, 2, 4, 8, 16, 64)], Setting())
    assert plan is not None
    cheapest = min(row.node_hours for row in plan.rows)
    assert plan.suggested is not None
    assert plan.suggested.node_hours <= 1.1 * cheapest
    assert all(row.node_hours > 1.1 * cheapest for row in plan.rows if row.elapse_s < plan.suggested.elapse_s)


def test_a_walltime_says_what_fits_and_how_likely_all_do():
    ahead = Ahead(alike(300, 60.0), range(300))
    sizes = [Size(n, 4 * n) for n in (1, 2, 4)]
    plan = make_plan(ahead, sizes, Setting(walltime_s=2400.0, grace_s=10.0, closing_s=lambda s: s / 20))
    assert plan is not None
    assert [row.probability for row in plan.rows] == [0.0, pytest.approx(0.2, abs=0.2), 1.0]
    # 4 workers run 37 trials each in the 2270 s that are left for trials.
    assert plan.rows[0].fitting == pytest.approx(4 * 2270 // 60, abs=4)
    assert plan.rows[2].fitting == 300
    assert plan.suggested is plan.rows[2]
    shorter = make_plan(ahead, sizes, Setting(walltime_s=600.0, grace_s=10.0))
    assert shorter is not None
    assert shorter.suggested is None


def test_the_time_to_ask_for_leaves_room_for_start_grace_and_closing():
    ahead = Ahead(alike(64, 60.0, 0.05), range(64))
    plain = make_plan(ahead, [Size(1, 4)], Setting())
    careful = make_plan(ahead, [Size(1, 4, 120.0)], Setting(grace_s=60.0, closing_s=lambda s: s / 10))
    assert plain is not None
    assert careful is not None
    assert careful.rows[0].time_s == pytest.approx(plain.rows[0].time_s + 120.0)
    need_s = plain.rows[0].bound_s + 120.0 + 60.0
    assert need_s / 0.9 <= careful.rows[0].elapse_s <= need_s / 0.9 + 300.0 + 60.0


def test_a_trial_that_might_not_end_in_time_is_not_started_so_more_time_is_asked_for():
    # One trial per worker: the scheduler starts it only if its upper bound ends in time.
    ahead = Ahead(alike(8, 600.0, 0.3), range(8))
    plan = make_plan(ahead, [Size(1, 8)], Setting())
    assert plan is not None
    expected_s = ahead.model.expected_s(0)
    assert expected_s is not None
    drawn = draw_durations(ahead, 400, np.random.default_rng(0))
    assert drawn is not None
    laid = lay_out(drawn, 8)
    assert np.median(laid.latest_s) > 1.4 * expected_s
    assert plan.rows[0].elapse_s >= np.quantile(laid.latest_s, 0.95)


def test_without_measurements_the_timeout_bounds_the_time_and_without_it_nothing_is_known():
    plan = make_plan(Ahead(unmeasured(100), range(100), timeout_s=60.0), [Size(2, 8)], Setting())
    assert plan is not None
    assert plan.is_bound
    assert plan.draws == 1
    assert plan.rows[0].bound_s == pytest.approx(13 * 60.0, abs=0.1)
    assert make_plan(Ahead(unmeasured(100), range(100)), [Size(2, 8)], Setting()) is None


def test_trials_of_several_ranks_need_as_many_workers():
    model, widths = alike(40, 60.0, 0.05), [4, 1] * 20
    ahead = Ahead(model, range(40), widths=widths)
    plan = make_plan(ahead, [Size(1, 2), Size(2, 4), Size(4, 8)], Setting())
    assert plan is not None
    # Two workers are too few for any trial of four ranks.
    assert [row.workers for row in plan.rows] == [4, 8]
    assert plan.rows[0].time_s == pytest.approx(25 * 60.0, rel=0.1)
    assert plan.real_draws > 0
    assert make_plan(ahead, [Size(1, 2)], Setting()) is None


def test_one_trial_that_runs_alone_at_the_end_is_named():
    columns: Columns = {"n": [str(number) for number in range(9)]}
    model = measured(columns, [600.0, *[30.0] * 8], range(9))
    plan = make_plan(Ahead(model, range(9)), [Size(2, 8)], Setting())
    assert plan is not None
    assert plan.alone is not None
    assert plan.alone.trial == 0
    assert plan.alone.share > 0.5
    even = make_plan(Ahead(alike(320, 30.0), range(320)), [Size(2, 8)], Setting())
    assert even is not None
    assert even.alone is None


def test_failures_shorten_a_sweep_and_lost_attempts_lengthen_it():
    model = alike(300, 60.0)

    def median_s(observed: Observed) -> float:
        plan = make_plan(Ahead(model, range(300), retries=2, observed=observed), [Size(1, 4)], Setting())
        assert plan is not None
        return plan.rows[0].time_s

    usual = median_s(Observed())
    # A quarter fails after a tenth of the time; a fifth of the attempts is lost halfway.
    assert median_s(Observed(400, (0.1,) * 100)) == pytest.approx(usual * (0.75 + 0.025), rel=0.03)
    lost = median_s(Observed(attempts=500, lost=100))
    assert lost == pytest.approx(usual * (1 + 0.5 * 0.2 * 1.2), rel=0.03)


def test_trials_to_come_take_what_the_measured_ones_took():
    model = alike(20, 60.0)
    plan = make_plan(Ahead(model, [], to_come=80), [Size(1, 4)], Setting())
    assert plan is not None
    assert plan.trials == 80
    assert plan.rows[0].time_s == pytest.approx(20 * 60.0, rel=0.08)


def test_the_same_knowledge_makes_the_same_plan():
    ahead = Ahead(alike(100, 60.0), range(100))
    plans = [make_plan(ahead, [Size(1, 4), Size(2, 8)], Setting(seed=3)) for _ in range(2)]
    assert plans[0] == plans[1]


def test_draws_of_many_trials_are_bounded():
    ahead = Ahead(alike(2000, 60.0), list(range(2000)) * 10)
    drawn = draw_durations(ahead, 3, np.random.default_rng(0))
    assert drawn is not None
    assert drawn.durations_s.shape == (3, 20_000)


# ------------------------------------------------------------------------------------- the pilot


def test_a_pilot_covers_ends_and_middle_and_grows_by_further_trials():
    columns: Columns = {"batch_size": list(range(1, 701))}
    work = work_from_names(columns)
    five = pilot_trials(columns, work, range(700), 5)
    assert {0, 699} <= set(five)
    assert any(150 < number < 550 for number in five)
    assert pilot_trials(columns, work, range(700), 12)[:5] == five


def test_a_pilot_predicts_better_than_the_first_trials(tell):
    errors: dict[str, list[float]] = {"chosen": [], "first": []}
    for seed in range(20):
        columns, means = poster(Random(seed))
        durations = means * np.exp(np.random.default_rng(seed).normal(0, 0.1, len(means)))
        work = work_from_names(columns)
        for how, numbers in (("chosen", pilot_trials(columns, work, range(150), 5)), ("first", range(5))):
            model = measured(columns, durations, numbers)
            expected = np.array([model.expected_s(number) for number in range(150)])
            errors[how].append(float(np.abs(np.log(expected / means)).mean()))
    found = {how: float(np.mean(values)) for how, values in errors.items()}
    tell(f"mean error of the expected durations after five trials: {found}")
    assert found["chosen"] < 0.5 * found["first"]


def test_a_pilot_of_choices_and_absent_parameters_has_every_level():
    columns: Columns = {
        "optimizer": ["sgd", "adam", "lamb"] * 10,
        "momentum": [0.1 * (number % 9) if number % 3 == 0 else None for number in range(30)],
    }
    chosen = pilot_trials(columns, None, range(30), 5)
    assert {columns["optimizer"][number] for number in chosen} == {"sgd", "adam", "lamb"}
    assert pilot_trials({}, None, [0, 1], 5) == [0, 1]


def test_a_pilot_runs_its_trials_and_ends_while_the_others_wait():
    only = {3, 7, 11}
    scheduler = Scheduler(bytes(20), [0] * 20, unmeasured(20), retries=1, grace_s=1.0, only=only)
    decisions = scheduler.handle(WorkerJoined(0, 1), 0.0)
    run: list[int] = []
    while assigned := [one for one in decisions if isinstance(one, Assign)]:
        decisions = []
        for one in assigned:
            for number, attempt in zip(one.numbers, one.attempts, strict=True):
                run.append(number)
                block = EndedBlock(0, 0, [number], [attempt], [2], [0.0], [1.0], {}, [], [])
                decisions += scheduler.handle(TrialsEnded(block), float(len(run)))
                scheduler.check()
    assert set(run) == only
    assert decisions[-1] == End(EndReason.PILOT)
    assert scheduler.count(TrialState.WAITING) == 17


def test_a_stopped_pilot_ends_for_that_reason():
    scheduler = Scheduler(bytes(9), [0] * 9, unmeasured(9), retries=1, grace_s=1.0, only={1})
    assert scheduler.handle(StopRequested(EndReason.SIGNAL), 0.0)[-1] == End(EndReason.SIGNAL)


def test_a_run_keeps_its_first_prediction():
    state = SweepState()
    opening = RunRecord("r", 0, "h", 1, 1.0, 2, "", "", [], "0", "", "", {}, deadline=99.0)
    records = [opening, PredictedRecord(50.0, 60.0, 3), PredictedRecord(70.0, 80.0, 9)]
    for offset, record in enumerate(records):
        assert decode(encode(record)) == record
        assert is_valid(record)
        apply(state, Entry("r-000000.aaaaaa", offset + 1, record))
    table = state.allocations
    assert (table["predicted_time"], table["predicted_bound"]) == ([50.0], [60.0])
    assert (table["predicted_after"], table["deadline"]) == ([3], [99.0])
    assert not is_valid(PredictedRecord(50.0, 60.0, -1))


@pytest.mark.parametrize("trials", [700, 100_000])
def test_the_prediction_of_a_running_master_takes_a_moment(trials, tell):
    ahead = Ahead(alike(1000, 60.0), list(range(1000)) * (trials // 1000) or range(trials))
    started = time.process_time()
    found = plain_prediction(ahead, 64, 0)
    took_s = time.process_time() - started
    tell(f"predicting {trials:,} trials takes the master {1000 * took_s:.0f} ms of CPU time")
    assert found is not None
    assert found[0] == pytest.approx(60.3 * trials / 64, rel=0.1)
    assert took_s < 2


# ------------------------------------------------------------------------------------- sizes


def test_sizes_double_until_every_trial_has_a_worker_or_the_site_gives_no_more():
    node = Machine("node", 4, "nodes")
    assert doubling(node, 700, 1) == [1, 2, 4, 8, 16, 32, 64, 128]
    assert doubling(node, 20, 1) == [1, 2, 4, 8]
    assert doubling(node, 20, 8) == [2, 4, 8, 16, 32, 64]
    assert doubling(Machine("node", 4, "nodes", most=6), 700, 1) == [1, 2, 4, 6]
    assert doubling(node, 700, 1, given=[3, 1]) == [1, 3]


def test_a_site_says_how_many_workers_a_node_has_and_what_its_jobs_may_ask_for():
    there = at_site(load_site("flow-cx"), Wishes(), 1.0)
    assert (there.unit, there.workers(2)) == ("node", 8)
    assert at_site(load_site("genkai"), Wishes(group="b-batch"), 1.0).longest_s(1) is not None
    shared = at_site(load_site("flow-cx-share"), Wishes(), 0.5)
    assert (shared.unit, shared.workers(1)) == ("GPU", 2)
    with pytest.raises(SiteError, match="does not state the GPUs per node"):
        at_site(load_site("slurm"), Wishes(), 1.0)


def test_a_machine_without_a_known_limit_allows_any_time():
    assert Machine("node", 1, "nodes").longest_s(4) is None
    assert Machine("node", 1, "nodes", group=ResourceGroup("batch")).longest_s(4) is None
