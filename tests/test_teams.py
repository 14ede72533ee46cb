from __future__ import annotations

import math
import pickle
from collections import deque
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, EndReason, FailureCause, Slot, TrialState
from mpisweep.scheduling.decisions import Abandon, Assign, Commit, End, GiveUp, Quarantine, Reclaim, Stop
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import (
    SlotBroken,
    StopRequested,
    TimePassed,
    TrialsEnded,
    TrialsReclaimed,
    WorkerJoined,
    WorkerLost,
)
from mpisweep.scheduling.room import Room
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.scheduling.teams import LINGER_S, RETURN_S, all_devices

COMPLETE, FAILED = int(TrialState.COMPLETE), int(TrialState.FAILED)


def slots(*ranks: int) -> tuple[Slot, ...]:
    return tuple(Slot(rank, 0) for rank in ranks)


def on_nodes(*sizes: int) -> dict[Slot, str]:
    """Nodes n0, n1, ... with these numbers of slots."""
    nodes: dict[Slot, str] = {}
    for node, size in enumerate(sizes):
        for _ in range(size):
            nodes[Slot(len(nodes), 0)] = f"n{node}"
    return nodes


# ------------------------------------------------------------------------------------- placement


def room_of(nodes: dict[Slot, str], idle=(), free_at=None, kept=()) -> Room:
    room = Room()
    for slot, node in nodes.items():
        at = (free_at or {}).get(slot, math.inf)
        room.note(slot, node, is_idle=slot in idle, is_kept=slot in kept, free_at=at)
    return room


def place(width: int, idle, nodes, **more) -> tuple[Slot, ...] | None:
    return room_of(nodes, idle, **more).place(width, also_kept=True)


def gather(width: int, free_at, nodes) -> list[Slot]:
    return list(room_of(nodes, free_at=free_at).gather(width))


def test_a_trial_that_fits_a_node_runs_on_the_fullest_node_with_room():
    nodes = on_nodes(4, 4)
    assert place(2, slots(0, 1, 2, 3, 5, 6), nodes) == slots(5, 6)
    assert place(3, slots(0, 1, 2, 3, 5, 6), nodes) == slots(0, 1, 2)


def test_a_trial_that_fits_a_node_waits_for_one_and_is_not_split_over_two():
    nodes = on_nodes(4, 4)
    assert place(4, slots(0, 1, 4, 5), nodes) is None


def test_a_trial_that_fits_no_node_takes_the_emptiest_nodes_first():
    nodes = on_nodes(4, 4, 4)
    assert place(6, slots(0, 4, 5, 6, 8, 9, 10, 11), nodes) == slots(8, 9, 10, 11, 4, 5)
    assert place(6, slots(0, 4, 5, 8, 9), nodes) is None


def test_slots_kept_for_one_trial_are_not_given_to_others():
    room = room_of(on_nodes(4), slots(0, 1, 2), kept=slots(0, 1))
    assert room.place(2, also_kept=False) is None
    assert room.place(2, also_kept=True) == slots(0, 1)
    assert room.place(1, also_kept=False) == slots(2)


def test_slots_are_gathered_where_a_trial_can_start_soonest():
    nodes = on_nodes(2, 2)
    free = dict(zip(slots(0, 1, 2, 3), (0.0, 90.0, 30.0, 20.0), strict=True))
    assert gather(2, free, nodes) == list(slots(3, 2))
    assert gather(3, free, nodes) == list(slots(0, 3, 2))
    assert gather(5, free, nodes) == []


def test_slots_that_are_free_long_before_a_trial_can_start_are_not_gathered_for_it():
    nodes = on_nodes(4)
    assert gather(2, dict(zip(slots(0, 1, 2, 3), (0.0, 50.0, 50.0, 90.0), strict=True)), nodes) == list(
        slots(1, 2)
    )
    assert gather(
        3, dict(zip(slots(0, 1, 2, 3), (0.0, math.inf, math.inf, math.inf), strict=True)), nodes
    ) == list(slots(1, 2, 3))


