"""The memory frontier: which sizes fit on a device, which do not, and which to try next to find out.

A sweep file may say of a parameter that a trial needs the more memory the larger (``memory = "increasing"``)
or the smaller (``"decreasing"``) its value is.  Trials that differ in such parameters alone are *comparable*:
where one runs out of memory, so do those that need more on the same kind of device; where one fits, so do
those that need less.  They form *lines*, ordered by the first such parameter, the others being equal.

What is known, for each line and each kind of device::

    position   0 ... fits | open ... | too large ... end
               run freely | withheld | never run, once the frontier is found

How the frontier is found ------------------------- *Bisection.*  Of each set of comparable trials one *probe*
is under way: the middle of what is open.  Where another line is done, the probe starts from its frontier and
moves away from it in doubling steps, so that a line costs one trial that fits and one that does not where the
frontier is the same.  Until the first line is done no other is probed.

*Idle devices.*  A device that would have nothing to do gets the trial that would be the next probe if those
under way were too large.  That never costs a trial more than bisection alone does: if they fit, so does it.
When these have run out it gets the smallest ones that are open, as many as are expected to cost one trial
that does not fit: of *w* open ones the first sqrt(2 w).

*Infeasible* is what needs no less than a trial that was too large, on every kind of device that there is,
once nothing that runs could still show the contrary.  What is smaller than a trial that has completed is
taken to fit, whatever was seen before.

Several ranks
-------------
A trial that needs more ranks than there are slots is no probe, and holds no other one up: it waits for slots.

Several kinds of devices ------------------------ What fits everywhere goes anywhere.  What fits on some kinds
goes to these, the largest first; each kind finds its own frontier.  The kind says what a trial may have of
the device and of the main memory (:mod:`mpisweep.devices.nodes`), so that nothing is inferred from another
device or under another limit.

Pure: evidence in, plans out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import inf, isqrt

from mpisweep.records import FailureCause, TrialState, Value

__all__ = ["Evidence", "MemoryFrontier", "Plan", "aim", "evidence_of"]

_WAITING = int(TrialState.WAITING)
_FAILED = int(TrialState.FAILED)


class Evidence(Enum):
    """What the end of a trial says about memory."""

    FITS = "fits"
    TOO_LARGE = "too large"
    NOTHING = "nothing"


def evidence_of(state: int, cause: int) -> Evidence:
    """What the end of a trial says; one that had all its time has not run out of memory in it."""
    if state in (TrialState.COMPLETE, TrialState.PRUNED):
        return Evidence.FITS
    if state == _FAILED and cause == FailureCause.OUT_OF_MEMORY:
        return Evidence.TOO_LARGE
    if state == _FAILED and cause == FailureCause.TIMEOUT:
        return Evidence.FITS
    return Evidence.NOTHING


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of trials that wait."""

    #: Fit everywhere: they queue with the others.
    free: list[int]
    #: To be handed out before all others, in this order, each to a device of this kind.
    first: list[tuple[int, str]]
    #: Are in a queue and must not be handed out for now.
    withheld: list[int]
    #: Are never to run, and why.
    infeasible: list[tuple[int, str]]


@dataclass(slots=True)
class _Known:
    """What one kind of device has shown on one line."""

    #: The last position that fits; -1 where none is known to.
    fits: int = -1
    #: Positions that were too large, and the trials that showed it.
    too_large: dict[int, int] = field(default_factory=dict)
    #: The first of them after the last position that fits; infinite where there is none.
    ceiling: float = inf

    def note_fits(self, position: int) -> None:
        self.fits = position
        self.ceiling = min((p for p in self.too_large if p > position), default=inf)

    def note_too_large(self, position: int, number: int) -> None:
        self.too_large[position] = number
        if position > self.fits:
            self.ceiling = min(self.ceiling, position)


