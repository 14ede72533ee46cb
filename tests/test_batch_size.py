"""The search for the best batch size: simulated landscapes, what it rebuilds, and what it refuses."""

from __future__ import annotations

import random
from math import exp, inf, log, log2
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpisweep.blocks import EndedBlock
from mpisweep.records import Direction, FailureCause, TrialState
from mpisweep.search import make_sampler
from mpisweep.search.batch_size import BatchSizeSearch
from mpisweep.search.tuning import Line
from mpisweep.spec import SpecError, parse_spec
from mpisweep.spec.space import FloatRange, IntegerRange, SearchSpace
from mpisweep.trend import fit_trend

COMPLETE, FAILED = TrialState.COMPLETE, TrialState.FAILED
OUT_OF_MEMORY = FailureCause.OUT_OF_MEMORY
AXES = ("steps", "samples", "seconds")
SIZES = IntegerRange("batch_size", 1, 700)
RATES = FloatRange("learning_rate", 1e-4, 1.0, None, True, 8)


def block(number, metrics, state=COMPLETE, cause=FailureCause.NONE):
    found = {name: [value] for name, value in metrics.items()}
    return EndedBlock(0, 0, [number], [1], [int(state)], [0.0], [1.0], found, [int(cause)], [""])


class Landscape:
    """Losses at three budgets with known best sizes, and one best learning rate per size."""

    def __init__(self, best=(210, 60, 90), noise=0.0, room=inf, seed=0):
        self.best, self.noise, self.room = best, noise, room
        self.random = random.Random(seed)

    def end(self, number, configuration) -> EndedBlock:
        size, rate = configuration["batch_size"], configuration.get("learning_rate")
        if size > self.room:
            return block(number, {}, FAILED, OUT_OF_MEMORY)
        usual = 0.01 * (size / 64) ** 0.5
        if rate is not None and rate > 8 * usual:
            return block(number, {}, FAILED, FailureCause.EXCEPTION)
        beside = 0.0 if rate is None else 0.1 * (log(rate / usual) / log(10)) ** 2
        losses = {
            f"loss_at_{axis}": (0.5 + 0.04 * log2(size / best) ** 2 + beside)
            * exp(self.random.gauss(0, self.noise))
            for axis, best in zip(AXES, self.best, strict=True)
        }
        return block(number, losses | {"loss": 9.0})


class SearchRun:
    """A search whose trials run as it requests them, on some workers, and end in any order."""

    def __init__(self, space, landscape, *, workers=8, seed=0, trials=None, most_ends=10_000):
        self.search = BatchSizeSearch(space, "loss", Direction.MINIMIZE, trials)
        self.configurations, self.ends = [], {}
        self.running, waiting = [], []

        def register(configurations):
            for configuration in configurations:
                assert configuration not in self.configurations, "asked for twice"
                number = len(self.configurations)
                self.configurations.append(configuration)
                self.search.add(number, configuration)
                waiting.append(number)

        register([self.search[index] for index in range(len(self.search))])
        order = random.Random(seed)
        while (waiting or self.running) and len(self.ends) < most_ends:
            while waiting and len(self.running) < workers:
                self.running.append(waiting.pop(0))
            number = self.running.pop(order.randrange(len(self.running)))
            self.ends[number] = landscape.end(number, self.configurations[number])
            self.search.tell(self.ends[number])
            self.asked = self.search.ask()
            if len(self.ends) < most_ends:
                register(self.asked)

    def found(self, axis):
        """The size where the trend through the best values of all sizes is lowest."""
        best = {}
        for number, end in self.ends.items():
            size = self.configurations[number]["batch_size"]
            if f"loss_at_{axis}" in end.metrics:
                best[size] = min(best.get(size, inf), end.metrics[f"loss_at_{axis}"][0])
        x, y = np.log2(list(best)), np.log(list(best.values()))
        at = np.linspace(x.min(), x.max(), 400)
        return 2 ** at[np.argmin(fit_trend(x, y).mean(at))]


def test_the_best_size_at_each_budget_is_found_in_5_percent_of_the_trials():
    run = SearchRun(SearchSpace((SIZES,)), Landscape())
    assert len(run.ends) <= 35
    for axis, best in zip(AXES, (210, 60, 90), strict=True):
        assert abs(log2(run.found(axis) / best)) < 0.06
        # Each budget is refined around its own best size.
        assert sum(abs(log2(c["batch_size"] / best)) < 0.2 for c in run.configurations) >= 5


@pytest.mark.parametrize(("noise", "octaves"), [(0.005, 0.4), (0.02, 0.8)])
def test_noise_of_single_trials_moves_the_best_size_little(noise, octaves):
    """The loss an octave from the best one is 8% larger."""
    space, missed = SearchSpace((SIZES,)), []
    for seed in range(8):
        run = SearchRun(space, Landscape(noise=noise, seed=seed), seed=seed)
        assert len(run.ends) <= 35
        missed += [abs(log2(run.found(axis) / best)) for axis, best in zip(AXES, (210, 60, 90), strict=True)]
    assert np.quantile(missed, 0.9) < octaves
    # The sizes lie where they are needed.
    assert sum(30 <= c["batch_size"] <= 420 for c in run.configurations) > 20