class SearchedRoom:
    """A reference implementation of :class:`Room` that searches all slots."""

    def __init__(self) -> None:
        #: Slot -> its node, whether it is idle, whether it is kept, and when it will be free.
        self.slots: dict[Slot, tuple[str, bool, bool, float]] = {}

    def by_node(self) -> list[list[Slot]]:
        found: dict[str, list[Slot]] = {}
        for slot in sorted(self.slots):
            found.setdefault(self.slots[slot][0], []).append(slot)
        return list(found.values())

    def room_on(self, slots_: list[Slot], also_kept: bool) -> int:
        return sum(self.slots[slot][1] and (also_kept or not self.slots[slot][2]) for slot in slots_)

    def start(self, slots_: list[Slot], width: int) -> float:
        return sorted(-math.inf if self.slots[slot][1] else self.slots[slot][3] for slot in slots_)[width - 1]


@given(st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from(["gone", "idle", "busy"]), st.booleans(), st.integers(0, 5)), min_size=1, max_size=40,
), st.integers(1, 6))  # fmt: skip
def test_the_ordered_index_agrees_with_a_search_of_all_slots(changes, width):
    room, searched = Room(), SearchedRoom()
    nodes = on_nodes(1, 2, 2, 3)
    for rank, how, is_kept, free_at in changes:
        slot = Slot(rank, 0)
        if how == "gone":
            room.forget(slot)
            searched.slots.pop(slot, None)
        else:
            room.note(slot, nodes[slot], is_idle=how == "idle", is_kept=is_kept, free_at=free_at)
            searched.slots[slot] = (nodes[slot], how == "idle", is_kept, free_at)
        everywhere = sorted(searched.slots)
        fitting = [some for some in searched.by_node() if len(some) >= width] or (
            [everywhere] if len(everywhere) >= width else []
        )
        for also_kept in (True, False):
            chosen = room.place(width, also_kept=also_kept)
            enough = [some for some in fitting if searched.room_on(some, also_kept) >= width]
            assert (chosen is not None) == bool(enough)
            assert chosen is None or searched.room_on(list(chosen), also_kept) == len(set(chosen)) == width
            if enough and enough != [everywhere]:
                assert searched.slots[chosen[0]][0] in {
                    searched.slots[some[0]][0]
                    for some in enough
                    if searched.room_on(some, also_kept)
                    == min(searched.room_on(other, also_kept) for other in enough)
                }
        if rank % 2:
            gathered = room.gather(width)
            assert len(gathered) == (width if fitting else 0)
            if fitting:
                assert max(gathered.values()) == min(searched.start(some, width) for some in fitting)


def test_a_wide_trial_on_an_abandoned_slot_is_abandoned_and_fails_with_the_reason():
    pool = Pool([2], nodes=(3,), retries=0)
    [first, second] = sorted(pool.running()[0])
    made = pool.feed(SlotBroken(Slot(second, 0), (0, 1), "it hangs", is_gone=True))
    assert of(Abandon, made) == [Abandon(Slot(first, 0), 0, 1, LINGER_S)]
    [commit] = of(Commit, pool.return_reclaimed(first))
    assert commit.block.messages == ["it hangs, and no retry is left"]
    assert commit.block.causes == [FailureCause.LOST]


def test_the_devices_of_all_ranks_of_a_node_are_joined():
    own = [[("CUDA_VISIBLE_DEVICES", "GPU-a"), ("X", "1")], [("CUDA_VISIBLE_DEVICES", "GPU-b")]]
    assert all_devices(own) == (("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b"), ("X", "1"))


# ------------------------------------------------------------------------------------- sequences of events


