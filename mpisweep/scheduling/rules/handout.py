"""Which trial goes to which slot next.

The longest expected trial goes first (:mod:`mpisweep.scheduling.durations`), to a slot that is idle where there is one.  A
slot holds the trials that run and the next ones, so that no device waits for a message.  Trials of known short
duration travel together, as many as :data:`BATCH_S` seconds hold, and never more than a fair share of what is left; a
trial that is longer than that, or of unknown length, travels alone.

One rule says what a slot may hold: *a trial that has not begun is with a slot only as long as it, and all that the slot
runs before it, will hardly end too late*: by the upper bound of the expectation
(:mod:`mpisweep.scheduling.timetable`).  Too late is

* after the deadline, where it is known when the allocation ends,
* for a slot that is kept for a trial of several ranks (:mod:`mpisweep.scheduling.room`): after that one can start.

The rule decides what is begun, and what is handed out ahead.  And as what was expected turns out, what the deadline does
not allow any more is taken back before it begins and waits like any other.  The time that is left goes to the longest
trials that still fit: where none does, no slot could have run any of those that wait.

Whatever the expectation, nothing is stuck behind a long trial: when a slot has nothing to do and no trial is waiting,
another slot is asked for what it has not begun, if it can run that: what is bound to one kind of device is asked for only
where a slot of this kind is idle, or it would be back with the same slot at once.

A trial that may have cost a worker (:mod:`mpisweep.scheduling.health`) goes to a slot that holds nothing, and nothing
follows it there.

Pure: no clock, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from mpisweep.records import Slot
from mpisweep.scheduling.decisions import Assign, Decision, Withdraw
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.health import Losses
from mpisweep.scheduling.memory import Memory
from mpisweep.scheduling.queues import Waiting
from mpisweep.scheduling.room import Room
from mpisweep.scheduling.slots import Slots
from mpisweep.scheduling.teams import TeamTrial
from mpisweep.scheduling.timetable import NOTICE_S, Timetable
from mpisweep.scheduling.trials import TrialStates

__all__ = ["BATCH_S", "SETTLE_S", "HandOut"]

#: Trials that are expected to take less than this travel together.  A crash repeats at most these.
BATCH_S = 0.010
#: More would not be faster (measured: 128 trials a message reach 9/10 of the speed of 512).
BATCH_AT_MOST = 512
#: A slot that was given trials this recently is not asked to give any back.
SETTLE_S = 0.020


class HandOut:
    """Gives waiting trials to slots.

    Args:
        trials: states and attempts.
        slots: what each holds.
        waiting: the queues.
        memory: what runs on one kind of device, and what needs a fresh process.
        losses: what may have cost a worker.
        model: expects durations.
        teams: running trials of several ranks; new ones are added.
        deadline: no trial starts that is not expected to end by then; None for no such time.
        fresh_process: whether every trial has a process of its own, and so travels alone.
    """

    def __init__(
        self,
        trials: TrialStates,
        slots: Slots,
        waiting: Waiting,
        memory: Memory,
        losses: Losses,
        model: DurationModel,
        teams: dict[int, TeamTrial],
        deadline: float | None,
        *,
        fresh_process: bool = False,
    ) -> None:
        self._fresh_process = fresh_process
        self._trials = trials
        self._slots = slots
        self._waiting = waiting
        self._memory = memory
        self._losses = losses
        self._model = model
        self._teams = teams
        self._deadline = math.inf if deadline is None else deadline
        self._timetable = Timetable(slots, model, self._deadline)
        self._room = Room()
        #: Whether it matters when a slot will be free.
        self._is_timed = deadline is not None or waiting.any_widths
        #: The trial of several ranks for which slots are kept.
        self._kept_for = -1

    def note(self, decisions: list[Decision], now: float) -> None:
        """Take note of what slots hold now, and take back what would begin too late."""
        if self._is_timed:
            for slot in self._slots.changed:
                self._note(slot, now)
        self._slots.changed.clear()
        if self._deadline < math.inf:
            self._reclaim(decisions, now)

    def reconsider(self) -> None:
        """Other durations are expected than before."""
        self._slots.changed |= dict.fromkeys(self._slots.held)

    def fill(self, decisions: list[Decision], now: float) -> None:
        """Hand out trials while some wait and slots have room; else let idle slots take from rich ones."""
        waiting, slots = self._waiting, self._slots
        if slots.kept or waiting.wide():
            self._fill_wide(decisions, now)
        if self._memory.any_bound:
            self._fill_bound(decisions, now)
        if waiting.count():
            # The idle ones first: a trial that runs now is worth more than one that is next.
            self._fill_idle(decisions, now)
            self._fill_ahead(decisions, now)
        elif slots.idle and not slots.kept:
            self._withdraw(decisions, now)

    # ------------------------------------------------------------------------------------- one slot

    def _fill_idle(self, decisions: list[Decision], now: float) -> None:
        waiting, slots = self._waiting, self._slots
        if slots.idle or slots.kept_idle:
            waiting.set_aside(self._deadline - now)
        while slots.idle and waiting.count():
            self._assign_next(next(iter(slots.idle)), self._batch_size(), self._deadline - now, decisions, now)
            waiting.set_aside(self._deadline - now)
        while slots.kept_idle and waiting.count():
            left_s = self._kept_until(now) - now
            if not self._model.is_known or not self._is_within(waiting.next(), left_s):
                return
            self._assign_next(next(iter(slots.kept_idle)), self._batch_size(), left_s, decisions, now)

    def _fill_ahead(self, decisions: list[Decision], now: float) -> None:
        """Give slots what they run next; each is looked at once after it has changed."""
        waiting, slots = self._waiting, self._slots
        for _ in range(len(slots.hungry)):
            if not waiting.count() or waiting.next() in self._losses.suspects:
                return
            slot, size = next(iter(slots.hungry)), self._batch_size()
            if self._may_have_more(slot, size):
                left_s = self._left_s(slot, now)
                if self._is_within(waiting.next(), left_s):
                    self._assign_next(slot, size, left_s, decisions, now)
                    if len(slots.held[slot]) <= size:
                        slots.hungry.move_to_end(slot)
                        continue
            del slots.hungry[slot]

    def _fill_bound(self, decisions: list[Decision], now: float) -> None:
        """Hand out what is to run on one kind of device."""
        slots = self._slots
        for kind, queue in self._memory.bound.items():
            roomy = slots.roomy.get(kind)
            if roomy is None:
                continue
            for _ in range(len(roomy)):
                if not queue:
                    break
                slot, number = next(iter(roomy)), queue[0]
                is_idle = not slots.held[slot]
                if number in self._losses.suspects and not is_idle:
                    break
                if self._may_have_more(slot, 1) and self._is_within(number, self._left_s(slot, now)):
                    decisions.append(self._assign((slot,), [queue.popleft()], now, are_bound=True))
                elif is_idle:
                    # No other slot has more time than this one.
                    break
                else:
                    del roomy[slot]

    def _may_have_more(self, slot: Slot, at_most: int) -> bool:
        held = self._slots.held[slot]
        return len(held) <= at_most and slot not in self._slots.asked and self._losses.suspects.isdisjoint(held)

    def _left_s(self, slot: Slot, now: float) -> float:
        """How long what a slot is given now may take, after all that it holds; infinite where nothing limits it."""
        is_kept = slot in self._slots.kept
        if not self._model.is_known:
            begins_at = now + NOTICE_S if self._slots.held[slot] else now
            return -math.inf if is_kept or begins_at > self._deadline else math.inf
        if self._deadline == math.inf and not is_kept:
            return math.inf
        too_late = self._kept_until(now) if is_kept else self._deadline
        return too_late - self._timetable.next_begins_at(slot, now)

    def _is_within(self, number: int, left_s: float) -> bool:
        """Whether a trial will hardly take longer than this; where nothing is known, if nothing limits it."""
        if left_s == math.inf:
            return True
        upper_s = self._model.upper_s(number)
        return upper_s is not None and upper_s <= left_s

    def _batch_size(self) -> int:
        """How many trials like the next one travel together."""
        number = self._waiting.next()
        expected_s = self._model.expected_s(number)
        if expected_s is None or expected_s > BATCH_S or number in self._losses.suspects or self._memory.fresh:
            return 1
        if self._fresh_process:
            return 1
        fair_share = self._waiting.count() // (2 * len(self._slots))
        return max(1, min(BATCH_AT_MOST, fair_share, int(BATCH_S / expected_s)))

    def _assign_next(self, slot: Slot, size: int, left_s: float, decisions: list[Decision], now: float) -> None:
        """Give a slot the next trial, and with it up to `size` that are short enough to travel with it and end in time."""
        waiting = self._waiting
        if size == 1:
            numbers = [waiting.take()]
        else:
            numbers = waiting.take_short(size, min(BATCH_S, left_s / self._model.uncertainty))
        decisions.append(self._assign((slot,), numbers, now))

    def _assign(self, slots: tuple[Slot, ...], numbers: list[int], now: float, *, are_bound: bool = False) -> Assign:
        attempts = [self._trials.begin(number) for number in numbers]
        self._losses.note_assigned(numbers)
        if len(slots) > 1:
            self._teams[numbers[0]] = TeamTrial(numbers[0], attempts[0], slots, set(slots))
        for slot in slots:
            self._slots.give(slot, numbers, attempts, now, are_bound=are_bound)
            if self._is_timed:
                self._note(slot, now)
        return Assign(slots, numbers, attempts, self._fresh_process or numbers[0] in self._memory.fresh)

    # ------------------------------------------------------------------------------------- several ranks

    def _fill_wide(self, decisions: list[Decision], now: float) -> None:
        """Start trials of several ranks where there is room, the widest first; keep slots for the first that waits.

        So wide trials do not starve; and while nothing else runs they fit without a gap, and the narrow ones fill what is
        left at the end.
        """
        waiting = self._waiting
        is_kept = False
        for width in waiting.wide():
            while waiting.count(width):
                waiting.set_aside(self._deadline - now, width)
                chosen = self._room.place(width, also_kept=not is_kept) if waiting.count(width) else None
                if chosen is None:
                    break
                decisions.append(self._assign(chosen, [waiting.take(width)], now))
            if waiting.count(width) and not is_kept:
                is_kept = self._keep(width, now)
        if not is_kept:
            self._release(now)

    def _keep(self, width: int, now: float) -> bool:
        """Keep slots for the next trial of this width, where one would end in time; those that are, as long as all are left."""
        slots, number = self._slots, self._waiting.next(width)
        if self._kept_for != number or len(slots.kept) != width:
            self._release(now)
            found = self._room.gather(width)
            # Should the slots be free earlier than is expected, it has them all the same.
            if not found or not self._ends_from(max(now, *found.values()), width):
                return False
            slots.keep(found, found)
            self._kept_for = number
            for slot in found:
                self._note(slot, now)
        return self._ends_from(self._kept_until(now), width)

    def _ends_from(self, start: float, width: int) -> bool:
        """Whether any trial of this width would end in time if it started then."""
        return self._deadline == math.inf or self._waiting.any_within(self._deadline - start, width)

    def _release(self, now: float) -> None:
        slots, released = self._slots, list(self._slots.kept)
        self._kept_for = -1
        slots.release()
        for slot in released:
            self._note(slot, now)

    def _kept_until(self, now: float) -> float:
        """When the trial for which slots are kept can start."""
        return max(now, self._slots.kept[-1][0])

    # ------------------------------------------------------------------------------------- what slots hold

    def _note(self, slot: Slot, now: float) -> None:
        slots, timetable = self._slots, self._timetable
        timetable.note(slot, now)
        if not self._waiting.any_widths:
            return
        if not slots.is_usable(slot):
            self._room.forget(slot)
            return
        is_idle, is_kept = not slots.held[slot], slot in slots.kept
        free_at = -math.inf if is_idle else timetable.free_at(slot)
        if is_kept:
            slots.kept.set(slot, free_at)
        self._room.note(slot, slots.nodes[slot], is_idle=is_idle, is_kept=is_kept, free_at=free_at)

    def _reclaim(self, decisions: list[Decision], now: float) -> None:
        """Ask for what would begin too late; who was asked already gives it back as well."""
        slots = self._slots
        for slot in self._timetable.late(now):
            if slot not in slots.asked:
                slots.ask(slot)
                decisions.append(Withdraw(slot))

    def _withdraw(self, decisions: list[Decision], now: float) -> None:
        """Ask as many rich slots as there are idle ones that can run what they have; those asked and not yet answered count."""
        slots = self._slots
        self._ask(slots.rich, len(slots.idle) - len(slots.asked), decisions, now)
        for kind, rich in slots.rich_in_bound.items():
            wanted = min(len(slots.idle) - len(slots.asked), slots.idle_of_kind[kind] - slots.asked_of_kind[kind])
            self._ask(rich, wanted, decisions, now)

    def _ask(self, rich: Mapping[Slot, None], wanted: int, decisions: list[Decision], now: float) -> None:
        while wanted > 0 and rich:
            slot = next(iter(rich))
            if now - self._slots.given_at[slot] < SETTLE_S:
                # All others were given something later.
                return
            self._slots.ask(slot)
            decisions.append(Withdraw(slot))
            wanted -= 1
