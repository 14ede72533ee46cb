"""Trials that wait for a slot, in the order in which they are handed out.

Of the trials that need equally many ranks, the longest expected one is next, except that a trial that was given
back is next before all others.  Trials that need more ranks have a queue of their own, so that what fits the
slots that are free is found without a search.

Where the allocation's end is known, a trial that would not end before it is *set aside*: it still waits, but
is not handed out unless the expectation changes.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mpisweep.scheduling.planner import DurationModel

__all__ = ["Waiting"]


class Waiting:
    """The queues.

    Args:
        model: expects durations.
        widths: how many ranks each trial needs, by its number; None where all need one.
        numbers: the trials that wait at first.
    """

    def __init__(self, model: DurationModel, widths: Sequence[int] | None, numbers: Iterable[int]) -> None:
        self._model = model
        self._widths = widths
        #: How many ranks a trial needs at most, whether it waits or not.
        self.widest = max(widths or [1])
        #: Width -> numbers; the next one is the last.
        self._queues: dict[int, list[int]] = {1: []}
        self._aside: list[int] = []
        for number in numbers:
            self._queues.setdefault(self.width(number), []).append(number)
        self.sort()

    def __len__(self) -> int:
        return sum(map(len, self._queues.values())) + len(self._aside)

    def __iter__(self) -> Iterator[int]:
        for queue in self._queues.values():
            yield from queue
        yield from self._aside

    @property
    def count_aside(self) -> int:
        """How many trials wait that will not end in time, as far as is known."""
        return len(self._aside)

    def width(self, number: int) -> int:
        """How many ranks a trial needs."""
        return 1 if self._widths is None else self._widths[number]

    @property
    def any_widths(self) -> bool:
        """Whether trials may need more than one rank."""
        return self._widths is not None

    def wide(self) -> list[int]:
        """The widths above one of which trials wait that were not set aside, the largest first."""
        if len(self._queues) == 1:
            return []
        return sorted((width for width, queue in self._queues.items() if queue and width > 1), reverse=True)

    def count(self, width: int = 1) -> int:
        """How many trials of this width can be handed out."""
        return len(self._queues.get(width, ()))

    def next(self, width: int = 1) -> int:
        """The trial of this width that is handed out next; there must be one."""
        return self._queues[width][-1]

    def any_within(self, left_s: float, width: int) -> bool:
        """Whether any trial of this width is not expected to take longer than so many seconds."""
        queue = self._queues[width]
        # The shortest one is the first, unless it was put back and is the next.
        return any((self._model.upper_s(number) or 0.0) <= left_s for number in (queue[-1], queue[0]))

    def take(self, width: int = 1) -> int:
        """Hand it out."""
        return self._queues[width].pop()

    def take_short(self, at_most: int, seconds: float) -> list[int]:
        """Hand out the next trial, and those after it that fit into so many seconds together with it."""
        queue = self._queues[1]
        expected_s = self._model.expected_s
        taken: list[int] = []
        left_s = seconds
        while queue and len(taken) < at_most:
            left_s -= expected_s(queue[-1]) or seconds
            if taken and left_s < 0:
                break
            taken.append(queue.pop())
        return taken

    def put_back(self, numbers: Sequence[int]) -> None:
        """These wait again, and are the next ones; the first of them before the others."""
        for number in reversed(numbers):
            self._queues.setdefault(self.width(number), []).append(number)

    def grow(self, count: int) -> None:
        """There are more trials, which need as many ranks as the first one does."""
        if self._widths is not None:
            self._widths = [*self._widths, *[self._widths[0]] * count]

    def add(self, numbers: Iterable[int]) -> None:
        """These wait from now on, in their place among the others."""
        for number in numbers:
            self._queues.setdefault(self.width(number), []).append(number)
        self.sort()

    def remove_all(self, numbers: Iterable[int]) -> None:
        """Trials that waited do so no longer."""
        gone = frozenset(numbers)
        for width, queue in self._queues.items():
            self._queues[width] = [number for number in queue if number not in gone]
        self._aside = [number for number in self._aside if number not in gone]

    def remove(self, number: int) -> None:
        """A trial that waited does so no longer."""
        queue = self._queues[self.width(number)]
        (queue if number in queue else self._aside).remove(number)

    def set_aside(self, left_s: float, width: int = 1) -> None:
        """Put away what would take more than so many seconds, until one comes that would not."""
        queue = self._queues.get(width, [])
        while queue:
            upper_s = self._model.upper_s(queue[-1])
            if upper_s is None or upper_s <= left_s:
                return
            self._aside.append(queue.pop())

    def reconsider(self) -> None:
        """The expectation has changed: what was set aside is in its queue again, and the queues are in order."""
        if self._aside:
            aside, self._aside = self._aside, []
            self.put_back(aside)
        self.sort()

    def sort(self) -> None:
        """Put the queues in order."""
        for width, queue in self._queues.items():
            self._queues[width] = self._model.shortest_first(queue)