@dataclass(slots=True)
class _Line:
    """Comparable trials that differ in the first memory parameter alone, by what they need."""

    #: Its place among all lines.
    place: int
    group: int
    #: Need of each position by the first parameter, ascending.
    needs: list[float]
    numbers: list[int]
    #: What the whole line needs by the other parameters.
    others: tuple[float, ...]
    known: dict[str, _Known] = field(default_factory=dict)
    #: Positions that wait here and are in no queue, ascending.
    withheld: list[int] = field(default_factory=list)
    #: Positions that were handed out although they were not known to fit everywhere, and to which kind of
    #: device.
    out: dict[int, str] = field(default_factory=dict)
    #: Kind of device -> these positions, ascending.
    out_at: dict[str, list[int]] = field(default_factory=dict)
    #: The last position that was let go because it fits everywhere.
    freed: int = -1

    def bracket(self, kind: str) -> tuple[int, int]:
        """The last position that fits and the first that is too large: what lies between is open."""
        known = self.known.get(kind)
        if known is None:
            return -1, len(self.numbers)
        return known.fits, len(self.numbers) if known.ceiling == inf else int(known.ceiling)

    def under_way(self, kind: str) -> int | None:
        """The first position that was handed out and will show where the frontier of this kind is."""
        low, high = self.bracket(kind)
        found = high
        for positions in (self.out_at.get("", ()), self.out_at.get(kind, ())):
            after = bisect_right(positions, low)
            found = min([found, *positions[after : after + 1]])
        return found if found < high else None

    def let_out(self, position: int, kind: str) -> None:
        """A position is handed out to a kind of device; to any, where that is empty."""
        self.let_in(position)
        self.out[position] = kind
        insort(self.out_at.setdefault(kind, []), position)

    def let_in(self, position: int) -> str | None:
        """Take a position back; returns the kind of device it was handed to, None if to none."""
        kind = self.out.pop(position, None)
        if kind is not None:
            positions = self.out_at[kind]
            del positions[bisect_left(positions, position)]
        return kind

    def holds(self, position: int) -> bool:
        """Whether a position is withheld."""
        at = bisect_left(self.withheld, position)
        return self.withheld[at : at + 1] == [position]

    def open_ones(self, low: int, high: int) -> list[int]:
        """Withheld positions in between."""
        return self.withheld[bisect_right(self.withheld, low) : bisect_left(self.withheld, high)]


def aim(low: int, high: int, expected: int | None) -> int:
    """The position to try next.

    Args:
        low: the last position that fits, or -1.
        high: the first that is too large, or the end; at least ``low + 2``.
        expected: where the first one that is too large is expected; None where nothing is.
    """
    middle = (low + high) // 2
    if expected is None:
        return middle
    if low < expected - 1 < high:
        return expected - 1
    # The expectation was wrong, or its half that fits is confirmed: away from it, further each time.
    if low >= expected - 1:
        return min(low + (low - expected + 2), middle)
    return max(high - (expected - high), middle)


class _Lines:
    """Lines that are to be looked at, in their order."""

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
    """Lines where something may be found for devices of one kind; each leaves when it was looked at in vain.

    It is back when something was learned of its group, or something was let out of it.
    """

    #: That have something that fits on this kind and not everywhere.
    feeds: _Lines = field(default_factory=_Lines)
    #: That have something below a trial that is under way.
    halves: _Lines = field(default_factory=_Lines)
    #: That have something small that is open.
    smallest: _Lines = field(default_factory=_Lines)

    @property
    def is_open(self) -> bool:
        """Whether there is any line to look at."""
        return bool(self.feeds or self.halves or self.smallest)

    def add(self, place: int) -> None:
        for lines in (self.feeds, self.halves, self.smallest):
            lines.add(place)


