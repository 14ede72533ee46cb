from __future__ import annotations

import pickle
from collections import Counter, deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, EndReason, FailureCause, Slot, TrialState
from mpisweep.scheduling.decisions import (
    Abandon,
    Assign,
    Commit,
    Decision,
    End,
    GiveUp,
    Quarantine,
    Reclaim,
    RequestLease,
    Stop,
)
from mpisweep.scheduling.durations import DurationModel, work_from_names
from mpisweep.scheduling.events import (
    NothingToLease,
    SlotBroken,
    StopRequested,
    TimePassed,
    TrialsEnded,
    TrialsGranted,
    TrialsReclaimed,
    TrialsRevoked,
    WorkerJoined,
    WorkerLost,
)
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.scheduling.trials import MOVES, IllegalMoveError

COMPLETE, FAILED = int(TrialState.COMPLETE), int(TrialState.FAILED)


def scheduler_of(
    count: int, *, retries: int = 1, work: list[float] | None = None, states=None, attempts=None, **more
) -> Scheduler:
    model = DurationModel({"x": list(range(1, count + 1))}, work, count)
    return Scheduler(
        states or bytes(count), attempts or [0] * count, model, retries=retries, grace_s=1.0, **more
    )


def ended(slot: Slot, pairs, *, state: int = COMPLETE, wall_time_s: float = 0.5) -> TrialsEnded:
    pairs = list(pairs)
    count = len(pairs)
    failed = state == FAILED
    return TrialsEnded(
        EndedBlock(
            slot.rank,
            slot.place,
            [n for n, _ in pairs],
            [a for _, a in pairs],
            [state] * count,
            [0.0] * count,
            [wall_time_s] * count,
            {},
            [1] * count if failed else [],
            ["x"] * count if failed else [],
        )
    )


def test_a_worker_gets_a_trial_to_run_and_one_to_run_next():
    scheduler = scheduler_of(5)
    decisions = scheduler.handle(WorkerJoined(1, 1), 0.0)
    assert decisions == [Assign((Slot(1, 0),), [0], [1]), Assign((Slot(1, 0),), [1], [1])]


def test_the_longest_expected_trial_goes_first():
    scheduler = scheduler_of(3, work=[1.0, 3.0, 2.0])
    [first, second] = scheduler.handle(WorkerJoined(0, 1), 0.0)
    assert (first.numbers, second.numbers) == ([1], [2])


def test_parameters_with_well_known_names_predict_durations():
    assert work_from_names({"batch_size": [2, 4], "epochs": [3, 1], "lr": [0.1, 0.2]}) == [6.0, 4.0]
    assert work_from_names({"lr": [0.1, 0.2]}) is None


def test_durations_are_learned_from_measurements():
    model = DurationModel({"x": [1, 2, 4, 8, 16]}, None, 5)
    model.observe([0, 1, 3], [1.0, 2.0, 8.0])
    assert model.is_due
    model.fit()
    assert model.expected_s(2) == pytest.approx(4, rel=0.25)
    assert model.next_last([4, 0, 2]) == [0, 2, 4]


def test_short_trials_are_assigned_in_batches_and_long_ones_alone():
    scheduler = scheduler_of(10_000)
    slot = Slot(0, 0)
    given = deque()
    for decision in scheduler.handle(WorkerJoined(0, 1), 0.0):
        given.extend(zip(decision.numbers, decision.attempts, strict=True))
    sizes = []
    for _ in range(10):
        for decision in scheduler.handle(ended(slot, [given.popleft()], wall_time_s=1e-5), 0.0):
            if isinstance(decision, Assign):
                sizes.append(len(decision.numbers))
                given.extend(zip(decision.numbers, decision.attempts, strict=True))
    assert max(sizes) > 100
    for step in range(8 * len(given)):
        if not given:
            break
        for decision in scheduler.handle(ended(slot, [given.popleft()], wall_time_s=2.0), 2.0 * step):
            if isinstance(decision, Assign):
                sizes.append(len(decision.numbers))
                given.extend(zip(decision.numbers, decision.attempts, strict=True))
    assert sizes[-1] == 1


def test_when_many_short_trials_end_at_once_durations_are_fitted_once(monkeypatch):
    fitted = []
    scheduler = scheduler_of(100)
    monkeypatch.setattr(scheduler.core.model, "fit", lambda running: fitted.append(len(fitted)))
    given = [
        (Slot(rank, 0), decision.numbers[0], decision.attempts[0])
        for rank in range(20)
        for decision in scheduler.handle(WorkerJoined(rank, 1), 0.0)[:1]
    ]
    for slot, *pair in given:
        scheduler.handle(ended(slot, [pair], wall_time_s=0.05), 0.05)
    assert len(fitted) == 1
    scheduler.handle(TimePassed(), 0.2)
    assert len(fitted) == 2


def test_a_late_result_of_an_old_attempt_is_dropped():
    scheduler = scheduler_of(1)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    scheduler.handle(WorkerJoined(2, 1), 0.0)
    scheduler.handle(WorkerLost(1), 0.0)
    assert scheduler.handle(ended(Slot(1, 0), [(0, 1)]), 0.0) == []
    assert scheduler.handle(ended(Slot(2, 0), [(0, 1)]), 0.0) == []
    [commit, end] = scheduler.handle(ended(Slot(2, 0), [(0, 2)]), 0.0)
    assert isinstance(commit, Commit)
    assert commit.block.attempts == [2]
    assert end == End(EndReason.COMPLETE)


