"""The decisions of a sweep, and nothing else: events go in, a list of decisions comes out.

Rules
-----
1. No MPI, no file, no clock, no randomness.  ``handle(event, now)`` is all there is; the MPI loop, the tests
   and a simulator drive the very same class.
2. A trial's state is written in one place, :class:`~mpisweep.scheduling.trials.TrialStates`, which knows the legal moves.
3. An event about a trial names its attempt.  What does not match the attempt that this slot holds is
   dropped: a result of attempt 1 must never pass for one of attempt 2.
4. A decision is carried out by the caller, in order.  The scheduler assumes that it was.

Which trial goes to which slot next is the business of :mod:`mpisweep.scheduling.rules.handout`.

Where several allocations share a sweep, only what was granted to this one waits here (:mod:`mpisweep.scheduling.leasing`).

When trials fail because of something else than themselves (:mod:`mpisweep.scheduling.health`), their device gets no more
trials, or the sweep stops.  One slot always stays, and where what is left waits for more slots than stay, all are back.

A slot that has failed, and not what it ran, costs the trial that it ran an attempt, as a lost worker does.  One that is of
no use any more is gone for good; when none is left the run ends.

A trial of several ranks (:mod:`mpisweep.scheduling.teams`) is assigned to as many idle slots at once, and is over when all of
them have let go of it.  Where too few workers are left for every trial that waits, the run ends after a time in which
others may join.

States of a trial::

    waiting --assigned--> running --ended--> complete, pruned or failed
       ^                     |
       +----- given back, worker lost and retries left, or its device is to blame
    waiting --inferred--> infeasible

What may need too much memory waits elsewhere than in the queue (:mod:`mpisweep.scheduling.memory`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf, nan

from mpisweep.blocks import EndedBlock
from mpisweep.records import AttemptEnd, EndReason, FailureCause, Slot, TrialState
from mpisweep.scheduling.decisions import (
    Commit,
    Decision,
    End,
    GiveUp,
    Infer,
    Introduce,
    LetGo,
    Quarantine,
    Stop,
    Withdraw,
)
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.events import (
    Event,
    NothingToLease,
    SlotBroken,
    StopRequested,
    TimePassed,
    TrialsEnded,
    TrialsGranted,
    TrialsReturned,
    TrialsRevoked,
    WorkerJoined,
    WorkerLost,
)
from mpisweep.scheduling.health import CommonError, Devices, Losses
from mpisweep.scheduling.leasing import Supply
from mpisweep.scheduling.memory import Memory
from mpisweep.scheduling.queues import Waiting
from mpisweep.scheduling.rules.handout import BATCH_S, HandOut
from mpisweep.scheduling.slots import Slots
from mpisweep.scheduling.teams import TeamTrial
from mpisweep.scheduling.trials import TrialStates
from mpisweep.search.frontier import MemoryFrontier
from mpisweep.search.largest_batch import LargestBatch

__all__ = ["Scheduler"]

_WAITING = int(TrialState.WAITING)
_RUNNING = int(TrialState.RUNNING)
_COMPLETE = int(TrialState.COMPLETE)
_PRUNED = int(TrialState.PRUNED)
_FAILED = int(TrialState.FAILED)
_INFEASIBLE = int(TrialState.INFEASIBLE)


class Scheduler:
    """Who runs which trial.

    Args:
        states: each trial's TrialState when this run of the program starts; running ones count as waiting.
        attempts: how often each was tried before.
        model: expects durations.
        retries: how often a trial is tried again after its worker was lost.
        grace_s: what running trials get to return by themselves when the sweep is stopped.
        held: what slots that have yet to say hello to this master hold, as the journal has it.
        losses: how often each trial's worker was lost before.
        deadline: no trial starts that is not expected to end by then; seconds of the clock of `handle`.
        same_failures: so many first trials that fail alike stop the sweep; 0 for never.
        quarantine: whether a device that fails or is slow where the others are not is left out.
        shared: whether other allocations work on the sweep as well, and no trial may run before it is granted.
        widths: how many ranks each trial needs; None where all need one.
        teams: trials of several ranks that run -> their slots, as the journal has it.
        frontier: says which trials may need too much memory; None where nothing is said of memory.
        search: asks for more trials by what has ended; None where all trials are known beforehand.
        fresh: trials that are to run once more in a fresh process.
        fresh_process: whether every trial is to run in one.
        patience_s: how long the workers that are there may be too few for every trial that waits.
    """

    def __init__(
        self,
        states: Sequence[int],
        attempts: Sequence[int],
        model: DurationModel,
        *,
        retries: int,
        grace_s: float,
        held: Mapping[Slot, Mapping[int, int]] | None = None,
        losses: Mapping[int, int] | None = None,
        deadline: float | None = None,
        same_failures: int = 0,
        quarantine: bool = False,
        shared: bool = False,
        widths: Sequence[int] | None = None,
        teams: Mapping[int, Sequence[Slot]] | None = None,
        frontier: MemoryFrontier | None = None,
        search: LargestBatch | None = None,
        fresh: Iterable[int] = (),
        fresh_process: bool = False,
        patience_s: float = 60.0,
    ) -> None:
        #: Slots that have yet to say hello -> what they hold, as far as is known.
        self._away = {slot: dict(trials) for slot, trials in (held or {}).items()}
        self._away_of: dict[int, list[Slot]] = {}
        for slot in self._away:
            self._away_of.setdefault(slot.rank, []).append(slot)
        away = {number for trials in self._away.values() for number in trials}
        self._trials = TrialStates(
            [_WAITING if state == _RUNNING and number not in away else state for number, state in enumerate(states)],
            attempts,
        )
        self._memory = Memory(frontier, fresh)
        self._memory.note_running(away)
        self._search = search
        waiting = [n for n, s in enumerate(self._trials.states) if s == _WAITING]
        self._supply = Supply(waiting) if shared else None
        self._losses = Losses(losses or {}, [number for number in waiting if attempts[number]])
        for trials in self._away.values():
            # Which of them were assigned together nobody knows.
            self._losses.note_assigned(list(trials))
        queued = [] if shared else self._memory.hold(waiting)
        self._waiting = Waiting(model, widths, queued, self._losses.suspects)
        self._model = model
        self._retries = retries
        self._grace_s = grace_s
        self._deadline = deadline
        self._common_error = CommonError(same_failures)
        self._quarantine = quarantine
        self._devices = Devices()
        self._slots = Slots(self._devices.quarantined, self._memory.kinds, shared=shared)
        #: Running trials of several ranks.
        self._teams = {
            number: TeamTrial(number, self._trials.attempts[number], tuple(slots), set(slots))
            for number, slots in (teams or {}).items()
            if number in away
        }
        self._handout = HandOut(
            self._trials, self._slots, self._waiting, self._memory, self._losses, model, self._teams, deadline,
            fresh_process=fresh_process,
        )  # fmt: skip
        #: Slots that are of no use any more, and why; and whether the worker of any other was lost.
        self._gone: dict[Slot, str] = {}
        self._any_worker_lost = False
        #: Since when there have been too few workers for every trial that waits; None while there are enough.
        self._too_few_since: float | None = None
        self._patience_s = patience_s
        self._stopping: EndReason | None = None
        #: Until when running trials have time to return by themselves.
        self._grace_over_at = inf
        self._ended = False

    # ------------------------------------------------------------------------------------- reading

    def count(self, state: TrialState) -> int:
        """How many trials are in this state."""
        return self._trials.counts[state]

    @property
    def total(self) -> int:
        """How many trials the sweep has."""
        return len(self._trials.states)

    @property
    def running(self) -> int:
        """How many slots are at work."""
        return self._slots.at_work

    @property
    def slots(self) -> int:
        """How many slots there are."""
        return len(self._slots)

    @property
    def held(self) -> Mapping[Slot, Mapping[int, int]]:
        """Slot -> the trials it holds and their attempts, in the order in which it runs them."""
        return self._slots.held

    def team(self, number: int) -> tuple[Slot, ...]:
        """The slots of a running trial of several ranks; empty for any other."""
        team = self._teams.get(number)
        return team.slots if team else ()

    # ------------------------------------------------------------------------------------- events

    def handle(self, event: Event, now: float) -> list[Decision]:
        """Take note of one event.

        Args:
            event: what happened.
            now: seconds of a monotonic clock; never smaller than in the call before.

        Returns:
            What is to be done about it, in this order.
        """
        if self._ended:
            return []
        match event:
            case TrialsEnded(block):
                decisions = self._on_trials_ended(block)
            case WorkerJoined(rank, slots, held, host, kind, gone):
                self._slots.nodes |= {Slot(rank, index): host for index in range(slots)}
                self._memory.note_worker([Slot(rank, index) for index in range(slots)], kind, now)
                for index in gone:
                    self._gone.setdefault(Slot(rank, index), "a process that cannot be ended may have its device")
                decisions = self._on_worker_joined(rank, slots, held, now)
            case TrialsReturned(slot, numbers, attempts, end):
                decisions = self._on_trials_returned(slot, numbers, attempts, end)
            case SlotBroken(slot, trial, why, is_gone):
                decisions = self._on_slot_broken(slot, trial, why, is_gone)
            case WorkerLost(rank):
                decisions = self._on_worker_lost(rank)
            case StopRequested(reason):
                decisions = self._on_stop_requested(reason)
            case TrialsGranted(numbers, attempts, losses):
                decisions = self._on_trials_granted(numbers, attempts, losses)
            case TrialsRevoked(numbers):
                decisions = self._on_trials_revoked(numbers)
            case NothingToLease(sure):
                decisions = self._on_nothing_to_lease(sure, now)
            case TimePassed():
                decisions = []
        if self._stopping is not None:
            self._grace_over_at = min(self._grace_over_at, now + self._grace_s)
        if self._supply is not None:
            self._look_at_clock(self._supply, decisions, now)
        if self._model.is_due:
            self._learn()
        if self._stopping is None:
            self._handout.note(decisions, now)
            if self._search is not None:
                self._ask(self._search, decisions)
            if self._memory.is_rationed:
                self._ration(decisions, now)
            if self._supply is None or not self._supply.must_hear:
                self._handout.fill(decisions, now)
            if self._supply is not None:
                self._replenish(self._supply, decisions, now)
        self._conclude(decisions, now)
        return decisions

    def _on_worker_joined(
        self, rank: int, slots: int, held: Sequence[Sequence[tuple[int, int]]], now: float
    ) -> list[Decision]:
        """What the worker says that it holds is right; what it was thought to hold beyond that waits again."""
        decisions: list[Decision] = []
        for index in range(slots):
            slot = Slot(rank, index)
            thought = self._away.pop(slot, None) or self._slots.held.get(slot, {})
            kept: dict[int, int] = {}
            for number, attempt in held[index] if index < len(held) else ():
                if thought.get(number) == attempt or self._recall(number, attempt):
                    kept[number] = attempt
                elif number < self.total:
                    # Others run it by now, or have run it; or its other ranks are not there and it would wait for them.
                    decisions.append(LetGo(slot, number, attempt, 0.0))
                    if self._waiting.width(number) > 1 and self._trials.states[number] == _WAITING:
                        # The next attempt must not be taken for this one.
                        self._trials.attempts[number] = max(self._trials.attempts[number], attempt)
            for number in [number for number in thought if number in self._teams and number not in kept]:
                del thought[number]
                decisions += self._let_go(slot, self._teams[number], AttemptEnd.WITHDRAWN)
            missing = [(n, a) for n, a in thought.items() if n not in kept]
            if missing:
                self._wait_again([n for n, _ in missing])
                decisions.append(
                    GiveUp(rank, [n for n, _ in missing], [a for _, a in missing], AttemptEnd.WITHDRAWN)
                )
            if slot in self._gone:
                if slot in self._slots.held:
                    self._leave(slot)
                continue
            if slot not in self._slots.held:
                self._memory.note_present(slot)
            self._slots.join(slot, kept, now)
            self._losses.note_assigned(list(kept))
        if self._stopping is not None:
            decisions.append(Stop(max(0.0, self._grace_over_at - now), rank))
        return decisions

    def _recall(self, number: int, attempt: int) -> bool:
        """A worker holds an attempt that nothing was known of: take it as running, unless it is out of date."""
        if number >= self.total or self._trials.states[number] != _WAITING or attempt < self._trials.attempts[number]:
            return False
        if self._supply is not None and number in self._supply:
            return False
        if self._waiting.width(number) > 1:
            return False
        if not self._memory.take(number):
            self._waiting.discard(number)
        self._trials.attempts[number] = attempt
        self._trials.move(number, _RUNNING)
        return True

    def _on_trials_ended(self, block: EndedBlock) -> list[Decision]:
        slot = Slot(block.worker, block.slot)
        held = self._slots.held.get(slot)
        if held is None:
            return []
        if self._teams and block.numbers[0] in self._teams:
            return self._on_rank_ended(slot, self._teams[block.numbers[0]], block)
        stale: list[int] = []
        has_failed = False
        move = self._trials.move
        for index, (number, attempt, state) in enumerate(
            zip(block.numbers, block.attempts, block.states, strict=True)
        ):
            if held.get(number) != attempt:
                stale.append(index)
                continue
            del held[number]
            if state == _FAILED:
                has_failed = True
            else:
                move(number, state)
        self._slots.note(slot)
        if stale:
            block = _without(block, frozenset(stale))
        if not block.numbers:
            return []
        self._losses.note_ended(block.numbers)
        decisions: list[Decision] = []
        if has_failed or self._memory.is_rationed:
            block, decisions = self._look_at_memory((slot,), block)
            if not block.numbers:
                return decisions
        # Trials that travel together are too short to tell anything about a device.
        if len(block.numbers) == 1:
            decisions += self._note_slowness(slot, block.numbers[0], block.wall_time_s[0])
        self._observe(block)
        if self._search is not None:
            self._search.tell(block)
        if not has_failed and self._devices.is_clean(slot):
            return [*decisions, Commit(block)]
        return decisions + self._judge(slot, block)

    def _on_trials_returned(
        self, slot: Slot, numbers: Sequence[int], attempts: Sequence[int], end: AttemptEnd
    ) -> list[Decision]:
        self._slots.note_answer(slot)
        held = self._slots.held.get(slot)
        if held is None:
            return []
        given = [(n, a) for n, a in zip(numbers, attempts, strict=True) if held.get(n) == a]
        for number, _ in given:
            del held[number]
        self._slots.note(slot)
        decisions: list[Decision] = []
        for number, _ in given:
            if number in self._teams:
                decisions += self._let_go(slot, self._teams[number], end)
        alone = [(n, a) for n, a in given if self._waiting.width(n) == 1]
        if alone:
            self._wait_again([n for n, _ in alone])
            decisions.append(GiveUp(slot.rank, [n for n, _ in alone], [a for _, a in alone], end))
        return decisions

    def _on_worker_lost(self, rank: int) -> list[Decision]:
        decisions: list[Decision] = []
        for slot in self._away_of.pop(rank, ()):
            if slot in self._away:
                decisions += self._lose(slot, self._away.pop(slot))
        for slot in self._slots.of_rank(rank):
            decisions += self._lose(slot, self._leave(slot))
        self._any_worker_lost = True
        return decisions + self._see_who_is_left()

    def _on_slot_broken(self, slot: Slot, trial: tuple[int, int] | None, why: str, is_gone: bool) -> list[Decision]:
        held = self._slots.held.get(slot)
        if is_gone:
            self._gone[slot] = why
        if held is None:
            return []
        decisions: list[Decision] = []
        if trial is not None and held.get(trial[0]) == trial[1]:
            number, attempt = trial
            del held[number]
            self._slots.note(slot)
            if number in self._teams:
                decisions += self._let_go(slot, self._teams[number], AttemptEnd.LOST)
            else:
                decisions.append(self._retry(slot, number, attempt, why))
        if not is_gone:
            return decisions
        decisions.append(Quarantine(slot, why))
        # What it was given meanwhile it has not begun.
        for number, attempt in self._leave(slot).items():
            if number in self._teams:
                decisions += self._let_go(slot, self._teams[number], AttemptEnd.WITHDRAWN)
            else:
                self._wait_again([number])
                decisions.append(GiveUp(slot.rank, [number], [attempt], AttemptEnd.WITHDRAWN))
        return decisions + self._see_who_is_left()

    def _leave(self, slot: Slot) -> dict[int, int]:
        """A slot is not there any more; returns what it held."""
        held = self._slots.leave(slot)
        if slot not in self._devices.quarantined:
            self._waiting.put_back(self._memory.note_absent(slot))
        self._devices.forget(slot)
        return held

    def _see_who_is_left(self) -> list[Decision]:
        """Some slots are gone: a device that may be ill is better than none, and without any the run ends."""
        decisions: list[Decision] = []
        if self._slots.count_usable == 0:
            decisions += [self._release(slot) for slot in list(self._devices.quarantined)]
        if not self._slots.held and not self._away and self._stopping is None:
            self._stopping = self._nobody_left()
        return decisions

    def _nobody_left(self) -> EndReason:
        """Why nobody is left: workers may be back when the ranks are started again, devices that hang are not."""
        return EndReason.NO_DEVICES if self._gone and not self._any_worker_lost else EndReason.NO_WORKERS

    def _on_stop_requested(self, reason: EndReason) -> list[Decision]:
        if self._stopping is not None:
            return []
        self._stopping = reason
        return [Stop(self._grace_s)]

    # ------------------------------------------------------------------------------------- a shared sweep

    def _on_trials_granted(
        self, numbers: Sequence[int], attempts: Sequence[int], losses: Sequence[int]
    ) -> list[Decision]:
        assert self._supply is not None
        decisions: list[Decision] = []
        granted: list[int] = []
        new = set(self._supply.grant(numbers, self._waiting.count_aside))
        for number, attempt, lost in zip(numbers, attempts, losses, strict=True):
            if number not in new:
                continue
            self._trials.attempts[number] = max(self._trials.attempts[number], attempt)
            if lost and self._losses.count(number, lost) > self._retries:
                # Each allocation that tried it has ended: it may be what they died of.
                self._trials.attempts[number] += 1
                self._trials.move(number, _RUNNING)
                self._trials.move(number, _FAILED)
                why = "the allocations that tried it were lost, and no retry is left"
                decisions.append(Commit(_lost_block(Slot(0, 0), number, self._trials.attempts[number], why)))
                continue
            if attempt:
                self._losses.suspects.add(number)
            granted.append(number)
        self._waiting.add(granted)
        return decisions

    def _on_trials_revoked(self, numbers: Sequence[int]) -> list[Decision]:
        assert self._supply is not None
        self._supply.revoke(numbers)
        decisions: list[Decision] = []
        for number in numbers:
            if self._waiting.discard(number):
                self._supply.send_away(number)
                continue
            holder = self._slots.holder(number)
            slots = self._teams[number].slots if number in self._teams else (holder,) if holder is not None else ()
            # What it runs it may as well finish; what is next is for others.
            for slot in slots:
                if len(self._slots.held.get(slot, ())) > 1 and slot not in self._slots.asked:
                    self._slots.ask(slot)
                    decisions.append(Withdraw(slot))
        return decisions

    def _look_at_clock(self, supply: Supply, decisions: list[Decision], now: float) -> None:
        wanted = supply.note_time(now, self._ranks_at_most() if self._have_joined(now) else None)
        if wanted is not None:
            decisions.append(wanted)

    def _on_nothing_to_lease(self, sure: bool, now: float) -> list[Decision]:
        assert self._supply is not None
        is_busy = self.running > 0 or bool(self._teams or self._away or self._memory or self._waiting.count())
        self._supply.nothing(sure, is_busy, now)
        return []

    def _replenish(self, supply: Supply, decisions: list[Decision], now: float) -> None:
        ranks = self._ranks_at_most()
        if ranks is not None and not self._have_joined(now):
            # There may be slots enough for any trial in a moment.
            return
        wanted = supply.ask(
            ready=self._ready(now), aside=self._waiting.count_aside, slots=len(self._slots.held), ranks=ranks, now=now
        )
        if wanted is not None:
            decisions.append(wanted)

    def _have_joined(self, now: float) -> bool:
        return bool(self._slots.held) and self._memory.have_joined(now)

    def _ranks_at_most(self) -> int | None:
        """How many ranks a trial may have to run here; None where that is so for all of them."""
        if self._waiting.widest == 1:
            return None
        slots = self._slots.count_usable
        return None if self._waiting.widest <= slots else slots

    def _ready(self, now: float) -> int:
        """How many trials a slot can have; where all have joined and nothing runs, not those of several ranks."""
        if self._have_joined(now) and self.running == 0 and not self._teams:
            return self._waiting.count()
        return len(self._waiting) - self._waiting.count_aside

    @property
    def elsewhere(self) -> int:
        """How many trials wait that this allocation may not run."""
        return 0 if self._supply is None else len(self._supply)

    # ------------------------------------------------------------------------------------- rules

    def _lose(self, slot: Slot, held: dict[int, int]) -> list[Decision]:
        """A slot went away with these trials: they wait again, unless one is to blame and has no retry left."""
        decisions: list[Decision] = []
        alone = [number for number in held if number not in self._teams]
        blamed = self._losses.blame(alone) if next(iter(held), None) not in self._teams else None
        others = [number for number in alone if number != blamed]
        if others:
            self._wait_again(others)
            decisions.append(GiveUp(slot.rank, others, [held[number] for number in others], AttemptEnd.WITHDRAWN))
        for number in held:
            if number in self._teams:
                decisions += self._let_go(slot, self._teams[number], AttemptEnd.LOST)
        if blamed is not None:
            decisions.insert(0, self._retry(slot, blamed, held[blamed], _lost_text(slot)))
        return decisions

    def _retry(self, slot: Slot, number: int, attempt: int, why: str) -> Decision:
        """A trial was lost, and `why`: it waits again, or has failed when no retry is left."""
        if self._losses.count(number) <= self._retries:
            self._wait_again([number])
            return GiveUp(slot.rank, [number], [attempt], AttemptEnd.LOST)
        self._memory.forget(number)
        self._losses.note_ended([number])
        self._trials.move(number, _FAILED)
        block = _lost_block(slot, number, attempt, f"{why}, and no retry is left")
        if self._search is not None:
            self._search.tell(block)
        return Commit(block)

    def _on_rank_ended(self, slot: Slot, team: TeamTrial, block: EndedBlock) -> list[Decision]:
        """One rank of a trial of several has returned or failed."""
        held = self._slots.held[slot]
        if held.get(team.number) != block.attempts[0]:
            return []
        del held[team.number]
        self._slots.note(slot)
        return self._let_go(slot, team, block)

    def _let_go(self, slot: Slot, team: TeamTrial, how: EndedBlock | AttemptEnd) -> list[Decision]:
        """A slot does not hold a trial of several ranks any more: the others are not to either."""
        team.waits_for.discard(slot)
        if isinstance(how, EndedBlock):
            team.ends.append(how)
        else:
            team.returns[slot] = how
        if team.is_over:
            del self._teams[team.number]
            return self._end_team(team)
        linger_s = team.linger_s
        if linger_s >= team.told_s:
            return []
        team.told_s = linger_s
        return [LetGo(other, team.number, team.attempt, linger_s) for other in team.slots if other in team.waits_for]

    def _end_team(self, team: TeamTrial) -> list[Decision]:
        slot, number, attempt = team.slots[0], team.number, team.attempt
        verdict = team.verdict()
        if verdict is AttemptEnd.LOST:
            lost = next(slot for slot, end in team.returns.items() if end is AttemptEnd.LOST)
            return [self._retry(slot, number, attempt, self._gone.get(lost) or _lost_text(lost))]
        if isinstance(verdict, AttemptEnd):
            self._wait_again([number])
            return [GiveUp(slot.rank, [number], [attempt], verdict)]
        verdict, again = self._look_at_memory(team.slots, verdict)
        if again:
            return again
        if self._search is not None:
            self._search.tell(verdict)
        self._trials.move(number, verdict.states[0])
        self._observe(verdict)
        return [Commit(verdict), *self._look_for_common_error(verdict)]

    def _judge(self, slot: Slot, block: EndedBlock) -> list[Decision]:
        """Commit a block, except for what a device and not the trial is to blame for."""
        decisions: list[Decision] = []
        suspect: list[int] = []
        released: list[Slot] = []
        for index, state in enumerate(block.states):
            number = block.numbers[index]
            # Whatever becomes of it here says whether the device on which it failed before was to blame.
            released += self._devices.acquitted(number, state == _FAILED)
            if state != _FAILED:
                self._devices.note_success(slot)
                continue
            if self._memory.explains(block, index):
                self._trials.move(number, _FAILED)
                continue
            if self._is_to_blame(slot):
                suspect.append(index)
                continue
            self._devices.note_failure(slot, self._trials.counts[_COMPLETE], self._trials.counts[_FAILED])
            self._trials.move(number, _FAILED)
        if suspect:
            decisions += self._blame(slot, block, suspect)
            block = _without(block, frozenset(suspect))
        if block.numbers:
            decisions.append(Commit(block))
        decisions += [self._release(other) for other in dict.fromkeys(released)]
        return decisions + self._look_for_common_error(block)

    def _is_to_blame(self, slot: Slot) -> bool:
        others = len(self._slots.held) - len(self._devices.quarantined) - (slot not in self._devices.quarantined)
        if not self._quarantine or others < 1:
            return False
        return self._devices.is_to_blame(slot, self._trials.counts[_COMPLETE], self._trials.counts[_FAILED])

    def _blame(self, slot: Slot, block: EndedBlock, suspect: Sequence[int]) -> list[Decision]:
        numbers = [block.numbers[index] for index in suspect]
        attempts = [block.attempts[index] for index in suspect]
        self._wait_again(numbers)
        why = f"trials fail here and not elsewhere: {block.messages[suspect[0]].partition(chr(10))[0]}"
        decisions: list[Decision] = [GiveUp(slot.rank, numbers, attempts, AttemptEnd.SUSPECT)]
        decisions += self._bench(slot, why)
        self._devices.suspect(slot, numbers)
        return decisions

    def _bench(self, slot: Slot, why: str) -> list[Decision]:
        if slot in self._devices.quarantined:
            return []
        self._devices.quarantine(slot)
        self._waiting.put_back(self._memory.note_absent(slot))
        decisions: list[Decision] = [Quarantine(slot, why)]
        if self._slots.held[slot] and slot not in self._slots.asked:
            self._slots.ask(slot)
            decisions.append(Withdraw(slot))
        self._slots.note(slot)
        return decisions

    def _release(self, slot: Slot) -> Quarantine:
        self._devices.forget(slot)
        self._memory.note_present(slot)
        self._slots.note(slot)
        return Quarantine(slot, "")

    def _look_for_common_error(self, block: EndedBlock) -> list[Decision]:
        if not self._common_error.wanted or self._stopping is not None or not block.causes:
            return []
        if self._trials.counts[_COMPLETE] or self._trials.counts[_PRUNED] or not self._common_error.note(block):
            return []
        return self._on_stop_requested(EndReason.ALIKE)

    def _note_slowness(self, slot: Slot, number: int, wall_time_s: float) -> list[Decision]:
        """A long trial has ended: compare what it took with what was expected."""
        expected_s = self._model.expected_s(number)
        if not self._quarantine or expected_s is None or not wall_time_s > BATCH_S:
            return []
        why = self._devices.note_duration(slot, wall_time_s, expected_s)
        return self._bench(slot, why) if why else []

    def _observe(self, block: EndedBlock) -> None:
        """Learn durations from trials that ran to their end; a failed one says little about the others."""
        if _FAILED not in block.states:
            self._model.observe(block.numbers, block.wall_time_s)
            return
        kept = [i for i, state in enumerate(block.states) if state in (_COMPLETE, _PRUNED)]
        self._model.observe([block.numbers[i] for i in kept], [block.wall_time_s[i] for i in kept])

    def _learn(self) -> None:
        self._model.fit()
        # Sorting a hundred thousand trials takes longer than running them where each is this short.
        if self._waiting.count_aside or (self._model.longest_s or 0.0) > BATCH_S:
            self._waiting.reconsider()
        self._handout.reconsider()

    def _look_at_memory(self, slots: tuple[Slot, ...], block: EndedBlock) -> tuple[EndedBlock, list[Decision]]:
        """Learn what fits; what ran out of memory and is to run again is not in the block that is returned."""
        kind = self._memory.kind_of(slots)
        again = self._memory.judge(block, kind, len(slots))
        if not again:
            return block, []
        decisions: list[Decision] = []
        for index, end in again.items():
            number, attempt = block.numbers[index], block.attempts[index]
            if end is AttemptEnd.NOT_FRESH:
                # At once, and not when its turn comes: others wait for what it shows.
                self._trials.move(number, _WAITING)
                self._queue_first(number, kind)
            else:
                self._wait_again([number])
            decisions.append(GiveUp(block.worker, [number], [attempt], end))
        return _without(block, frozenset(again)), decisions

    def _ask(self, search: LargestBatch, decisions: list[Decision]) -> None:
        """Have the search add trials, by what is known now."""
        configurations = search.ask()
        if not configurations:
            return
        numbers = self._trials.grow(len(configurations))
        self._model.grow(configurations)
        for number, configuration in zip(numbers, configurations, strict=True):
            search.add(number, configuration)
        self._waiting.grow(len(numbers))
        self._waiting.add(numbers)
        decisions.append(Introduce(numbers, configurations))

    def _ration(self, decisions: list[Decision], now: float) -> None:
        """Let the queues have what need not be withheld any more, and what shows where the frontier is."""
        idle = {} if self._waiting.count() else self._slots.idle_of_kind
        if self._waiting.any_widths:
            self._memory.note_room(self._slots.count_usable, self._has_slots)
        plan = self._memory.plan(self._trials.states, idle, now)
        if plan is None:
            return
        for number in plan.withheld:
            self._waiting.discard(number)
        if plan.free:
            self._waiting.add(plan.free)
        for number, kind in reversed(plan.first):
            self._queue_first(number, kind)
        for why in dict.fromkeys(why for _, why in plan.infeasible):
            numbers = [number for number, because in plan.infeasible if because == why]
            for number in numbers:
                self._trials.move(number, _INFEASIBLE)
            decisions.append(Infer(numbers, why))

    def _has_slots(self, number: int) -> bool:
        """Whether there are as many slots as a trial needs."""
        return self._waiting.width(number) <= self._slots.count_usable

    def _may_go_on(self, decisions: list[Decision], now: float) -> bool:
        """Whether something that is withheld will still run, or be inferred, although nothing runs and nothing can."""
        if self._deadline is None or not self._memory.have_joined(now):
            return True
        # What was let go of may take too long, and something smaller not.
        self._ration(decisions, now)
        return self._waiting.count() > 0 or not self._memory

    def _queue_first(self, number: int, kind: str | None) -> None:
        """A trial is to be handed out before all others, to a device of this kind."""
        if self._waiting.width(number) > 1 or not self._memory.bind(number, kind):
            self._waiting.put_back([number])

    def _conclude(self, decisions: list[Decision], now: float) -> None:
        """The run is over when no slot holds a trial, and none waits or none is to be started any more."""
        if self._away or self.running > 0 or self._teams:
            self._too_few_since = None
            return
        if self._supply is not None and self._stopping is None and not self._supply.is_dry:
            return
        if not self._waiting and not self._memory and self._supply is not None:
            reason = self._stopping or EndReason.SHARE
        elif self._stopping is not None and self._search is not None and self._search.ask():
            # All that it has asked for has ended, and it would have asked for more.
            reason = self._stopping
        elif not self._waiting and not self._memory:
            some = self._trials.counts[_COMPLETE] + self._trials.counts[_PRUNED] > 0 or self.total == 0
            reason = EndReason.COMPLETE if some else EndReason.NOTHING_COMPLETED
        elif self._stopping is not None:
            reason = self._stopping
        elif self._waiting.count() or not self._slots.held:
            # Those that are there have no slot that is of use, and others may still join.
            if self._slots.held or not self._gone or not self._is_late(now):
                return
            reason = self._nobody_left()
        elif self._waiting.wide() or (self._memory and not any(map(self._has_slots, self._memory))):
            if self._devices.quarantined:
                # Nothing else is left to run, and a device that may be ill is better than none.
                decisions += [self._release(slot) for slot in list(self._devices.quarantined)]
                return
            # Nothing runs, and yet none of them was started.
            if not self._is_late(now):
                return
            reason = EndReason.TOO_FEW
        elif self._memory and self._may_go_on(decisions, now):
            return
        else:
            reason = EndReason.WALLTIME
        self._ended = True
        decisions.append(End(reason))

    def _is_late(self, now: float) -> bool:
        """Whether there have been too few workers for longer than others may take to join."""
        if self._too_few_since is None:
            self._too_few_since = now
        return now - self._too_few_since >= self._patience_s

    def _wait_again(self, numbers: Sequence[int]) -> None:
        """Trials that ran, or were to run, wait again, and are the next ones."""
        for number in numbers:
            self._trials.move(number, _WAITING)
        if self._supply is not None:
            numbers = self._supply.keep_ours(numbers)
        self._waiting.put_back(self._memory.hold(numbers))

    # ------------------------------------------------------------------------------------- invariants

    def check(self) -> None:
        """Assert every invariant; tests call it after every event.

        Raises:
            AssertionError: naming what does not hold.
        """
        assert not self._away.keys() & self._slots.held.keys(), "a slot is away and here"
        held = [number for trials in (self._slots.held | self._away).values() for number in trials if number not in self._teams]
        for number, team in self._teams.items():
            holders = {slot for slot, trials in (self._slots.held | self._away).items() if number in trials}
            assert holders == team.waits_for, f"trial {number} is not held by the slots that it waits for"
            assert holders <= set(team.slots), f"trial {number} is held by a slot that is none of its own"
            assert holders, f"trial {number} is over and still called running"
            assert team.attempt == self._trials.attempts[number], f"trial {number} runs with an old attempt"
        running = {n for n, state in enumerate(self._trials.states) if state == _RUNNING}
        waiting = {n for n, state in enumerate(self._trials.states) if state == _WAITING}
        assert len(held) == len(set(held)), "a trial is held by two slots"
        assert set(held) | self._teams.keys() == running, "the running trials are not those that the slots hold"
        pending = [*self._waiting, *self._memory]
        if self._supply is not None:
            pending += [number for number in range(self.total) if number in self._supply]
        assert len(pending) == len(set(pending)), "a trial waits twice"
        assert set(pending) == waiting, "the waiting trials are not those that are pending"
        for trials in self._slots.held.values():
            for number, attempt in trials.items():
                assert attempt == self._trials.attempts[number], f"trial {number} is held with an old attempt"
        assert not self._gone.keys() & self._slots.held.keys(), "a slot that is of no use is there"
        self._slots.check()
        self._trials.check()


def _without(block: EndedBlock, dropped: frozenset[int]) -> EndedBlock:
    """The block less the trials at these positions."""
    kept = [i for i in range(len(block.numbers)) if i not in dropped]
    return EndedBlock(
        worker=block.worker,
        slot=block.slot,
        numbers=[block.numbers[i] for i in kept],
        attempts=[block.attempts[i] for i in kept],
        states=[block.states[i] for i in kept],
        started_at=[block.started_at[i] for i in kept],
        wall_time_s=[block.wall_time_s[i] for i in kept],
        metrics={name: [column[i] for i in kept] for name, column in block.metrics.items()},
        causes=[block.causes[i] for i in kept] if block.causes else [],
        messages=[block.messages[i] for i in kept] if block.messages else [],
    )


def _lost_text(slot: Slot) -> str:
    return f"the worker of rank {slot.rank} was lost"


def _lost_block(slot: Slot, number: int, attempt: int, why: str) -> EndedBlock:
    """The end of a trial that was lost once too often.  It has not run to an end: no time is known."""
    return EndedBlock(
        worker=slot.rank,
        slot=slot.place,
        numbers=[number],
        attempts=[attempt],
        states=[_FAILED],
        started_at=[nan],
        wall_time_s=[nan],
        metrics={},
        causes=[int(FailureCause.LOST)],
        messages=[why],
    )
