"""`order = "spread"`: at any time, the trials that have run cover the grid evenly."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scheduler import ended

from mpisweep.master.known import duration_model
from mpisweep.records import Slot
from mpisweep.scheduling.decisions import Assign
from mpisweep.scheduling.events import WorkerJoined
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search import make_sampler
from mpisweep.search.numbering import Known, number_trials
from mpisweep.search.spread import places, spread
from mpisweep.spec import Spec, parse_spec


def spec_of(text: str) -> Spec:
    return parse_spec(f'workload = "m:f"\norder = "spread"\n{text}', source="s.toml", folder=Path())


def order_of(text: str, known: Known | None = None) -> list[dict[str, object]]:
    """Return the configurations in the order in which they are assigned."""
    spec = spec_of(text)
    trials = number_trials(spec, make_sampler(spec), known)
    model = duration_model(spec, trials, None)
    return [dict(trials.configuration(n)) for n in reversed(model.next_last(range(trials.count)))]


def longest_gap(positions: Sequence[int], count: int) -> int:
    return int(np.diff([-1, *sorted(positions), count]).max())


def test_after_a_tenth_of_a_grid_no_gap_is_twice_as_long_as_the_mean(tell) -> None:  # type: ignore[no-untyped-def]
    sizes = [c["a"] for c in order_of("[parameters]\na = { from = 1, to = 700 }")]
    assert sorted(sizes) == list(range(1, 701))  # type: ignore[type-var]
    gap = longest_gap([int(str(size)) - 1 for size in sizes[:70]], 700)
    tell(f"longest gap after 70 of 700: {gap}, the mean is 10")
    assert gap <= 20
    assert longest_gap([int(str(size)) - 1 for size in sizes[:7]], 700) <= 200


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 2000), st.floats(0.05, 0.5))
def test_every_prefix_of_a_line_covers_it_evenly(count: int, part: float) -> None:
    first = max(2, int(part * count))
    order = spread([count], range(count))
    assert sorted(order) == list(range(count))
    # Rounding to whole positions can lengthen a gap by one, and each end adds half a gap.
    assert longest_gap(order[:first], count) <= 2 * count / first + 1


def test_after_a_tenth_every_value_of_every_parameter_was_tried_equally_often() -> None:
    shape = (10, 10, 7)
    tenth = np.unravel_index(spread(shape, range(700))[:70], shape)
    for axis, count in zip(tenth, shape, strict=True):
        tried = np.bincount(axis, minlength=count)
        assert tried.min() >= 70 / count / 2
        assert tried.max() <= 70 / count * 1.5


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 6), max_size=3), st.randoms())
def test_every_point_that_constraints_leave_comes_once(shape: list[int], random) -> None:  # type: ignore[no-untyped-def]
    indices = [index for index in range(int(np.prod(shape))) if random.random() < 0.5]
    assert sorted(spread(shape, indices)) == list(range(len(indices)))


def test_a_grid_with_holes_and_conditional_parameters_is_covered_evenly() -> None:
    found = order_of(
        """where = "a % 3 != 0"
        [parameters]
        a = { from = 1, to = 90 }
        kind = ["x", "y"]
        b = { from = 1, to = 3, when = "kind == 'x'" }
        """
    )
    assert len(found) == 60 * 4
    tenth = found[:24]
    assert longest_gap([int(str(c["a"])) for c in tenth], 91) <= 20
    assert 2 <= sum(c["kind"] == "y" for c in tenth) <= 10


def test_a_list_of_points_is_halved_repeatedly() -> None:
    values = list(range(64))
    found = [int(str(c["a"])) for c in order_of(f"points = {{ a = {values} }}")]
    assert found[:4] == [0, 32, 16, 48]
    assert sorted(found) == values


def test_trial_numbers_follow_the_grid_and_the_baseline_runs_first() -> None:
    text = "[parameters]\na = { from = 1, to = 50 }\n[baseline]\na = 99"
    spec = spec_of(text)
    trials = number_trials(spec, make_sampler(spec), None)
    assert trials.parameters["a"] == [*range(1, 51), 99]
    assert order_of(text)[0] == {"a": 99}
    # A resumed sweep that has grown has other numbers but is ordered evenly, too.
    grown = spec_of(text.replace("50", "100"))
    known = Known(trials.parameters, trials.states, trials.attempts, trials.baseline)
    after = number_trials(grown, make_sampler(grown), known)
    place = places(grown, after)
    assert place is not None
    ordered = sorted(range(after.count), key=place.__getitem__)
    assert longest_gap([int(str(after.parameters["a"][n])) - 1 for n in ordered[:10]], 100) <= 20


def test_the_default_order_is_longest_first() -> None:
    spec = parse_spec(
        'workload = "m:f"\n[parameters]\nbatch_size = { from = 1, to = 9 }', source="s", folder=Path()
    )
    trials = number_trials(spec, make_sampler(spec), None)
    assert places(spec, trials) is None
    assert duration_model(spec, trials, None).next_last(range(9))[-1] == 8


@pytest.mark.parametrize("learns", [False, True])
def test_the_scheduler_assigns_trials_in_that_order_whatever_their_durations(learns: bool) -> None:
    spec = spec_of("[parameters]\nbatch_size = { from = 1, to = 40 }")
    trials = number_trials(spec, make_sampler(spec), None)
    place = places(spec, trials)
    assert place is not None
    model = duration_model(spec, trials, None)
    scheduler = Scheduler(trials.states, trials.attempts, model, retries=0, grace_s=1.0)
    given: deque[tuple[int, int]] = deque()
    started: list[int] = []
    decisions = scheduler.handle(WorkerJoined(0, 1), 0.0)
    while True:
        for decision in decisions:
            if isinstance(decision, Assign):
                given.extend(zip(decision.numbers, decision.attempts, strict=True))
        if not given:
            break
        number, attempt = given.popleft()
        started.append(number)
        seconds = 10.0 * (number + 1) if learns else 1.0
        decisions = scheduler.handle(ended(Slot(0, 0), [(number, attempt)], wall_time_s=seconds), 0.0)
        scheduler.check()
    assert started == sorted(range(40), key=place.__getitem__)


def test_a_million_points_are_ordered_in_seconds(tell) -> None:  # type: ignore[no-untyped-def]
    begun = time.perf_counter()
    order = spread((100, 100, 100), range(1_000_000))
    seconds = time.perf_counter() - begun
    tell(f"an even order of 1,000,000 points: {seconds:.2f} s")
    assert len(set(itertools.islice(order, 1000))) == 1000
    assert seconds < 30
