"""Find the largest size that fits in memory, and the fastest, in about log2(n) trials.

This search learns while it runs.  It bisects *n* sizes for the largest that fits: about log2(n) trials, one
after another.  Meanwhile and afterwards it compares speeds, which the objective measures: of the largest
size, and of the three largest powers of two that fit.  Then it halves the distance, as a ratio, between the
fastest of these and its neighbours until they are within :data:`NEAR`: about four more trials.  Sizes below
an eighth of the largest are rarely faster, so it skips them.

A trial that fails for a reason other than memory gives no information; the search tries its neighbour.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from math import ceil, floor, inf, isfinite, log2, sqrt
from typing import Self

from mpisweep.blocks import EndedBlock
from mpisweep.records import Direction, FailureCause
from mpisweep.search.base import with_sizes
from mpisweep.search.bisection import aim
from mpisweep.search.evidence import Evidence, evidence_of
from mpisweep.spec import Spec
from mpisweep.spec.space import Configuration, SearchSpace

__all__ = ["NEAR", "LargestBatch"]

#: Ratio below which a size counts as close enough to the fastest.
NEAR = 1.2
#: Number of powers of two to compare.
_POWERS = 3


class LargestBatch:
    """The search; it proposes sizes from the results of earlier ones.

    Args:
        space: a space of one parameter with finitely many numbers.
        objective: the metric that measures speed.
        direction: whether larger objectives are better.
    """

    def __init__(self, space: SearchSpace, objective: str, direction: Direction) -> None:
        [self._parameter] = space.parameters
        name = self._parameter.name
        self._objective = objective
        self._sign = 1.0 if direction is Direction.MAXIMIZE else -1.0
        count = self._parameter.count or 0
        #: Indices of the parameter's values that satisfy the constraints, by size.
        self._order = sorted(
            (i for i in range(count) if space.broken_constraint({name: self._parameter.at(i)}) is None),
            key=lambda index: float(self._parameter.at(index)),
        )
        self._sizes = [float(self._parameter.at(index)) for index in self._order]
        #: Trial -> position of its size.
        self._positions: dict[int, int] = {}
        #: Position -> evidence and objective of its trial; None until it ends.
        self._shown: dict[int, tuple[Evidence, float] | None] = {}
        #: Whether a trial has ended since the last call of ask.
        self._is_due = True

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """Create the search of a sweep.

        Raises:
            SpecError: if no size satisfies the constraints.
        """
        what = f"value of {spec.space.names[0]}"
        return with_sizes(spec, lambda: cls(spec.space, spec.objective, spec.direction), what)

    @property
    def sizes(self) -> int:
        """Number of sizes to choose from."""
        return len(self._sizes)

    @property
    def about(self) -> int:
        """Approximate number of trials."""
        return ceil(log2(len(self._sizes) + 1)) + _POWERS + 4

    def __len__(self) -> int:
        """Number of configurations known before any trial has run: one."""
        return 1

    def __getitem__(self, index: int) -> Configuration:
        """See :class:`~mpisweep.search.base.Sampler`."""
        return self._configuration((len(self._sizes) - 1) // 2)

    def add(self, number: int, configuration: Mapping[str, object]) -> None:
        """Register a trial."""
        value = configuration[self._parameter.name]
        index = self._parameter.index(value) if isinstance(value, (int, float)) else None
        if index is None:
            return
        size = float(self._parameter.at(index))
        position = bisect_right(self._sizes, size) - 1
        # A constraint that was added since may exclude the trial.
        if position >= 0 and self._sizes[position] == size:
            self._positions[number] = position
            self._shown.setdefault(position, None)

    def tell(self, block: EndedBlock) -> None:
        """Learn from trials that ended."""
        for index, number in enumerate(block.numbers):
            values = block.metrics.get(self._objective)
            cause = block.causes[index] if block.causes else int(FailureCause.NONE)
            self.note(number, block.states[index], cause, values[index] if values else None)

    def note(self, number: int, state: int, cause: int, objective: float | None) -> None:
        """Learn from a trial that ended with this TrialState, FailureCause and objective."""
        if number in self._positions:
            value = self._sign * objective if objective is not None and isfinite(objective) else -inf
            self._shown[self._positions[number]] = evidence_of(state, cause), value
            self._is_due = True

    def ask(self) -> list[Configuration]:
        """Propose configurations; empty while earlier ones run, or when the search is done."""
        if not self._is_due:
            return []
        self._is_due = False
        probes = self._next_probe()
        wanted = list(probes or ())
        low, high = self._bracket()
        # The bracket has narrowed to one power of two: those that fit are known.
        if low >= 0 and self._power(low) == self._power(high - 1):
            wanted += [position for position in self._ladder(low) if position not in {*self._shown, *wanted}]
        if probes is None and not wanted and None not in self._shown.values():
            wanted = self._next_to_fastest()
        self._shown |= dict.fromkeys(wanted)
        return [self._configuration(position) for position in wanted]

    # ------------------------------------------------------------------------------------- the largest

    def _bracket(self) -> tuple[int, int]:
        """The last position that fits and the first beyond that does not; -1 and the end if none."""
        shown = [(position, end[0]) for position, end in self._shown.items() if end is not None]
        low = max((position for position, what in shown if what is Evidence.FITS), default=-1)
        too_large = (position for position, what in shown if what is Evidence.TOO_LARGE and position > low)
        return low, min(too_large, default=len(self._sizes))

    def _next_probe(self) -> list[int] | None:
        """The next bisection step; empty while one runs, None when done."""
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
        """Positions of the largest powers of two that fit, or of the next smaller sizes."""
        powers = [2.0 ** (self._power(low) - step) for step in range(_POWERS)]
        positions = (bisect_right(self._sizes, power) - 1 for power in powers)
        return [position for position in dict.fromkeys(positions) if 0 <= position <= low]

    def _next_to_fastest(self) -> list[int]:
        """Positions halfway between the fastest size and its measured neighbours."""
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
