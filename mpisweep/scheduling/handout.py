"""Which trial goes to which slot next.

The longest expected trial goes first (:mod:`mpisweep.scheduling.planner`).  A slot holds the trials that run and the
next ones, so that no device waits for a message.  Trials of known short duration travel together, as many as
:data:`BATCH_S` seconds hold, and never more than a fair share of what is left; a trial that is longer than
that, or of unknown length, travels alone.  Whatever the expectation, nothing is stuck behind a long trial:
when a slot has nothing to do and no trial is waiting, another slot is asked for what it has not begun.

Where it is known when the allocation ends, no trial is started that is not expected to have ended by then,
with the uncertainty of the expectation; the rest of the time goes to the longest trials that still fit.

Trials of several ranks get as many idle slots at once, by the rules of :mod:`mpisweep.scheduling.teams`.

Pure: no clock, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mpisweep.messages import Assign, Decision, Withdraw
from mpisweep.records import Slot
from mpisweep.scheduling.memory import Memory
from mpisweep.scheduling.planner import DurationModel
from mpisweep.scheduling.slots import Slots
from mpisweep.scheduling.states import TrialStates
from mpisweep.scheduling.teams import TeamTrial, gather, place
from mpisweep.scheduling.waiting import Waiting

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
        model: expects durations.
        teams: running trials of several ranks; new ones are added.
        deadline: no trial starts that is not expected to end by then; None for no such time.
    """

    def __init__(
        self,
        trials: TrialStates,
        slots: Slots,
        waiting: Waiting,
        memory: Memory,
        model: DurationModel,
        teams: dict[int, TeamTrial],
        deadline: float | None,
    ) -> None:
        self._trials = trials
        self._slots = slots
        self._waiting = waiting
        self._memory = memory
        self._model = model
        self._teams = teams
        self._deadline = deadline
        #: Slot -> when it will have run what it holds, by the upper bound of the expectation.
        self._free_at: dict[Slot, float] = {}
        #: Slots that are kept for a trial of several ranks -> when the last of them will be free.
        self.gathered: dict[Slot, float] = {}
        #: Which trial that is.
        self._gathered_for = -1

    def join(self, slot: Slot, now: float) -> None:
        """A slot is there, with what it holds."""
        self._free_at[slot] = self._free_from(slot, now)

    def forget(self, slot: Slot) -> None:
        """A slot is gone."""
        self._free_at.pop(slot, None)
        self.gathered.pop(slot, None)

    def fill(self, decisions: list[Decision], now: float) -> None:
        """Hand out trials while some wait and slots have room; else let idle slots take from rich ones."""
        waiting, slots = self._waiting, self._slots
        if self.gathered or waiting.wide():
            self._fill_wide(decisions, now)
        if self._memory.any_bound:
            self._fill_bound(decisions, now)
        if not waiting.count():
            if slots.idle and slots.rich and not self.gathered:
                self._withdraw(decisions, now)
            return
        # The idle ones first: a trial that runs now is worth more than one that is next.
        for slot in list(slots.idle):
            self._free_at[slot] = now
            if self._deadline is not None:
                waiting.set_aside(self._deadline - now)
            if waiting.count() and self.may_have(slot, now):
                decisions.append(self._assign((slot,), self._next_batch(), now))
        for slot in list(slots.hungry):
            if not waiting.count():
                return
            if len(slots.held[slot]) <= self._batch_size() and self.may_have(slot, now):
                decisions.append(self._assign((slot,), self._next_batch(), now))
            else:
                del slots.hungry[slot]

    def _fill_bound(self, decisions: list[Decision], now: float) -> None:
        """Hand out what is to run on one kind of device."""
        slots = self._slots
        for slot in dict.fromkeys([*slots.idle, *slots.hungry]):
            queue = self._memory.bound_to(slot)
            if not queue or len(slots.held[slot]) > 1 or slot in self.gathered:
                continue
            if slot in slots.idle:
                self._free_at[slot] = now
            if self._fits(queue[0], slot):
                decisions.append(self._assign((slot,), [queue.pop(0)], now))

    # ------------------------------------------------------------------------------------- several ranks

    def _fill_wide(self, decisions: list[Decision], now: float) -> None:
        """Start trials of several ranks where there is room, the widest first; gather slots for the first that waits."""
        before, self.gathered = list(self.gathered), {}
        waiting, slots = self._waiting, self._slots
        usable = slots.usable
        for width in waiting.wide():
            while waiting.count(width):
                if self._deadline is not None:
                    waiting.set_aside(self._deadline - now, width)
                free = [slot for slot in slots.idle if slot not in self.gathered]
                chosen = place(width, free, usable, slots.nodes) if waiting.count(width) else None
                if chosen is None:
                    break
                for slot in chosen:
                    self._free_at[slot] = now
                decisions.append(self._assign(chosen, [waiting.take(width)], now))
            if waiting.count(width) and not self.gathered:
                self._gather(width, before if waiting.next(width) == self._gathered_for else [], usable, now)

    def _gather(self, width: int, before: Sequence[Slot], usable: Sequence[Slot], now: float) -> None:
        """Keep slots for the next trial of this width, where one would end in time.

        Those that were kept for it already are kept on while all are left.
        """
        free_from = {slot: self._free_from(slot, now) for slot in usable}
        is_kept = len(before) == width and free_from.keys() >= set(before)
        kept = list(before) if is_kept else gather(width, free_from, self._slots.nodes)
        starts_at = max((free_from[slot] for slot in kept), default=now)
        left_s = math.inf if self._deadline is None else self._deadline - starts_at
        if not self._waiting.any_within(left_s, width):
            # Should the slots be free earlier than is expected, it has them all the same.
            return
        self._gathered_for = self._waiting.next(width)
        self.gathered = dict.fromkeys(kept, starts_at)

    def _free_from(self, slot: Slot, now: float) -> float:
        """When a slot will have run what it holds, at the latest; infinite where nobody knows."""
        if slot in self._slots.idle:
            return now
        upper_s = [self._model.upper_s(number) for number in self._slots.held[slot]]
        known = [seconds for seconds in upper_s if seconds is not None]
        return max(now, self._slots.given_at[slot] + sum(known)) if len(known) == len(upper_s) else math.inf

    # ------------------------------------------------------------------------------------- one slot

    def may_have(self, slot: Slot, now: float) -> bool:
        """Whether a slot may have the next trial of one rank after all that it holds: it may end too late for others."""
        until = self.gathered.get(slot)
        if until is None:
            return self._fits(self._waiting.next(), slot)
        upper_s = self._model.upper_s(self._waiting.next())
        return upper_s is not None and self._free_from(slot, now) + upper_s <= until

    def _fits(self, number: int, slot: Slot) -> bool:
        """Whether a trial would end before the deadline if it ran after all that a slot holds."""
        upper_s = None if self._deadline is None else self._model.upper_s(number)
        return upper_s is None or self._free_at[slot] + upper_s <= (self._deadline or 0.0)

    def _batch_size(self) -> int:
        """How many trials like the next one travel together."""
        expected_s = self._model.expected_s(self._waiting.next())
        if expected_s is None:
            return 1
        fair_share = self._waiting.count() // (2 * len(self._slots))
        return max(1, min(BATCH_AT_MOST, fair_share, int(BATCH_S / expected_s)))

    def _next_batch(self) -> list[int]:
        """Take the next trial, and with it as many as are short enough to travel with it."""
        size = 1 if self._memory.fresh else self._batch_size()
        return [self._waiting.take()] if size == 1 else self._waiting.take_short(size, BATCH_S)

    def _assign(self, slots: tuple[Slot, ...], numbers: list[int], now: float) -> Assign:
        attempts = [self._trials.begin(number) for number in numbers]
        if len(slots) > 1:
            self._teams[numbers[0]] = TeamTrial(numbers[0], attempts[0], slots, set(slots))
        for slot in slots:
            if self._deadline is not None:
                takes_s = sum(self._model.upper_s(number) or 0.0 for number in numbers)
                self._free_at[slot] += takes_s
            self._slots.give(slot, numbers, attempts, now)
        return Assign(slots, numbers, attempts, numbers[0] in self._memory.fresh)

    def _withdraw(self, decisions: list[Decision], now: float) -> None:
        """Ask as many rich slots as there are idle ones; those asked and not yet answered count."""
        slots = self._slots
        wanted = len(slots.idle) - len(slots.asked)
        for slot in list(slots.rich):
            if wanted <= 0:
                return
            if now - slots.given_at[slot] >= SETTLE_S:
                slots.asked.add(slot)
                del slots.rich[slot]
                decisions.append(Withdraw(slot))
                wanted -= 1
