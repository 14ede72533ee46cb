"""When each slot will have run what it holds, by the upper bound of the expectation.

The trial that runs began when the slot was last heard of: when its one before ended, or when it was given to
a slot that held nothing.  So each end moves what is expected of the slot back to what is true.  What has not
begun follows one after another.

What has not begun must begin before its *latest start*, or would not end before the deadline.  That changes
when what the slot holds changes, and not with time: the slots are in that order, and those that are due are
the first ones.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from math import inf

from mpisweep.records import Slot
from mpisweep.scheduling.durations import DurationModel
from mpisweep.scheduling.ranking import Ranking
from mpisweep.scheduling.slots import Slots

__all__ = ["NOTICE_S", "Timetable"]

#: What has not begun is reclaimed so long before its latest start, in seconds: the master looks every 20 ms,
#: and its message takes a while.
NOTICE_S = 0.05
#: What was found to begin in time does so when sums are rounded otherwise, too.
_ROUNDING_S = 1e-6


class Timetable:
    """What is expected of slots.

    Args:
        slots: what each holds.
        model: expects durations.
        deadline: when everything must have ended; infinite for never.
    """

    def __init__(self, slots: Slots, model: DurationModel, deadline: float) -> None:
        self._slots = slots
        self._model = model
        self._deadline = deadline
        #: Slot -> the trial that it runs and its attempt, and since when.
        self._running: dict[Slot, tuple[tuple[int, int], float]] = {}
        #: Slot -> what it holds will hardly take longer than so many seconds; infinite where nobody knows.
        self._load_s: dict[Slot, float] = {}
        #: Slots that hold something that has not begun, by its latest start.
        self._latest_starts: Ranking[Slot] = Ranking()

    def note(self, slot: Slot, now: float) -> None:
        """A slot holds something else than before, or something else is expected."""
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
            # What nobody knows takes some time at least.
            follows_s = load_s - self._upper_s(first[0]) if load_s < inf else 0.0
            self._latest_starts.set(slot, self._deadline - follows_s)
        else:
            self._latest_starts.discard(slot)

    def free_at(self, slot: Slot) -> float:
        """When a slot that holds something has run it; in the past where that takes longer, infinite where
        nobody knows.
        """
        return self._running[slot][1] + self._load_s[slot]

    def next_begins_at(self, slot: Slot, now: float) -> float:
        """When a slot begins what it is given now, after all that it holds; infinite where what runs is
        overdue.
        """
        if slot not in self._running:
            return now
        (number, _), since = self._running[slot]
        upper_s = self._upper_s(number)
        if since + upper_s < now:
            return inf
        return max(since + upper_s, now + NOTICE_S) + (self._load_s[slot] - upper_s)

    def late(self, now: float) -> list[Slot]:
        """Slots that hold something whose latest start is about to pass; none is named again before it has
        changed.
        """
        found: list[Slot] = []
        while self._latest_starts and self._latest_starts[0][0] < now + NOTICE_S - _ROUNDING_S:
            found.append(self._latest_starts[0][1])
            self._latest_starts.discard(found[-1])
        return found

    def _upper_s(self, number: int) -> float:
        upper_s = self._model.upper_s(number)
        return inf if upper_s is None else upper_s
