"""The scheduler and memory: retries in a fresh process, withheld trials, probes, infeasible trials."""

from __future__ import annotations

from collections import deque
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, Direction, EndReason, FailureCause, Slot, TrialState
from mpisweep.scheduling.decisions import (
    AddTrials,
    Assign,
    Commit,
    End,
    GiveUp,
    MarkInfeasible,
    Quarantine,
    Reclaim,
)
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import (
    StopRequested,
    TimePassed,
    TrialsEnded,
    TrialsReclaimed,
    WorkerJoined,
    WorkerLost,
)
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search import LargestBatch
from mpisweep.search.evidence import Evidence
from mpisweep.search.frontier import MemoryFrontier
from mpisweep.spec.space import IntegerRange, SearchSpace

WAITING, COMPLETE, FAILED, INFEASIBLE = (
    int(state)
    for state in (TrialState.WAITING, TrialState.COMPLETE, TrialState.FAILED, TrialState.INFEASIBLE)
)


def scheduler_of(count: int, *, frontier: MemoryFrontier | None = None, **more) -> Scheduler:
    sizes = list(range(1, count + 1))
    more.setdefault("states", bytes(count))
    more.setdefault("attempts", [0] * count)
    return Scheduler(
        model=DurationModel({"x": sizes}, [float(size) for size in sizes], count),
        retries=5, grace_s=1.0, frontier=frontier, **more,
    )  # fmt: skip


def frontier_of(count: int) -> MemoryFrontier:
    return MemoryFrontier({"x": list(range(1, count + 1))}, {"x": "increasing"})


class Ranks:
    """Ranks of one slot each with simulated trial processes; `room` is the largest size that fits per kind."""

    def __init__(self, scheduler: Scheduler, kinds: list[str], room: dict[str, int]) -> None:
        self.scheduler = scheduler
        self.kinds = dict(enumerate(kinds))
        self.room = room
        self.now = 0.0
        self.held: dict[int, deque[tuple[int, int, bool]]] = {}
        #: Whether the rank's process has run anything.
        self.warm: dict[int, bool] = {}
        self.decisions: list[object] = []
        self.asked: set[int] = set()
        for rank in self.kinds:
            self.join(rank)

    def join(self, rank: int) -> None:
        self.held[rank], self.warm[rank] = deque(), False
        self.feed(WorkerJoined(rank, 1, (), "n", self.kinds[rank]))

    def feed(self, event) -> list[object]:
        made = self.scheduler.handle(event, self.now)
        if not any(isinstance(decision, End) for decision in made):
            self.scheduler.check()
        self.decisions += made
        for decision in made:
            if isinstance(decision, Assign):
                [slot] = decision.slots
                assert not decision.fresh or len(decision.numbers) == 1
                pairs = zip(decision.numbers, decision.attempts, strict=True)
                self.held[slot.rank] += [(number, attempt, decision.fresh) for number, attempt in pairs]
            elif isinstance(decision, Reclaim):
                self.asked.add(decision.slot.rank)
        return made

    def end(self, rank: int) -> None:
        number, attempt, fresh = self.held[rank].popleft()
        warm = self.warm[rank] and not fresh
        fits = number + 1 <= self.room[self.kinds[rank]]
        self.warm[rank] = fits
        self.feed(
            TrialsEnded(
                EndedBlock(
                    rank,
                    0,
                    [number],
                    [attempt],
                    [COMPLETE if fits else FAILED],
                    [0.0],
                    [1.0],
                    {},
                    [] if fits else [int(FailureCause.OUT_OF_MEMORY)],
                    [] if fits else ["too large"],
                    warm and not fits,
                )
            )
        )
        if not fits:
            # The process has ended: its other trials are reclaimed, except those for a fresh process.
            back = [task for task in self.held[rank] if not task[2]]
            self.held[rank] = deque(task for task in self.held[rank] if task[2])
            self.deliver_reclaimed(rank, back)

    def deliver_reclaimed(self, rank: int, tasks, end: AttemptEnd = AttemptEnd.RECLAIMED) -> None:
        numbers, attempts = tuple(task[0] for task in tasks), tuple(task[1] for task in tasks)
        self.feed(TrialsReclaimed(Slot(rank, 0), numbers, attempts, end))

    def answer(self, rank: int) -> None:
        """Answer a reclaim: return all trials that have not begun."""
        self.asked.discard(rank)
        back = [self.held[rank].pop() for _ in range(len(self.held[rank]) - 1)][::-1]
        self.deliver_reclaimed(rank, back)

    def pass_time(self) -> None:
        self.now += 0.5
        self.feed(TimePassed())

    def run(self, random: Random | None = None) -> EndReason:
        for _ in range(100_000):
            if ends := self.made(End):
                return ends[-1].reason
            for rank in list(self.asked & self.held.keys()):
                self.answer(rank)
            busy = [rank for rank, held in self.held.items() if held]
            if busy and not self.made(End):
                self.end((random or Random(0)).choice(busy))
            self.pass_time()
        raise AssertionError("it never ends")

    def made(self, kind: type) -> list:
        return [decision for decision in self.decisions if isinstance(decision, kind)]

    @property
    def failed(self) -> list[int]:
        return [
            n
            for commit in self.made(Commit)
            for n, s in zip(commit.block.numbers, commit.block.states, strict=True)
            if s == FAILED
        ]

    @property
    def states(self) -> list[int]:
        return list(self.scheduler.core.trials.states)