class Pool:
    """A scheduler and its slots, one per rank."""

    def __init__(self, widths: list[int], nodes: tuple[int, ...] = (4,), *, durations=None, **more) -> None:
        count = len(widths)
        model = DurationModel({"x": list(range(1, count + 1))}, durations, count)
        more = {"retries": 1, "grace_s": 1.0, "widths": widths} | more
        self.scheduler = Scheduler(bytes(count), [0] * count, model, **more)
        self.held: dict[Slot, list[tuple[int, int]]] = {}
        self.made: list[object] = []
        self.now = 0.0
        for slot, node in on_nodes(*nodes).items():
            self.held[slot] = []
            self.feed(WorkerJoined(slot.rank, 1, (), node))

    def feed(self, event, seconds: float = 1.0) -> list[object]:
        self.now += seconds
        new = self.scheduler.handle(pickle.loads(pickle.dumps(event)), self.now)
        self.made += new
        for decision in new:
            if isinstance(decision, Assign):
                for slot in decision.slots:
                    self.held[slot] += zip(decision.numbers, decision.attempts, strict=True)
        self.scheduler.check()
        return new

    def end(
        self,
        rank: int,
        state: int = COMPLETE,
        cause: FailureCause = FailureCause.EXCEPTION,
        seconds: float = 1.0,
    ):
        """End the first trial that this rank holds."""
        slot = Slot(rank, 0)
        number, attempt = self.held[slot].pop(0)
        failed = state == FAILED
        block = EndedBlock(
            rank, 0, [number], [attempt], [state], [0.0], [seconds], {"loss": [float(rank)]},
            [int(cause)] if failed else [], [f"{cause.label} at {rank}"] if failed else [],
        )  # fmt: skip
        return self.feed(TrialsEnded(block), seconds)

    def return_reclaimed(self, rank: int, how: AttemptEnd = AttemptEnd.RECLAIMED):
        slot = Slot(rank, 0)
        number, attempt = self.held[slot].pop(0)
        return self.feed(TrialsReclaimed(slot, (number,), (attempt,), how))

    def lose(self, rank: int):
        del self.held[Slot(rank, 0)]
        return self.feed(WorkerLost(rank))

    def running(self) -> dict[int, set[int]]:
        """Trial -> ranks that run it."""
        found: dict[int, set[int]] = {}
        for slot, trials in self.held.items():
            if trials:
                found.setdefault(trials[0][0], set()).add(slot.rank)
        return found


def of(kind, decisions):
    return [decision for decision in decisions if isinstance(decision, kind)]


def test_a_wide_trial_starts_on_all_its_slots_at_once_and_rank_0_gives_its_result():
    pool = Pool([2, 2])
    assert pool.running() == {0: {0, 1}, 1: {2, 3}}
    assert of(Commit, pool.end(1)) == []
    [commit] = of(Commit, pool.end(0))
    assert (commit.block.numbers, commit.block.worker, commit.block.metrics) == ([0], 0, {"loss": [0.0]})


def test_a_wide_trial_ends_when_every_rank_has_ended_and_ranks_get_time_for_it():
    pool = Pool([3])
    assert of(Abandon, pool.end(0)) == [
        Abandon(Slot(1, 0), 0, 1, RETURN_S),
        Abandon(Slot(2, 0), 0, 1, RETURN_S),
    ]
    pool.return_reclaimed(1)
    [commit] = of(Commit, pool.end(2))
    assert commit.block.states == [COMPLETE]


def test_one_failing_rank_ends_the_others_and_the_most_specific_cause_counts():
    pool = Pool([3])
    told = of(Abandon, pool.end(0, FAILED))
    assert [(abandon.slot.rank, abandon.linger_s) for abandon in told] == [(1, LINGER_S), (2, LINGER_S)]
    pool.end(2, FAILED, FailureCause.OUT_OF_MEMORY)
    [commit] = of(Commit, pool.return_reclaimed(1))
    assert commit.block.causes == [FailureCause.OUT_OF_MEMORY]
    assert commit.block.messages == ["rank 2 of 3: out_of_memory at 2"]
    assert (commit.block.worker, commit.block.slot) == (0, 0)


def test_a_failure_shortens_the_time_that_ranks_get_to_end():
    pool = Pool([3])
    pool.end(0)
    assert [abandon.linger_s for abandon in of(Abandon, pool.end(1, FAILED))] == [LINGER_S]


def test_a_lost_rank_uses_a_retry_and_resulting_failures_of_the_others_do_not_count():
    pool = Pool([2], nodes=(3,))
    assert [abandon.slot.rank for abandon in of(Abandon, pool.lose(1))] == [0]
    decisions = pool.end(0, FAILED)
    assert of(GiveUp, decisions) == [GiveUp(0, [0], [1], AttemptEnd.LOST)]
    assert pool.running() == {0: {0, 2}}
    pool.lose(2)
    [commit] = of(Commit, pool.end(0, FAILED))
    assert commit.block.causes == [FailureCause.LOST]
    assert commit.block.messages == ["the worker of rank 2 was lost, and no retry is left"]


def test_an_interrupted_wide_trial_runs_again():
    pool = Pool([2], nodes=(2,))
    assert of(Stop, pool.feed(StopRequested(EndReason.SIGNAL)))
    pool.return_reclaimed(1, AttemptEnd.INTERRUPTED)
    decisions = pool.end(0, FAILED)
    assert of(GiveUp, decisions) == [GiveUp(0, [0], [1], AttemptEnd.INTERRUPTED)]
    assert of(End, decisions) == [End(EndReason.SIGNAL)]


