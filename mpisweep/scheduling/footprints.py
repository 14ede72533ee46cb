"""How much of a GPU's memory a trial needs at most, by what others have needed.

A trial is *covered* by one that has completed on the same kind of device if that one needs no less by any
memory parameter, and both agree in all integers and choices.  Memory parameters are those for which the sweep
file says ``memory``, and those that make nearly every program larger, such as ``batch_size``.  Real numbers,
such as a learning rate, are taken to need no memory, as in :mod:`mpisweep.search.ceiling`.

The bound is the least that any covering trial has held, with a margin.  A trial that nothing covers has none.

Pure: evidence in, bounds out.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from mpisweep.records import Value
from mpisweep.search.lines import Comparable, Group, Needs, needs_at_most

__all__ = ["MARGIN", "Footprints"]

#: What a trial may need beyond a measured one: fragmentation, other kernels.
MARGIN = 1.10


class Footprints:
    """What trials have held, and what follows for others.

    Args:
        columns: all parameters, searched and fixed; entry *n* belongs to trial *n*.
        directions: the memory parameters: ``increasing`` or ``decreasing``.
        ignored: parameters that do not change the memory.
    """

    def __init__(
        self,
        columns: Mapping[str, Sequence[Value | None]],
        directions: Mapping[str, str],
        ignored: Container[str],
    ) -> None:
        self._trials = Comparable(columns, directions, ignored, may_lack=True)
        #: (kind of device, group) -> needs -> the most that such a trial has held, as a share of the GPU's.
        self._held: dict[tuple[str, Group], dict[Needs, float]] = {}

    def add(self, configurations: Iterable[Mapping[str, Value | None]]) -> None:
        """Add the next trials."""
        self._trials.add(configurations)

    def repeat(self, numbers: Iterable[int]) -> None:
        """Add the next trials, which have the configurations of these."""
        self._trials.repeat(numbers)

    def learn(self, number: int, kind: str, memory: float) -> None:
        """Learn the share of a GPU's memory that a trial has held from its begin to its end."""
        group, needs = self._trials.groups[number], self._trials.needs[number]
        held = self._held.setdefault((kind, group), {})
        held[needs] = max(memory, held.get(needs, 0.0))

    def bound(self, number: int, kind: str) -> float | None:
        """The share of a GPU's memory that a trial needs at most; None if nothing says so."""
        group, needs = self._trials.groups[number], self._trials.needs[number]
        held = self._held.get((kind, group), {})
        if needs in held:
            return MARGIN * held[needs]
        covering = [memory for other, memory in held.items() if needs_at_most(needs, other)]
        return MARGIN * min(covering) if covering else None