def test_a_best_size_at_the_end_of_the_range_is_found():
    run = SearchRun(SearchSpace((SIZES,)), Landscape(best=(700, 1, 20)))
    assert run.found("steps") > 650
    assert run.found("samples") < 1.1


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 700))
def test_sizes_that_run_out_of_memory_are_few_and_the_largest_that_fits_is_known(room):
    run = SearchRun(SearchSpace((SIZES,)), Landscape(best=(650, 60, 90), room=room), workers=1)
    sizes = sorted(c["batch_size"] for c in run.configurations)
    fits, fails = [s for s in sizes if s <= room], [s for s in sizes if s > room]
    assert fits
    assert max(fits) * 1.1 >= min(room, 700) or max(fits) + 1 == min(fails)
    # Those of the survey, and those of the bisection.
    surveyed = [c["batch_size"] for c in run.configurations[: len(run.search)] if c["batch_size"] > room]
    assert len(fails) - len(surveyed) <= 4


@pytest.mark.parametrize("rates", [RATES, FloatRange("learning_rate", 1e-4, 1.0, log=True)])
def test_the_learning_rate_is_tuned_within_each_size(rates):
    run = SearchRun(SearchSpace((rates, SIZES)), Landscape())
    # 8 learning rates per size.
    assert len(run.ends) <= 0.05 * 8 * 700
    for axis, best in zip(AXES, (210, 60, 90), strict=True):
        assert abs(log2(run.found(axis) / best)) < 0.5
    # Each size has a rate near its best one, in a few trials, wherever its neighbours' best ones are.
    per_size: dict[int, list[float]] = {}
    for configuration in run.configurations:
        per_size.setdefault(configuration["batch_size"], []).append(configuration["learning_rate"])
    for size, tried in per_size.items():
        usual = 0.01 * (size / 64) ** 0.5
        assert min(abs(log(rate / usual)) for rate in tried) < log(2)
    assert np.mean([len(tried) for tried in per_size.values()]) < 7
    assert not any(
        rate > 100 * 0.01 * (size / 64) ** 0.5 for size, tried in per_size.items() for rate in tried
    )


def test_a_size_starts_from_the_best_rate_of_its_neighbours():
    """A rate scales as no rule says: the start is what was measured, not a rule."""

    class Falling(Landscape):
        def end(self, number, configuration):
            usual = 3e-4 * (700 / configuration["batch_size"]) ** 0.8
            return block(number, {"loss": log(configuration["learning_rate"] / usual) ** 2 + 1})

    run = SearchRun(SearchSpace((SIZES, FloatRange("learning_rate", 1e-4, 1.0, log=True))), Falling())
    last = [c for c in run.configurations if c["batch_size"] == 1]
    assert abs(log(last[0]["learning_rate"] / (3e-4 * 700**0.8))) < log(16)
    assert min(abs(log(c["learning_rate"] / (3e-4 * 700**0.8))) for c in last) < log(1.6)


def test_without_metrics_at_budgets_the_objective_itself_is_compared():
    class Plain(Landscape):
        def end(self, number, configuration):
            return block(number, {"loss": 1 + log2(configuration["batch_size"] / 100) ** 2})

    run = SearchRun(SearchSpace((SIZES,)), Plain())
    best = min(run.ends, key=lambda number: run.ends[number].metrics["loss"][0])
    assert abs(run.configurations[best]["batch_size"] - 100) <= 1


def test_a_larger_objective_can_be_better():
    search = BatchSizeSearch(SearchSpace((SIZES,)), "accuracy", Direction.MAXIMIZE)
    for number in range(len(search)):
        search.add(number, search[number])
        size = search[number]["batch_size"]
        search.tell(block(number, {"accuracy": 0.9 - 0.01 * log2(size / 256) ** 2}))
    assert any(200 < configuration["batch_size"] < 330 for configuration in search.ask())


def test_sizes_at_which_everything_fails_are_as_bad_as_the_worst():
    class Broken(Landscape):
        def end(self, number, configuration):
            if configuration["batch_size"] < 100:
                return block(number, {}, FAILED, FailureCause.EXCEPTION)
            return super().end(number, configuration)

    run = SearchRun(SearchSpace((SIZES,)), Broken(best=(210, 300, 400)))
    assert len(run.ends) <= 35
    assert sum(c["batch_size"] < 90 for c in run.configurations) <= 9


@settings(deadline=None, max_examples=40)
@given(st.booleans(), st.integers(0, 60), st.integers(0, 1000), st.sampled_from([inf, 300]))
def test_a_search_that_is_rebuilt_asks_for_the_same(is_tuned, ends, seed, room):
    space = SearchSpace((SIZES, RATES) if is_tuned else (SIZES,))
    run = SearchRun(space, Landscape(noise=0.02, room=room), seed=seed, most_ends=max(1, ends))
    again = BatchSizeSearch(space, "loss", Direction.MINIMIZE)
    for number, configuration in enumerate(run.configurations):
        again.add(number, configuration)
    # In the order of the file, and not in that in which they ended.
    for number in sorted(run.ends):
        again.tell(run.ends[number])
    assert again.ask() == run.asked