def test_a_trial_whose_workers_are_lost_too_often_fails():
    scheduler = scheduler_of(1, retries=1)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    scheduler.handle(WorkerJoined(2, 1), 0.0)
    [give_up, again] = scheduler.handle(WorkerLost(1), 0.0)
    assert give_up == GiveUp(1, [0], [1], AttemptEnd.LOST)
    assert again == Assign((Slot(2, 0),), [0], [2])
    [commit, end] = scheduler.handle(WorkerLost(2), 0.0)
    assert commit.block.causes == [FailureCause.LOST]
    assert end == End(EndReason.NOTHING_COMPLETED)


def test_a_slot_that_fails_uses_an_attempt_of_its_trial_and_stays_in_use():
    scheduler = scheduler_of(1, retries=1)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    [give_up, again] = scheduler.handle(SlotBroken(Slot(1, 0), (0, 1), "no process", is_gone=False), 0.0)
    assert give_up == GiveUp(1, [0], [1], AttemptEnd.LOST)
    assert again == Assign((Slot(1, 0),), [0], [2])
    assert scheduler.handle(SlotBroken(Slot(1, 0), (0, 1), "no process", is_gone=False), 0.0) == [], (
        "it is out of date"
    )
    [commit, _] = scheduler.handle(SlotBroken(Slot(1, 0), (0, 2), "no process", is_gone=False), 0.0)
    assert commit.block.causes == [FailureCause.LOST]
    assert commit.block.messages == ["no process, and no retry is left"]


def test_an_abandoned_slot_gets_no_trials_and_its_backlog_loses_no_retry():
    scheduler = scheduler_of(4, retries=1)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    scheduler.handle(WorkerJoined(2, 1), 0.0)
    [lost, quarantine, back, *_] = scheduler.handle(
        SlotBroken(Slot(1, 0), (0, 1), "it hangs", is_gone=True), 0.0
    )
    assert lost == GiveUp(1, [0], [1], AttemptEnd.LOST)
    assert quarantine == Quarantine(Slot(1, 0), "it hangs")
    assert back == GiveUp(1, [1], [1], AttemptEnd.RECLAIMED)
    scheduler.check()
    assert scheduler.handle(SlotBroken(Slot(1, 0), (0, 1), "it hangs", is_gone=True), 0.0) == []
    ran: list[tuple[int, int]] = []
    while held := scheduler.held[Slot(2, 0)]:
        ran.append(next(iter(held.items())))
        decisions = scheduler.handle(ended(Slot(2, 0), ran[-1:]), 0.0)
        assert all(
            slot.rank == 2
            for decision in decisions
            if isinstance(decision, Assign)
            for slot in decision.slots
        )
    assert sorted(ran) == [(0, 2), (1, 2), (2, 1), (3, 1)]
    assert decisions[-1] == End(EndReason.COMPLETE)


@pytest.mark.parametrize(
    ("worker_lost", "reason"), [(False, EndReason.NO_DEVICES), (True, EndReason.NO_WORKERS)]
)
def test_without_usable_slots_the_run_ends_and_is_restarted_only_if_workers_may_return(worker_lost, reason):
    scheduler = scheduler_of(4)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    scheduler.handle(WorkerJoined(2, 1), 0.0)
    scheduler.handle(
        WorkerLost(2) if worker_lost else SlotBroken(Slot(2, 0), (1, 1), "it hangs", is_gone=True), 0.0
    )
    assert scheduler.handle(SlotBroken(Slot(1, 0), None, "it hangs", is_gone=True), 0.0)[-1] == End(reason)
    assert reason.is_passing is worker_lost
    assert reason.exit_code == 3


def test_a_new_master_learns_the_abandoned_slots_and_waits_for_others():
    scheduler = scheduler_of(2, held={Slot(1, 0): {0: 1}}, states=[1, 0], attempts=[1, 0], patience_s=10.0)
    [back] = scheduler.handle(WorkerJoined(1, 1, ((),), gone=(0,)), 0.0)
    assert back == GiveUp(1, [0], [1], AttemptEnd.RECLAIMED)
    scheduler.check()
    assert scheduler.handle(TimePassed(), 9.0) == []
    assert scheduler.handle(TimePassed(), 11.0) == [End(EndReason.NO_DEVICES)]


def test_a_worker_with_an_abandoned_slot_may_rejoin_the_same_master():
    scheduler = scheduler_of(3)
    scheduler.handle(WorkerJoined(1, 2), 0.0)
    decisions = scheduler.handle(WorkerJoined(1, 2, (((0, 1),), ()), gone=(1,)), 0.0)
    assert GiveUp(1, [1], [1], AttemptEnd.RECLAIMED) in decisions
    scheduler.check()
    assert scheduler.slots == 1


def known(count: int, seconds: float = 0.0003) -> DurationModel:
    """A model that expects the same duration for every trial."""
    model = DurationModel({"x": list(range(1, count + 1))}, None, count)
    model.observe([0, 1, 2], [seconds] * 3)
    model.fit()
    return model


