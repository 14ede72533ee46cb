"""The search for the largest batch that fits in memory, and for the fastest."""

from __future__ import annotations

from math import ceil, log2
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpisweep.records import Direction, FailureCause, TrialState
from mpisweep.search import LargestBatch, make_sampler
from mpisweep.spec import SpecError, parse_spec
from mpisweep.spec.space import Choice, IntegerRange, SearchSpace

COMPLETE, FAILED = int(TrialState.COMPLETE), int(TrialState.FAILED)


class SearchRun:
    """A search, and trials that run as it requests them."""

    def __init__(self, parameter, fits, speed, broken=frozenset()) -> None:
        self.search = LargestBatch(SearchSpace((parameter,)), "speed", Direction.MAXIMIZE)
        self.ran: list[float] = []
        self.lost = 0
        waiting = [self.search[0]]
        while waiting:
            for configuration in waiting:
                [size] = configuration.values()
                assert size not in self.ran, "a size was requested twice"
                number = len(self.ran)
                self.ran.append(size)
                self.search.add(number, configuration)
                if size in broken:
                    self.search.note(number, FAILED, int(FailureCause.EXCEPTION), None)
                elif fits(size):
                    self.search.note(number, COMPLETE, 0, speed(size))
                else:
                    self.lost += 1
                    self.search.note(number, FAILED, int(FailureCause.OUT_OF_MEMORY), None)
            waiting = self.search.ask()


def saturating(size: float) -> float:
    return size / (size + 40)


@settings(deadline=None)
@given(st.integers(1, 2000), st.data())
def test_the_largest_that_fits_is_found_in_about_log2_trials(count, data):
    room = data.draw(st.integers(0, count))
    run = SearchRun(IntegerRange("n", 1, count), lambda size: size <= room, saturating)
    fitting = [size for size in run.ran if size <= room]
    assert max(fitting, default=0) == room
    assert run.lost <= ceil(log2(count + 1))
    assert len(run.ran) <= ceil(log2(count + 1)) + 3 + 4


@settings(deadline=None)
@given(st.integers(1, 700), st.integers(1, 700))
def test_the_fastest_is_found_to_within_a_factor_of_1_3_if_speed_has_one_peak_near_the_largest(room, peak):
    peak = max(min(peak, room), room // 4, 1)
    run = SearchRun(
        IntegerRange("n", 1, 700), lambda size: size <= room, lambda size: -abs(log2(size / peak))
    )
    fastest = min((size for size in run.ran if size <= room), key=lambda size: abs(log2(size / peak)))
    assert abs(log2(fastest / peak)) <= log2(1.3) or abs(fastest - peak) <= 2


def test_the_search_ends_with_a_noisy_speed_too():
    run = SearchRun(
        IntegerRange("n", 1, 700), lambda size: size <= 412, lambda size: hash(size * 7919) % 1000
    )
    assert len(run.ran) < 30


def test_sizes_in_any_order_and_with_gaps():
    sizes = (256, 16, 1024, 64, 512, 32)
    run = SearchRun(Choice("n", sizes), lambda size: size <= 512, saturating)
    assert max(size for size in run.ran if size <= 512) == 512
    assert 1024 in run.ran


def test_a_size_that_fails_for_another_reason_is_avoided():
    run = SearchRun(IntegerRange("n", 1, 100), lambda size: size <= 60, saturating, broken={50, 75, 63, 64})
    assert max(size for size in run.ran if size <= 60) == 60


def test_a_search_in_which_nothing_fits_ends():
    run = SearchRun(IntegerRange("n", 1, 700), lambda size: False, saturating)
    assert len(run.ran) == run.lost <= 10


def parse(text: str):
    return parse_spec(text, source="s.toml", folder=Path("/"))


def test_the_objective_of_the_built_in_workload_is_its_speed():
    spec = parse(
        'workload = "resnet50"\nsearch = "largest_batch"\n[parameters]\nbatch_size = { from = 1, to = 700 }\n'
    )
    assert (spec.objective, spec.direction) == ("images_per_second", Direction.MAXIMIZE)
    assert spec.space.memory == {"batch_size": "increasing"}
    assert isinstance(make_sampler(spec), LargestBatch)


@pytest.mark.parametrize(("text", "problem"), [
    ('objective = "v"\n[parameters]\nn = { from = 1, to = 9 }\nm = [1, 2]\n', "parameters: has 2 entries; search"),
    ('objective = "v"\n[parameters]\nn = { from = 0.5, to = 9.0 }\n', "needs finitely many numbers above 0"),
    ('objective = "v"\n[parameters]\nn = ["a", "b"]\n', "needs finitely many numbers above 0"),
    ('objective = "v"\n[parameters]\nn = { from = 0, to = 9 }\n', "needs finitely many numbers above 0"),
    ('objective = "v"\n'
     '[parameters]\n'
     'n = { from = 1, to = 9, memory = "decreasing" }\n', "needs 'increasing'"),
    ('objective = "v"\n'
     'trials = 9\n'
     '[parameters]\n'
     'n = { from = 1, to = 9 }\n', "trials: does not apply to search = \"largest_batch\", which ends by itself"),
    ("[parameters]\nn = { from = 1, to = 9 }\n", "objective: is missing"),
])  # fmt: skip
def test_a_search_that_lacks_something_is_refused_in_one_sentence(text, problem):
    with pytest.raises(SpecError, match=r"s\.toml: ") as raised:
        parse('workload = "m:f"\nsearch = "largest_batch"\n' + text)
    assert problem in str(raised.value)
