"""Rules of the scheduler that only show where something comes late, twice or out of turn, each in a few events."""

from __future__ import annotations

from mpisweep.blocks import EndedBlock
from mpisweep.messages import (
    Assign,
    Commit,
    End,
    GiveUp,
    LetGo,
    Quarantine,
    TimePassed,
    TrialsEnded,
    TrialsGranted,
    TrialsReturned,
    TrialsRevoked,
    Withdraw,
    WorkerJoined,
    WorkerLost,
)
from mpisweep.records import AttemptEnd, EndReason, FailureCause, Slot, TrialState
from mpisweep.scheduling.planner import DurationModel
from mpisweep.scheduling.scheduler import Scheduler

COMPLETE, FAILED, RUNNING = int(TrialState.COMPLETE), int(TrialState.FAILED), int(TrialState.RUNNING)
FIRST, SECOND = Slot(0, 0), Slot(1, 0)


def scheduler_of(count: int, *, states=None, attempts=None, retries: int = 1, **more) -> Scheduler:
    model = DurationModel({"x": list(range(count))}, None, count)
    return Scheduler(states or bytes(count), attempts or [0] * count, model, retries=retries, grace_s=1.0, **more)


def ends(slot: Slot, number: int, attempt: int, *, fails: bool = False) -> TrialsEnded:
    causes, messages = ([int(FailureCause.EXCEPTION)], ["ECC"]) if fails else ([], [])
    state = FAILED if fails else COMPLETE
    return TrialsEnded(EndedBlock(slot.rank, 0, [number], [attempt], [state], [0.0], [1.0], {}, causes, messages))


class Ranks:
    """Ranks of one slot; each ends, when it is told to, the first trial that the scheduler thinks it holds."""

    def __init__(self, scheduler: Scheduler, ranks: int) -> None:
        self.scheduler = scheduler
        self.made: list[object] = []
        for rank in range(ranks):
            self.feed(WorkerJoined(rank, 1))

    def feed(self, event, now: float = 0.0) -> list[object]:
        made = self.scheduler.handle(event, now)
        self.made += made
        if not any(isinstance(decision, End) for decision in made):
            self.scheduler.check()
        return made

    def end(self, rank: int, *, fails: bool = False) -> list[object]:
        number, attempt = next(iter(self.scheduler.held[Slot(rank, 0)].items()))
        return self.feed(ends(Slot(rank, 0), number, attempt, fails=fails))

    def quarantined(self) -> list[tuple[int, bool]]:
        return [(made.slot.rank, bool(made.why)) for made in self.made if isinstance(made, Quarantine)]


# ------------------------------------------------------------------------------------- attempts


def test_a_rank_of_a_wide_trial_that_ends_an_old_attempt_late_ends_nothing():
    ranks = Ranks(scheduler_of(1, widths=[2]), 2)
    ranks.feed(TrialsReturned(FIRST, (0,), (1,), AttemptEnd.INTERRUPTED))
    ranks.feed(TrialsReturned(SECOND, (0,), (1,), AttemptEnd.INTERRUPTED))
    assert ranks.scheduler.held[FIRST] == {0: 2}
    assert ranks.feed(ends(FIRST, 0, 1)) == []
    assert ranks.scheduler.held[FIRST] == {0: 2}


def test_a_worker_that_holds_another_attempt_than_it_was_thought_to_lets_go_of_it():
    """Its journal has attempt 2, which never reached it."""
    scheduler = scheduler_of(1, states=[RUNNING], attempts=[2], held={FIRST: {0: 2}})
    made = scheduler.handle(WorkerJoined(0, 1, (((0, 1),),)), 0.0)
    assert made == [
        LetGo(FIRST, 0, 1, 0.0), GiveUp(0, [0], [2], AttemptEnd.WITHDRAWN), Assign((FIRST,), [0], [3])
    ]  # fmt: skip


def test_a_worker_that_comes_back_with_an_attempt_that_was_followed_lets_go_of_it():
    scheduler = scheduler_of(1, attempts=[2])
    made = scheduler.handle(WorkerJoined(0, 1, (((0, 1),),)), 0.0)
    assert made == [LetGo(FIRST, 0, 1, 0.0), Assign((FIRST,), [0], [3])]