class PoisonedSweep:
    """One worker at a time; one trial, the poison, kills the worker when it begins.

    Trials that were assigned together end in one block.  The end of the trial before the poison is lost with
    the worker.
    """

    def __init__(self, poison: int, *, retries: int, count: int = 200, seconds: float = 0.0003) -> None:
        self.scheduler = Scheduler(
            bytes(count), [0] * count, known(count, seconds), retries=retries, grace_s=1.0
        )
        self.seconds = seconds
        self.poison = poison
        self.rank = 0
        self.end: EndReason | None = None
        self.lost: list[int] = []
        self.runs = Counter()
        self.committed: dict[int, int] = {}
        self.units: dict[Slot, deque[list[tuple[int, int]]]] = {}
        self.join()
        while self.end is None:
            self.run_one()

    def feed(self, event) -> None:
        for decision in self.scheduler.handle(event, 0.0):
            match decision:
                case Assign((slot,), numbers, attempts):
                    self.units[slot].append(list(zip(numbers, attempts, strict=True)))
                case Commit(block):
                    self.committed |= dict(zip(block.numbers, block.states, strict=True))
                    self.lost += [
                        n for n, c in zip(block.numbers, block.causes, strict=False) if c == FailureCause.LOST
                    ]
                case End(reason):
                    self.end = reason
        if self.end is None:
            self.scheduler.check()

    def join(self) -> None:
        self.rank += 1
        self.units = {Slot(self.rank, 0): deque()}
        self.feed(WorkerJoined(self.rank, 1))

    def run_one(self) -> None:
        [slot] = self.units
        unit = self.units[slot].popleft()
        self.runs.update(number for number, _ in unit)
        begins = [*unit, *(self.units[slot][0] if self.units[slot] else ())]
        if self.poison in [number for number, _ in begins]:
            # Another worker joins before the loss, so the sweep continues.
            lost = self.rank
            self.join()
            self.feed(WorkerLost(lost))
        else:
            self.feed(ended(slot, unit, wall_time_s=self.seconds))


@pytest.mark.parametrize("retries", [0, 1, 2])
# The last trials are assigned one by one; see the next test.
@pytest.mark.parametrize("poison", [0, 1, 17, 29, 60, 150])
def test_of_trials_that_were_assigned_together_only_the_one_that_kills_the_worker_is_lost(poison, retries):
    sweep = PoisonedSweep(poison, retries=retries)
    assert sweep.lost == [poison]
    assert len(sweep.committed) == 200
    # Once with the others, then alone; trials that ran together with the poison are tried once more.
    assert max(runs for number, runs in sweep.runs.items() if number != poison) <= 3


@pytest.mark.parametrize("retries", [1, 2])
@pytest.mark.parametrize("poison", range(6))
def test_a_trial_whose_end_was_lost_because_the_next_one_killed_the_worker_does_not_fail(poison, retries):
    sweep = PoisonedSweep(poison, retries=retries, count=6, seconds=1.0)
    assert sweep.lost == [poison]
    assert len(sweep.committed) == 6


def test_trials_of_a_worker_lost_with_the_master_are_tried_alone_without_blame():
    held = {Slot(1, 0): {0: 1, 1: 1}}
    scheduler = scheduler_of(
        3, retries=0, states=[int(TrialState.RUNNING)] * 2 + [0], attempts=[1, 1, 0], held=held
    )
    scheduler.handle(WorkerJoined(2, 1), 0.0)
    [give_up, *_] = scheduler.handle(WorkerLost(1), 0.0)
    assert give_up == GiveUp(1, [0, 1], [1, 1], AttemptEnd.RECLAIMED)
    [_, assign] = scheduler.handle(ended(Slot(2, 0), [(2, 1)]), 0.0)
    assert assign == Assign((Slot(2, 0),), [0], [2])
    [commit] = scheduler.handle(WorkerLost(2), 0.0)[:1]
    assert (commit.block.numbers, commit.block.causes) == ([0], [FailureCause.LOST])


def test_trials_that_were_lost_together_are_retried_one_by_one_with_no_backlog():
    scheduler = Scheduler(bytes(60), [0] * 60, known(60), retries=0, grace_s=1.0)
    [first, *_] = scheduler.handle(WorkerJoined(1, 1), 0.0)
    assert len(first.numbers) == 30
    scheduler.handle(WorkerJoined(2, 1), 0.0)
    [given_up, *_] = scheduler.handle(WorkerLost(1), 0.0)
    assert (given_up.end, given_up.numbers[:30]) == (AttemptEnd.RECLAIMED, first.numbers)
    slot, tried = Slot(2, 0), []
    while len(tried) < len(given_up.numbers):
        held = list(scheduler.held[slot].items())
        if held[0][0] in given_up.numbers:
            assert len(held) == 1
            tried.append(held[0][0])
        scheduler.handle(ended(slot, held[:1], wall_time_s=0.0003), 0.0)
        scheduler.check()
    assert sorted(tried) == sorted(given_up.numbers)


def test_an_idle_slot_gets_the_backlog_of_another():
    scheduler = scheduler_of(2)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    scheduler.handle(WorkerJoined(2, 1), 0.0)
    assert scheduler.handle(TimePassed(), 0.001) == []
    assert scheduler.handle(TimePassed(), 1.0) == [Reclaim(Slot(1, 0))]
    assert scheduler.handle(TimePassed(), 2.0) == []
    [give_up, assign] = scheduler.handle(TrialsReclaimed(Slot(1, 0), (1,), (1,), AttemptEnd.RECLAIMED), 2.0)
    assert give_up == GiveUp(1, [1], [1], AttemptEnd.RECLAIMED)
    assert assign == Assign((Slot(2, 0),), [1], [2])


