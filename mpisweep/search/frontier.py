"""The memory frontier: which sizes fit on a device, and what follows for waiting trials.

A sweep file may say of a parameter that a trial needs the more memory the larger (``memory = "increasing"``)
or the smaller (``"decreasing"``) its value is.  Trials that differ in such parameters alone are *comparable*
(:mod:`mpisweep.search.lines`): where one runs out of memory, so do those that need more on the same kind of
device; where one fits, so do those that need less.

What is known, for each line of comparable trials and each kind of device::

    position   0 ... fits | open ... | too large ... end
               run freely | withheld | never run, once the frontier is found

How it is found is in :mod:`mpisweep.search.probing`.

*Infeasible* is what needs no less than a trial that was too large, on every kind of device that there is,
once nothing that runs could still show the contrary.  What is smaller than a trial that has completed is
taken to fit, whatever was seen before.

*Several ranks.*  A trial that needs more ranks than there are slots is no probe and delays no other: it waits
for slots.

*Several kinds of devices.*  What fits everywhere goes anywhere; each kind finds its own frontier.  The kind
says what a trial may have of the device and of the main memory (:mod:`mpisweep.devices.nodes`), so that
nothing is inferred from another device or under another limit.

Pure: evidence in, plans out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mpisweep.records import TrialState, Value
from mpisweep.search.evidence import Evidence
from mpisweep.search.lines import Known, Line, Lines, needs_at_most
from mpisweep.search.probing import Probing

__all__ = ["MemoryFrontier", "Plan"]

_WAITING = int(TrialState.WAITING)


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


class MemoryFrontier:
    """What is known of the frontier, and which trials are withheld because of it.

    Args:
        columns: all parameters, searched and fixed; entry *n* belongs to trial *n*.
        directions: the memory parameters: ``increasing`` or ``decreasing``.
    """

    def __init__(self, columns: Mapping[str, Sequence[Value | None]], directions: Mapping[str, str]) -> None:
        self._columns = {name: columns[name] for name in directions}
        self._lines = Lines(columns, directions)
        self._probing = Probing(self._lines)
        #: Kind of device -> number of its slots that get trials.
        self._slots: dict[str, int] = {}
        #: Groups in which something is infeasible unless another kind of device joins.
        self._unsaid: set[int] = set()
        #: Number of slots that get trials, where that matters.
        self._room = 1
        #: Whether slots came or went since the last plan, so that what is handed out may have none.
        self._has_moved = True

    # ------------------------------------------------------------------------------------- reading

    def __len__(self) -> int:
        """Number of withheld trials."""
        return self._lines.withheld

    def __iter__(self) -> Iterator[int]:
        """The withheld trials."""
        for line in self._lines:
            yield from (line.numbers[position] for position in line.withheld)

    def is_due(self, idle: Mapping[str, int], *, all_joined: bool) -> bool:
        """Whether a plan would say anything new; arguments as for :meth:`plan`."""
        if self._lines.changed or (all_joined and self._unsaid):
            return True
        return bool(self._lines.withheld) and any(self._probing.may_occupy(kind) for kind in idle)

    @property
    def is_mixed(self) -> bool:
        """Whether there are devices of several kinds."""
        return len(self._slots) > 1

    def holds(self, number: int) -> bool:
        """Whether a trial is withheld."""
        if number not in self._lines.places:
            return False
        line, position = self._lines.places[number]
        return line.holds(position)

    def knows(self, kind: str) -> bool:
        """Whether any slot of this kind gets trials."""
        return kind in self._slots

    def compares(self, number: int) -> bool:
        """Whether any other trial is comparable with this one."""
        return number in self._lines.places

    def has_room_elsewhere(self, number: int, kind: str) -> bool:
        """Whether a trial that was too large for one kind of device may fit on another."""
        if number not in self._lines.places:
            return False
        line, position = self._lines.places[number]
        return any(position < line.bracket(other)[1] for other in self._slots if other != kind)

    # ------------------------------------------------------------------------------------- events

    def hold(self, numbers: Iterable[int]) -> list[int]:
        """Withhold the waiting trials that may be too large somewhere; returns the others."""
        free: list[int] = []
        for number in numbers:
            place = self._lines.places.get(number)
            if place is None or (self._slots and place[1] <= self._fits_everywhere(place[0])):
                free.append(number)
            else:
                self._lines.withhold(*place)
        return free

    def take(self, number: int) -> None:
        """Note that a withheld trial turns out to run."""
        line, position = self._lines.places[number]
        self._lines.hand_out(line, position, "")

    def note_running(self, number: int) -> None:
        """Note that a trial runs already, on whatever kind of device."""
        if number in self._lines.places:
            self._lines.note_out(*self._lines.places[number])

    def join(self, kind: str) -> None:
        """Note that a slot of this kind gets trials from now on."""
        if kind not in self._slots:
            self._note_moved()
        self._slots[kind] = self._slots.get(kind, 0) + 1

    def leave(self, kind: str) -> None:
        """Note that a slot of this kind gets no more trials."""
        self._slots[kind] -= 1
        if not self._slots[kind]:
            del self._slots[kind]
            self._probing.forget(kind)
            self._note_moved()

    def note_room(self, room: int, can_run: Callable[[int], bool]) -> None:
        """Note the number of slots; `can_run` says whether these are enough for a trial."""
        if room != self._room:
            self._room, self._lines.can_run = room, can_run
            self._note_moved()

    def _note_moved(self) -> None:
        self._has_moved = True
        self._lines.changed.update(range(len(self._lines.groups)))

    def learn(self, number: int, kind: str | None, evidence: Evidence) -> None:
        """Learn from the end of a trial on one kind of device.

        On several kinds at once, which None stands for, it shows nothing.
        """
        if number not in self._lines.places:
            return
        line, position = self._lines.places[number]
        if self._lines.take_in(line, position):
            self._lines.changed.add(line.group)
        if kind is None:
            return
        need = line.needs[position]
        for other in self._lines.groups[line.group]:
            if evidence is Evidence.FITS and needs_at_most(other.others, line.others):
                self._note_fits(other, bisect_right(other.needs, need) - 1, kind)
            elif evidence is Evidence.TOO_LARGE and needs_at_most(line.others, other.others):
                self._note_too_large(other, bisect_left(other.needs, need), kind, number)

    def _note_fits(self, line: Line, position: int, kind: str) -> None:
        known = line.known.setdefault(kind, Known())
        if position > known.fits:
            known.note_fits(position)
            self._lines.changed.add(line.group)

    def _note_too_large(self, line: Line, position: int, kind: str, number: int) -> None:
        known = line.known.setdefault(kind, Known())
        if position < len(line.numbers) and position not in known.too_large:
            known.note_too_large(position, number)
            self._lines.changed.add(line.group)

    # ------------------------------------------------------------------------------------- planning

    def plan(self, states: Sequence[int], idle: Mapping[str, int], *, all_joined: bool) -> Plan:
        """Decide what becomes of waiting trials, from what is known now.

        Args:
            states: each trial's TrialState.
            idle: kind of device -> slots that would be idle.
            all_joined: whether all workers have had the time to join; nothing is inferred before.
        """
        plan = Plan([], [], [], [])
        if not self._slots:
            return plan
        changed = self._lines.changed
        if all_joined:
            changed |= self._unsaid
            self._unsaid.clear()
        due = [self._lines.groups[group] for group in sorted(changed)]
        changed.clear()
        due_lines = [line for group in due for line in group]
        for line in due_lines:
            self._sort_out(line, states, plan)
        self._has_moved = False
        for kind, slots in self._slots.items():
            if due:
                self._probing.look_at(due_lines, kind)
                self._probing.probe(kind, due, plan.first)
            if self.is_mixed:
                self._probing.feed(kind, slots, plan.first)
        for line in due_lines:
            if line.withheld:
                self._infer(line, all_joined, plan)
        for kind, count in idle.items():
            given = sum(bound == kind for _, bound in plan.first)
            self._probing.occupy(kind, count - given, plan.first)
        return plan

    def _fits_everywhere(self, line: Line) -> int:
        return min(line.bracket(kind)[0] for kind in self._slots)

    def _sort_out(self, line: Line, states: Sequence[int], plan: Plan) -> None:
        """Free what fits everywhere, and reclaim what does not and has not begun."""
        free = self._fits_everywhere(line)
        count = bisect_right(line.withheld, free)
        plan.free.extend(line.numbers[position] for position in line.withheld[:count])
        del line.withheld[:count]
        self._lines.withheld -= count
        for kind, positions in line.out_at.items():
            for position in positions[: bisect_right(positions, free)]:
                self._lines.take_in(line, position)
            # With the same slots as before, only what has since turned out too large is out in vain.
            first = 0 if self._has_moved else bisect_left(positions, line.bracket(kind)[1])
            for position in positions[first:]:
                if states[line.numbers[position]] == _WAITING and not self._is_wanted(line, position, kind):
                    self._lines.withhold(line, position)
                    plan.withheld.append(line.numbers[position])
        # A kind of device has joined of which less is known than of those before.
        for position in range(free + 1, line.freed + 1):
            is_queued = position not in line.out and not line.holds(position)
            if is_queued and states[line.numbers[position]] == _WAITING:
                self._lines.withhold(line, position)
                plan.withheld.append(line.numbers[position])
        line.freed = free

    def _is_wanted(self, line: Line, position: int, kind: str) -> bool:
        """Whether what was handed out to a kind of device can run there, and may fit."""
        can_run = self._lines.can_run is None or self._lines.can_run(line.numbers[position])
        return can_run and kind in self._slots and position < line.bracket(kind)[1]

    def _infer(self, line: Line, all_joined: bool, plan: Plan) -> None:
        first = max(line.bracket(kind)[1] for kind in self._slots)
        positions = line.withheld_between(first - 1, len(line.numbers))
        if not positions or self._may_be_wrong(line, first):
            return
        if not all_joined:
            self._unsaid.add(line.group)
            return
        why = self._why(line)
        plan.infeasible.extend((line.numbers[position], why) for position in positions)
        del line.withheld[-len(positions) :]
        self._lines.withheld -= len(positions)

    def _may_be_wrong(self, line: Line, position: int) -> bool:
        """Whether something that runs needs no less than this position does."""
        return any(
            other.needs[under_way] >= line.needs[position]
            for other in self._lines.groups[line.group]
            if needs_at_most(line.others, other.others)
            for under_way in other.out
        )

    def _why(self, line: Line) -> str:
        """Say why a line is infeasible, e.g. ``batch_size 412 ran out of memory on NVIDIA H100``."""
        shown: list[str] = []
        for kind in sorted(self._slots):
            number = line.known[kind].too_large[line.bracket(kind)[1]]
            values = ", ".join(f"{name} {column[number]}" for name, column in self._columns.items())
            shown.append(f"{values} ran out of memory on {kind}")
        return "; ".join([*shown, "what needs more was not run"])