def test_a_trial_that_runs_out_of_memory_in_a_used_process_is_retried_in_a_fresh_one():
    ranks = Ranks(scheduler_of(3), ["gpu"], {"gpu": 2})
    ranks.warm[0] = True
    ranks.end(0)
    assert ranks.made(GiveUp)[0] == GiveUp(0, [2], [1], AttemptEnd.NOT_FRESH)
    assert Assign((Slot(0, 0),), [2], [2], fresh=True) in ranks.made(Assign)
    assert ranks.run() is EndReason.COMPLETE
    assert ranks.failed == [2]
    assert len([g for g in ranks.made(GiveUp) if g.end is AttemptEnd.NOT_FRESH]) == 1


@pytest.mark.parametrize("frontier", [None, frontier_of(2)])
def test_a_failure_that_a_used_device_may_have_caused_is_retried_in_a_fresh_process(frontier):
    scheduler = scheduler_of(2, frontier=frontier)
    [assign, *_] = scheduler.handle(WorkerJoined(0, 1, (), "n", "gpu"), 5.0)
    [number], [attempt] = assign.numbers, assign.attempts

    def fail(attempt: int, *, warm: bool) -> list[object]:
        block = EndedBlock(
            0,
            0,
            [number],
            [attempt],
            [FAILED],
            [0.0],
            [1.0],
            {},
            [int(FailureCause.EXCEPTION)],
            ["CUDA error"],
            warm,
        )
        made = scheduler.handle(TrialsEnded(block), 6.0)
        scheduler.check()
        return made

    made = fail(attempt, warm=True)
    assert GiveUp(0, [number], [attempt], AttemptEnd.NOT_FRESH) in made
    # The trial after it may be assigned first.
    [again] = [
        decision
        for decision in [*made, *scheduler.handle(TimePassed(), 7.0)]
        if isinstance(decision, Assign) and decision.fresh
    ]
    assert again.numbers == [number]
    assert any(isinstance(decision, Commit) for decision in fail(again.attempts[0], warm=False))


def test_a_trial_that_runs_out_of_memory_in_a_fresh_process_fails_at_once():
    ranks = Ranks(scheduler_of(3), ["gpu"], {"gpu": 2})
    ranks.end(0)
    assert ranks.failed == [2]


def test_a_new_master_still_asks_for_a_fresh_process():
    ranks = Ranks(scheduler_of(1, attempts=[1], fresh={0}), ["gpu"], {"gpu": 1})
    assert ranks.made(Assign) == [Assign((Slot(0, 0),), [0], [2], fresh=True)]


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_a_sweep_over_700_sizes_loses_up_to_ten_trials_and_marks_the_others_infeasible(workers):
    ranks = Ranks(scheduler_of(700, frontier=frontier_of(700)), ["gpu"] * workers, {"gpu": 412})
    assert ranks.run(Random(workers)) is EndReason.COMPLETE
    assert ranks.states.count(COMPLETE) == 412
    assert len(ranks.failed) <= 10
    assert sum(len(infer.numbers) for infer in ranks.made(MarkInfeasible)) == 700 - 412 - len(ranks.failed)
    assert "ran out of memory on gpu; what needs more was not run" in ranks.made(MarkInfeasible)[0].why


@pytest.mark.parametrize("seed", range(10))
def test_no_device_is_blamed_for_trials_that_are_too_large(seed):
    """In most orders one device fails twice in a row while the others complete smaller trials."""
    ranks = Ranks(scheduler_of(200, frontier=frontier_of(200), quarantine=True), ["gpu"] * 3, {"gpu": 150})
    assert ranks.run(Random(seed)) is EndReason.COMPLETE
    assert ranks.states.count(COMPLETE) == 150
    assert ranks.made(Quarantine) == []