def test_a_stop_lets_the_running_trials_return_and_starts_no_new_ones():
    scheduler = scheduler_of(5)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    assert scheduler.handle(StopRequested(EndReason.SIGNAL), 0.0) == [Stop(1.0)]
    assert scheduler.handle(StopRequested(EndReason.WALLTIME), 0.0) == []
    [_] = scheduler.handle(TrialsReclaimed(Slot(1, 0), (1,), (1,), AttemptEnd.RECLAIMED), 0.0)
    [_, end] = scheduler.handle(TrialsReclaimed(Slot(1, 0), (0,), (1,), AttemptEnd.INTERRUPTED), 0.0)
    assert end == End(EndReason.SIGNAL)


def test_a_worker_that_joins_a_new_master_after_the_stop_is_stopped():
    """Each survivor forwards the signal after its Hello; the first must not be the only one that stops."""
    held = {Slot(1, 0): {0: 1}, Slot(2, 0): {1: 1}}
    scheduler = scheduler_of(2, states=[int(TrialState.RUNNING)] * 2, attempts=[1, 1], held=held)
    scheduler.handle(WorkerJoined(1, 1, (((0, 1),),)), 0.0)
    assert scheduler.handle(StopRequested(EndReason.SIGNAL), 0.0) == [Stop(1.0)]
    assert scheduler.handle(WorkerJoined(2, 1, (((1, 1),),)), 0.25) == [Stop(0.75, 2)]
    assert scheduler.handle(StopRequested(EndReason.SIGNAL), 0.25) == []


def test_a_sweep_that_had_ended_ends_at_once():
    scheduler = scheduler_of(2, states=[COMPLETE, FAILED])
    assert scheduler.handle(TimePassed(), 0.0) == [End(EndReason.COMPLETE)]


def test_an_illegal_move_names_trial_and_states():
    scheduler = scheduler_of(1)
    with pytest.raises(IllegalMoveError, match="trial 0 cannot go from waiting to complete"):
        scheduler.core.trials.move(0, COMPLETE)


def test_only_a_retry_leaves_an_end_state():
    assert {what for (old, _), what in MOVES.items() if old.is_end} == {"retried"}


class Pool:
    """Ranks of one slot each, and the trials assigned to them, in order."""

    def __init__(self, scheduler: Scheduler, ranks: int) -> None:
        self.scheduler = scheduler
        self.now = 0.0
        self.held: dict[Slot, deque[tuple[int, int]]] = {}
        self.decisions: list[object] = []
        for rank in range(ranks):
            self.held[Slot(rank, 0)] = deque()
            self.feed(WorkerJoined(rank, 1))

    def feed(self, event) -> list[object]:
        made = self.scheduler.handle(event, self.now)
        self.scheduler.check()
        self.decisions += made
        for decision in made:
            if isinstance(decision, Assign):
                self.held[decision.slots[0]].extend(zip(decision.numbers, decision.attempts, strict=True))
        for decision in made:
            if isinstance(decision, Reclaim):
                held = self.held[decision.slot]
                back = [held.pop() for _ in range(len(held) - 1)][::-1]
                numbers, tries = tuple(n for n, _ in back), tuple(a for _, a in back)
                self.feed(TrialsReclaimed(decision.slot, numbers, tries, AttemptEnd.RECLAIMED))
        return made

    def end(self, rank: int, *, fails: str = "", wall_time_s: float = 0.5) -> list[object]:
        slot = Slot(rank, 0)
        event = ended(
            slot, [self.held[slot].popleft()], state=FAILED if fails else COMPLETE, wall_time_s=wall_time_s
        )
        if fails:
            event.block.messages[0] = fails
        return self.feed(event)

    def made(self, kind: type) -> list:
        return [decision for decision in self.decisions if isinstance(decision, kind)]


def test_a_device_with_two_failures_in_a_row_is_quarantined_and_the_second_trial_runs_elsewhere():
    pool = Pool(scheduler_of(40, quarantine=True), 3)
    pool.end(0, fails="ECC")
    for rank in (1, 2, 1, 2):
        pool.end(rank)
    number = pool.held[Slot(0, 0)][0][0]
    pool.end(0, fails="ECC")
    [given_up] = [d for d in pool.made(GiveUp) if d.end is AttemptEnd.SUSPECT]
    assert given_up.numbers == [number]
    assert [d.slot for d in pool.made(Quarantine)] == [Slot(0, 0)]
    assert not [d for d in pool.end(1) if isinstance(d, Assign) and d.slots[0].rank == 0]
    # The failed trial runs next elsewhere; when it completes there, the device stays quarantined.
    while any(number not in [n for n, _ in held] for held in [pool.held[Slot(1, 0)]]):
        pool.end(1)
    pool.held[Slot(1, 0)].rotate(-[n for n, _ in pool.held[Slot(1, 0)]].index(number))
    pool.end(1)
    assert len(pool.made(Quarantine)) == 1


