"""Assignments near the deadline, in virtual time.

No trial starts that is unlikely to end in time, and no slot is idle that could run one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, EndReason, Slot, TrialState
from mpisweep.scheduling.decisions import Abandon, Assign, Commit, End, Reclaim
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import (
    Event,
    TimePassed,
    TrialsEnded,
    TrialsReclaimed,
    WorkerJoined,
    WorkerLost,
)
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.scheduling.timetable import NOTICE_S

COMPLETE = int(TrialState.COMPLETE)
#: Interval of the TimePassed events, in seconds.
TICK_S = 0.02


def model_of(expected: list[float], uncertainty: float = 1.0) -> DurationModel:
    """A model with these expected durations, whatever it observes."""
    model = DurationModel({"x": expected}, None, len(expected))
    model._expected_s, model._uncertainty, model._next_fit = list(expected), uncertainty, 10**9
    model._log_means = [math.log(seconds) for seconds in expected]
    return model


class Cluster:
    """Workers of one slot each; every message between them and the master takes `latency_s`.

    Args:
        scheduler: decides.
        model: what the scheduler expects.
        takes_s: actual duration of each trial.
        deadline: time at which every trial must have ended.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        model: DurationModel,
        takes_s: list[float],
        deadline: float,
        latency_s: float = 0.0,
    ) -> None:
        self.scheduler, self.model, self.takes_s = scheduler, model, takes_s
        self.deadline, self.latency_s = deadline, latency_s
        self.now = 0.0
        self.held: dict[Slot, list[tuple[int, int]]] = {}
        self.idle_since: dict[Slot, float] = {}
        #: Trial and attempt -> start time.
        self.begun: dict[tuple[int, int], float] = {}
        #: Rank -> number of times it was lost.
        self.lives: Counter[int] = Counter()
        self.committed: list[int] = []
        #: Slots with a pending reclaim.
        self.asked: set[Slot] = set()
        self.end: EndReason | None = None
        self.order = count()
        self.due: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, seconds: float, then: Callable[[], None]) -> None:
        heappush(self.due, (self.now + seconds, next(self.order), then))

    def join(self, ranks: int) -> None:
        for rank in range(ranks):
            self.welcome(rank)

    def welcome(self, rank: int) -> None:
        self.held[Slot(rank, 0)] = []
        self.idle_since[Slot(rank, 0)] = self.now
        self.feed(WorkerJoined(rank, 1, (), f"n{rank // 4}"))

    def lose(self, rank: int) -> None:
        """Lose a worker with the trials it holds; it rejoins as soon as the loss is known."""
        if self.end is None:
            self.lives[rank] += 1
            self.asked.discard(Slot(rank, 0))
            self.feed(WorkerLost(rank))
            self.welcome(rank)

    def run(self) -> None:
        self.tick()
        while self.end is None:
            assert self.due, "nothing happens any more"
            self.now, _, then = heappop(self.due)
            then()

    def tick(self) -> None:
        assert self.now < self.deadline + max(self.takes_s) + 10.0, "the sweep does not end"
        self.feed(TimePassed())
        self.at(TICK_S, self.tick)

    def feed(self, event: Event) -> None:
        if self.end is not None:
            return
        for decision in self.scheduler.handle(event, self.now):
            match decision:
                case Assign(slots, numbers, attempts):
                    pairs = list(zip(numbers, attempts, strict=True))
                    for slot in slots:
                        self.tell(slot, partial(self.take, slot, pairs))
                case Reclaim(slot):
                    assert slot not in self.asked, f"{slot} is asked twice"
                    self.asked.add(slot)
                    self.tell(slot, partial(self.reclaim, slot))
                case Commit(block):
                    self.committed += block.numbers
                case End(reason):
                    self.end = reason
                case Abandon():
                    pass  # in this simulation all ranks of a trial end together
        if self.end is None:
            self.scheduler.check()

    def tell(self, slot: Slot, then: Callable[[], None]) -> None:
        """Send a message to or from a worker; it is dropped if the worker is lost before it arrives."""
        self.later(slot, self.latency_s, then)

    def later(self, slot: Slot, seconds: float, then: Callable[[], None]) -> None:
        life = self.lives[slot.rank]

        def unless_lost() -> None:
            if self.lives[slot.rank] == life:
                then()

        if seconds:
            self.at(seconds, unless_lost)
        else:
            then()

    def take(self, slot: Slot, pairs: list[tuple[int, int]]) -> None:
        self.held[slot] += pairs
        if len(self.held[slot]) == len(pairs):
            self.begin(slot)

    def begin(self, slot: Slot) -> None:
        number, attempt = self.held[slot][0]
        self.idle_since.pop(slot, None)
        if (number, attempt) not in self.begun:
            self.begun[number, attempt] = self.now
            upper_s = self.model.upper_s(number)
            late_s = self.now + (upper_s or 0.0) - self.deadline
            assert late_s <= 2 * self.latency_s + 1e-6, (
                f"trial {number} begins at {self.now}, and will end {late_s} s too late"
            )
        self.later(slot, self.takes_s[number], lambda: self.finish(slot, number, attempt))

    def finish(self, slot: Slot, number: int, attempt: int) -> None:
        self.held[slot].pop(0)
        if self.held[slot]:
            # A worker starts its next trial without waiting for the master.
            self.begin(slot)
        else:
            self.idle_since[slot] = self.now
        block = EndedBlock(slot.rank, 0, [number], [attempt], [COMPLETE], [0.0], [self.takes_s[number]], {})
        self.tell(slot, lambda: self.feed(TrialsEnded(block)))

    def reclaim(self, slot: Slot) -> None:
        back = self.held[slot][1:]
        del self.held[slot][1:]
        event = TrialsReclaimed(
            slot, tuple(n for n, _ in back), tuple(a for _, a in back), AttemptEnd.RECLAIMED
        )
        self.tell(slot, partial(self.answer, slot, event))

    def answer(self, slot: Slot, event: TrialsReclaimed) -> None:
        self.asked.remove(slot)
        self.feed(event)


