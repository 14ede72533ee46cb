"""The memory frontier without a scheduler: any threshold, number of devices, order of ends."""

from __future__ import annotations

from collections import Counter
from math import ceil, isqrt, log2
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpisweep.records import FailureCause, TrialState
from mpisweep.search.bisection import aim
from mpisweep.search.evidence import Evidence, evidence_of
from mpisweep.search.frontier import MemoryFrontier
from mpisweep.search.lines import Lines
from mpisweep.search.probing import Probing

WAITING, RUNNING, COMPLETE, FAILED, INFEASIBLE = (
    int(state)
    for state in (
        TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.FAILED, TrialState.INFEASIBLE
    )
)  # fmt: skip


class Devices:
    """Devices that run trials in random order and run out of memory if `fits` is false."""

    def __init__(self, columns, directions, fits, kinds, *, random: Random, all_joined: bool = True) -> None:
        self.frontier = MemoryFrontier(columns, directions)
        self.count = len(next(iter(columns.values())))
        self.fits = fits
        self.random = random
        self.all_joined = all_joined
        self.states = [WAITING] * self.count
        self.free = self.frontier.hold(range(self.count))
        self.bound: dict[str, list[int]] = {kind: [] for kind in kinds}
        self.kinds = list(kinds)
        self.running: list[int | None] = [None] * len(kinds)
        self.lost: list[int] = []
        self.why: dict[int, str] = {}
        for kind in kinds:
            self.frontier.join(kind)

    def turn(self) -> None:
        """Plan, assign, and check the invariants."""
        idle = Counter(
            kind for kind, runs in zip(self.kinds, self.running, strict=True)
            if runs is None and not self.free and not self.bound[kind]
        )  # fmt: skip
        plan = self.frontier.plan(self.states, idle, all_joined=self.all_joined)
        for number in plan.withheld:
            for queue in (self.free, *self.bound.values()):
                if number in queue:
                    queue.remove(number)
        self.free += plan.free
        for kind in self.bound:
            self.bound[kind][:0] = [number for number, where in plan.first if where == kind]
        for number, why in plan.infeasible:
            assert self.states[number] == WAITING
            assert not any(self.fits(number, kind) for kind in self.kinds), f"{number} would have fitted"
            self.states[number] = INFEASIBLE
            self.why[number] = why
        for place, kind in enumerate(self.kinds):
            queue = self.bound[kind] or self.free
            if self.running[place] is None and queue:
                self.running[place] = queue.pop(0 if queue is self.bound[kind] else -1)
                self.states[self.running[place]] = RUNNING
        queued = self.free + [n for queue in self.bound.values() for n in queue]
        waiting = sorted([*queued, *self.frontier])
        assert waiting == [n for n, state in enumerate(self.states) if state == WAITING]
        assert len(self.frontier) == len(list(self.frontier))

    def end_one(self) -> None:
        place = self.random.choice([p for p, runs in enumerate(self.running) if runs is not None])
        number, kind = self.running[place], self.kinds[place]
        self.running[place] = None
        if self.fits(number, kind):
            self.states[number] = COMPLETE
            self.frontier.learn(number, kind, Evidence.FITS)
            return
        self.frontier.learn(number, kind, Evidence.TOO_LARGE)
        if self.frontier.has_room_elsewhere(number, kind):
            self.states[number] = WAITING
            self.free += self.frontier.hold([number])
        else:
            self.states[number] = FAILED
            self.lost.append(number)

    def run(self) -> None:
        self.turn()
        while any(runs is not None for runs in self.running):
            self.end_one()
            self.turn()
        assert WAITING not in self.states, "a trial waits for ever"


def line(count: int, threshold: int, workers: int, seed: int = 0) -> Devices:
    """Run the sizes 1 to `count`, of which those up to `threshold` fit."""
    columns = {"batch_size": list(range(1, count + 1))}
    devices = Devices(
        columns,
        {"batch_size": "increasing"},
        lambda n, _: n < threshold,
        ["gpu"] * workers,
        random=Random(seed),
    )
    devices.run()
    return devices


def at_most_lost(count: int, workers: int) -> int:
    """Trials that bisection may lose, plus those on devices that would be idle otherwise."""
    return ceil(log2(count + 1)) + 1 + (0 if workers == 1 else min(workers, isqrt(2 * count)))


@settings(deadline=None, max_examples=200)
@given(st.integers(2, 300), st.data(), st.integers(1, 9), st.integers(0, 1000))
def test_whatever_the_threshold_all_that_fits_runs_and_few_are_lost(count, data, workers, seed):
    threshold = data.draw(st.integers(0, count))
    devices = line(count, threshold, workers, seed)
    assert devices.states.count(COMPLETE) == threshold
    assert len(devices.lost) <= at_most_lost(count, workers)