def test_a_quarantine_ends_when_the_trial_fails_elsewhere_too():
    pool = Pool(scheduler_of(40, quarantine=True), 3)
    pool.end(0, fails="bug")
    for rank in (1, 2, 1, 2):
        pool.end(rank)
    number = pool.held[Slot(0, 0)][0][0]
    pool.end(0, fails="bug")
    for _ in range(10):
        rank = next((r for r in (1, 2) if number in [n for n, _ in pool.held[Slot(r, 0)]]), 1)
        pool.end(rank, fails="bug" if pool.held[Slot(rank, 0)][0][0] == number else "")
        if len(pool.made(Quarantine)) == 2:
            break
    assert [d.why == "" for d in pool.made(Quarantine)] == [False, True]


def test_a_trial_begun_on_a_quarantined_device_is_tried_elsewhere_even_if_one_other_device_is_left():
    pool = Pool(scheduler_of(40, quarantine=True), 2)
    pool.end(0, fails="ECC")
    for _ in range(4):
        pool.end(1)
    # The slot begins the next trial before the reclaim arrives.
    [running, begun] = pool.held[Slot(0, 0)]
    block = ended(Slot(0, 0), [running], state=FAILED)
    pool.scheduler.handle(block, 0.0)
    pool.held[Slot(0, 0)].popleft()
    pool.end(0, fails="ECC")
    assert [d.numbers for d in pool.made(GiveUp) if d.end is AttemptEnd.SUSPECT] == [[begun[0]]]


@pytest.mark.parametrize("others_fail", [False, True])
def test_failures_on_several_devices_quarantine_none(others_fail: bool):
    pool = Pool(scheduler_of(40, quarantine=True), 3)
    pool.end(0, fails="bug")
    for rank in (1, 2, 1, 2):
        pool.end(rank)
    if others_fail:
        pool.end(1, fails="bug")
    pool.end(0, fails="bug")
    assert bool(pool.made(Quarantine)) is not others_fail


def test_a_slow_device_is_quarantined():
    pool = Pool(scheduler_of(200, quarantine=True), 4)
    for _ in range(14):
        for rank in range(4):
            if pool.held[Slot(rank, 0)]:
                pool.end(rank, wall_time_s=9.0 if rank == 3 else 1.0)
    assert [d.slot.rank for d in pool.made(Quarantine)] == [3]
    assert "times as long here" in pool.made(Quarantine)[0].why


@pytest.mark.parametrize(("messages", "stops"), [
    (["KeyError: 1", "KeyError: 22", "KeyError: 333"], True),
    (["KeyError: 1", "ValueError: 2", "KeyError: 3"], False),
    (["crash by SIGKILL", "crash by SIGKILL", "crash by SIGKILL"], False),
])  # fmt: skip
def test_first_trials_that_fail_alike_stop_the_sweep(messages, stops):
    pool = Pool(scheduler_of(40, same_failures=3), 1)
    for message in messages:
        pool.end(0, fails=message)
    assert bool(pool.made(Stop)) is stops


def test_one_completed_trial_keeps_the_sweep_running():
    pool = Pool(scheduler_of(40, same_failures=3), 1)
    pool.end(0)
    for _ in range(5):
        pool.end(0, fails="KeyError")
    assert pool.made(Stop) == []


def test_near_the_deadline_the_longest_trial_that_fits_goes_first_and_others_stay_waiting():
    work = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 4.0, 8.0, 16.0]
    model = DurationModel({"x": work}, work, 10)
    model.observe([0, 1, 2, 6, 7, 8], [1.0, 1.0, 1.0, 2.0, 4.0, 8.0])
    model.fit()
    scheduler = Scheduler(bytes(10), [0] * 10, model, retries=1, grace_s=1.0, deadline=10.0)
    pool = Pool(scheduler, 1)
    first = pool.made(Assign)[0].numbers
    assert first == [7], "of 16, 8, 4 s within 10 s and with the uncertainty of what was measured, the 4"
    while pool.held[Slot(0, 0)] and not pool.made(End):
        number = pool.held[Slot(0, 0)][0][0]
        pool.now += work[number]
        pool.end(0, wall_time_s=work[number])
    assert pool.now <= 10.0
    assert pool.made(End) == [End(EndReason.WALLTIME)]


# ------------------------------------------------------------------------------------- split sweeps


def shared_of(count: int, **more) -> Scheduler:
    return scheduler_of(count, shared=True, **more)


def grant(*numbers: int, attempt: int = 0, lost: int = 0) -> TrialsGranted:
    return TrialsGranted(numbers, (attempt,) * len(numbers), (lost,) * len(numbers))


@pytest.mark.parametrize(("deadline", "more"), [(4.5, 1), (1.25, 0)])
def test_a_worker_that_joins_a_new_master_with_a_running_trial_gets_the_next_one_if_it_ends_in_time(
    deadline, more
):
    states = [COMPLETE] * 3 + [int(TrialState.RUNNING)] + [0] * 6
    scheduler = scheduler_of(
        10, states=states, attempts=[1] * 4 + [0] * 6, held={Slot(1, 0): {3: 1}}, deadline=deadline
    )
    scheduler.core.model.observe([0, 1, 2], [0.5, 0.5, 0.5])
    scheduler.core.model.fit()
    assert len(scheduler.handle(WorkerJoined(1, 1, (((3, 1),),)), 0.0)) == more
    scheduler.check()