class Watched(Cluster):
    """A cluster that checks after every event that no slot is idle if a waiting trial could run."""

    def feed(self, event: Event) -> None:
        super().feed(event)
        slots = self.scheduler.core.slots
        if self.end is not None or not slots.idle:
            return
        for number in self.scheduler.core.waiting:
            upper_s = self.model.upper_s(number) or 0.0
            assert self.now + upper_s > self.deadline, (
                f"trial {number} would end in time, and there is an idle slot"
            )
        longest_idle = max((self.now - since for since in self.idle_since.values()), default=0.0)
        if longest_idle > 0.1:
            assert all(len(held) < 2 for held in self.held.values()), (
                "what one has not begun another could run"
            )


DURATIONS = st.lists(st.floats(0.2, 30.0), min_size=4, max_size=25)


@settings(deadline=None, max_examples=60)
@given(DURATIONS, st.data(), st.integers(1, 5), st.floats(1.0, 40.0), st.floats(1.0, 2.0))
def test_no_trial_starts_that_is_unlikely_to_end_before_the_deadline_and_reclaimed_ones_run_once(
    expected, data, workers, deadline, uncertainty
):
    """Trials take between a fifth and five times the expected duration, and messages take 5 ms.

    All workers except one may be lost.
    """
    factors = data.draw(st.lists(st.floats(0.2, 5.0), min_size=len(expected), max_size=len(expected)))
    one = st.tuples(st.floats(0.01, deadline), st.integers(1, max(1, workers - 1)))
    losses = data.draw(st.lists(one, max_size=4 if workers > 1 else 0))
    takes_s = [seconds * factor for seconds, factor in zip(expected, factors, strict=True)]
    model = model_of(expected, uncertainty)
    scheduler = Scheduler(
        bytes(len(expected)), [0] * len(expected), model, retries=9, grace_s=1.0, deadline=deadline
    )
    cluster = Cluster(scheduler, model, takes_s, deadline, latency_s=0.005)
    for seconds, rank in losses:
        cluster.at(seconds, partial(cluster.lose, rank))
    cluster.join(workers)
    cluster.run()
    committed = cluster.committed
    assert len(committed) == len(set(committed))
    assert cluster.end is (EndReason.COMPLETE if len(committed) == len(expected) else EndReason.WALLTIME)
    begun = Counter(number for number, _ in cluster.begun)
    # A lost worker loses its running trial, and the one before if the message of its end was in transit.
    assert begun.total() <= len(committed) + 2 * len(losses), "only what was lost is begun twice"


