"""When each slot finishes the trials that it holds, by the upper bound of their durations.

The running trial began when its predecessor in the slot ended, or when it was assigned to an idle slot; so
each end corrects the prediction.  The unstarted trials follow one after another.

An unstarted trial must begin before its *latest start*, or it would not end before the deadline.  A latest
start changes with the trials of its slot, not with time: the slots are ordered by it, and those that are due
come first.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from math import inf

from mpisweep.records import Slot
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.ranking import Ranking
from mpisweep.scheduling.slots import Slots

__all__ = ["NOTICE_S", "Timetable"]

#: Unstarted trials are reclaimed this long before their latest start, in seconds: the master checks every
#: 20 ms, and its message takes time.
NOTICE_S = 0.05
#: Margin for rounding, so that a trial that begins in time is not reclaimed for another order of the sum.
_ROUNDING_S = 1e-6


class Timetable:
    """Predicted times of all slots.

    Args:
        slots: the slots and their trials.
        model: predicts durations.
        deadline: when every trial must have ended; infinite for never.
    """

    def __init__(self, slots: Slots, model: DurationModel, deadline: float) -> None:
        self._slots = slots
        self._model = model
        self._deadline = deadline
        #: Slot -> its running trial with its attempt, and since when it runs.
        self._running: dict[Slot, tuple[tuple[int, int], float]] = {}
        #: Slot -> upper bound of the time for all its trials, in seconds; infinite if unknown.
        self._load_s: dict[Slot, float] = {}
        #: Slots with unstarted trials, by the latest start of the next one.
        self._latest_starts: Ranking[Slot] = Ranking()

    def note(self, slot: Slot, now: float) -> None:
        """Update a slot after its trials, or the expected durations, have changed."""
        held = self._slots.held.get(slot)
        if not held:
            self._running.pop(slot, None)
            self._load_s.pop(slot, None)
            self._latest_starts.discard(slot)
            return
        first = next(iter(held.items()))
        running = self._running.get(slot)
        if running is None or running[0] != first:
            self._running[slot] = first, now
        self._load_s[slot] = load_s = self._model.upper_sum_s(held)
        if len(held) > 1 and self._deadline < inf:
            # An unknown duration is at least not negative.
            follows_s = load_s - self._upper_s(first[0]) if load_s < inf else 0.0
            self._latest_starts.set(slot, self._deadline - follows_s)
        else:
            self._latest_starts.discard(slot)

    def free_at(self, slot: Slot) -> float:
        """When a busy slot will have run its trials; in the past if overdue, infinite if unknown."""
        return self._running[slot][1] + self._load_s[slot]

    def next_begins_at(self, slot: Slot, now: float) -> float:
        """When a slot would begin a trial that it gets now; infinite if its current one is overdue."""
        if slot not in self._running:
            return now
        (number, _), since = self._running[slot]
        upper_s = self._upper_s(number)
        if since + upper_s < now:
            return inf
        return max(since + upper_s, now + NOTICE_S) + (self._load_s[slot] - upper_s)

    def late(self, now: float) -> list[Slot]:
        """Remove and return the slots whose latest start is about to pass, until they change."""
        late: list[Slot] = []
        while self._latest_starts and self._latest_starts[0][0] < now + NOTICE_S - _ROUNDING_S:
            late.append(self._latest_starts[0][1])
            self._latest_starts.discard(late[-1])
        return late

    def _upper_s(self, number: int) -> float:
        upper_s = self._model.upper_s(number)
        return inf if upper_s is None else upper_s