def test_in_a_split_sweep_only_granted_trials_run_and_leases_are_requested_in_time():
    scheduler = shared_of(6)
    assert scheduler.handle(WorkerJoined(0, 1), 0.0) == [RequestLease(shortest=False)]
    assert scheduler.handle(TimePassed(), 0.1) == []
    given = scheduler.handle(grant(0, 1, 2, 3), 0.2)
    assert given == [Assign((Slot(0, 0),), [0], [1]), Assign((Slot(0, 0),), [1], [1])]
    # Two trials still wait.  The next lease is requested when none waits, although two are held.
    done = scheduler.handle(ended(Slot(0, 0), [(0, 1)]), 0.3)
    assert [type(decision) for decision in done] == [Commit, Assign]
    done = scheduler.handle(ended(Slot(0, 0), [(1, 1)]), 0.4)
    assert done[-1] == RequestLease(shortest=False)
    # A trial is granted only once.
    assert scheduler.handle(grant(0, 3, 4), 0.5) == []
    scheduler.check()
    assert scheduler.elsewhere == 1


def test_wide_trials_that_wait_for_workers_to_join_request_no_lease():
    scheduler = shared_of(12, widths=[2] * 12)
    assert scheduler.handle(TimePassed(), 100.0) == []
    assert scheduler.handle(WorkerJoined(0, 1), 100.1) == []
    assert scheduler.handle(WorkerJoined(1, 1), 100.2) == [RequestLease(shortest=False)]
    assert scheduler.handle(grant(0, 1, 2, 3), 100.3) == [Assign((Slot(0, 0), Slot(1, 0)), [0], [1])]
    # After one of the two is lost, other leases may hold trials that one worker can run.
    assert [type(decision) for decision in scheduler.handle(WorkerLost(1), 100.4)] == [Abandon]
    assert [
        type(decision)
        for decision in scheduler.handle(TrialsReclaimed(Slot(0, 0), (0,), (1,), AttemptEnd.RECLAIMED), 103.0)
    ][-1:] == [RequestLease]
    scheduler.check()


def test_with_too_few_workers_only_leases_that_they_can_run_are_requested():
    scheduler = shared_of(12, widths=[4] * 6 + [1] * 6)
    assert scheduler.handle(WorkerJoined(0, 1), 0.1) == []
    assert scheduler.handle(WorkerJoined(1, 1), 0.2) == []
    assert [scheduler.handle(TimePassed(), now) for now in (1.0, 1.9, 2.1)] == [[], [], []], (
        "others may be about to join"
    )
    assert scheduler.handle(TimePassed(), 2.3) == [RequestLease(shortest=False, ranks=2)]
    assert scheduler.handle(NothingToLease(sure=True), 2.4) == [End(EndReason.SHARE)]


def test_a_share_is_done_when_no_lease_is_available_and_no_trial_runs():
    scheduler = shared_of(2)
    scheduler.handle(WorkerJoined(0, 1), 0.0)
    scheduler.handle(grant(0), 0.1)
    assert scheduler.handle(NothingToLease(sure=True), 0.2) == []
    done = scheduler.handle(ended(Slot(0, 0), [(0, 1)]), 0.3)
    assert [type(decision) for decision in done] == [Commit]
    assert scheduler.handle(TimePassed(), 1.21) == [RequestLease(shortest=False)]
    # A silent holder may be dead.
    assert scheduler.handle(NothingToLease(sure=False), 1.25) == []
    assert scheduler.handle(TimePassed(), 2.15) == []
    assert scheduler.handle(TimePassed(), 2.26) == [RequestLease(shortest=False)]
    assert scheduler.handle(NothingToLease(sure=True), 2.3) == [End(EndReason.SHARE)]


def test_revoked_trials_do_not_start_and_running_ones_may_end():
    scheduler = shared_of(5)
    scheduler.handle(WorkerJoined(0, 1), 0.0)
    scheduler.handle(grant(0, 1, 2, 3), 0.1)
    assert scheduler.handle(TrialsRevoked((0, 1, 2)), 0.2) == [Reclaim(Slot(0, 0))]
    decisions = scheduler.handle(TrialsReclaimed(Slot(0, 0), (1,), (1,), AttemptEnd.RECLAIMED), 0.3)
    assert [decision for decision in decisions if isinstance(decision, Assign)] == [
        Assign((Slot(0, 0),), [3], [1])
    ]
    scheduler.check()
    assert isinstance(scheduler.handle(ended(Slot(0, 0), [(0, 1)]), 0.4)[0], Commit)
    scheduler.check()


def test_after_a_stall_no_trial_starts_before_the_leases_are_confirmed():
    def end_a_trial_at(now: float) -> tuple[Scheduler, list[Decision]]:
        scheduler = shared_of(5)
        scheduler.handle(WorkerJoined(0, 1), 0.0)
        scheduler.handle(grant(0, 1, 2), 0.1)
        return scheduler, scheduler.handle(ended(Slot(0, 0), [(0, 1)]), now)

    _, (commit, *more) = end_a_trial_at(0.9)
    assert isinstance(commit, Commit)
    assert more == [Assign((Slot(0, 0),), [2], [1]), RequestLease(shortest=False)]
    scheduler, (commit, *more) = end_a_trial_at(40.0)
    assert isinstance(commit, Commit)
    assert more == [RequestLease(shortest=False)]
    assert scheduler.handle(TrialsRevoked((1, 2)), 40.1) == []
    assert scheduler.handle(grant(3), 40.2) == [Assign((Slot(0, 0),), [3], [1]), RequestLease(shortest=False)]
    scheduler.check()