def test_a_trial_that_is_too_large_for_one_kind_of_device_runs_on_the_other():
    ranks = Ranks(
        scheduler_of(100, frontier=frontier_of(100)), ["small", "large"], {"small": 20, "large": 80}
    )
    assert ranks.run() is EndReason.COMPLETE
    assert ranks.states.count(COMPLETE) == 80
    assert {give_up.end for give_up in ranks.made(GiveUp)} >= {AttemptEnd.TOO_LARGE}
    assert all("on large" in infer.why and "on small" in infer.why for infer in ranks.made(MarkInfeasible))


def test_when_the_larger_kind_of_device_is_lost_larger_trials_are_infeasible():
    ranks = Ranks(
        scheduler_of(100, frontier=frontier_of(100)), ["small", "large"], {"small": 20, "large": 80}
    )
    for _ in range(20):
        for rank in (0, 1):
            if ranks.held[rank]:
                ranks.end(rank)
    ranks.held.pop(1)
    ranks.feed(WorkerLost(1))
    assert ranks.run() is EndReason.COMPLETE
    assert ranks.states.count(INFEASIBLE) > 0
    assert all(state == COMPLETE for state in ranks.states[:20])


def test_results_of_an_earlier_run_need_no_new_probe():
    frontier = frontier_of(100)
    for number in range(60):
        frontier.learn(number, "gpu", Evidence.FITS)
    frontier.learn(60, "gpu", Evidence.TOO_LARGE)
    states = bytes([COMPLETE] * 60 + [FAILED] + [0] * 39)
    ranks = Ranks(scheduler_of(100, frontier=frontier, states=states), ["gpu"], {"gpu": 60})
    assert ranks.made(Assign) == []
    assert ranks.run() is EndReason.COMPLETE
    assert ranks.states.count(INFEASIBLE) == 39
    assert ranks.made(Assign) == []


def test_on_another_kind_of_device_all_sizes_are_probed_again():
    frontier = frontier_of(100)
    frontier.learn(60, "gpu", Evidence.TOO_LARGE)
    states = bytes([COMPLETE] * 60 + [FAILED] + [0] * 39)
    ranks = Ranks(scheduler_of(100, frontier=frontier, states=states), ["another"], {"another": 90})
    ranks.run()
    assert ranks.states.count(COMPLETE) == 89


def test_a_stop_leaves_withheld_trials_to_the_next_run():
    ranks = Ranks(scheduler_of(100, frontier=frontier_of(100)), ["gpu"], {"gpu": 50})
    ranks.feed(StopRequested(EndReason.SIGNAL))
    ranks.deliver_reclaimed(0, list(ranks.held[0]), AttemptEnd.INTERRUPTED)
    assert ranks.made(End) == [End(EndReason.SIGNAL)]


def test_trials_that_cannot_be_probed_before_the_walltime_stay_waiting():
    model = DurationModel({"x": list(range(1, 101))}, [float(n) for n in range(1, 101)], 100)
    model.observe([0, 1, 2], [1.0, 2.0, 3.0])
    model.fit()
    scheduler = Scheduler(
        bytes(100), [0] * 100, model, retries=1, grace_s=1.0, frontier=frontier_of(100), deadline=30.0
    )
    ranks = Ranks(scheduler, ["gpu"], {"gpu": 80})
    assert ranks.run() is EndReason.WALLTIME
    assert ranks.states.count(WAITING) > 0
    assert ranks.states.count(COMPLETE) > 3


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 4), st.booleans(), st.data())
def test_in_any_history_trials_that_fit_complete_and_others_fail_or_are_infeasible(
    seed, count, workers, mixed, data
):
    """Random ends, reclaims, late answers, and workers that are lost and rejoin."""
    random = Random(seed)
    kinds = [random.choice(["small", "large"]) if mixed else "large" for _ in range(workers)]
    small = data.draw(st.integers(0, count))
    room = {"small": small, "large": data.draw(st.integers(small, count))}
    ranks = Ranks(scheduler_of(count, frontier=frontier_of(count), quarantine=True), kinds, room)
    for _ in range(300):
        if ranks.made(End):
            break
        what = random.random()
        busy = [rank for rank, held in ranks.held.items() if held]
        if what < 0.05:
            rank = random.choice(list(ranks.kinds))
            if ranks.held.get(rank):
                # The trial had not begun: this uses no retry.
                ranks.deliver_reclaimed(rank, [ranks.held[rank].pop()])
        elif what < 0.08 and len(ranks.held) > 1:
            rank = random.choice(list(ranks.held))
            if not ranks.held[rank]:
                del ranks.held[rank]
                ranks.asked.discard(rank)
                ranks.feed(WorkerLost(rank))
        elif what < 0.12:
            gone = [rank for rank in ranks.kinds if rank not in ranks.held]
            if gone:
                ranks.join(random.choice(gone))
        elif what < 0.3:
            ranks.pass_time()
        elif what < 0.5 and ranks.asked & ranks.held.keys():
            ranks.answer(random.choice(sorted(ranks.asked & ranks.held.keys())))
        elif busy:
            ranks.end(random.choice(busy))
    for rank in [rank for rank in ranks.kinds if rank not in ranks.held]:
        if not ranks.made(End):
            ranks.join(rank)
    assert ranks.run(random) in (EndReason.COMPLETE, EndReason.NOTHING_COMPLETED)
    best, least = max(room[kind] for kind in kinds), min(room[kind] for kind in kinds)
    assert all(state == COMPLETE for state in ranks.states[:least])
    assert all(state in (FAILED, INFEASIBLE) for state in ranks.states[best:])
    if not ranks.made(WorkerLost) and len(set(kinds)) == 1:
        assert COMPLETE not in ranks.states[best:]