def test_the_widest_trials_go_first_and_narrow_ones_fill_the_gaps():
    pool = Pool([1, 2, 3, 3], nodes=())
    pool.scheduler.handle(WorkerJoined(0, 4, ((),) * 4, "n0"), 0.0)
    held = pool.scheduler.held
    assert sum(2 in trials for trials in held.values()) == 3
    assert [list(trials) for trials in held.values() if 2 not in trials] == [[0]]


def test_wide_trials_do_not_starve_behind_many_narrow_ones():
    pool = Pool([1] * 40 + [4], nodes=(4,))
    ended = 0
    while 40 not in pool.running():
        for rank in range(4):
            if pool.held[Slot(rank, 0)] and pool.held[Slot(rank, 0)][0][0] != 40:
                pool.end(rank)
                ended += 1
        assert ended < 12


def test_when_a_slot_that_waits_for_others_is_lost_another_takes_its_place():
    pool = Pool([1] * 40 + [3], nodes=(4,))
    pool.lose(next(iter(pool.scheduler.core.slots.kept)).rank)
    ended = 0
    while 40 not in pool.running():
        for slot, held in list(pool.held.items()):
            if held and held[0][0] != 40:
                pool.end(slot.rank)
                ended += 1
        assert ended < 12


def test_narrow_trials_that_end_in_time_run_on_slots_that_wait_for_others():
    # Trial 0 is long and narrow, the last one is wide; the others are short.
    pool = Pool([1] * 8 + [2], nodes=(2,), durations=[100.0, *[1.0] * 7, 5.0])
    model = pool.scheduler.core.model
    model.observe([0, 1, 2, 8], [100.0, 1.0, 1.0, 5.0])
    model.fit()
    pool.scheduler.core.waiting.reconsider()
    long, kept = Slot(0, 0), Slot(1, 0)
    assert pool.held[kept] == [], "it was kept for the wide one while nobody knew how long the others take"
    pool.feed(TimePassed())
    before_it_ended = []
    while pool.held[kept]:
        before_it_ended.append(pool.held[kept][0][0])
        pool.end(kept.rank)
    assert {*before_it_ended, *(number for number, _ in pool.held[long])} == set(range(8))
    assert pool.held[long][0] == (0, 1)
    assert len(before_it_ended) >= 6
    for _ in list(pool.held[long]):
        pool.end(long.rank, seconds=50.0)
    assert pool.running() == {8: {0, 1}}


def test_a_trial_too_wide_for_the_remaining_slots_ends_the_run_after_the_patience():
    pool = Pool([3], nodes=(3,), patience_s=60.0)
    pool.lose(2)
    pool.return_reclaimed(0)
    assert not of(End, pool.return_reclaimed(1))
    assert not of(End, pool.feed(TimePassed(), 30.0))
    assert of(End, pool.feed(TimePassed(), 60.0)) == [End(EndReason.TOO_FEW)]


def test_a_worker_that_rejoins_with_a_trial_that_others_continue_abandons_it():
    pool = Pool([2], nodes=(3,))
    pool.lose(1)
    pool.return_reclaimed(0)
    assert pool.running() == {0: {0, 2}}
    pool.held[Slot(1, 0)] = []
    assert of(Abandon, pool.feed(WorkerJoined(1, 1, (((0, 1),),), "n0"))) == [Abandon(Slot(1, 0), 0, 1, 0.0)]


def test_an_unrecorded_attempt_of_a_wide_trial_is_not_mistaken_for_the_next_one():
    """Its assignment was written on a node that was lost and never reached the disk."""
    scheduler = Scheduler(
        bytes(1), [0], DurationModel({"x": [1]}, None, 1), retries=1, grace_s=1.0, widths=[2]
    )
    assert scheduler.handle(WorkerJoined(0, 1, (((0, 1),),), "n"), 0.0) == [Abandon(Slot(0, 0), 0, 1, 0.0)]
    [assign] = scheduler.handle(WorkerJoined(1, 1, (), "n"), 0.0)
    assert assign.attempts == [2]
    assert scheduler.handle(TrialsReclaimed(Slot(0, 0), (0,), (1,), AttemptEnd.RECLAIMED), 0.1) == []
    scheduler.check()


