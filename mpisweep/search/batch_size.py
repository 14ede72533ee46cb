"""Find the batch size with the lowest loss at equal steps, samples and seconds.

This search learns while it runs.  A trial reports the objective at each budget, as the metrics
``OBJECTIVE_at_steps``, ``OBJECTIVE_at_samples`` and ``OBJECTIVE_at_seconds``; of these it compares those that
trials have, and the objective itself if they have none.

1. *Survey.*  Sizes at equal ratios from the smallest to the largest, and next to a few of them another size
   with nearly the same expected loss, which shows the noise (:mod:`mpisweep.search.sizes`).
2. *Memory.*  A size that runs out of memory excludes all larger ones.  The largest that fits is bisected
   until the next excluded one is within a ratio of :data:`NEAR`.
3. *Refinement.*  For each budget a smooth trend over the logarithm of the size is fitted to all values.  The
   next size is the one at which the trend minus two standard deviations is lowest, so the sizes gather
   around the best one, more widely the noisier the values are.  A budget is settled when no size can be
   expected to lie below the best by more than a fraction of the noise.

A second parameter, such as the learning rate, is tuned within each size by a line search, for every budget at
once (:mod:`mpisweep.search.tuning`).  The survey then begins with the middle size and halves the distances
between sizes; each starts from the best of its neighbours among those that are done.

What to ask for next follows from the trials and their ends alone, whatever the order in which they ended, so
a search that is rebuilt from the results file goes on alike.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import floor, inf, isfinite, sqrt
from typing import NamedTuple, Self

import numpy as np

from mpisweep.blocks import EndedBlock
from mpisweep.records import Direction
from mpisweep.search.base import with_sizes
from mpisweep.search.evidence import Evidence, evidence_of
from mpisweep.search.sizes import Sizes, place_to_try, trend_of
from mpisweep.search.tuning import best_of, line_over, place_of, values_of
from mpisweep.spec import Spec
from mpisweep.spec.domains import FloatRange, IntegerRange
from mpisweep.spec.space import Configuration, SearchSpace

__all__ = ["NEAR", "SHARE", "SIZE", "BatchSizeSearch"]

#: The parameter that is the size.
SIZE = "batch_size"
#: Ratio within which the largest size that fits in memory is found.
NEAR = 1.1
#: Largest share of the trials of the exhaustive sweep, and the number of trials that is always allowed.
SHARE, _FEWEST = 0.05, 20
#: Values per size of an exhaustive sweep over a tuned parameter without a grid.
_USUAL_VALUES = 8
#: Sizes being refined at a time, per budget.
_AT_ONCE = 2


class _Point(NamedTuple):
    """A configuration: places of its size and of the value of the tuned parameter (0 without one)."""

    size: int
    value: int


class BatchSizeSearch:
    """The search; it proposes configurations from the results of earlier ones.

    Args:
        space: the size, and at most one more parameter, which is tuned within each size.
        objective: the metric to compare.
        direction: whether larger objectives are better.
        trials: most trials; None for :data:`SHARE` of the exhaustive sweep, at least 20.
    """

    def __init__(
        self, space: SearchSpace, objective: str, direction: Direction, trials: int | None = None
    ) -> None:
        self._space = space
        [self._size] = [p for p in space.parameters if p.name == SIZE and isinstance(p, IntegerRange)]
        tuned = [p for p in space.parameters if isinstance(p, FloatRange)]
        self._tuned = tuned[0] if tuned else None
        self._values = values_of(tuned[0]) if tuned else (0.0,)
        self._line = line_over(tuned[0], self._values) if tuned else None
        self._sign = 1.0 if direction is Direction.MINIMIZE else -1.0
        self._objective = objective
        #: The metrics that it compares, if trials have them.
        self._at = tuple(f"{objective}_at_{axis}" for axis in ("steps", "samples", "seconds"))
        every = map(self._size.at, range(self._size.count or 0))
        #: Sizes of which some configuration satisfies the constraints.
        self._sizes = Sizes(size for size in every if self._is_allowed(size))
        self._survey = self._sizes.survey(is_stepwise=self._line is not None)
        is_grid = self._tuned is None or self._tuned.count is not None
        #: Number of trials of the exhaustive sweep.
        self.exhaustive = len(self._sizes) * (len(self._values) if is_grid else _USUAL_VALUES)
        #: Most trials of this search.
        self.most = min(self.exhaustive, trials or max(_FEWEST, floor(SHARE * self.exhaustive)))
        #: Trial -> its configuration, of the trials that are in the space.
        self._points: dict[int, _Point] = {}
        #: Configuration -> its ends: evidence about memory, and values by metric.
        self._ends: dict[_Point, list[tuple[Evidence, dict[str, float]]]] = {}
        #: Whether anything has happened since the last call of ask.
        self._is_due = True

    @classmethod
    def from_spec(cls, spec: Spec) -> Self:
        """Create the search of a sweep.

        Raises:
            SpecError: if no size satisfies the constraints.
        """
        return with_sizes(spec, lambda: cls(spec.space, spec.objective, spec.direction, spec.trials), SIZE)

    @property
    def sizes(self) -> int:
        """Number of sizes to choose from."""
        return len(self._sizes)

    def __len__(self) -> int:
        """Number of configurations known before any trial has run."""
        return len(self._initial)

    def __getitem__(self, index: int) -> Configuration:
        """See :class:`~mpisweep.search.base.Sampler`."""
        return self._configuration(self._initial[index])

    def add(self, number: int, configuration: Mapping[str, object]) -> None:
        """Register a trial."""
        point = self._point(configuration)
        if point is not None:
            self._points[number] = point
            self._ends.setdefault(point, [])

    def tell(self, block: EndedBlock) -> None:
        """Learn from trials that ended."""
        names = [name for name in (self._objective, *self._at) if name in block.metrics]
        for index, number in enumerate(block.numbers):
            if number not in self._points:
                continue
            found = {name: block.metrics[name][index] for name in names}
            values = {n: self._sign * v for n, v in found.items() if v is not None and isfinite(v)}
            cause = block.causes[index] if block.causes else 0
            self._ends[self._points[number]].append((evidence_of(block.states[index], cause), values))
            self._is_due = True

    def ask(self) -> list[Configuration]:
        """Propose configurations; empty while earlier ones run, or when the search is done."""
        if not self._is_due:
            return []
        self._is_due = False
        left = max(0, self.most - len(self._ends))
        found = dict.fromkeys(point for point in self._next() if point not in self._ends)
        return [self._configuration(point) for point in list(found)[:left]]

    # ------------------------------------------------------------------------------------- configurations

    @property
    def _initial(self) -> list[_Point]:
        places = self._survey[0]
        if self._line is None:
            return [_Point(place, 0) for place in places][: self.most]
        return self._first(places[0], (len(self._values) - 1) // 2)[: self.most]

    def _is_allowed(self, size: int) -> bool:
        if self._tuned is None:
            return self._space.broken_constraint({SIZE: size}) is None
        configurations = ({SIZE: size, self._tuned.name: value} for value in self._values)
        return any(self._space.broken_constraint(each) is None for each in configurations)

    def _configuration(self, point: _Point) -> Configuration:
        found: Configuration = {SIZE: self._sizes[point.size]}
        if self._tuned is not None:
            found[self._tuned.name] = self._values[point.value]
        return {name: found[name] for name in self._space.names}

    def _point(self, configuration: Mapping[str, object]) -> _Point | None:
        """Where a configuration is; None if it is none of this search's."""
        size = configuration.get(SIZE)
        place = self._sizes.place(size) if isinstance(size, int) else None
        if place is None:
            return None
        if self._tuned is None:
            return _Point(place, 0)
        value = place_of(configuration.get(self._tuned.name), self._values)
        return None if value is None else _Point(place, value)

    def _can_run(self, point: _Point) -> bool:
        return self._space.broken_constraint(self._configuration(point)) is None

    # ------------------------------------------------------------------------------------- what is known

    @property
    def _compared(self) -> tuple[str, ...]:
        """The metrics to compare."""
        seen = {name for ends in self._ends.values() for _, values in ends for name in values}
        return tuple(name for name in self._at if name in seen) or (self._objective,)

    def _evaluated(self, size: int, metric: str) -> dict[int, float]:
        """Values of the tuned parameter with an end -> mean of the metric; infinite if all have failed."""
        found: dict[int, float] = {}
        for point, ends in self._ends.items():
            if point.size == size and ends:
                known = [values[metric] for _, values in ends if metric in values]
                found[point.value] = sum(known) / len(known) if known else inf
        return found

    def _best(self, metric: str, sizes: Sequence[int]) -> dict[int, float]:
        """Sizes -> their lowest value of a metric."""
        return {size: min(self._evaluated(size, metric).values(), default=inf) for size in sizes}

    def _bracket(self) -> tuple[int, int]:
        """The largest size that fits in memory and the next that does not; -1 and the end if none."""
        shown = [(point.size, what) for point, ends in self._ends.items() for what, _ in ends]
        low = max((size for size, what in shown if what is Evidence.FITS), default=-1)
        too_large = (size for size, what in shown if what is Evidence.TOO_LARGE and size > low)
        return low, min(too_large, default=len(self._sizes))

    # ------------------------------------------------------------------------------------- what is next

    def _next(self) -> Iterator[_Point]:
        """The points to run next; some may be known."""
        compared, (low, high) = self._compared, self._bracket()
        started = {point.size for point in self._ends}
        unfinished = {point.size for point, ends in self._ends.items() if not ends}
        for size in sorted(started - unfinished):
            wanted = list(self._tune(size, compared)) if size < high else []
            if wanted:
                unfinished.add(size)
            yield from wanted
        done = sorted(size for size in started - unfinished if size < high)
        for group in self._survey:
            open_ = [size for size in group if size < high and size not in done]
            if open_:
                new = (size for size in open_ if size not in started)
                yield from (point for size in new for point in self._start(size, done, compared))
                return
        refined = self._refined(done, unfinished, low, high, compared)
        places = [*self._between(low, high, unfinished), *refined]
        yield from (point for size in places for point in self._start(size, done, compared))

    def _start(self, size: int, done: Sequence[int], compared: Sequence[str]) -> list[_Point]:
        """The first points of a size."""
        if self._line is None:
            return [_Point(size, 0)]
        return self._first(size, self._expected_best(size, done, compared))

    def _first(self, size: int, value: int) -> list[_Point]:
        assert self._line is not None
        points = [_Point(size, each) for each in self._line.first(value)]
        allowed = [point for point in points if self._can_run(point)]
        # The constraints may exclude all of them; the size has some value that they allow.
        others = sorted(range(len(self._values)), key=lambda each: abs(each - value))
        return allowed or [point for each in others if self._can_run(point := _Point(size, each))][:1]

    def _expected_best(self, size: int, done: Sequence[int], compared: Sequence[str]) -> int:
        """The tuned value that the nearest sizes on both sides suggest."""
        best: dict[int, int] = {}
        for other in done:
            tried = (self._evaluated(other, metric) for metric in compared)
            found = sorted(lowest for values in tried if (lowest := best_of(values)) is not None)
            if found:
                best[other] = found[len(found) // 2]
        if not best:
            return (len(self._values) - 1) // 2
        octaves = self._sizes.octaves
        return round(float(np.interp(octaves[size], octaves[list(best)], list(best.values()))))

    def _tune(self, size: int, compared: Sequence[str]) -> Iterator[_Point]:
        """The next points of a size whose trials have all ended; none if it is tuned."""
        if self._line is None:
            return
        for metric in compared:
            values = self._evaluated(size, metric)
            while (value := self._line.next(values)) is not None:
                if self._can_run(_Point(size, value)):
                    yield _Point(size, value)
                    break
                values[value] = inf

    def _between(self, low: int, high: int, unfinished: set[int]) -> list[int]:
        """A size between the largest that fits and the next that does not, unless they are near."""
        is_known = low < 0 or high == len(self._sizes) or high - low < 2
        if is_known or self._sizes[high] / self._sizes[low] <= NEAR:
            return []
        if any(low < size < high for size in unfinished):
            return []
        return [min(max(self._sizes.nearest(sqrt(self._sizes[low] * self._sizes[high])), low + 1), high - 1)]

    def _refined(
        self, done: Sequence[int], unfinished: set[int], low: int, high: int, compared: Sequence[str]
    ) -> Iterator[int]:
        """Sizes that refine the budgets which are not settled."""
        if self.most - len(self._ends) < min(3, len(self._values)):
            # A size that cannot be tuned says nothing.
            return
        known, pending = {*done, *unfinished}, sorted(unfinished)
        # Once a size was too large, one that is larger than any that fits may be too.
        end = high if high == len(self._sizes) else low + 1
        candidates = [place for place in self._sizes.spread(end) if place not in known]
        # Budgets take turns.
        turn, octaves = len(known) % len(compared), self._sizes.octaves
        wanted = max(0, _AT_ONCE * len(compared) - len(pending))
        best = (self._best(metric, done) for metric in [*compared[turn:], *compared[:turn]] if wanted)
        trends = [trend for each in best if (trend := trend_of(each, octaves)) is not None]
        for trend in (trends * _AT_ONCE)[:wanted]:
            place = place_to_try(trend, pending, candidates, octaves)
            if place is not None:
                yield place
                pending.append(place)
                candidates.remove(place)
