"""Trials that wait for a slot, in the order in which they are handed out.

Each number of ranks has a queue of its own, so a trial that fits the free slots is found without a search.
The longest expected trial of a queue is next, or the one with the first place, after the reclaimed ones.
Before all of them are the trials that a user asked to run first, however they came to wait.

If the allocation's end is known, a trial that would not end before it is *set aside*: it still waits, but is
not handed out unless the expectation changes.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Container, Iterable, Iterator, Sequence

from mpisweep.scheduling.durations import DurationModel

__all__ = ["Waiting"]

#: If more than this share of a queue is added at once, the queue is sorted; otherwise trials are inserted.
_MANY = 1 / 16


class _Queue:
    """Trials that need equally many ranks.

    Args:
        model: predicts durations.
    """

    def __init__(self, model: DurationModel) -> None:
        self._model = model
        #: Sort keys of the last sort.
        self._keys = model.keys
        #: The next one is the last: the longest, or the one with the first place.
        self._sorted: list[int] = []
        #: Reclaimed trials; the last one is the next.
        self._first: dict[int, None] = {}
        #: Trials that a user asked to run first, and the place of each; the last one, with the lowest place,
        #: is the next, once they are in order.
        self._wanted: dict[int, int] = {}
        self._are_in_order = True

    def __len__(self) -> int:
        return len(self._sorted) + len(self._first) + len(self._wanted)

    def __iter__(self) -> Iterator[int]:
        yield from self._sorted
        yield from self._first
        yield from self._wanted

    def next(self) -> int:
        if self._wanted:
            return next(reversed(self._in_order()))
        return next(reversed(self._first)) if self._first else self._sorted[-1]

    def pop(self) -> int:
        if self._wanted:
            return self._in_order().popitem()[0]
        return self._first.popitem()[0] if self._first else self._sorted.pop()

    def pop_short(self, limit: int, seconds: float, alone: Container[int]) -> list[int]:
        if self._wanted:
            return [self.pop()]
        first, ordered, expected_s = self._first, self._sorted, self._model.expected_s
        taken: list[int] = []
        left_s = seconds
        while len(taken) < limit and (first or ordered):
            number = next(reversed(first)) if first else ordered[-1]
            left_s -= expected_s(number) or seconds
            if taken and (left_s < 0 or number in alone):
                break
            taken.append(first.popitem()[0] if first else ordered.pop())
        return taken

    def next_and_shortest(self) -> tuple[int, ...]:
        if self._model.has_places and self._sorted:
            return (self.next(), min(self._sorted, key=self._model.weight))
        return (self.next(), *self._sorted[:1])

    def put_back(self, number: int) -> None:
        self._first[number] = None

    def put_first(self, number: int, place: int) -> None:
        self._wanted[number] = place
        self._are_in_order = False

    def _in_order(self) -> dict[int, int]:
        if not self._are_in_order:
            by_place = sorted(self._wanted.items(), key=lambda wanted: wanted[1], reverse=True)
            self._wanted, self._are_in_order = dict(by_place), True
        return self._wanted

    def add(self, numbers: Sequence[int]) -> None:
        if self._keys is not self._model.keys or len(numbers) > _MANY * len(self._sorted):
            self._sort([*self._sorted, *numbers])
        else:
            for number in numbers:
                insort(self._sorted, number, key=self._key)

    def remove(self, number: int) -> bool:
        for head in (self._first, self._wanted):
            if number in head:
                del head[number]
                return True
        place = bisect_left(self._sorted, self._key(number), key=self._key)
        if self._sorted[place : place + 1] != [number]:
            return False
        del self._sorted[place]
        return True

    def sort(self) -> None:
        """Sort by the current expectation, reclaimed trials included."""
        self._sort([*self._sorted, *self._first])
        self._first.clear()

    def _sort(self, numbers: list[int]) -> None:
        self._keys = self._model.keys
        self._sorted = self._model.next_last(numbers)

    def _key(self, number: int) -> tuple[float, int]:
        keys = self._keys
        # A trial added after the last sort has no key.
        return (0.0 if keys is None or number >= len(keys) else keys[number], -number)


class Waiting:
    """The queues of all waiting trials, one per number of ranks.

    Args:
        model: predicts durations.
        widths: number of ranks that each trial needs, by its number; None if all need one.
        numbers: the trials that wait at first.
        alone: trials that are handed out alone; read, never changed.
    """

    def __init__(
        self,
        model: DurationModel,
        widths: Sequence[int] | None,
        numbers: Iterable[int],
        alone: Container[int] = (),
    ) -> None:
        self._model = model
        self._widths = None if widths is None else list(widths)
        self._alone = alone
        #: Largest number of ranks that any trial needs, waiting or not.
        self.widest = max(widths or [1])
        self._queues: dict[int, _Queue] = {1: _Queue(model)}
        #: Waiting trials that are not handed out.
        self._aside: dict[int, None] = {}
        #: Trial that a user asked to run first, waiting or not -> its place; the first one has the lowest.
        self._places: dict[int, int] = {}
        self.add(numbers)

    def __len__(self) -> int:
        return sum(map(len, self._queues.values())) + len(self._aside)

    def __iter__(self) -> Iterator[int]:
        for queue in self._queues.values():
            yield from queue
        yield from self._aside

    @property
    def count_aside(self) -> int:
        """Number of waiting trials that are not expected to end in time."""
        return len(self._aside)

    def width(self, number: int) -> int:
        """Number of ranks that a trial needs."""
        return 1 if self._widths is None else self._widths[number]

    @property
    def any_widths(self) -> bool:
        """Whether trials may need more than one rank."""
        return self._widths is not None

    def wide(self) -> list[int]:
        """Widths above one with trials to hand out, the largest first."""
        if len(self._queues) == 1:
            return []
        return sorted((width for width, queue in self._queues.items() if queue and width > 1), reverse=True)

    def count(self, width: int = 1) -> int:
        """Number of trials of this width to hand out."""
        return len(self._queues.get(width, ()))

    def next(self, width: int = 1) -> int:
        """Next trial of this width; there must be one."""
        return self._queues[width].next()

    def any_within(self, left_s: float, width: int) -> bool:
        """Whether any trial of this width is expected to take up to `left_s` seconds."""
        upper_s = self._model.upper_s
        return any((upper_s(number) or 0.0) <= left_s for number in self._queues[width].next_and_shortest())

    def take(self, width: int = 1) -> int:
        """Remove and return the next trial of this width."""
        return self._queues[width].pop()

    def take_short(self, limit: int, seconds: float) -> list[int]:
        """Remove the next trial, and those after it that together fit into `seconds`."""
        return self._queues[1].pop_short(limit, seconds, self._alone)

    def put_back(self, numbers: Sequence[int]) -> None:
        """Put trials at the head of their queues, the first of them first."""
        for number in reversed(self._put_first(numbers)):
            self._queue_of(number).put_back(number)

    def grow(self, count: int, widths: Sequence[int] | None = None) -> None:
        """Add `count` trials and their widths, without which they need as many ranks as trial 0."""
        if self._widths is not None:
            added = list(widths) if widths is not None else [self._widths[0]] * count
            self._widths += added
            self.widest = max([self.widest, *added])

    def add(self, numbers: Iterable[int]) -> None:
        """Add trials in sorted order."""
        by_width: dict[int, list[int]] = {}
        for number in self._put_first(numbers):
            by_width.setdefault(self.width(number), []).append(number)
        for group in by_width.values():
            self._queue_of(group[0]).add(group)

    def prefer(self, numbers: Sequence[int]) -> None:
        """Have these trials run before all others, the first of them first, whenever they wait."""
        lowest = min(self._places.values(), default=0) - len(numbers)
        self._places.update(zip(numbers, range(lowest, lowest + len(numbers)), strict=True))
        self._put_first([number for number in numbers if self.discard(number)])

    def _put_first(self, numbers: Iterable[int]) -> Sequence[int]:
        """Put the preferred ones of these trials first; returns the others."""
        others = list(numbers)
        if not self._places:
            return others
        for number in others:
            if number in self._places:
                self._queue_of(number).put_first(number, self._places[number])
        return [number for number in others if number not in self._places]

    def discard(self, number: int) -> bool:
        """Remove a trial; returns whether it was waiting."""
        if number in self._aside:
            del self._aside[number]
            return True
        return self._queue_of(number).remove(number)

    def set_aside(self, left_s: float, width: int = 1) -> None:
        """Set aside the next trials that would take more than `left_s` seconds."""
        queue = self._queues.get(width, ())
        while queue:
            # A trial of unknown duration takes at least some time.
            if (self._model.upper_s(queue.next()) or 0.0) <= left_s:
                return
            self._aside[queue.pop()] = None

    def reconsider(self) -> None:
        """Sort by the new expectation, set-aside trials included."""
        self.put_back(list(self._aside))
        self._aside.clear()
        for queue in self._queues.values():
            queue.sort()

    def _queue_of(self, number: int) -> _Queue:
        width = self.width(number)
        queue = self._queues.get(width)
        if queue is None:
            queue = self._queues[width] = _Queue(self._model)
        return queue
