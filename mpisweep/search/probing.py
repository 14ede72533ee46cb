"""Which withheld trials to hand out next to find the frontier with few that do not fit.

*Bisection.*  Each group of comparable trials has one *probe* under way: the middle of what is open.  Once a
line is done, the probe of another starts from that line's frontier and moves away from it in doubling steps:
a line with the same frontier costs one trial that fits and one that does not.  Until the first line is done
no other is probed.

*Idle devices.*  A device that would be idle gets the trial that would be the next probe if those under way
were too large.  That never costs a trial more than bisection alone does: if they fit, so does it.  When these
have run out it gets the smallest ones that are open, as many as are expected to cost one trial that does not
fit: of *w* open ones the first sqrt(2 w).

*Several kinds of devices.*  What fits on some kinds goes to these, the largest first.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf, isqrt

from mpisweep.search.bisection import aim, nearest
from mpisweep.search.lines import Line, Lines

__all__ = ["Probing"]


class _Places:
    """Places of lines that are to be looked at, ascending."""

    def __init__(self) -> None:
        self._places: list[int] = []
        self._members: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._places)

    def __iter__(self) -> Iterator[int]:
        """Those that are there now, whatever is added and discarded meanwhile."""
        return iter(self._places[:])

    def first(self) -> int:
        return self._places[0]

    def add(self, place: int) -> None:
        if place not in self._members:
            self._members.add(place)
            insort(self._places, place)

    def discard(self, place: int) -> None:
        if place in self._members:
            self._members.discard(place)
            del self._places[bisect_left(self._places, place)]


@dataclass(slots=True)
class _ToDo:
    """Lines that may have something for devices of one kind; a line leaves when it has nothing.

    It comes back when its group changes, or when one of its trials is handed out.
    """

    #: With something that fits on this kind and not everywhere.
    feeds: _Places = field(default_factory=_Places)
    #: With something below a trial that is under way.
    halves: _Places = field(default_factory=_Places)
    #: With something small that is open.
    smallest: _Places = field(default_factory=_Places)

    @property
    def is_open(self) -> bool:
        """Whether there is any line to look at."""
        return bool(self.feeds or self.halves or self.smallest)

    def add(self, lines: Sequence[Line]) -> None:
        for places in (self.feeds, self.halves, self.smallest):
            for line in lines:
                places.add(line.place)


class Probing:
    """The search for the frontier; each method appends (trial, kind of device) to `first`.

    Args:
        lines: trials are handed out from these.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        #: Kind -> need by the first parameter at which the line that was done last was too large.
        self._last_done: dict[str, float] = {}
        self._todo: dict[str, _ToDo] = {}

    def may_occupy(self, kind: str) -> bool:
        """Whether any line may have something for an idle device of this kind."""
        return self._todo_of(kind).is_open

    def look_at(self, lines: Sequence[Line], kind: str) -> None:
        """Look at these lines again, for devices of this kind."""
        self._todo_of(kind).add(lines)

    def forget(self, kind: str) -> None:
        """Forget the lines to look at for a kind of device without slots."""
        self._todo.pop(kind, None)

    def probe(self, kind: str, due: Sequence[list[Line]], first: list[tuple[int, str]]) -> None:
        """Keep one probe under way in each open group; before any line is done, in one group."""
        for group in due if kind in self._last_done else self._lines.groups:
            for line in group:
                low, high = line.bracket(kind)
                candidates = self._lines.candidates(line, low, high)
                is_under_way = line.under_way(kind) is not None
                if not is_under_way and not candidates:
                    if not line.withheld_between(low, high):
                        self._note_done(line, kind)
                    continue
                if not is_under_way:
                    expected = self._last_done.get(kind)
                    target = aim(low, high, None if expected is None else bisect_left(line.needs, expected))
                    self._hand_out(line, nearest(candidates, target), kind, first)
                break
            else:
                continue
            if kind not in self._last_done:
                return

    def feed(self, kind: str, slots: int, first: list[tuple[int, str]]) -> None:
        """Keep enough of what fits this kind alone under way for its slots to run and to run next."""
        wanted, feeds = 2 * slots - self._lines.out[kind], self._todo_of(kind).feeds
        while wanted > 0 and feeds:
            line = self._lines[feeds.first()]
            candidates = self._lines.candidates(line, -1, line.bracket(kind)[0] + 1)
            for position in candidates[::-1][:wanted]:
                self._hand_out(line, position, kind, first)
            wanted -= len(candidates)
            if wanted >= 0:
                feeds.discard(line.place)

    def occupy(self, kind: str, count: int, first: list[tuple[int, str]]) -> None:
        """Find a trial for each of this many idle slots."""
        todo = self._todo_of(kind)
        if count > 0 and todo.halves:
            count = self._halve(kind, todo.halves, count, first)
        if count > 0 and todo.smallest:
            self._take_smallest(kind, todo.smallest, count, first)

    def _halve(self, kind: str, halves: _Places, count: int, first: list[tuple[int, str]]) -> int:
        """Hand out what would be probed if those under way were too large; returns the slots left."""
        for line in map(self._lines.__getitem__, halves):
            while count > 0 and (probe := line.under_way(kind)) is not None:
                low = line.bracket(kind)[0]
                # Other repeats of the probe would show the same.
                end = bisect_left(line.needs, line.needs[probe])
                candidates = self._lines.candidates(line, low, end)
                if not candidates:
                    break
                self._hand_out(line, nearest(candidates, (low + end) // 2), kind, first)
                count -= 1
            if count <= 0:
                break
            halves.discard(line.place)
        return count

    def _take_smallest(self, kind: str, smallest: _Places, count: int, first: list[tuple[int, str]]) -> None:
        """Hand out the smallest open ones, as many as are expected to cost one that does not fit."""
        for line in map(self._lines.__getitem__, smallest):
            low, high = line.bracket(kind)
            within = min(high, low + 1 + isqrt(2 * (high - low - 1)))
            candidates = _one_repeat_of_each(line, self._lines.candidates(line, low, within))
            for position in candidates[:count]:
                self._hand_out(line, position, kind, first)
            count -= len(candidates)
            if count < 0:
                return
            smallest.discard(line.place)
            if count == 0:
                return

    def _note_done(self, line: Line, kind: str) -> None:
        low, high = line.bracket(kind)
        if high < len(line.numbers):
            self._last_done[kind] = line.needs[high]
        elif low >= 0:
            self._last_done[kind] = inf

    def _todo_of(self, kind: str) -> _ToDo:
        return self._todo.setdefault(kind, _ToDo())

    def _hand_out(self, line: Line, position: int, kind: str, first: list[tuple[int, str]]) -> None:
        self._lines.hand_out(line, position, kind)
        self._todo_of(kind).halves.add(line.place)
        first.append((line.numbers[position], kind))


def _one_repeat_of_each(line: Line, positions: Sequence[int]) -> list[int]:
    """The first of these positions for each need; none if another one of it was handed out."""
    known = {line.needs[position] for position in line.out}
    first_of: dict[float, int] = {}
    for position in positions:
        first_of.setdefault(line.needs[position], position)
    return [position for need, position in first_of.items() if need not in known]