class MemoryFrontier:
    """What is known of the frontier, and which trials are withheld because of it.

    Args:
        columns: all parameters, searched and fixed; entry *n* belongs to trial *n*.
        directions: the parameters that memory goes with: ``increasing`` or ``decreasing``.
    """

    def __init__(self, columns: Mapping[str, Sequence[Value]], directions: Mapping[str, str]) -> None:
        self._directions = {name: -1.0 if word == "decreasing" else 1.0 for name, word in directions.items()}
        self._columns = {name: columns[name] for name in directions}
        self._lines: list[_Line] = []
        #: Group -> its lines.
        self._groups: list[list[_Line]] = []
        #: Trial -> its line and its position there; only trials that others are comparable with.
        self._places: dict[int, tuple[_Line, int]] = {}
        self._arrange(columns)
        #: Kind of device -> how many slots of it get trials.
        self._slots: dict[str, int] = {}
        #: Kind -> need by the first parameter from which on the line that was done last was too large.
        self._last_done: dict[str, float] = {}
        #: Groups of which something was learned since the last plan.
        self._due = set(range(len(self._groups)))
        #: Groups of which something is infeasible, should no other kind of device join.
        self._unsaid: set[int] = set()
        self._todo: dict[str, _ToDo] = {}
        self._withheld = 0
        #: Kind of device -> how many trials are handed out to it.
        self._out: Counter[str] = Counter()
        #: How many slots get trials, where that matters, and whether these are enough for a trial.
        self._room = 1
        self._can_run: Callable[[int], bool] | None = None
        #: Whether there are other slots than at the last plan, so that what is handed out may have none.
        self._has_moved = True

    def _arrange(self, columns: Mapping[str, Sequence[Value]]) -> None:
        alike = list(
            zip(*(column for name, column in columns.items() if name not in self._directions), strict=True)
        )
        needs = [
            tuple(sign * float(value) for sign, value in zip(self._directions.values(), values, strict=True))
            for values in zip(*self._columns.values(), strict=True)
        ]
        groups: dict[tuple[Value, ...], dict[tuple[float, ...], list[tuple[float, int]]]] = {}
        for number, (first, *others) in enumerate(needs):
            lines = groups.setdefault(alike[number] if alike else (), {})
            lines.setdefault(tuple(others), []).append((first, number))
        for lines in groups.values():
            if sum(map(len, lines.values())) < 2:
                continue
            made: list[_Line] = []
            for others_, entries in lines.items():
                entries.sort()
                needs_, numbers = [need for need, _ in entries], [number for _, number in entries]
                line = _Line(len(self._lines) + len(made), len(self._groups), needs_, numbers, others_)
                self._places.update(
                    (number, (line, position)) for position, number in enumerate(line.numbers)
                )
                made.append(line)
            self._groups.append(made)
            self._lines += made

    # ------------------------------------------------------------------------------------- reading

    def __len__(self) -> int:
        """How many trials are withheld."""
        return self._withheld

    def __iter__(self) -> Iterator[int]:
        """The trials that are withheld."""
        for line in self._lines:
            yield from (line.numbers[position] for position in line.withheld)

    def is_due(self, idle: Mapping[str, int], *, all_joined: bool) -> bool:
        """Whether a plan would say anything new; arguments as for :meth:`plan`."""
        if self._due or (all_joined and self._unsaid):
            return True
        return bool(self._withheld) and any(self._todo_of(kind).is_open for kind in idle)

    @property
    def is_mixed(self) -> bool:
        """Whether there are devices of several kinds."""
        return len(self._slots) > 1

    def holds(self, number: int) -> bool:
        """Whether a trial is withheld."""
        if number not in self._places:
            return False
        line, position = self._places[number]
        return line.holds(position)

    def knows(self, kind: str) -> bool:
        """Whether there are slots of this kind that get trials."""
        return kind in self._slots

    def compares(self, number: int) -> bool:
        """Whether there are trials that this one can be compared with."""
        return number in self._places

    def has_room_elsewhere(self, number: int, kind: str) -> bool:
        """Whether a trial that was too large for one kind of device is not known to be so for all others."""
        if number not in self._places:
            return False
        line, position = self._places[number]
        return any(position < line.bracket(other)[1] for other in self._slots if other != kind)

    # ------------------------------------------------------------------------------------- events

    def hold(self, numbers: Iterable[int]) -> list[int]:
        """Withhold those of these waiting trials that may be too large somewhere; returns the others."""
        free: list[int] = []
        for number in numbers:
            place = self._places.get(number)
            if place is None or (self._slots and place[1] <= self._fits_everywhere(place[0])):
                free.append(number)
            else:
                self._withhold(*place)
        return free

    def take(self, number: int) -> None:
        """A trial that was withheld turns out to run."""
        line, position = self._places[number]
        self._release(line, position, "")

    def note_running(self, number: int) -> None:
        """A trial runs already, on whatever kind of device."""
        if number in self._places:
            line, position = self._places[number]
            self._let_in(line, position)
            line.let_out(position, "")
            self._out[""] += 1

    def join(self, kind: str) -> None:
        """A slot of this kind gets trials from now on."""
        if kind not in self._slots:
            self._note_moved()
        self._slots[kind] = self._slots.get(kind, 0) + 1

    def leave(self, kind: str) -> None:
        """A slot of this kind gets none any more."""
        self._slots[kind] -= 1
        if not self._slots[kind]:
            del self._slots[kind]
            self._todo.pop(kind, None)
            self._note_moved()

    def note_room(self, room: int, can_run: Callable[[int], bool]) -> None:
        """There are so many slots; `can_run` says whether these are enough for a trial."""
        if room != self._room:
            self._room, self._can_run = room, can_run
            self._note_moved()

    def _note_moved(self) -> None:
        self._has_moved = True
        self._due.update(range(len(self._groups)))

    def learn(self, number: int, kind: str | None, evidence: Evidence) -> None:
        """What the end of a trial has shown on one kind of device; on several at once, None, it shows
        nothing.
        """
        if number not in self._places:
            return
        line, position = self._places[number]
        if self._let_in(line, position):
            self._due.add(line.group)
        if kind is None:
            return
        need = line.needs[position]
        for other in self._groups[line.group]:
            if evidence is Evidence.FITS and _all_at_most(other.others, line.others):
                self._note_fits(other, bisect_right(other.needs, need) - 1, kind)
            elif evidence is Evidence.TOO_LARGE and _all_at_most(line.others, other.others):
                self._note_too_large(other, bisect_left(other.needs, need), kind, number)

    def _note_fits(self, line: _Line, position: int, kind: str) -> None:
        known = line.known.setdefault(kind, _Known())
        if position > known.fits:
            known.note_fits(position)
            self._due.add(line.group)

    def _note_too_large(self, line: _Line, position: int, kind: str, number: int) -> None:
        known = line.known.setdefault(kind, _Known())
        if position < len(line.numbers) and position not in known.too_large:
            known.note_too_large(position, number)
            self._due.add(line.group)

    # ------------------------------------------------------------------------------------- planning

    def plan(self, states: Sequence[int], idle: Mapping[str, int], *, all_joined: bool) -> Plan:
        """What is to become of trials that wait, by what is known now.

        Args:
            states: each trial's TrialState.
            idle: kind of device -> slots that would have nothing to do.
            all_joined: whether all workers have had the time to join; nothing is inferred before.
        """
        plan = Plan([], [], [], [])
        if not self._slots:
            return plan
        if all_joined:
            self._due |= self._unsaid
            self._unsaid.clear()
        due = [self._groups[group] for group in sorted(self._due)]
        self._due.clear()
        for line in (line for group in due for line in group):
            self._sort_out(line, states, plan)
            for kind in self._slots:
                self._todo_of(kind).add(line.place)
        self._has_moved = False
        for kind in self._slots:
            if due:
                self._probe(kind, due, plan)
            if self.is_mixed:
                self._feed(kind, plan)
        for line in (line for group in due for line in group if line.withheld):
            self._infer(line, all_joined, plan)
        for kind, count in idle.items():
            self._occupy(kind, count - sum(bound == kind for _, bound in plan.first), plan)
        return plan

    def _fits_everywhere(self, line: _Line) -> int:
        return min(line.bracket(kind)[0] for kind in self._slots)

    def _sort_out(self, line: _Line, states: Sequence[int], plan: Plan) -> None:
        """Let go of what fits everywhere, and reclaim what does not and has not begun."""
        free = self._fits_everywhere(line)
        count = bisect_right(line.withheld, free)
        plan.free.extend(line.numbers[position] for position in line.withheld[:count])
        del line.withheld[:count]
        self._withheld -= count
        for kind, positions in line.out_at.items():
            for position in positions[: bisect_right(positions, free)]:
                self._let_in(line, position)
            # Where no slot is another one, only what has turned out to be too large since is handed out in
            # vain.
            first = 0 if self._has_moved else bisect_left(positions, line.bracket(kind)[1])
            for position in positions[first:]:
                if states[line.numbers[position]] == _WAITING and not self._is_wanted(line, position, kind):
                    self._withhold(line, position)
                    plan.withheld.append(line.numbers[position])
        # A kind of device has joined of which less is known than of those before.
        for position in range(free + 1, line.freed + 1):
            is_queued = position not in line.out and not line.holds(position)
            if is_queued and states[line.numbers[position]] == _WAITING:
                self._withhold(line, position)
                plan.withheld.append(line.numbers[position])
        line.freed = free

    def _is_wanted(self, line: _Line, position: int, kind: str) -> bool:
        """Whether what was handed out to a kind of device can run there, and may fit."""
        can_run = self._can_run is None or self._can_run(line.numbers[position])
        return can_run and kind in self._slots and position < line.bracket(kind)[1]

    def _probe(self, kind: str, due: Sequence[list[_Line]], plan: Plan) -> None:
        """Have one probe under way in each group that is open; before any line is done, in one of them."""
        for group in due if kind in self._last_done else self._groups:
            for line in group:
                low, high = line.bracket(kind)
                candidates = self._candidates(line, low, high)
                is_under_way = line.under_way(kind) is not None
                if not is_under_way and not candidates:
                    if not line.open_ones(low, high):
                        self._note_done(line, kind)
                    continue
                if not is_under_way:
                    expected = self._last_done.get(kind)
                    target = aim(low, high, None if expected is None else bisect_left(line.needs, expected))
                    self._let_out(line, _nearest(candidates, target), kind, plan)
                break
            else:
                continue
            if kind not in self._last_done:
                return

    def _candidates(self, line: _Line, low: int, high: int) -> list[int]:
        """Withheld positions in between for which there are slots enough."""
        positions, can_run = line.open_ones(low, high), self._can_run
        if can_run is None:
            return positions
        return [position for position in positions if can_run(line.numbers[position])]

    def _note_done(self, line: _Line, kind: str) -> None:
        low, high = line.bracket(kind)
        if high < len(line.numbers):
            self._last_done[kind] = line.needs[high]
        elif low >= 0:
            self._last_done[kind] = inf

    def _feed(self, kind: str, plan: Plan) -> None:
        """Keep as much under way of what fits this kind alone as its slots run and run next."""
        wanted, feeds = 2 * self._slots[kind] - self._out[kind], self._todo_of(kind).feeds
        while wanted > 0 and feeds:
            line = self._lines[feeds.first()]
            candidates = self._candidates(line, -1, line.bracket(kind)[0] + 1)
            for position in candidates[::-1][:wanted]:
                self._let_out(line, position, kind, plan)
            wanted -= len(candidates)
            if wanted >= 0:
                feeds.discard(line.place)

    def _occupy(self, kind: str, count: int, plan: Plan) -> None:
        """Find something for so many slots that would have nothing to do."""
        todo = self._todo_of(kind)
        if count <= 0:
            return
        for line in map(self._lines.__getitem__, todo.halves):
            while count > 0 and (probe := line.under_way(kind)) is not None:
                low = line.bracket(kind)[0]
                candidates = self._candidates(line, low, probe)
                if not candidates:
                    break
                self._let_out(line, _nearest(candidates, (low + probe) // 2), kind, plan)
                count -= 1
            if count <= 0:
                return
            todo.halves.discard(line.place)
        for line in map(self._lines.__getitem__, todo.smallest):
            low, high = line.bracket(kind)
            candidates = self._candidates(line, low, min(high, low + 1 + isqrt(2 * (high - low - 1))))
            for position in candidates[:count]:
                self._let_out(line, position, kind, plan)
            count -= len(candidates)
            if count < 0:
                return
            todo.smallest.discard(line.place)
            if count == 0:
                return

    def _infer(self, line: _Line, all_joined: bool, plan: Plan) -> None:
        first = max(line.bracket(kind)[1] for kind in self._slots)
        positions = line.open_ones(first - 1, len(line.numbers))
        if not positions or self._may_be_wrong(line, first):
            return
        if not all_joined:
            self._unsaid.add(line.group)
            return
        why = self._why(line)
        plan.infeasible.extend((line.numbers[position], why) for position in positions)
        del line.withheld[-len(positions) :]
        self._withheld -= len(positions)

    def _may_be_wrong(self, line: _Line, position: int) -> bool:
        """Whether something that runs needs no less than this position does."""
        return any(
            other.needs[under_way] >= line.needs[position]
            for other in self._groups[line.group]
            if _all_at_most(line.others, other.others)
            for under_way in other.out
        )

    def _why(self, line: _Line) -> str:
        """In words, e.g. ``batch_size 412 ran out of memory on NVIDIA H100 80GB HBM3; what needs more was not
        run``.
        """
        shown: list[str] = []
        for kind in sorted(self._slots):
            number = line.known[kind].too_large[line.bracket(kind)[1]]
            values = ", ".join(f"{name} {column[number]}" for name, column in self._columns.items())
            shown.append(f"{values} ran out of memory on {kind}")
        return "; ".join([*shown, "what needs more was not run"])

    # ------------------------------------------------------------------------------------- book-keeping

    def _withhold(self, line: _Line, position: int) -> None:
        self._let_in(line, position)
        insort(line.withheld, position)
        self._withheld += 1
        self._due.add(line.group)

    def _todo_of(self, kind: str) -> _ToDo:
        return self._todo.setdefault(kind, _ToDo())

    def _release(self, line: _Line, position: int, kind: str) -> None:
        del line.withheld[bisect_left(line.withheld, position)]
        self._withheld -= 1
        line.let_out(position, kind)
        self._out[kind] += 1

    def _let_in(self, line: _Line, position: int) -> bool:
        kind = line.let_in(position)
        if kind is not None:
            self._out[kind] -= 1
        return kind is not None

    def _let_out(self, line: _Line, position: int, kind: str, plan: Plan) -> None:
        self._release(line, position, kind)
        self._todo_of(kind).halves.add(line.place)
        plan.first.append((line.numbers[position], kind))


def _nearest(positions: Sequence[int], target: int) -> int:
    """The one of these ascending positions that is nearest to the target; of two the smaller."""
    after = bisect_left(positions, target)
    around = positions[max(0, after - 1) : after + 1]
    return min(around, key=lambda position: (abs(position - target), position))


def _all_at_most(some: tuple[float, ...], others: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(some, others, strict=True))