@pytest.mark.parametrize("workers", [1, 2, 4, 8, 64])
@pytest.mark.parametrize("threshold", [1, 5, 100, 411, 412, 413, 699])
def test_of_seven_hundred_sizes_about_ten_are_lost(workers, threshold):
    devices = line(700, threshold, workers)
    assert devices.states.count(INFEASIBLE) == 700 - threshold - len(devices.lost)
    assert len(devices.lost) <= 10 + (workers if threshold < 40 else workers // 16)


def test_where_everything_fits_nothing_is_lost_and_nothing_inferred():
    devices = line(700, 700, 3)
    assert devices.states == [COMPLETE] * 700


def test_where_nothing_fits_it_takes_log2_trials_to_know():
    devices = line(700, 0, 1)
    assert len(devices.lost) == 9
    assert devices.why[699] == "batch_size 350 ran out of memory on gpu; what needs more was not run"


def test_idle_devices_get_the_next_probes_as_if_the_running_ones_failed():
    frontier = MemoryFrontier({"x": list(range(700))}, {"x": "increasing"})
    frontier.hold(range(700))
    for _ in range(4):
        frontier.join("gpu")
    plan = frontier.plan([WAITING] * 700, {"gpu": 4}, all_joined=True)
    assert [number for number, _ in plan.first] == [349, 174, 86, 42]


def test_trials_smaller_than_a_completed_one_are_free():
    frontier = MemoryFrontier({"x": list(range(9))}, {"x": "increasing"})
    frontier.hold(range(9))
    frontier.join("gpu")
    states = [WAITING] * 9
    [(probe, _)] = frontier.plan(states, {"gpu": 1}, all_joined=True).first
    states[probe] = COMPLETE
    frontier.learn(probe, "gpu", Evidence.FITS)
    assert frontier.plan(states, {}, all_joined=True).free == [0, 1, 2, 3]


def test_nothing_is_inferred_while_something_runs_that_may_show_the_contrary():
    frontier = MemoryFrontier({"x": list(range(9))}, {"x": "increasing"})
    frontier.hold(range(9))
    for _ in range(2):
        frontier.join("gpu")
    states = [WAITING] * 9
    [(large, _), (small, _)] = frontier.plan(states, {"gpu": 2}, all_joined=True).first
    states[large] = states[small] = RUNNING
    states[small] = FAILED
    frontier.learn(small, "gpu", Evidence.TOO_LARGE)
    assert frontier.plan(states, {}, all_joined=True).infeasible == []
    states[large] = COMPLETE
    frontier.learn(large, "gpu", Evidence.FITS)
    plan = frontier.plan(states, {}, all_joined=True)
    assert plan.infeasible == []
    assert [*plan.free, small] == [2, 3, small]


def test_a_probe_that_has_not_started_is_withheld_again_if_a_smaller_one_was_too_large():
    frontier = MemoryFrontier({"x": list(range(9))}, {"x": "increasing"})
    frontier.hold(range(9))
    for _ in range(2):
        frontier.join("gpu")
    states = [WAITING] * 9
    [(large, _), (small, _)] = frontier.plan(states, {"gpu": 2}, all_joined=True).first
    states[small] = FAILED
    frontier.learn(small, "gpu", Evidence.TOO_LARGE)
    plan = frontier.plan(states, {}, all_joined=True)
    assert plan.withheld == [large]
    assert large in [number for number, _ in plan.infeasible]


def test_nothing_is_inferred_before_all_workers_have_joined():
    columns = {"x": list(range(9))}
    devices = Devices(
        columns, {"x": "increasing"}, lambda n, _: n < 4, ["gpu"], random=Random(0), all_joined=False
    )
    devices.turn()
    while devices.running[0] is not None:
        devices.end_one()
        devices.turn()
    assert INFEASIBLE not in devices.states
    devices.all_joined = True
    devices.turn()
    assert devices.states.count(INFEASIBLE) == 5 - len(devices.lost)


def test_a_trial_that_failed_for_another_reason_says_nothing_and_does_not_stop_the_search():
    columns = {"x": list(range(50))}
    devices = Devices(columns, {"x": "increasing"}, lambda n, _: n < 30, ["gpu"] * 2, random=Random(0))
    devices.turn()
    number = devices.running[0]
    devices.running[0], devices.states[number] = None, FAILED
    devices.frontier.learn(number, "gpu", Evidence.NOTHING)
    devices.run()
    assert devices.states.count(COMPLETE) == 29


def test_memory_may_decrease_with_a_parameter():
    columns = {"accumulation": [1, 2, 4, 8, 16, 32]}
    devices = Devices(columns, {"accumulation": "decreasing"}, lambda n, _: n >= 3, ["gpu"], random=Random(0))
    devices.run()
    assert [n for n, state in enumerate(devices.states) if state == COMPLETE] == [3, 4, 5]
    assert len(devices.lost) < 3


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 6), st.integers(2, 60), st.integers(1, 9), st.integers(0, 1000), st.data())
def test_trials_that_differ_in_something_else_have_a_frontier_of_their_own(
    groups, count, workers, seed, data
):
    thresholds = data.draw(st.lists(st.integers(0, count), min_size=groups, max_size=groups))
    columns = {"lr": [g for g in range(groups) for _ in range(count)], "x": list(range(count)) * groups}
    devices = Devices(
        columns, {"x": "increasing"}, lambda n, _: n % count < thresholds[n // count], ["gpu"] * workers,
        random=Random(seed),
    )  # fmt: skip
    devices.run()
    assert devices.states.count(COMPLETE) == sum(thresholds)
    assert len(devices.lost) <= groups * (2 * ceil(log2(count + 1)) + 2) + min(
        workers, groups * isqrt(2 * count)
    )


def test_where_the_frontiers_are_the_same_each_further_one_costs_one_trial():
    columns = {"lr": [g for g in range(10) for _ in range(700)], "x": list(range(700)) * 10}
    devices = Devices(columns, {"x": "increasing"}, lambda n, _: n % 700 < 412, ["gpu"] * 4, random=Random(0))
    devices.run()
    assert devices.states.count(COMPLETE) == 4120
    assert len(devices.lost) <= 10 + 9 + 4


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 6), st.integers(2, 30), st.integers(1, 400), st.integers(1, 5), st.integers(0, 1000))
def test_memory_may_increase_with_two_parameters(sizes, count, room, workers, seed):
    image = [size for size in range(1, sizes + 1) for _ in range(count)]
    batch = list(range(1, count + 1)) * sizes
    devices = Devices(
        {"batch": batch, "image": image}, {"batch": "increasing", "image": "increasing"},
        lambda n, _: batch[n] * image[n] ** 2 <= room, ["gpu"] * workers, random=Random(seed),
    )  # fmt: skip
    devices.run()
    assert devices.states.count(COMPLETE) == sum(b * i**2 <= room for b, i in zip(batch, image, strict=True))
    assert len(devices.lost) <= sizes * (2 * ceil(log2(count + 1)) + 2) + min(
        workers, sizes * isqrt(2 * count)
    )


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 80), st.data(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 1000))
def test_what_is_too_large_for_one_kind_of_device_runs_on_another(count, data, small, large, seed):
    thresholds = {"small": data.draw(st.integers(0, count)), "large": data.draw(st.integers(0, count))}
    devices = Devices(
        {"x": list(range(count))}, {"x": "increasing"}, lambda n, kind: n < thresholds[kind],
        ["small"] * small + ["large"] * large, random=Random(seed),
    )  # fmt: skip
    devices.run()
    assert devices.states.count(COMPLETE) == max(thresholds.values())