def test_a_trial_lost_with_whole_allocations_uses_up_its_retries():
    scheduler = shared_of(2, retries=1)
    scheduler.handle(WorkerJoined(0, 1), 0.0)
    assert scheduler.handle(grant(0, attempt=1, lost=1), 0.1)[0] == Assign((Slot(0, 0),), [0], [2])
    (commit, *_) = scheduler.handle(grant(1, attempt=2, lost=2), 0.2)
    assert isinstance(commit, Commit)
    assert (commit.block.numbers, commit.block.attempts) == ([1], [3])
    assert commit.block.messages == ["the allocations that tried it were lost, and no retry is left"]
    assert commit.block.causes == [FailureCause.LOST]
    scheduler.check()


def test_near_the_deadline_the_shortest_leases_are_requested_until_none_fits():
    work = [1000.0, 1000.0, 1000.0, 1.0, 1.0, 2000.0]
    scheduler = shared_of(6, work=work, deadline=50.0)
    scheduler.handle(WorkerJoined(0, 1), 0.0)
    scheduler.core.model.observe([0, 1, 3], [100.0, 100.0, 0.1])
    scheduler.core.model.fit()
    assert scheduler.handle(grant(0, 1), 0.1) == [RequestLease(shortest=True)]
    assert scheduler.handle(grant(3, 4), 0.2)[0] == Assign((Slot(0, 0),), [3], [1])
    scheduler.handle(ended(Slot(0, 0), [(3, 1)], wall_time_s=0.1), 0.3)
    scheduler.handle(ended(Slot(0, 0), [(4, 1)], wall_time_s=0.1), 0.4)
    assert scheduler.handle(grant(5), 0.5) == [End(EndReason.WALLTIME)]