@pytest.mark.parametrize("missing", [0, 1, None])
def test_a_new_master_keeps_a_wide_trial_that_all_of_its_ranks_hold(missing):
    pool = Pool([2], nodes=(2,))
    model = DurationModel({"x": [1]}, None, 1)
    held = {slot: {0: 1} for slot in slots(0, 1)}
    scheduler = Scheduler(
        bytes(pool.scheduler.core.trials.states),
        [1],
        model,
        retries=1,
        grace_s=1.0,
        widths=[2],
        held=held,
        teams={0: slots(0, 1)},
    )
    made: list[object] = []
    for rank in (0, 1):
        made += scheduler.handle(
            WorkerJoined(rank, 1, (() if rank == missing else ((0, 1),),), "n0"), 1.0 + rank
        )
        scheduler.check()
    if missing is None:
        assert not made
        assert scheduler.team(0) == slots(0, 1)
    else:
        assert [abandon.slot.rank for abandon in of(Abandon, made)] == [1 - missing]


# ------------------------------------------------------------------------------------- utilisation


def simulate(widths: list[int], seconds: list[float], nodes: tuple[int, ...]) -> float:
    """Simulate a whole sweep; return the fraction of slot time spent in trials."""
    pool = Pool(widths, nodes=nodes, quarantine=False)
    scheduler, now = pool.scheduler, pool.now
    begun = dict.fromkeys(pool.held, now)
    while not of(End, pool.made):
        # A slot begins a trial as soon as it is assigned; a wide trial begins on all slots at once.
        ends = {slot: begun[slot] + seconds[held[0][0]] for slot, held in pool.held.items() if held}
        slot = min(ends, key=lambda slot: (ends[slot], slot))
        now = max(now, ends[slot])
        number, attempt = pool.held[slot].pop(0)
        block = EndedBlock(slot.rank, 0, [number], [attempt], [COMPLETE], [0.0], [seconds[number]], {})
        before = {slot: held[:1] for slot, held in pool.held.items()}
        for decision in scheduler.handle(TrialsEnded(block), now):
            pool.made.append(decision)
            if isinstance(decision, Assign):
                for given in decision.slots:
                    pool.held[given] += zip(decision.numbers, decision.attempts, strict=True)
        for other, held in pool.held.items():
            if held[:1] != before[other] or other == slot:
                begun[other] = now
    work = sum(width * took for width, took in zip(widths, seconds, strict=True))
    return work / (now * len(pool.held))


@pytest.mark.parametrize("seed", range(5))
def test_trials_of_mixed_sizes_keep_the_workers_busy(seed):
    random = Random(seed)
    widths = [random.choice([1, 1, 2, 4]) for _ in range(200)]
    # Equal work per trial, shared by its ranks, with some spread.
    seconds = [120 * random.lognormvariate(0, 0.3) / width**0.8 for width in widths]
    assert simulate(widths, seconds, (4, 4)) > 0.9


# ------------------------------------------------------------------------------------- random histories