def test_a_kind_of_device_that_joins_late_is_not_given_what_was_only_seen_to_fit_elsewhere():
    frontier = MemoryFrontier({"x": list(range(9))}, {"x": "increasing"})
    frontier.hold(range(8))
    frontier.join("large")
    frontier.learn(8, "large", Evidence.FITS)
    states = [WAITING] * 8 + [COMPLETE]
    assert frontier.plan(states, {}, all_joined=True).free == list(range(8))
    frontier.join("small")
    plan = frontier.plan(states, {"small": 1}, all_joined=True)
    assert plan.withheld == list(range(8))
    assert {kind for _, kind in plan.first} == {"small", "large"}


def test_a_trial_reclaimed_while_another_kind_of_device_joins_is_withheld_once():
    frontier = MemoryFrontier({"x": list(range(9))}, {"x": "increasing"})
    frontier.hold(range(8))
    frontier.join("large")
    frontier.learn(8, "large", Evidence.FITS)
    states = [WAITING] * 8 + [COMPLETE]
    frontier.plan(states, {}, all_joined=True)
    frontier.join("small")
    assert frontier.hold([3]) == []
    plan = frontier.plan(states, {}, all_joined=True)
    assert sorted([*frontier, *(number for number, _ in plan.first)]) == list(range(8))


def test_a_further_device_of_a_kind_gets_what_fits_on_that_kind_alone():
    frontier = MemoryFrontier({"x": list(range(9))}, {"x": "increasing"})
    frontier.hold(range(8))
    for kind in ("large", "small"):
        frontier.join(kind)
    frontier.learn(8, "large", Evidence.FITS)
    frontier.learn(0, "small", Evidence.TOO_LARGE)
    states = [FAILED, *[WAITING] * 7, COMPLETE]
    assert len(frontier.plan(states, {}, all_joined=True).first) == 2
    frontier.join("large")
    assert frontier.is_due({"large": 1}, all_joined=True)
    assert len(frontier.plan(states, {"large": 1}, all_joined=True).first) == 2


