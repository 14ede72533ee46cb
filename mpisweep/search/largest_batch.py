"""The largest size that fits into the memory, and the fastest one, in about log2(n) trials.

The only search that learns while it runs.  Of *n* sizes in order it finds, by bisection, the largest that
fits: about log2(n) trials, one after another.  Beside that, and after it, it compares speeds, which is what
the sweep's objective is: of the largest size, and of the three largest powers of two that fit.  Then it
halves the distance, in ratios, from the fastest of these to its neighbours, until they are within
:data:`NEAR` of it: about four more.  Most programs are no faster at an eighth of the largest size, or the
answer is not a question of size.

A trial that fails for another reason than memory says nothing, and its neighbour is tried.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from math import ceil, floor, inf, isfinite, log2, sqrt
from typing import Self

from mpisweep.blocks import EndedBlock
from mpisweep.records import Direction, FailureCause
from mpisweep.search.bisection import aim
from mpisweep.search.evidence import Evidence, evidence_of
from mpisweep.spec import Spec
from mpisweep.spec.space import Configuration, SearchSpace

__all__ = ["NEAR", "LargestBatch"]

#: Sizes nearer than this to the fastest one, as a ratio, are not told from it.
NEAR = 1.2
#: How many powers of two are compared.
_POWERS = 3


class LargestBatch:
    """Proposes sizes by what those before have shown.

    Args:
        space: of one parameter with finitely many values, all of them numbers.
        objective: the metric that is a speed, or to be treated as one.
        direction: whether a larger one is better.
    """

    def __init__(self, space: SearchSpace, objective: str, direction: Direction) -> None:
        [self._parameter] = space.parameters
        self._objective = objective
        self._sign = 1.0 if direction is Direction.MAXIMIZE else -1.0
        count = self._parameter.count or 0
        #: Indices of the parameter's values, by size.
        self._order = sorted(range(count), key=lambda index: float(self._parameter.at(index)))
        self._sizes = [float(self._parameter.at(index)) for index in self._order]
        #: Trial -> position of its size.
        self._positions: dict[int, int] = {}
        #: Position -> what its trial has shown, and its objective; None while it has not ended.
        self._shown: dict[int, tuple[Evidence, float] | None] = {}
        #: Whether anything has ended since the last question.
        self._is_due = True

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """The search of a sweep."""
        return cls(spec.space, spec.objective, spec.direction)

    @property
    def about(self) -> int:
        """How many trials it will take, about."""
        return ceil(log2(len(self._sizes) + 1)) + _POWERS + 4

    def __len__(self) -> int:
        """How many configurations are known before anything has run: the first one."""
        return 1

    def __getitem__(self, index: int) -> Configuration:
        """See :class:`~mpisweep.search.base.Sampler`."""
        return self._configuration((len(self._sizes) - 1) // 2)

    def add(self, number: int, configuration: Mapping[str, object]) -> None:
        """There is a trial of this number and configuration."""
        value = configuration[self._parameter.name]
        index = self._parameter.index(value) if isinstance(value, (int, float)) else None
        if index is not None:
            position = bisect_right(self._sizes, float(self._parameter.at(index))) - 1
            self._positions[number] = position
            self._shown.setdefault(position, None)

    def tell(self, block: EndedBlock) -> None:
        """Trials have ended."""
        for index, number in enumerate(block.numbers):
            values = block.metrics.get(self._objective)
            cause = block.causes[index] if block.causes else int(FailureCause.NONE)
            self.note(number, block.states[index], cause, values[index] if values else None)

    def note(self, number: int, state: int, cause: int, objective: float | None) -> None:
        """A trial has ended, with this TrialState, FailureCause and objective."""
        if number in self._positions:
            value = self._sign * objective if objective is not None and isfinite(objective) else -inf
            self._shown[self._positions[number]] = evidence_of(state, cause), value
            self._is_due = True

    def ask(self) -> list[Configuration]:
        """What to run beside all that is known; empty while that has not ended, or when all is answered."""
        if not self._is_due:
            return []
        self._is_due = False
        probes = self._next_probe()
        wanted = list(probes or ())
        low, high = self._bracket()
        # No power of two is open any more: those that fit are known.
        if low >= 0 and self._power(low) == self._power(high - 1):
            wanted += [position for position in self._ladder(low) if position not in {*self._shown, *wanted}]
        if probes is None and not wanted and None not in self._shown.values():
            wanted = self._beside_the_fastest()
        self._shown |= dict.fromkeys(wanted)
        return [self._configuration(position) for position in wanted]

    # ------------------------------------------------------------------------------------- the largest

    def _bracket(self) -> tuple[int, int]:
        """The last position that fits and the first after it that does not; -1 and the end for none."""
        shown = [(position, end[0]) for position, end in self._shown.items() if end is not None]
        low = max((position for position, what in shown if what is Evidence.FITS), default=-1)
        too_large = (position for position, what in shown if what is Evidence.TOO_LARGE and position > low)
        return low, min(too_large, default=len(self._sizes))

    def _next_probe(self) -> list[int] | None:
        """The next step of the bisection; empty while one is under way, None when there is none any more."""
        low, high = self._bracket()
        if any(low < position < high and end is None for position, end in self._shown.items()):
            return []
        candidates = [position for position in range(low + 1, high) if position not in self._shown]
        if not candidates:
            return None
        target = aim(low, high, None) if high - low > 1 else low
        return [min(candidates, key=lambda position: (abs(position - target), position))]

    # ------------------------------------------------------------------------------------- the fastest

    def _power(self, position: int) -> int:
        size = self._sizes[position]
        return floor(log2(size)) if size > 0 else 0

    def _ladder(self, low: int) -> list[int]:
        """Positions of the largest powers of two that fit, or of what lies next below them."""
        powers = [2.0 ** (self._power(low) - step) for step in range(_POWERS)]
        positions = (bisect_right(self._sizes, power) - 1 for power in powers)
        return [position for position in dict.fromkeys(positions) if 0 <= position <= low]

    def _beside_the_fastest(self) -> list[int]:
        """Positions half the way from the fastest one to those beside it."""
        speeds = {p: end[1] for p, end in self._shown.items() if end is not None and end[0] is Evidence.FITS}
        measured = sorted(position for position, speed in speeds.items() if speed > -inf)
        if not measured:
            return []
        fastest = max(measured, key=lambda position: (speeds[position], -position))
        at = measured.index(fastest)
        found: list[int] = []
        for other in (*measured[max(0, at - 1) : at], *measured[at + 1 : at + 2]):
            smaller, larger = sorted((self._sizes[fastest], self._sizes[other]))
            if smaller <= 0 or larger / smaller <= NEAR:
                continue
            position = bisect_right(self._sizes, sqrt(smaller * larger)) - 1
            if position not in self._shown and self._sizes[position] > smaller:
                found.append(position)
        return found

    def _configuration(self, position: int) -> Configuration:
        return {self._parameter.name: self._parameter.at(self._order[position])}