class Sweep(RuleBasedStateMachine):
    """Workers join, work, die, answer late and repeat messages; the scheduler's invariants always hold."""

    COUNT = 12

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = scheduler_of(self.COUNT, retries=2, quarantine=True)
        self.now = 0.0
        self.alive: dict[int, deque[tuple[int, int]]] = {}
        self.asked: set[int] = set()
        self.late: list[object] = []
        self.committed: dict[int, int] = {}
        self.end: EndReason | None = None
        self.ranks = 0
        self.stopping = False

    def feed(self, event) -> None:
        self.now += 0.03
        # Events must survive pickling.
        for decision in self.scheduler.handle(pickle.loads(pickle.dumps(event)), self.now):
            match decision:
                case Assign((slot,), numbers, attempts):
                    assert not self.stopping
                    self.alive[slot.rank].extend(zip(numbers, attempts, strict=True))
                case Commit(block):
                    for number, attempt in zip(block.numbers, block.attempts, strict=True):
                        assert number not in self.committed, "a trial was committed twice"
                        self.committed[number] = attempt
                case Reclaim(slot):
                    self.asked.add(slot.rank)
                case Stop():
                    self.stopping = True
                case End(reason):
                    self.end = reason

    @rule()
    def a_worker_joins(self) -> None:
        self.ranks += 1
        self.alive[self.ranks] = deque()
        self.feed(WorkerJoined(self.ranks, 1))

    @precondition(lambda self: any(self.alive.values()))
    @rule(data=st.data(), failed=st.booleans(), count=st.integers(1, 3))
    def trials_end(self, data, failed, count) -> None:
        rank = data.draw(st.sampled_from([rank for rank, held in self.alive.items() if held]))
        held = self.alive[rank]
        pairs = [held.popleft() for _ in range(min(count, len(held)))]
        event = ended(Slot(rank, 0), pairs, state=FAILED if failed else COMPLETE, wall_time_s=0.001)
        self.late.append(event)
        self.feed(event)

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def an_old_message_arrives_again(self, data) -> None:
        before = dict(self.committed)
        self.feed(data.draw(st.sampled_from(self.late)))
        assert self.committed == before

    @precondition(lambda self: self.asked & set(self.alive))
    @rule(data=st.data())
    def a_worker_returns_reclaimed_trials(self, data) -> None:
        rank = data.draw(st.sampled_from(sorted(self.asked & set(self.alive))))
        self.asked.discard(rank)
        held = self.alive[rank]
        back = [held.pop() for _ in range(len(held) - 1)][::-1]
        event = TrialsReclaimed(
            Slot(rank, 0), tuple(n for n, _ in back), tuple(a for _, a in back), AttemptEnd.RECLAIMED
        )
        self.late.append(event)
        self.feed(event)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def a_worker_dies(self, data) -> None:
        rank = data.draw(st.sampled_from(sorted(self.alive)))
        for pair in self.alive.pop(rank):
            self.late.append(ended(Slot(rank, 0), [pair]))
        self.feed(WorkerLost(rank))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), is_gone=st.booleans(), ran=st.booleans())
    def a_slot_breaks(self, data, is_gone, ran) -> None:
        rank = data.draw(st.sampled_from(sorted(self.alive)))
        held = self.alive[rank]
        trial = held.popleft() if held and ran else None
        event = SlotBroken(Slot(rank, 0), trial, "it hangs", is_gone)
        if is_gone:
            self.late += [ended(Slot(rank, 0), [pair]) for pair in self.alive.pop(rank)]
        self.late.append(event)
        self.feed(event)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def a_silent_worker_is_declared_lost_and_rejoins(self, data) -> None:
        rank = data.draw(st.sampled_from(sorted(self.alive)))
        held = self.alive.pop(rank)
        self.feed(WorkerLost(rank))
        if self.end is None:
            # Its trials wait or were assigned to others: it keeps only those that were not assigned again.
            self.alive[rank] = deque()
            self.feed(WorkerJoined(rank, 1, (tuple(held),)))
            believed = self.scheduler.held.get(Slot(rank, 0), {})
            self.late += [ended(Slot(rank, 0), [pair]) for pair in held if believed.get(pair[0]) != pair[1]]
            ours = [pair for pair in held if believed.get(pair[0]) == pair[1]]
            self.alive[rank] = deque(ours + [pair for pair in self.alive[rank] if pair not in ours])

    @precondition(lambda self: self.alive and self.end is None and not self.stopping)
    @rule(data=st.data())
    def a_new_master_takes_over(self, data) -> None:
        old = self.scheduler
        self.asked.clear()
        self.scheduler = scheduler_of(
            self.COUNT,
            retries=2,
            quarantine=True,
            states=bytes(old.core.trials.states),
            attempts=list(old.core.trials.attempts),
            held={slot: dict(trials) for slot, trials in old.held.items()},
            losses=dict(old.core.losses.counts),
        )
        for rank in sorted(self.alive):
            held = self.alive[rank]
            if data.draw(st.booleans()) and held:
                # The last assignment never arrived.
                held.pop()
            self.feed(WorkerJoined(rank, 1, (tuple(held),)))

    @rule()
    def time_passes(self) -> None:
        self.feed(TimePassed())

    @precondition(lambda self: not self.stopping)
    @rule(really=st.integers(0, 9))
    def a_stop_is_requested(self, really) -> None:
        if really == 0:
            self.feed(StopRequested(EndReason.SIGNAL))
            for rank, held in list(self.alive.items()):
                back = tuple(held)
                held.clear()
                self.feed(
                    TrialsReclaimed(
                        Slot(rank, 0),
                        tuple(n for n, _ in back),
                        tuple(a for _, a in back),
                        AttemptEnd.INTERRUPTED,
                    )
                )

    @invariant()
    def invariants_hold(self) -> None:
        if self.end is None:
            self.scheduler.check()
            states = [TrialState(s) for s in self.scheduler.core.trials.states]
            assert {n for n, s in enumerate(states) if s.is_end} == set(self.committed)

    def teardown(self) -> None:
        """With one healthy worker and no more faults every sweep ends."""
        if self.end is None and not self.stopping:
            self.a_worker_joins()
            for _ in range(500):
                if self.end is not None:
                    break
                for rank, held in list(self.alive.items()):
                    if held:
                        self.feed(ended(Slot(rank, 0), [held.popleft()]))
                self.feed(TimePassed())
            without_workers = (EndReason.NO_WORKERS, EndReason.NO_DEVICES)
            assert self.end in (EndReason.COMPLETE, EndReason.NOTHING_COMPLETED, *without_workers)
            if self.end not in without_workers:
                assert len(self.committed) == self.COUNT


TestSweep = Sweep.TestCase
TestSweep.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize(
    "values",
    [
        [1e308, 1.2e308, 1.7e308, 3.0],
        [-1.7e308, 0.0, 1.7e308, 1.0],
        [5e-324, 1e-300, 1e308, 2.0],
        [2.0**62] * 4,
    ],
)
def test_values_near_the_limits_of_a_float_are_planned(values: list[float]):
    work = work_from_names({"width": values, "depth": values})
    model = DurationModel({"width": values, "depth": values}, work, 4)
    model.observe([0, 1, 2], [1.0, 2.0, 3.0])
    model.fit()
    assert all(0 < (model.expected_s(number) or 0) < 100 for number in range(4))
    assert sorted(model.next_last(range(4))) == [0, 1, 2, 3]


def test_a_rank_that_rejoins_abandons_trials_that_others_run_and_keeps_the_rest():
    scheduler = scheduler_of(5)
    scheduler.handle(WorkerJoined(1, 1), 0.0)
    scheduler.handle(WorkerJoined(2, 1), 0.0)
    held = scheduler.held[Slot(1, 0)].copy()
    scheduler.handle(WorkerLost(1), 1.0)
    # Lost trials run alone: after rank 2 has ended both trials that it holds.
    for pair in list(scheduler.held[Slot(2, 0)].items()):
        [_, *assigned] = scheduler.handle(ended(Slot(2, 0), [pair]), 2.0)
    [elsewhere] = assigned[0].numbers
    assert elsewhere in held
    decisions = scheduler.handle(WorkerJoined(1, 1, (tuple(held.items()),)), 3.0)
    scheduler.check()
    assert decisions[0] == Abandon(Slot(1, 0), elsewhere, 1, 0.0)
    [kept] = held.keys() - {elsewhere}
    assert scheduler.held[Slot(1, 0)][kept] == 1