def test_trials_without_a_comparable_one_are_free():
    frontier = MemoryFrontier({"lr": [0.1, 0.2, 0.3], "x": [1, 2, 3]}, {"x": "increasing"})
    assert frontier.hold(range(3)) == [0, 1, 2]


def test_a_completed_trial_outweighs_a_smaller_one_that_was_too_large():
    frontier = MemoryFrontier({"x": list(range(9))}, {"x": "increasing"})
    frontier.learn(3, "gpu", Evidence.TOO_LARGE)
    frontier.learn(5, "gpu", Evidence.FITS)
    frontier.hold([0, 1, 2, 4, 6, 7, 8])
    frontier.join("gpu")
    states = [WAITING] * 9
    states[3], states[5] = FAILED, COMPLETE
    plan = frontier.plan(states, {}, all_joined=True)
    assert plan.free == [0, 1, 2, 4]
    assert plan.infeasible == []


@given(st.integers(-1, 500), st.integers(2, 500), st.integers(0, 1100) | st.none())
def test_the_next_probe_is_always_in_between(low, width, expected):
    high = low + width
    assert low < aim(low, high, expected) < high


@pytest.mark.parametrize(("state", "cause", "shows"), [
    (COMPLETE, FailureCause.NONE, Evidence.FITS),
    (FAILED, FailureCause.OUT_OF_MEMORY, Evidence.TOO_LARGE),
    (FAILED, FailureCause.TIMEOUT, Evidence.FITS),
    (FAILED, FailureCause.EXCEPTION, Evidence.NOTHING),
    (FAILED, FailureCause.CRASH, Evidence.NOTHING),
    (FAILED, FailureCause.LOST, Evidence.NOTHING),
])  # fmt: skip
def test_the_evidence_of_each_end_about_memory(state, cause, shows):
    assert evidence_of(state, cause) is shows


def test_lines_know_where_each_trial_is():
    lines = Lines({"x": [1, 2, 3], "lr": [1.0, 1.0, 1.0]}, {"x": "increasing"})
    line, position = lines.places[1]
    assert position == 1
    lines.withhold(line, position)
    assert (lines.withheld, line.holds(1)) == (1, True)
    lines.hand_out(line, position, "gpu")
    assert (lines.withheld, line.holds(1), line.out, lines.out["gpu"]) == (0, False, {1: "gpu"}, 1)
    lines.withhold(line, position)
    assert (lines.withheld, line.out, lines.out["gpu"]) == (1, {}, 0)


def test_a_trial_without_a_comparable_one_is_in_no_line():
    lines = Lines({"x": [1, 2, 3], "lr": [1.0, 1.0, 2.0]}, {"x": "increasing"})
    assert sorted(lines.places) == [0, 1]
    assert [line.numbers for line in lines] == [[0, 1]]


def test_trials_for_which_there_are_too_few_slots_are_no_candidates():
    lines = Lines({"x": list(range(6))}, {"x": "increasing"})
    [line] = lines
    for position in range(6):
        lines.withhold(line, position)
    lines.can_run = lambda number: number % 2 == 0
    assert lines.candidates(line, 0, 5) == [2, 4]


def probing_of(count: int) -> tuple[Lines, Probing]:
    lines = Lines({"x": list(range(count))}, {"x": "increasing"})
    [line] = lines
    for position in range(count):
        lines.withhold(line, position)
    probing = Probing(lines)
    probing.look_at([line], "gpu")
    return lines, probing


def test_one_probe_is_under_way_and_idle_devices_get_the_next_ones_if_it_were_too_large():
    lines, probing = probing_of(33)
    first: list[tuple[int, str]] = []
    probing.probe("gpu", lines.groups, first)
    probing.probe("gpu", lines.groups, first)
    assert first == [(16, "gpu")]
    probing.occupy("gpu", 3, first)
    assert [number for number, _ in first[1:]] == [7, 3, 1]


def test_a_line_without_anything_left_for_idle_devices_is_not_searched_again():
    lines, probing = probing_of(4)
    first: list[tuple[int, str]] = []
    # The second call searches below the trials of the first.
    probing.occupy("gpu", 40, first)
    probing.occupy("gpu", 40, first)
    probing.feed("gpu", 20, first)
    assert not probing.may_occupy("gpu")
    [line] = lines
    probing.look_at([line], "gpu")
    assert probing.may_occupy("gpu")