class WideSweep(RuleBasedStateMachine):
    """Workers that join, die, answer late, and run trials of all widths."""

    @initialize(widths=st.lists(st.integers(1, 4), min_size=3, max_size=10))
    def begin(self, widths) -> None:
        self.widths = widths
        model = DurationModel({"x": list(range(1, len(widths) + 1))}, None, len(widths))
        self.scheduler = self.make(bytes(len(widths)), [0] * len(widths), model)
        self.now = 0.0
        #: Slot -> trials that its worker holds, the running one first.
        self.alive: dict[Slot, deque[tuple[int, int]]] = {}
        self.told: set[tuple[Slot, int, int]] = set()
        self.late: list[object] = []
        self.committed: dict[int, int] = {}
        self.end: EndReason | None = None
        self.ranks = 0

    def make(self, states, attempts, model, **more) -> Scheduler:
        self.model = model
        return Scheduler(states, attempts, model, retries=3, grace_s=1.0, widths=self.widths, **more)

    def feed(self, event) -> None:
        self.now += 0.03
        for decision in self.scheduler.handle(pickle.loads(pickle.dumps(event)), self.now):
            match decision:
                case Assign(where, numbers, attempts):
                    assert len(where) == self.widths[numbers[0]]
                    assert len(set(where)) == len(where)
                    for slot in where:
                        if len(where) > 1:
                            assert not self.alive[slot], "a wide trial was given to a slot that is busy"
                        self.alive[slot].extend(zip(numbers, attempts, strict=True))
                case Commit(block):
                    for number, attempt in zip(block.numbers, block.attempts, strict=True):
                        assert number not in self.committed, "a trial was committed twice"
                        self.committed[number] = attempt
                case Abandon(slot, number, attempt, _):
                    self.told.add((slot, number, attempt))
                case Reclaim(slot):
                    held = self.alive[slot]
                    back = [held.pop() for _ in range(len(held) - 1)][::-1]
                    self.return_reclaimed(slot, back, AttemptEnd.RECLAIMED)
                case End(reason):
                    self.end = reason

    def return_reclaimed(self, slot: Slot, back, how: AttemptEnd) -> None:
        event = TrialsReclaimed(slot, tuple(n for n, _ in back), tuple(a for _, a in back), how)
        self.late.append(event)
        self.feed(event)

    @rule(node=st.integers(0, 1), slots_=st.integers(1, 2))
    def a_worker_joins(self, node, slots_) -> None:
        self.ranks += 1
        for place_ in range(slots_):
            self.alive[Slot(self.ranks, place_)] = deque()
        self.feed(WorkerJoined(self.ranks, slots_, ((),) * slots_, f"n{node}"))

    @precondition(lambda self: any(self.alive.values()))
    @rule(data=st.data(), failed=st.booleans())
    def a_trial_ends_somewhere(self, data, failed) -> None:
        slot = data.draw(st.sampled_from([slot for slot, held in self.alive.items() if held]))
        self.end_at(slot, failed)

    def end_at(self, slot: Slot, failed: bool = False) -> None:
        number, attempt = self.alive[slot].popleft()
        block = EndedBlock(
            slot.rank, slot.place, [number], [attempt], [FAILED if failed else COMPLETE], [0.0], [1.0], {},
            [1] if failed else [], ["x"] if failed else [],
        )  # fmt: skip
        self.late.append(TrialsEnded(block))
        self.feed(TrialsEnded(block))

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def a_rank_abandons_as_requested(self, data) -> None:
        slot, number, attempt = data.draw(st.sampled_from(sorted(self.told)))
        self.told.discard((slot, number, attempt))
        if (number, attempt) in self.alive.get(slot, ()):
            self.alive[slot].remove((number, attempt))
            self.return_reclaimed(slot, [(number, attempt)], AttemptEnd.RECLAIMED)

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def an_old_message_arrives_again(self, data) -> None:
        before = dict(self.committed)
        event = data.draw(st.sampled_from(self.late))
        slot = (
            event.slot if isinstance(event, TrialsReclaimed) else Slot(event.block.worker, event.block.slot)
        )
        numbers = event.numbers if isinstance(event, TrialsReclaimed) else event.block.numbers
        attempts = event.attempts if isinstance(event, TrialsReclaimed) else event.block.attempts
        held = self.scheduler.held.get(slot, {})
        if all(held.get(n) != a for n, a in zip(numbers, attempts, strict=True)):
            self.feed(event)
            assert self.committed == before

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def a_worker_dies(self, data) -> None:
        rank = data.draw(st.sampled_from(sorted({slot.rank for slot in self.alive})))
        for slot in [slot for slot in self.alive if slot.rank == rank]:
            del self.alive[slot]
        self.feed(WorkerLost(rank))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), are_gone=st.booleans())
    def slots_break(self, data, are_gone) -> None:
        slot = data.draw(st.sampled_from(sorted(self.alive)))
        for broken in [
            some for some in sorted(self.alive) if some == slot or (are_gone and some.rank == slot.rank)
        ]:
            held = self.alive[broken]
            trial = held.popleft() if held else None
            if are_gone:
                del self.alive[broken]
            self.feed(SlotBroken(broken, trial, "it hangs", are_gone))

    @precondition(lambda self: self.alive and self.end is None)
    @rule(data=st.data())
    def a_new_master_takes_over(self, data) -> None:
        old = self.scheduler
        teams = {number: team.slots for number, team in old.core.teams.items()}
        held = {slot: dict(trials) for slot, trials in old.held.items()}
        for number, where in teams.items():
            for slot in where:
                # The rank's part was not acknowledged, so a live rank still holds the trial.
                if slot in self.alive and number not in held.get(slot, {}):
                    held[slot] = {number: old.core.trials.attempts[number]} | held[slot]
                    self.alive[slot].appendleft((number, old.core.trials.attempts[number]))
        gone = {slot for where in teams.values() for slot in where} - set(self.alive)
        held |= {
            slot: {n: old.core.trials.attempts[n] for n, where in teams.items() if slot in where}
            for slot in gone
        }
        self.scheduler = self.make(
            bytes(old.core.trials.states),
            list(old.core.trials.attempts),
            self.model,
            held=held,
            losses=dict(old.core.losses.counts),
            teams=teams,
        )
        for rank in sorted({slot.rank for slot in self.alive}):
            own = sorted(slot for slot in self.alive if slot.rank == rank)
            if data.draw(st.booleans()) and self.alive[own[0]]:
                # The last assignment never arrived.
                self.alive[own[0]].pop()
            self.feed(
                WorkerJoined(rank, len(own), tuple(tuple(self.alive[slot]) for slot in own), f"n{rank % 2}")
            )
            for slot in own:
                believed = self.scheduler.held[slot]
                kept = [pair for pair in self.alive[slot] if believed.get(pair[0]) == pair[1]]
                self.alive[slot] = deque(kept)
        for rank in sorted({slot.rank for slot in gone}):
            self.feed(WorkerLost(rank))

    @rule()
    def time_passes(self) -> None:
        self.feed(TimePassed())

    @invariant()
    def invariants_hold(self) -> None:
        if getattr(self, "end", 0) is None:
            self.scheduler.check()
            states = [TrialState(s) for s in self.scheduler.core.trials.states]
            assert {n for n, s in enumerate(states) if s.is_end} == set(self.committed)

    def teardown(self) -> None:
        """With four healthy workers and no more faults every sweep ends."""
        if getattr(self, "end", 0) is not None:
            return
        for _ in range(4):
            self.a_worker_joins(0, 1)
        for _ in range(300):
            if self.end is not None:
                break
            for told in sorted(self.told):
                self.told.discard(told)
                slot, number, attempt = told
                if (number, attempt) in self.alive.get(slot, ()):
                    self.alive[slot].remove((number, attempt))
                    self.return_reclaimed(slot, [(number, attempt)], AttemptEnd.RECLAIMED)
            for slot in list(self.alive):
                if self.alive[slot]:
                    self.end_at(slot)
            self.feed(TimePassed())
        nobody = (EndReason.NO_WORKERS, EndReason.NO_DEVICES)
        assert self.end in (EndReason.COMPLETE, EndReason.NOTHING_COMPLETED, *nobody)
        if self.end not in nobody:
            assert len(self.committed) == len(self.widths)