def test_too_few_workers_for_every_trial_left_end_the_run_although_trials_are_withheld():
    scheduler = Scheduler(
        bytes(9), [0] * 9, DurationModel({"x": list(range(9))}, None, 9), retries=1, grace_s=1.0,
        frontier=frontier_of(9), widths=[4] * 9, patience_s=60.0,
    )  # fmt: skip
    ranks = Ranks(scheduler, ["gpu", "gpu"], {"gpu": 9})
    assert ranks.run() is EndReason.TOO_FEW


def test_a_trial_of_several_ranks_that_ran_out_of_memory_in_a_used_process_is_retried_in_fresh_ones():
    scheduler = Scheduler(
        bytes(1), [0], DurationModel({"x": [1]}, None, 1), retries=1, grace_s=1.0, widths=[2]
    )
    scheduler.handle(WorkerJoined(0, 1, (), "n", "gpu"), 0.0)
    [assign] = scheduler.handle(WorkerJoined(1, 1, (), "n", "gpu"), 0.0)
    assert not assign.fresh

    def end(slot: Slot, attempt: int, cause: FailureCause, warm: bool) -> list[object]:
        block = EndedBlock(
            slot.rank, 0, [0], [attempt], [FAILED], [0.0], [1.0], {}, [int(cause)], ["x"], warm
        )
        made = scheduler.handle(TrialsEnded(block), 0.0)
        if not any(isinstance(decision, End) for decision in made):
            scheduler.check()
        return made

    first, second = assign.slots
    end(first, 1, FailureCause.EXCEPTION, False)
    [give_up, again] = end(second, 1, FailureCause.OUT_OF_MEMORY, True)
    assert give_up.end is AttemptEnd.NOT_FRESH
    assert again.fresh
    end(first, 2, FailureCause.EXCEPTION, False)
    [commit, over] = end(second, 2, FailureCause.OUT_OF_MEMORY, False)
    assert commit.block.causes == [FailureCause.OUT_OF_MEMORY]
    assert over == End(EndReason.NOTHING_COMPLETED)


def test_a_search_that_learns_adds_trials_until_it_has_found_its_answer():
    space = SearchSpace((IntegerRange("x", 1, 700),))
    search = LargestBatch(space, "loss", Direction.MAXIMIZE)
    search.add(0, search[0])
    model = DurationModel({"x": [350]}, [350.0], 1)
    scheduler = Scheduler(bytes(1), [0], model, retries=1, grace_s=1.0, search=search)
    sizes = [350]
    now, end = 0.0, None
    decisions = scheduler.handle(WorkerJoined(0, 1), now)
    held: deque[tuple[int, int]] = deque()
    while end is None:
        for decision in decisions:
            match decision:
                case AddTrials(numbers, configurations):
                    assert numbers[0] == len(sizes)
                    sizes += [configuration["x"] for configuration in configurations]
                case Assign(_, numbers, attempts):
                    held += zip(numbers, attempts, strict=True)
                case End(reason):
                    end = reason
        if held:
            number, attempt = held.popleft()
            fits = sizes[number] <= 412
            decisions = scheduler.handle(TrialsEnded(EndedBlock(
                0, 0, [number], [attempt], [COMPLETE if fits else FAILED], [0.0], [1.0],
                {"loss": [float(sizes[number])]}, [0 if fits else int(FailureCause.OUT_OF_MEMORY)], [""],
            )), now)  # fmt: skip
            if not any(isinstance(decision, End) for decision in decisions):
                scheduler.check()
    assert end is EndReason.COMPLETE
    assert {412, 413, 256, 128, 64} <= set(sizes)
    assert len(sizes) <= 20