def test_the_search_goes_on_with_more_trials():
    space = SearchSpace((SIZES,))
    few = SearchRun(space, Landscape(noise=0.02), trials=20)
    assert len(few.ends) == 20
    again = BatchSizeSearch(space, "loss", Direction.MINIMIZE, 30)
    for number, configuration in enumerate(few.configurations):
        again.add(number, configuration)
        again.tell(few.ends[number])
    assert again.ask()


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 39), st.integers(1, 9), st.integers(1, 3), st.integers(0, 39))
def test_a_line_search_ends_beside_the_best_point(count, peak, stride, near, start):
    peak, start = min(peak, count - 1), min(start, count - 1)
    line = Line(count, stride, near)
    values = {point: abs(point - peak) for point in line.first(start)}
    while (point := line.next(values)) is not None:
        assert point not in values
        assert 0 <= point < count
        values[point] = abs(point - peak)
    assert min(values.values()) <= near
    assert len(values) <= 3 + 2 * log2(count + 1) + 4


def test_a_line_search_walks_down_from_points_that_all_failed():
    line = Line(20, 2, 1)
    assert line.next({15: inf, 17: inf, 19: inf}) == 11
    assert line.next({0: inf, 2: inf}) is None


# ------------------------------------------------------------------------------------- sweep files


def parse(text: str):
    return parse_spec(text, source="s.toml", folder=Path("/"))


def test_the_search_of_a_sweep_file():
    spec = parse(
        'workload = "m:f"\nsearch = "batch_size"\nwhere = "batch_size % 8 == 0"\n'
        "[parameters]\nbatch_size = { from = 1, to = 700 }\nrate = { from = 0.1, to = 0.9, points = 5 }\n"
    )
    assert spec.space.memory == {"batch_size": "increasing"}
    search = make_sampler(spec)
    assert isinstance(search, BatchSizeSearch)
    assert (search.exhaustive, search.most) == (87 * 5, 21)
    assert all(search[index]["batch_size"] % 8 == 0 for index in range(len(search)))


def test_a_constraint_that_excludes_the_first_rates_of_a_size_leaves_others():
    space = parse(
        'workload = "m:f"\nsearch = "batch_size"\nwhere = "rate * 100 <= batch_size"\n'
        "[parameters]\nbatch_size = { from = 1, to = 700 }\n"
        'rate = { from = 0.001, to = 100.0, scale = "log", points = 11 }\n'
    ).space
    search = BatchSizeSearch(space, "loss", Direction.MINIMIZE)
    assert all(search[index]["rate"] * 100 <= search[index]["batch_size"] for index in range(len(search)))
    assert len(search)


@pytest.mark.parametrize(("text", "problem"), [
    ("[parameters]\nn = { from = 1, to = 9 }\n", "s.toml: parameters: has no batch_size; search = \"batch_size\" needs its "
     "range, e.g. 1 to 700"),
    ("[parameters]\nbatch_size = [1, 2]\n", "s.toml: parameters.batch_size: varies over 1, 2; search = \"batch_size\" needs "
     "a range of integers above 0, e.g. 1 to 700"),
    ("[parameters]\nbatch_size = { from = 0, to = 9 }\n", "needs a range of integers above 0"),
    ("[parameters]\nbatch_size = { from = 0.5, to = 9.5 }\n", "needs a range of integers above 0"),
    ('[parameters]\nbatch_size = { from = 1, to = 9, memory = "decreasing" }\n', "needs 'increasing'"),
    ('[parameters]\nbatch_size = { from = 1, to = 9 }\no = ["a", "b"]\n', "parameters.o: varies over 'a', 'b'; search = "
     "\"batch_size\" can only tune a range of real numbers"),
    ("[parameters]\nbatch_size = { from = 1, to = 9 }\na = { from = 0.0, to = 1.0 }\nb = { from = 0.0, to = 1.0 }\n",
     "parameters: has a, b beside batch_size; search = \"batch_size\" tunes at most one parameter"),
    ("repeats = 3\n[parameters]\nbatch_size = { from = 1, to = 9 }\n", "repeats: is 3, but search = \"batch_size\" runs "
     "similar sizes in place of repeats; remove it"),
    ('where = "batch_size > 9"\n[parameters]\nbatch_size = { from = 1, to = 9 }\n', "where: no batch_size satisfies "
     "'batch_size > 9'"),
])  # fmt: skip
def test_a_search_that_lacks_something_is_refused_in_one_sentence(text, problem):
    with pytest.raises(SpecError) as raised:
        make_sampler(parse('workload = "m:f"\nsearch = "batch_size"\n' + text))
    assert problem in str(raised.value)
