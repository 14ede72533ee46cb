"""Lines of comparable trials: what fits where, which are withheld, which handed out.

Trials that differ in memory parameters alone are *comparable*, and form a *group*.  Those of a group that
differ in the first memory parameter alone form a *line*, in ascending order of need; *position* n of a line
needs no more than position n + 1.

Data and its book-keeping; which trial is handed out next is decided in :mod:`mpisweep.search.probing`, and
what the evidence implies in :mod:`mpisweep.search.frontier`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from mpisweep.records import Value

__all__ = ["Comparable", "Group", "Known", "Line", "Lines", "Needs", "needs_at_most", "signs_of"]

#: What comparable trials agree in, and what a trial needs: the larger, the more memory.
Group = tuple[Value | None, ...]
Needs = tuple[float, ...]


@dataclass(slots=True)
class Known:
    """What one kind of device has shown on one line."""

    #: The last position that fits; -1 if none is known to.
    fits: int = -1
    #: Positions that were too large, and the trials that showed it.
    too_large: dict[int, int] = field(default_factory=dict)
    #: The first of them after the last position that fits; infinite if there is none.
    ceiling: float = inf

    def note_fits(self, position: int) -> None:
        """Note that this position, beyond the last that fitted, fits too."""
        self.fits = position
        self.ceiling = min((p for p in self.too_large if p > position), default=inf)

    def note_too_large(self, position: int, number: int) -> None:
        """Note that this position is too large, as this trial has shown."""
        self.too_large[position] = number
        if position > self.fits:
            self.ceiling = min(self.ceiling, position)


@dataclass(slots=True)
class Line:
    """Trials that differ in the first memory parameter alone, in ascending order of need."""

    #: Its place among all lines.
    place: int
    group: int
    #: Need of each position by the first parameter, ascending.
    needs: list[float]
    numbers: list[int]
    #: What the whole line needs by the other parameters.
    others: tuple[float, ...]
    #: Kind of device -> what it has shown.
    known: dict[str, Known] = field(default_factory=dict)
    #: Positions that wait here and are in no queue, ascending.
    withheld: list[int] = field(default_factory=list)
    #: Positions handed out although not known to fit everywhere -> the kind of device; empty for any.
    out: dict[int, str] = field(default_factory=dict)
    #: Kind of device -> these positions, ascending.
    out_at: dict[str, list[int]] = field(default_factory=dict)
    #: The last position that was freed because it fits everywhere.
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

    def hand_out(self, position: int, kind: str) -> None:
        """Note that a position is handed out to a kind of device; an empty one stands for any."""
        self.take_in(position)
        self.out[position] = kind
        insort(self.out_at.setdefault(kind, []), position)

    def take_in(self, position: int) -> str | None:
        """Note that a position is out no more; returns the kind it was handed to, None if to none."""
        kind = self.out.pop(position, None)
        if kind is not None:
            positions = self.out_at[kind]
            del positions[bisect_left(positions, position)]
        return kind

    def holds(self, position: int) -> bool:
        """Whether a position is withheld."""
        at = bisect_left(self.withheld, position)
        return self.withheld[at : at + 1] == [position]

    def withheld_between(self, low: int, high: int) -> list[int]:
        """Withheld positions above `low` and below `high`."""
        return self.withheld[bisect_right(self.withheld, low) : bisect_left(self.withheld, high)]


class Lines:
    """All lines of a sweep, and where each of their trials is: withheld, handed out, or neither.

    Args:
        columns: all parameters, searched and fixed; entry *n* belongs to trial *n*.
        directions: the memory parameters: ``increasing`` or ``decreasing``.

    Attributes:
        groups: the lines of each group.
        places: trial -> its line and its position there; only trials that others are comparable with.
        changed: groups in which something is new since somebody last looked; the reader clears it.
        withheld: number of withheld trials.
        out: kind of device -> number of trials handed out to it.
        can_run: whether there are slots enough for a trial; None where every trial takes one.
    """

    def __init__(self, columns: Mapping[str, Sequence[Value | None]], directions: Mapping[str, str]) -> None:
        self._lines: list[Line] = []
        self.groups: list[list[Line]] = []
        self.places: dict[int, tuple[Line, int]] = {}
        self._arrange(columns, directions)
        self.changed = set(range(len(self.groups)))
        self.withheld = 0
        self.out: Counter[str] = Counter()
        self.can_run: Callable[[int], bool] | None = None

    def _arrange(self, columns: Mapping[str, Sequence[Value | None]], directions: Mapping[str, str]) -> None:
        alike = list(
            zip(*(column for name, column in columns.items() if name not in directions), strict=True)
        )
        signs = signs_of(directions)
        needs = [
            tuple(sign * _number(value) for sign, value in zip(signs, values, strict=True))
            for values in zip(*(columns[name] for name in directions), strict=True)
        ]
        groups: dict[Group, dict[Needs, list[tuple[float, int]]]] = {}
        for number, (first, *others) in enumerate(needs):
            lines = groups.setdefault(alike[number] if alike else (), {})
            lines.setdefault(tuple(others), []).append((first, number))
        for lines in groups.values():
            if sum(map(len, lines.values())) < 2:
                continue
            made: list[Line] = []
            for others_, entries in lines.items():
                entries.sort()
                needs_, numbers = [need for need, _ in entries], [number for _, number in entries]
                line = Line(len(self._lines) + len(made), len(self.groups), needs_, numbers, others_)
                self.places.update((number, (line, position)) for position, number in enumerate(line.numbers))
                made.append(line)
            self.groups.append(made)
            self._lines += made

    def __getitem__(self, place: int) -> Line:
        return self._lines[place]

    def __iter__(self) -> Iterator[Line]:
        return iter(self._lines)

    def candidates(self, line: Line, low: int, high: int) -> list[int]:
        """Withheld positions above `low` and below `high` for which there are slots enough."""
        positions, can_run = line.withheld_between(low, high), self.can_run
        if can_run is None:
            return positions
        return [position for position in positions if can_run(line.numbers[position])]

    def withhold(self, line: Line, position: int) -> None:
        """Withhold a position, which may have been handed out."""
        self.take_in(line, position)
        insort(line.withheld, position)
        self.withheld += 1
        self.changed.add(line.group)

    def hand_out(self, line: Line, position: int, kind: str) -> None:
        """Hand a withheld position out to a kind of device; an empty one stands for any."""
        del line.withheld[bisect_left(line.withheld, position)]
        self.withheld -= 1
        line.hand_out(position, kind)
        self.out[kind] += 1

    def note_out(self, line: Line, position: int) -> None:
        """Note that a position that is not withheld runs, on whatever kind of device."""
        self.take_in(line, position)
        line.hand_out(position, "")
        self.out[""] += 1

    def take_in(self, line: Line, position: int) -> bool:
        """Note that a position is out no more; False if it was not."""
        kind = line.take_in(position)
        if kind is not None:
            self.out[kind] -= 1
        return kind is not None


class Comparable:
    """The group and the needs of each trial, for searches to which trials are added.

    Args:
        columns: all parameters, searched and fixed; entry *n* belongs to trial *n*.
        directions: the memory parameters: ``increasing`` or ``decreasing``.
        ignored: parameters that do not change the memory.
        may_lack: whether a trial may lack the number of a memory parameter; it then needs none for it.
    """

    def __init__(
        self,
        columns: Mapping[str, Sequence[Value | None]],
        directions: Mapping[str, str],
        ignored: Container[str],
        *,
        may_lack: bool = False,
    ) -> None:
        self._signs = dict(zip(directions, signs_of(directions), strict=True))
        self._alike = [name for name in columns if name not in directions and name not in ignored]
        self._may_lack = may_lack
        self.groups: list[Group] = []
        self.needs: list[Needs] = []
        count = len(next(iter(columns.values()), ()))
        self.add({name: column[number] for name, column in columns.items()} for number in range(count))

    def add(self, configurations: Iterable[Mapping[str, Value | None]]) -> None:
        """Add the next trials."""
        for one in configurations:
            self.groups.append(tuple(one.get(name) for name in self._alike))
            self.needs.append(tuple(sign * self._need(one.get(name)) for name, sign in self._signs.items()))

    def repeat(self, numbers: Iterable[int]) -> None:
        """Add the next trials, which have the configurations of these."""
        for number in numbers:
            self.groups.append(self.groups[number])
            self.needs.append(self.needs[number])

    def _need(self, value: Value | None) -> float:
        return _number(value) if isinstance(value, int | float) or not self._may_lack else 0.0


def signs_of(directions: Mapping[str, str]) -> list[float]:
    """The factor of each memory parameter by which its value becomes a need."""
    return [-1.0 if word == "decreasing" else 1.0 for word in directions.values()]


def _number(value: Value | None) -> float:
    assert value is not None, "a parameter with 'memory' has no condition"
    return float(value)


def needs_at_most(some: Needs, others: Needs) -> bool:
    """Whether none of these needs is above its counterpart."""
    return all(a <= b for a, b in zip(some, others, strict=True))
