"""Rules of the scheduler for late, repeated and reordered events, each in a few events."""

from __future__ import annotations

from dataclasses import replace

from test_scheduler import known

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, EndReason, FailureCause, Slot, TrialState
from mpisweep.scheduling.decisions import (
    Abandon,
    Assign,
    Commit,
    End,
    GiveUp,
    Quarantine,
    Reclaim,
    RequestLease,
    Stop,
)
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.ended import without
from mpisweep.scheduling.events import (
    DeviceSuspected,
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
from mpisweep.scheduling.health import SLOW_S, SLOW_TRIALS, Devices
from mpisweep.scheduling.scheduler import Scheduler
from mpisweep.search.evidence import Evidence
from mpisweep.search.frontier import MemoryFrontier

COMPLETE, FAILED, RUNNING = int(TrialState.COMPLETE), int(TrialState.FAILED), int(TrialState.RUNNING)
FIRST, SECOND = Slot(0, 0), Slot(1, 0)


def scheduler_of(count: int, *, states=None, attempts=None, retries: int = 1, **more) -> Scheduler:
    model = DurationModel({"x": list(range(count))}, None, count)
    return Scheduler(
        states or bytes(count), attempts or [0] * count, model, retries=retries, grace_s=1.0, **more
    )


def ends(
    slot: Slot, number: int, attempt: int, *, fails: bool = False, cause=FailureCause.EXCEPTION
) -> TrialsEnded:
    causes, messages = ([int(cause)], ["ECC"]) if fails else ([], [])
    state = FAILED if fails else COMPLETE
    return TrialsEnded(
        EndedBlock(slot.rank, 0, [number], [attempt], [state], [0.0], [0.5], {}, causes, messages)
    )


class Ranks:
    """Ranks of one slot; ``end`` ends the first trial that the scheduler believes a rank to hold."""

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

    def end(self, rank: int, **how) -> list[object]:
        number, attempt = next(iter(self.scheduler.held[Slot(rank, 0)].items()))
        return self.feed(ends(Slot(rank, 0), number, attempt, **how))

    def quarantined(self) -> list[tuple[int, bool]]:
        return [(made.slot.rank, bool(made.why)) for made in self.made if isinstance(made, Quarantine)]


# ------------------------------------------------------------------------------------- attempts


def test_a_late_end_of_an_old_attempt_of_a_wide_trial_is_ignored():
    ranks = Ranks(scheduler_of(1, widths=[2]), 2)
    ranks.feed(TrialsReclaimed(FIRST, (0,), (1,), AttemptEnd.INTERRUPTED))
    ranks.feed(TrialsReclaimed(SECOND, (0,), (1,), AttemptEnd.INTERRUPTED))
    assert ranks.scheduler.held[FIRST] == {0: 2}
    assert ranks.feed(ends(FIRST, 0, 1)) == []
    assert ranks.scheduler.held[FIRST] == {0: 2}


def test_a_worker_that_holds_another_attempt_than_recorded_abandons_it():
    """The journal has attempt 2, whose assignment never reached the worker."""
    scheduler = scheduler_of(1, states=[RUNNING], attempts=[2], held={FIRST: {0: 2}})
    made = scheduler.handle(WorkerJoined(0, 1, (((0, 1),),)), 0.0)
    assert made == [
        Abandon(FIRST, 0, 1, 0.0), GiveUp(0, [0], [2], AttemptEnd.RECLAIMED), Assign((FIRST,), [0], [3])
    ]  # fmt: skip


def test_a_worker_that_rejoins_with_a_superseded_attempt_abandons_it():
    scheduler = scheduler_of(1, attempts=[2])
    made = scheduler.handle(WorkerJoined(0, 1, (((0, 1),),)), 0.0)
    assert made == [Abandon(FIRST, 0, 1, 0.0), Assign((FIRST,), [0], [3])]


def test_a_repeated_reclaim_message_is_ignored():
    """The message arrives twice; by then the slot holds trial 1 again, as attempt 2."""
    ranks = Ranks(scheduler_of(2), 1)
    message = TrialsReclaimed(FIRST, (1,), (1,), AttemptEnd.RECLAIMED)
    assert ranks.feed(message) == [GiveUp(0, [1], [1], AttemptEnd.RECLAIMED), Assign((FIRST,), [1], [2])]
    assert ranks.feed(message) == []
    assert ranks.scheduler.held[FIRST] == {0: 1, 1: 2}


def test_a_trial_that_a_worker_should_hold_but_does_not_runs_again():
    """The assignment was written, but the master died before sending it."""
    scheduler = scheduler_of(1, states=[RUNNING], attempts=[1], held={FIRST: {0: 1}})
    made = scheduler.handle(WorkerJoined(0, 1), 0.0)
    assert made == [GiveUp(0, [0], [1], AttemptEnd.RECLAIMED), Assign((FIRST,), [0], [2])]


def test_a_worker_that_rejoins_with_a_trial_not_granted_here_abandons_it():
    scheduler = scheduler_of(3, shared=True)
    made = scheduler.handle(WorkerJoined(0, 1, (((0, 1),),)), 0.0)
    assert made == [Abandon(FIRST, 0, 1, 0.0), RequestLease(shortest=False)]


# ------------------------------------------------------------------------------------- lost workers


def test_a_trial_whose_end_was_lost_with_its_slot_runs_elsewhere():
    """Its end was not acknowledged before the master died, and the next master learns of the slot first."""
    ranks = Ranks(scheduler_of(1, states=[RUNNING], attempts=[1], held={FIRST: {0: 1}}), 0)
    made = ranks.feed(WorkerJoined(0, 1, (((0, 1),),), gone=(0,)))
    assert made == [GiveUp(0, [0], [1], AttemptEnd.RECLAIMED)]
    assert ranks.feed(ends(FIRST, 0, 1)) == []
    assert ranks.feed(WorkerJoined(1, 1)) == [Assign((SECOND,), [0], [2])]
    assert ranks.end(1)[-1] == End(EndReason.COMPLETE)


def test_the_reason_of_a_lost_wide_trial_is_kept_even_if_the_slot_stays_in_use():
    ranks = Ranks(scheduler_of(1, widths=[2], retries=0), 2)
    ranks.feed(SlotBroken(SECOND, (0, 1), "no process could be started", is_gone=False))
    [commit, *_] = ranks.feed(TrialsReclaimed(FIRST, (0,), (1,), AttemptEnd.RECLAIMED))
    assert commit.block.messages == ["no process could be started, and no retry is left"]


def test_a_lost_worker_uses_a_retry_of_its_running_trial_and_not_of_its_backlog():
    ranks = Ranks(scheduler_of(4, retries=0), 2)
    assert list(ranks.scheduler.held[FIRST]) == [0, 1]
    [commit, given_up, *_] = ranks.feed(WorkerLost(0))
    assert isinstance(commit, Commit)
    assert (commit.block.numbers, commit.block.causes) == ([0], [FailureCause.LOST])
    assert given_up == GiveUp(0, [1], [1], AttemptEnd.RECLAIMED)


def test_a_trial_suspected_of_killing_a_worker_waits_for_an_empty_slot():
    ranks = Ranks(scheduler_of(6), 2)
    ranks.feed(WorkerLost(0))
    assert list(ranks.scheduler.held[SECOND]) == [2, 3]
    assert [type(made) for made in ranks.end(1)] == [Commit]
    assert [type(made) for made in ranks.end(1)] == [Commit, Assign]
    assert ranks.scheduler.held[SECOND] == {0: 2}


def test_a_trial_with_an_unfinished_attempt_runs_without_a_backlog():
    scheduler = scheduler_of(3, attempts=[1, 0, 0])
    assert scheduler.handle(WorkerJoined(0, 1), 0.0) == [Assign((FIRST,), [0], [2])]
    made = scheduler.handle(ends(FIRST, 0, 2), 0.0)
    assert made[1:] == [Assign((FIRST,), [1], [1]), Assign((FIRST,), [2], [1])]


def test_losses_of_earlier_runs_count_as_retries():
    ranks = Ranks(scheduler_of(1, attempts=[1], losses={0: 1}), 2)
    [commit, _] = ranks.feed(WorkerLost(0))
    assert isinstance(commit, Commit)
    assert commit.block.causes == [FailureCause.LOST]


def test_trials_with_a_fresh_process_each_are_assigned_alone():
    """Even short ones: a trial assigned to a used process waits for the next process."""
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


def test_the_backlog_of_a_suspected_device_is_reclaimed_and_one_device_stays_in_use():
    ranks = Ranks(scheduler_of(40), 2)
    ranks.feed(DeviceSuspected(0, "slow"))
    ranks.feed(DeviceSuspected(1, "slow"))
    assert ranks.quarantined() == [(0, True)], "the other one is the last"
    assert any(isinstance(made, Reclaim) and made.slot == FIRST for made in ranks.made)
    ranks.feed(WorkerJoined(2, 1))
    assert ranks.quarantined() == [(0, True), (1, True)]
    ranks.feed(DeviceSuspected(0, ""))
    ranks.feed(DeviceSuspected(2, ""))
    assert ranks.quarantined() == [(0, True), (1, True), (0, False)]


def test_a_suspected_device_that_joins_gets_no_trial():
    ranks = Ranks(scheduler_of(40), 1)
    ranks.feed(DeviceSuspected(1, "slow"))
    made = ranks.feed(WorkerJoined(1, 1))
    assert made == [Quarantine(SECOND, "slow")]
    assert not ranks.scheduler.held[SECOND]


def test_no_device_is_blamed_before_others_have_shown_that_trials_can_complete():
    ranks = Ranks(scheduler_of(40, quarantine=True), 3)
    for rank, fails in ((0, True), (1, False), (2, False), (1, False), (0, True)):
        ranks.end(rank, fails=fails)
    assert ranks.quarantined() == []


def test_no_device_is_blamed_if_others_failed_meanwhile():
    ranks = Ranks(scheduler_of(40, quarantine=True), 3)
    for rank, fails in ((0, True), (1, False), (2, False), (1, False), (2, False), (1, True), (0, True)):
        ranks.end(rank, fails=fails)
    assert ranks.quarantined() == []


def test_a_device_that_completed_a_trial_between_two_failures_is_not_blamed():
    ranks = Ranks(scheduler_of(40, quarantine=True), 3)
    for rank, fails in ((0, True), (1, False), (2, False), (1, False), (2, False), (0, False), (0, True)):
        ranks.end(rank, fails=fails)
    assert ranks.quarantined() == []


def test_trials_that_are_too_large_blame_no_device():
    """Trials 0 to 15 differ in the parameter that determines memory, the others in another one."""
    columns = {"x": [*range(16), *[0] * 20], "lr": [*[0] * 16, *range(1, 21)]}
    ranks = Ranks(scheduler_of(36, quarantine=True, frontier=MemoryFrontier(columns, {"x": "increasing"})), 2)
    assert list(ranks.scheduler.held[FIRST]) == [7, 16]
    ranks.end(0, fails=True, cause=FailureCause.OUT_OF_MEMORY)
    assert list(ranks.scheduler.held[FIRST]) == [16, 3]
    ranks.end(0, fails=True)
    for _ in range(4):
        ranks.end(1)
    ranks.end(0, fails=True, cause=FailureCause.OUT_OF_MEMORY)
    assert ranks.quarantined() == []


def test_the_backlog_of_a_quarantined_device_is_reclaimed():
    ranks = Ranks(scheduler_of(40, quarantine=True), 3)
    for rank, fails in ((0, True), (1, False), (2, False), (1, False), (2, False)):
        ranks.end(rank, fails=fails)
    made = ranks.end(0, fails=True)
    assert [decision for decision in made if isinstance(decision, Reclaim)] == [Reclaim(FIRST)]


def test_no_device_is_quarantined_as_slow_while_another_is_half_as_slow():
    """A slowness that two of five devices share points to the trials, not to a device."""
    for beside, is_called_slow in ((1.0, True), (2.5, False)):
        devices = Devices()
        for _ in range(SLOW_TRIALS):
            for rank, seconds in enumerate((1.0, 1.0, 1.0, beside)):
                assert devices.note_duration(Slot(rank, 0), seconds, 1.0) == ""
        why = [devices.note_duration(Slot(4, 0), 9.0, 1.0) for _ in range(SLOW_TRIALS)]
        assert bool(why[-1]) is is_called_slow


def test_a_device_is_not_quarantined_as_slow_for_a_moment():
    """Another process on its core delays many trials of some milliseconds in a row."""
    devices = Devices()
    slot, slow, usual = Slot(3, 0), 0.09, 0.02
    for _ in range(SLOW_TRIALS):
        for rank in range(3):
            devices.note_duration(Slot(rank, 0), usual, usual)

    def slow_trials(seconds: float) -> list[str]:
        return [devices.note_duration(slot, slow, usual) for _ in range(SLOW_TRIALS + int(seconds / slow))]

    assert not any(slow_trials(0.8 * SLOW_S))
    for _ in range(SLOW_TRIALS):
        assert devices.note_duration(slot, usual, usual) == ""
    assert not any(slow_trials(0.8 * SLOW_S))
    assert slow_trials(0.4 * SLOW_S)[-1] == "trials take 4.5 times as long here as elsewhere"


def test_the_last_device_is_not_blamed():
    ranks = Ranks(scheduler_of(40, quarantine=True), 2)
    ranks.end(0, fails=True)
    for _ in range(4):
        ranks.end(1)
    ranks.feed(WorkerLost(1))
    ranks.end(0, fails=True)
    assert ranks.quarantined() == []


def test_a_quarantine_ends_when_all_other_devices_are_lost():
    ranks = Ranks(scheduler_of(40, quarantine=True), 2)
    ranks.end(0, fails=True)
    for _ in range(4):
        ranks.end(1)
    ranks.end(0, fails=True)
    ranks.feed(WorkerLost(1))
    assert ranks.quarantined() == [(0, True), (0, False)]


# ------------------------------------------------------------------------------------- reclaiming


def test_no_more_slots_are_asked_for_their_backlog_than_are_idle():
    ranks = Ranks(scheduler_of(4), 3)
    assert ranks.feed(TimePassed(), 1.0) == [Reclaim(FIRST)]
    assert ranks.feed(TimePassed(), 2.0) == []


def test_a_trial_is_reclaimed_only_for_a_device_that_can_run_it():
    """No idle device can run it: the same slot would get it back at once and be asked again 20 ms later."""
    frontier = MemoryFrontier({"x": list(range(4))}, {"x": "increasing"})
    frontier.learn(3, "large", Evidence.FITS)
    frontier.learn(0, "small", Evidence.TOO_LARGE)
    ranks = Ranks(
        scheduler_of(4, states=[FAILED, 0, 0, COMPLETE], attempts=[1, 0, 0, 1], frontier=frontier), 0
    )
    ranks.feed(WorkerJoined(1, 1, (), "n", "small"))
    ranks.feed(WorkerJoined(0, 1, (), "n", "large"))
    ranks.feed(TimePassed(), 0.5)
    assert len(ranks.scheduler.held[FIRST]) == 2
    assert [ranks.feed(TimePassed(), now) for now in (1.0, 2.0, 3.0)] == [[], [], []]
    assert ranks.feed(WorkerJoined(2, 1, (), "n", "large"), 4.0) == [Reclaim(FIRST)]
    number = list(ranks.scheduler.held[FIRST])[1]
    made = ranks.feed(TrialsReclaimed(FIRST, (number,), (1,), AttemptEnd.RECLAIMED), 4.1)
    assert made == [GiveUp(0, [number], [1], AttemptEnd.RECLAIMED), Assign((Slot(2, 0),), [number], [2])]


def test_a_worker_that_rejoins_is_asked_for_its_backlog_last():
    ranks = Ranks(scheduler_of(4), 3)
    ranks.feed(WorkerJoined(0, 1, (tuple(ranks.scheduler.held[FIRST].items()),)), 1.0)
    assert ranks.feed(TimePassed(), 1.01) == [], "the idle slot has asked the second"
    assert ranks.made[-1] == Reclaim(SECOND)


def test_a_slot_that_is_asked_twice_answers_for_both():
    """It became idle while its answer was on the way, and got more trials."""
    slots = scheduler_of(3).core.slots
    slots.join(FIRST, {}, 0.0)
    slots.give(FIRST, [0, 1], [1, 1], 0.0)
    slots.ask(FIRST)
    slots.ask(FIRST)
    slots.note_answer(FIRST)
    assert sum(slots.asked_of_kind.values()) == len(slots.asked) == 0


def test_the_mark_of_a_used_process_applies_only_to_its_last_trial():
    block = EndedBlock(
        0, 0, [0, 1], [1, 1], [COMPLETE, FAILED], [0.0] * 2, [1.0] * 2, {}, [0, 1], ["", "x"], warm=True
    )
    assert without(block, frozenset({0})) == replace(
        block,
        numbers=[1],
        attempts=[1],
        states=[FAILED],
        started_at=[0.0],
        wall_time_s=[1.0],
        causes=[1],
        messages=["x"],
    )
    assert not without(block, frozenset({1})).warm


def test_nothing_is_assigned_to_a_slot_with_a_pending_reclaim():
    """Its answer is on the way: it would return the new trial at once, or run it out of order."""
    ranks = Ranks(scheduler_of(3, shared=True), 1)
    ranks.feed(TrialsGranted((0, 1), (0, 0), (0, 0)))
    assert ranks.feed(TrialsRevoked((1,))) == [Reclaim(FIRST)]
    ranks.feed(TrialsGranted((2,), (0,), (0,)))
    [commit] = [made for made in ranks.feed(ends(FIRST, 0, 1)) if not isinstance(made, Commit)] or [None]
    assert not isinstance(commit, Assign)


# ------------------------------------------------------------------------------------- assignments


def test_a_batch_takes_up_to_a_fair_share_and_up_to_ten_milliseconds():
    for count, expected in ((60, 30), (400, 33)):
        scheduler = Scheduler(bytes(count), [0] * count, known(count, 0.0003), retries=1, grace_s=1.0)
        [first, *_] = scheduler.handle(WorkerJoined(0, 1), 0.0)
        assert isinstance(first, Assign)
        assert len(first.numbers) == expected


def test_a_slot_with_a_backlog_gets_no_more_trials():
    scheduler = Scheduler(bytes(400), [0] * 400, known(400, 0.0003), retries=1, grace_s=1.0)
    assert [
        len(made.numbers) for made in scheduler.handle(WorkerJoined(0, 1), 0.0) if isinstance(made, Assign)
    ] == [33, 33]
    number, attempt = next(iter(scheduler.held[FIRST].items()))
    assert [type(made) for made in scheduler.handle(ends(FIRST, number, attempt), 0.0)] == [Commit]
    assert len(scheduler.held[FIRST]) == 65


def test_a_trial_that_seemed_too_long_runs_when_similar_ones_are_shorter():
    """Trial 3 is expected to take 20 s with 10 s left; similar trials turn out to take 1 s."""
    model = DurationModel({"x": [1, 1, 1, 1]}, None, 4)
    model._expected_s, model._uncertainty = [1.0, 1.0, 1.0, 20.0], 1.0
    model._log_means = [0.0, 0.0, 0.0, 3.0]
    scheduler = Scheduler(bytes(4), [0] * 4, model, retries=1, grace_s=1.0, deadline=50.0)
    scheduler.handle(WorkerJoined(0, 1), 40.0)
    made: list[object] = []
    for number in range(3):
        assert 3 not in scheduler.held[FIRST]
        made = scheduler.handle(ends(FIRST, number, 1), 41.0 + number)
    assert made[1:] == [Assign((FIRST,), [3], [1])]


def test_slots_kept_for_a_trial_are_free_again_once_it_has_begun():
    ranks = Ranks(scheduler_of(7, widths=[1, 1, 1, 1, 1, 1, 2]), 2)
    for _ in range(20):
        for rank in (0, 1):
            if ranks.scheduler.held[Slot(rank, 0)]:
                ranks.end(rank)
    assert ranks.made[-1] == End(EndReason.COMPLETE)


# ------------------------------------------------------------------------------------- split sweeps


def test_revoked_trials_are_not_granted_here_again():
    ranks = Ranks(scheduler_of(3, shared=True), 1)
    ranks.feed(TrialsGranted((0, 1), (0, 0), (0, 0)))
    assert ranks.feed(TrialsRevoked((1,))) == [Reclaim(FIRST)]
    ranks.feed(TrialsReclaimed(FIRST, (1,), (1,), AttemptEnd.RECLAIMED))
    made = ranks.feed(TrialsGranted((1,), (0,), (0,)))
    assert not [decision for decision in made if isinstance(decision, Assign)]
    assert ranks.scheduler.held[FIRST] == {0: 1}


# ------------------------------------------------------------------------------------- the end


def test_the_grace_begins_with_the_stop_and_is_not_restarted():
    ranks = Ranks(scheduler_of(4), 1)
    assert ranks.feed(StopRequested(EndReason.SIGNAL), 10.0) == [Stop(1.0)]
    assert ranks.feed(TimePassed(), 10.5) == []
    assert ranks.feed(WorkerJoined(1, 1), 10.75) == [Stop(0.25, 1)]
    assert ranks.feed(WorkerJoined(2, 1), 12.0) == [Stop(0.0, 2)]


def test_a_run_ends_once_and_decides_nothing_after_that():
    ranks = Ranks(scheduler_of(1), 1)
    assert ranks.end(0)[-1] == End(EndReason.COMPLETE)
    assert ranks.scheduler.handle(TimePassed(), 1.0) == []
    assert ranks.scheduler.handle(WorkerJoined(1, 1), 2.0) == []
    assert ranks.scheduler.handle(WorkerLost(0), 3.0) == []


def test_a_run_does_not_end_while_a_worker_that_is_away_holds_its_last_trial():
    scheduler = scheduler_of(1, states=[RUNNING], attempts=[1], held={FIRST: {0: 1}})
    assert scheduler.handle(TimePassed(), 0.0) == []
    assert scheduler.handle(WorkerJoined(1, 1), 1.0) == []
    assert scheduler.handle(WorkerJoined(0, 1, (((0, 1),),)), 2.0) == []
    assert scheduler.handle(ends(FIRST, 0, 1), 3.0)[-1] == End(EndReason.COMPLETE)


def test_a_run_ends_when_all_workers_are_lost_and_trials_stay_waiting():
    ranks = Ranks(scheduler_of(3), 1)
    made = ranks.feed(WorkerLost(0))
    assert made[-1] == End(EndReason.NO_WORKERS)
    assert not [decision for decision in made if isinstance(decision, Commit)]


def test_a_run_whose_trials_all_failed_ends_with_that_reason():
    ranks = Ranks(scheduler_of(1), 1)
    assert ranks.end(0, fails=True)[-1] == End(EndReason.NOTHING_COMPLETED)