def test_losses_of_earlier_runs_count_as_retries():
    ranks = Ranks(scheduler_of(1, attempts=[1], losses={0: 1}), 2)
    [commit, _] = ranks.feed(WorkerLost(0))
    assert isinstance(commit, Commit)
    assert commit.block.causes == [FailureCause.LOST]


def test_trials_that_have_a_process_each_travel_alone():
    """However short they are: one that is given to a process that has run another waits for the next process."""
    scheduler = scheduler_of(2000, fresh_process=True)
    made = scheduler.handle(WorkerJoined(0, 1), 0.0)
    for _ in range(50):
        [number, *_], [attempt, *_] = zip(*scheduler.held[FIRST].items(), strict=True)
        block = EndedBlock(0, 0, [number], [attempt], [COMPLETE], [0.0], [1e-5], {}, [], [])
        made += scheduler.handle(TrialsEnded(block), 0.0)
    assigned = [decision for decision in made if isinstance(decision, Assign)]
    assert len(assigned) > 50
    assert all(len(decision.numbers) == 1 and decision.fresh for decision in assigned)


# ------------------------------------------------------------------------------------- quarantine


def test_no_device_is_blamed_before_others_have_shown_that_trials_can_complete():
    ranks = Ranks(scheduler_of(40, quarantine=True), 3)
    for rank, fails in ((0, True), (1, False), (2, False), (1, False), (0, True)):
        ranks.end(rank, fails=fails)
    assert ranks.quarantined() == []


def test_the_last_device_is_not_blamed():
    ranks = Ranks(scheduler_of(40, quarantine=True), 2)
    ranks.end(0, fails=True)
    for _ in range(4):
        ranks.end(1)
    ranks.feed(WorkerLost(1))
    ranks.end(0, fails=True)
    assert ranks.quarantined() == []


def test_a_quarantined_device_is_back_when_all_others_are_lost():
    ranks = Ranks(scheduler_of(40, quarantine=True), 2)
    ranks.end(0, fails=True)
    for _ in range(4):
        ranks.end(1)
    ranks.end(0, fails=True)
    ranks.feed(WorkerLost(1))
    assert ranks.quarantined() == [(0, True), (0, False)]


# ------------------------------------------------------------------------------------- taking back


def test_no_more_slots_are_asked_to_give_back_than_there_are_idle_ones():
    ranks = Ranks(scheduler_of(4), 3)
    assert ranks.feed(TimePassed(), 1.0) == [Withdraw(FIRST)]
    assert ranks.feed(TimePassed(), 2.0) == []


def test_nothing_is_handed_out_to_a_slot_that_was_asked_to_give_back():
    """Its answer is under way: it would give back what it was just given, or run it before others."""
    ranks = Ranks(scheduler_of(3, shared=True), 1)
    ranks.feed(TrialsGranted((0, 1), (0, 0), (0, 0)))
    assert ranks.feed(TrialsRevoked((1,))) == [Withdraw(FIRST)]
    ranks.feed(TrialsGranted((2,), (0,), (0,)))
    [commit] = [made for made in ranks.feed(ends(FIRST, 0, 1)) if not isinstance(made, Commit)] or [None]
    assert not isinstance(commit, Assign)


# ------------------------------------------------------------------------------------- shared sweeps


def test_what_others_have_taken_over_is_not_granted_here_again():
    ranks = Ranks(scheduler_of(3, shared=True), 1)
    ranks.feed(TrialsGranted((0, 1), (0, 0), (0, 0)))
    assert ranks.feed(TrialsRevoked((1,))) == [Withdraw(FIRST)]
    ranks.feed(TrialsReturned(FIRST, (1,), (1,), AttemptEnd.WITHDRAWN))
    made = ranks.feed(TrialsGranted((1,), (0,), (0,)))
    assert not [decision for decision in made if isinstance(decision, Assign)]
    assert ranks.scheduler.held[FIRST] == {0: 1}


def test_a_run_whose_trials_all_failed_says_so():
    ranks = Ranks(scheduler_of(1), 1)
    assert ranks.end(0, fails=True)[-1] == End(EndReason.NOTHING_COMPLETED)