TestWideSweep = WideSweep.TestCase
TestWideSweep.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_a_quarantine_ends_when_all_waiting_trials_need_the_device():
    pool = Pool([1] * 20 + [3], nodes=(3,), quarantine=True)
    pool.lose(2)  # the wide trial has to wait
    while not of(Quarantine, pool.made):
        assert pool.now < 100.0
        if pool.held[Slot(1, 0)] and pool.now > 10.0 and pool.scheduler.count(TrialState.COMPLETE) % 5 == 0:
            pool.end(1, FAILED)
        pool.end(0)
    pool.held[Slot(2, 0)] = []
    pool.feed(WorkerJoined(2, 1, (), "n0"))
    while pool.running().keys() != {20}:
        assert pool.now < 300.0
        busy = [slot.rank for slot, held in pool.held.items() if held]
        if busy:
            pool.end(busy[0])
        else:
            pool.feed(TimePassed())
            assert of(End, pool.made) == []
    back = of(Quarantine, pool.made)
    assert [(quarantine.slot.rank, bool(quarantine.why)) for quarantine in back] == [(1, True), (1, False)]


def test_no_slots_are_kept_idle_for_a_wide_trial_that_cannot_end_before_the_deadline():
    model = DurationModel({"x": [1, 1, 1, 1, 2]}, None, 5)
    # Narrow trials take 20 s, the wide one 60 s.
    model._expected_s, model._uncertainty = [20.0, 20.0, 20.0, 20.0, 60.0], 1.0
    model._log_means = [3.0, 3.0, 3.0, 3.0, 4.1]
    scheduler = Scheduler(
        bytes(5), [0] * 5, model, retries=1, grace_s=1.0, widths=[1, 1, 1, 1, 2], deadline=75.0
    )
    made = scheduler.handle(WorkerJoined(0, 1, (), "n"), 0.0)
    made += scheduler.handle(WorkerJoined(1, 1, (), "n"), 1.0)
    # Rank 0 has two trials, until 40 s: the wide one would end at 100 s.
    assert sorted(number for assign in of(Assign, made) for number in assign.numbers) == [0, 1, 2, 3]