def test_a_stopped_search_that_would_add_trials_is_not_complete():
    search = LargestBatch(SearchSpace((IntegerRange("x", 1, 700),)), "loss", Direction.MAXIMIZE)
    search.add(0, search[0])
    scheduler = Scheduler(
        bytes(1), [0], DurationModel({"x": [350]}, [350.0], 1), retries=1, grace_s=1.0, search=search
    )
    scheduler.handle(WorkerJoined(0, 1), 0.0)
    scheduler.handle(StopRequested(EndReason.WALLTIME), 1.0)
    # The trial ends well before the grace period does.
    block = EndedBlock(0, 0, [0], [1], [COMPLETE], [0.0], [1.0], {"loss": [350.0]})
    assert scheduler.handle(TrialsEnded(block), 2.0) == [Commit(block), End(EndReason.WALLTIME)]


def test_after_a_takeover_running_trials_may_still_show_that_larger_ones_fit():
    frontier = frontier_of(100)
    frontier.learn(49, "gpu", Evidence.TOO_LARGE)
    states = bytearray(100)
    states[49], states[79] = FAILED, int(TrialState.RUNNING)
    attempts = [int(number in (49, 79)) for number in range(100)]
    scheduler = scheduler_of(
        100, frontier=frontier, states=states, attempts=attempts, held={Slot(1, 0): {79: 1}}
    )
    decisions = scheduler.handle(WorkerJoined(0, 1, (), "n", "gpu"), 0.0)
    for tick in range(10):
        decisions += scheduler.handle(TimePassed(), 1.0 + tick)
    [inferred] = [decision for decision in decisions if isinstance(decision, MarkInfeasible)] or [
        MarkInfeasible([], "")
    ]
    assert inferred.numbers in ([], list(range(80, 100)))


def test_probes_that_are_too_wide_for_the_remaining_slots_delay_no_other_trial():
    sizes, widths = [*range(1, 201), *range(1, 9)], [4] * 200 + [1] * 8
    frontier = MemoryFrontier({"ranks_per_trial": widths, "x": sizes}, {"x": "increasing"})
    scheduler = Scheduler(
        bytes(208),
        [0] * 208,
        DurationModel({"x": sizes}, None, 208),
        retries=1,
        grace_s=1.0,
        frontier=frontier,
        widths=widths,
        patience_s=5.0,
    )
    ranks = Ranks(scheduler, ["gpu", "gpu"], {"gpu": 1000})
    assert ranks.run() is EndReason.TOO_FEW
    assert ranks.states[200:].count(COMPLETE) == 8
    assert ranks.states[:200].count(WAITING) == 200


def test_a_probe_that_became_too_wide_is_withheld_until_there_are_enough_slots():
    sizes, widths = list(range(1, 9)) * 2, [2] * 8 + [1] * 8
    frontier = MemoryFrontier({"ranks_per_trial": widths, "x": sizes}, {"x": "increasing"})
    scheduler = Scheduler(
        bytes(16), [0] * 16, DurationModel({"x": sizes}, None, 16), retries=1, grace_s=1.0, frontier=frontier,
        widths=widths, patience_s=60.0,
    )  # fmt: skip
    scheduler.handle(WorkerJoined(0, 1, (), "n", "gpu"), 0.0)
    scheduler.handle(WorkerJoined(1, 1, (), "n", "gpu"), 0.0)
    now, seen = 1.0, []
    scheduler.handle(WorkerLost(1), now)
    while sum(widths[number] == 1 for number in seen) < 8:
        now += 1.0
        scheduler.check()
        held = next(iter(scheduler.held[Slot(0, 0)].items()), None)
        if held is None:
            assert now < 100.0, "nothing runs"
            scheduler.handle(TimePassed(), now)
            continue
        seen.append(held[0])
        scheduler.handle(
            TrialsEnded(EndedBlock(0, 0, [held[0]], [held[1]], [COMPLETE], [0.0], [1.0], {})), now
        )
    assert sorted(number for number in seen if widths[number] == 1) == list(range(8, 16))
    decisions = scheduler.handle(WorkerJoined(2, 1, (), "n", "gpu"), now + 1.0)
    assert [decision.slots for decision in decisions if isinstance(decision, Assign)] == [
        (Slot(0, 0), Slot(2, 0))
    ]