@settings(deadline=None, max_examples=60)
@given(DURATIONS, st.data(), st.integers(1, 5), st.floats(1.0, 40.0))
def test_while_the_model_learns_no_slot_is_idle_if_a_waiting_trial_would_end_in_time(
    takes_s, data, workers, deadline
):
    """The model starts empty and is refitted repeatedly; each fit takes effect at once."""
    model = DurationModel({"x": takes_s}, None, len(takes_s))
    scheduler = Scheduler(
        bytes(len(takes_s)), [0] * len(takes_s), model, retries=1, grace_s=1.0, deadline=deadline
    )
    cluster = Watched(scheduler, model, takes_s, deadline)
    cluster.join(workers)
    cluster.run()
    left = set(range(len(takes_s))) - set(cluster.committed)
    assert all(cluster.now + (model.upper_s(number) or inf) > deadline for number in left)


@settings(deadline=None, max_examples=60)
@given(DURATIONS, st.data(), st.integers(2, 8), st.floats(5.0, 60.0))
def test_trials_of_several_ranks_do_not_start_too_late_either(expected, data, workers, deadline):
    size = len(expected)
    widths = data.draw(st.lists(st.sampled_from([1, 1, 2, min(4, workers)]), min_size=size, max_size=size))
    factors = data.draw(st.lists(st.floats(0.3, 3.0), min_size=size, max_size=size))
    model = model_of(expected)
    scheduler = Scheduler(
        bytes(size),
        [0] * size,
        model,
        retries=1,
        grace_s=1.0,
        deadline=deadline,
        widths=widths,
        patience_s=5.0,
    )
    takes_s = [seconds * factor for seconds, factor in zip(expected, factors, strict=True)]
    cluster = Cluster(scheduler, model, takes_s, deadline)
    cluster.join(workers)
    cluster.run()
    assert len(cluster.committed) == len(set(cluster.committed))


# ------------------------------------------------------------------------------------- one slot, step by step


def alone(expected: list[float], deadline: float, uncertainty: float = 1.0) -> Scheduler:
    model = model_of(expected, uncertainty)
    return Scheduler(
        bytes(len(expected)), [0] * len(expected), model, retries=1, grace_s=1.0, deadline=deadline
    )


def given_to(decisions: list[object]) -> list[int]:
    return [number for decision in decisions if isinstance(decision, Assign) for number in decision.numbers]


def ends(number: int, seconds: float, attempt: int = 1) -> TrialsEnded:
    return TrialsEnded(EndedBlock(0, 0, [number], [attempt], [COMPLETE], [0.0], [seconds], {}))


SLOT = Slot(0, 0)


def test_a_trial_behind_one_that_takes_too_long_is_reclaimed_before_it_would_start_too_late():
    scheduler = alone([0.8, 0.8, 0.8], deadline=5.0)
    assert given_to(scheduler.handle(WorkerJoined(0, 1), 0.0)) == [0, 1]
    latest = 5.0 - 0.8
    assert scheduler.handle(TimePassed(), latest - NOTICE_S - 0.01) == []
    assert scheduler.handle(TimePassed(), latest - NOTICE_S + 0.01) == [Reclaim(SLOT)]
    assert scheduler.handle(TimePassed(), latest) == [], "it is asked once"
    scheduler.handle(TrialsReclaimed(SLOT, (1,), (1,), AttemptEnd.RECLAIMED), latest)
    assert [type(decision) for decision in scheduler.handle(ends(0, 4.8), 4.8)] == [Commit, End]


def test_nothing_is_handed_out_behind_a_trial_that_takes_longer_than_its_upper_bound():
    """At 98.8 of 100 s a trial of 0.3 s has run since 97 s; one of 0.9 s fits only if it starts now."""
    scheduler = Scheduler(
        bytes([int(TrialState.RUNNING), 0, 0]),
        [1, 0, 0],
        model_of([0.3, 0.9, 0.9]),
        retries=1,
        grace_s=1.0,
        deadline=100.0,
        held={SLOT: {0: 1}},
    )
    assert given_to(scheduler.handle(WorkerJoined(0, 1, (((0, 1),),)), 97.0)) == [1]
    scheduler.handle(TrialsReclaimed(SLOT, (1,), (1,), AttemptEnd.RECLAIMED), 98.8)
    assert list(scheduler.held[SLOT]) == [0]
    assert given_to(scheduler.handle(ends(0, 1.9), 98.9)) == [1]


def test_an_early_end_makes_room_for_a_trial_and_a_late_one_does_not():
    """The time at which a slot is free counts from its last end, not from earlier expectations."""
    for at, more in ((0.1, [2]), (0.9, [])):
        scheduler = alone([0.9, 0.9, 0.9], deadline=2.25)
        assert given_to(scheduler.handle(WorkerJoined(0, 1), 0.0)) == [0, 1]
        assert given_to(scheduler.handle(ends(0, at), at)) == more


def test_a_trial_that_does_not_fit_makes_way_for_shorter_ones_that_do():
    scheduler = alone([2.0, 0.4, 0.3], deadline=1.0)
    assert given_to(scheduler.handle(WorkerJoined(0, 1), 0.0)) == [1, 2]


def test_the_uncertainty_of_the_expectation_counts():
    scheduler = alone([6.0, 4.0, 3.0], deadline=10.0, uncertainty=2.0)
    assert given_to(scheduler.handle(WorkerJoined(0, 1), 0.0)) == [1], (
        "8 s at most, and no 6 s are left after it"
    )


def test_trials_assigned_before_durations_are_known_are_reviewed_when_they_are():
    model = DurationModel({"x": [1, 1, 1, 1, 1, 1, 1, 1]}, None, 8)
    scheduler = Scheduler(bytes(8), [0] * 8, model, retries=1, grace_s=1.0, deadline=7.0)
    for rank in range(4):
        scheduler.handle(WorkerJoined(rank, 1), 0.0)
    assert all(len(trials) == 2 for trials in scheduler.held.values())
    for rank in range(3):
        number, attempt = next(iter(scheduler.held[Slot(rank, 0)].items()))
        block = EndedBlock(rank, 0, [number], [attempt], [COMPLETE], [0.0], [4.0], {})
        made = scheduler.handle(TrialsEnded(block), 4.0)
    # Three trials took 4 s each: rank 3 must not start its second one at 4 s, because the deadline is at 7 s.
    assert [decision for decision in made if isinstance(decision, Reclaim)] == [Reclaim(Slot(3, 0))]


def test_no_trial_starts_after_the_deadline_even_if_durations_are_unknown():
    model = DurationModel({"x": [1, 2, 3]}, None, 3)
    scheduler = Scheduler(bytes(3), [0] * 3, model, retries=1, grace_s=1.0, deadline=10.0)
    assert given_to(scheduler.handle(WorkerJoined(0, 1), 0.0)) == [0, 1]
    assert scheduler.handle(TimePassed(), 9.99) == [Reclaim(SLOT)]
    assert given_to(scheduler.handle(TrialsReclaimed(SLOT, (1,), (1,), AttemptEnd.RECLAIMED), 9.995)) == []
    assert [type(decision) for decision in scheduler.handle(ends(0, 11.0), 11.0)] == [Commit, End]


def test_a_slot_that_rejoins_receives_the_reclaim_again():
    """A worker that sends Hello again has forgotten the reclaim."""
    scheduler = alone([0.8, 0.8], deadline=5.0)
    scheduler.handle(WorkerJoined(0, 1), 0.0)
    assert scheduler.handle(TimePassed(), 4.2) == [Reclaim(SLOT)]
    made = scheduler.handle(WorkerJoined(0, 1, (((0, 1), (1, 1)),)), 4.22)
    assert Reclaim(SLOT) in made


def test_only_as_many_short_trials_are_assigned_together_as_end_in_time():
    scheduler = alone([0.001] * 100, deadline=0.0046, uncertainty=1.5)
    [first, *_] = scheduler.handle(WorkerJoined(0, 1), 0.0)
    assert len(first.numbers) == 3, "each takes 1.5 ms at most, and 4.6 ms are left"
