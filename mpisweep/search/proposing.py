"""Propose configurations with an Optuna sampler, reproducibly.

A proposal is a function of the sampler and its options, the sweep's seed, the trial's number, and what was
known when it was asked for: every proposal gets a sampler of its own, seeded by the number.  So the search
can be rebuilt in another process, and goes on as the first one would have:

* A sampler that keeps nothing in the study (TPE, GP) is rebuilt by adding the known trials.
* Any other is rebuilt by proposing again, in the same order: each trial records how many ends were known
  when it was proposed.

No configuration is proposed twice.  TPE proposes the best of its candidates that is new.  If a sampler
repeats a configuration all the same, its trial in the study fails, which samplers ignore, and it is asked
again; after :data:`PATIENCE` repetitions a new configuration beside it takes its place.

A proposal that breaks a constraint counts as a repetition.  The sampler proposes a value for every axis, also
for a parameter that the condition of another then leaves out.

Axes map to Optuna's distributions such that distances mean something: a grid of numbers, or a list of
numbers in ascending or descending order, becomes an integer index.  Imports Optuna.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from random import Random

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from mpisweep.records import Direction, Value
from mpisweep.search.past import End, Past, end_trial
from mpisweep.search.samplers import keeps_no_state, make_sampler
from mpisweep.search.thinning import ThinnedStorage
from mpisweep.spec import SamplerChoice
from mpisweep.spec.space import (
    Axis,
    Choice,
    Configuration,
    FloatRange,
    IntegerRange,
    Parameter,
    SearchSpace,
)
from mpisweep.spec.suggested import seed_of

__all__ = ["PATIENCE", "End", "Past", "Proposer"]

#: How often a sampler may repeat known configurations before another one takes its place.
PATIENCE = 10
#: The same of samplers that propose what they find best, whatever their seed.
_PATIENCE_OF = {"GPSampler": 2}
#: How many configurations are looked at beside a repeated one, and how many per axis before they are one step
#: farther away.
_BESIDE = 1000
_TRIES_PER_AXIS = 4
#: Random draws before the points of a finite space are searched in order; constraints may hold rarely.
_DRAWS = 10_000
#: A finite space of up to this size is searched point by point.
_SMALL = 1_000_000


class Proposer:
    """A learning search.

    Args:
        space: the search space.
        sampler: the sampler and its options.
        seed: the sweep's seed.
        directions: of each objective, whether smaller or larger values are better.
        past: the trials so far.
    """

    def __init__(
        self,
        space: SearchSpace,
        sampler: SamplerChoice,
        seed: int,
        directions: Sequence[Direction],
        past: Past,
    ) -> None:
        self._space = space
        self._sampler = sampler
        self._seed = seed
        self._distributions = {_name(axis): _distribution(axis) for axis in space.axes}
        #: Trials known from elsewhere.
        self._imported: list[FrozenTrial] = []
        self._storage = ThinnedStorage([1.0 if one is Direction.MINIMIZE else -1.0 for one in directions])
        self._study = optuna.create_study(
            directions=[direction.value for direction in directions],
            # Only this sampler's proposals bear it; others count the trials of a generation.
            storage=self._storage if sampler.name == "TPESampler" else None,
            sampler=self._sampler_for("start"),
        )
        self._seen: set[tuple[Value | None, ...]] = set()
        #: Trial -> its trial in the study; absent for a trial that is not comparable.
        self._trials: dict[int, int] = {}
        #: Number of ends told.
        self.ends = 0
        for place, (configuration, objective) in enumerate(past.imported):
            # Not a trial of this sweep, and so no repetition if the sampler proposes it.
            self._add_to_study(-1 - place, configuration, End(-1 - place, [objective]))
        self._imported = self._study.get_trials()
        # What a sampler proposed for an inactive parameter is in the study alone.
        self._is_loaded = keeps_no_state(sampler.name) and not space.conditions
        if self._is_loaded:
            self._load(past)
        else:
            self._replay(past)

    # ------------------------------------------------------------------------------------- the past

    def _load(self, past: Past) -> None:
        ends = {end.number: end for end in past.ends}
        for number, configuration in enumerate(past.configurations):
            self._add(number, configuration, ends.get(number))
        self.ends = len(past.ends)

    def _replay(self, past: Past) -> None:
        for number, configuration in enumerate(past.configurations):
            known = past.known.get(number)
            if known is None:
                self._add(number, configuration, None)
                continue
            self.tell(past.ends[self.ends : known])
            self._repeat(number, configuration)
        self.tell(past.ends[self.ends :])

    def _repeat(self, number: int, configuration: Configuration) -> None:
        """Propose again what was proposed before, for what the sampler keeps."""
        if self._propose(number) != configuration:
            # Another version of the sampler: take the recorded proposal, without its state.
            self._fail(number)
            self._add(number, configuration, None)

    def follow(self, first: int, configurations: Sequence[Configuration]) -> None:
        """Take what another process has proposed for trials from `first` on, knowing the same ends."""
        for number, configuration in enumerate(configurations, first):
            if self._is_loaded:
                self._add(number, configuration, None)
            else:
                self._repeat(number, configuration)

    def _add(self, number: int, configuration: Configuration, end: End | None) -> None:
        """Add a trial that was not proposed here, running or ended."""
        self._seen.add(self._key(configuration))
        if self._space.contains(configuration):
            self._add_to_study(number, configuration, end)

    def _add_to_study(self, number: int, configuration: Configuration, end: End | None) -> None:
        state = TrialState.RUNNING if end is None else end.state
        self._trials[number] = trial = len(self._study.get_trials(deepcopy=False))
        if end is not None:
            self._storage.note(trial, end)
        self._study.add_trial(
            create_trial(
                state=state,
                values=None if end is None else end.values,
                params={_name(axis): _encode(axis, configuration) for axis in self._space.axes},
                distributions=self._distributions,
                intermediate_values={} if end is None else end.reports,
            )
        )

    # ------------------------------------------------------------------------------------- ask and tell

    def tell(self, ends: Iterable[End]) -> None:
        """Learn from trials that ended."""
        for end in ends:
            self.ends += 1
            trial = self._trials.get(end.number)
            if trial is None or self._frozen(trial).state.is_finished():
                continue
            self._storage.note(trial, end)
            end_trial(self._study, trial, end)

    def ask(self, first: int, count: int) -> list[Configuration]:
        """Propose configurations for trials from `first` on; fewer if the space has no more."""
        found: list[Configuration] = []
        for number in range(first, first + count):
            proposal = self._propose(number)
            if proposal is None:
                break
            found.append(proposal)
        return found

    def _propose(self, number: int) -> Configuration | None:
        if self._is_exhausted():
            return None
        for retry in range(_PATIENCE_OF.get(self._sampler.name, PATIENCE)):
            self._study.sampler = self._sampler_for(f"{number}:{retry}")
            trial = self._study.ask(self._distributions)
            proposal = self._configuration(trial.params)
            if self._is_new(proposal):
                self._seen.add(self._key(proposal))
                self._trials[number] = trial.number
                return proposal
            self._study.tell(trial, state=TrialState.FAIL)
        return self._beside(number, proposal) or self._random(number)

    def _beside(self, number: int, repeated: Configuration) -> Configuration | None:
        """A new configuration near one that the sampler repeats; None if there is none."""
        random = Random(f"{self._seed}:{number}")
        for proposal in islice(_beside(self._space, repeated, random), _BESIDE):
            if self._is_new(proposal):
                self._add(number, proposal, None)
                return proposal
        return None

    def _random(self, number: int) -> Configuration | None:
        """A new random configuration; None if there is none."""
        random = Random(f"{self._seed}:{number}")
        for _ in range(_DRAWS):
            proposal = self._space.from_unit([random.random() for _ in self._space.axes])
            if self._is_new(proposal):
                self._add(number, proposal, None)
                return proposal
        size = self._space.size or 0
        if size > _SMALL:
            return None
        start = random.randrange(size) if size else 0
        for index in range(size):
            proposal = self._space.point((start + index) % size)
            if self._is_new(proposal):
                self._add(number, proposal, None)
                return proposal
        return None

    def _configuration(self, params: Mapping[str, Value]) -> Configuration:
        values: Configuration = {}
        for axis in self._space.axes:
            values.update(zip(axis.names, _decode(axis, params[_name(axis)]), strict=True))
        return self._space.complete(values)

    def _is_new(self, proposal: Configuration) -> bool:
        """Whether a proposal satisfies the constraints and was not made before."""
        return self._key(proposal) not in self._seen and self._space.broken_constraint(proposal) is None

    def _is_new_point(self, params: Mapping[str, Value]) -> bool:
        """The same of the values that a sampler considers; axes that do not vary may be missing."""
        middle = {_name(axis): _encode(axis, {}) for axis in self._space.axes if _name(axis) not in params}
        return self._is_new(self._configuration({**middle, **params}))

    def _is_exhausted(self) -> bool:
        """Whether every point of a small space is known; trials outside the space do not count."""
        size = self._space.size
        if size is None or size > min(_SMALL, len(self._seen)):
            return False
        return all(self._key(self._space.point(index)) in self._seen for index in range(size))

    def _fail(self, number: int) -> None:
        trial = self._trials.pop(number, None)
        if trial is not None:
            self._study.tell(trial, state=TrialState.FAIL)

    def _frozen(self, trial: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[trial]

    def _key(self, configuration: Mapping[str, Value]) -> tuple[Value | None, ...]:
        return tuple(configuration.get(name) for name in self._space.names)

    def _sampler_for(self, what: str) -> optuna.samplers.BaseSampler:
        return make_sampler(
            self._sampler,
            seed=seed_of(self._seed, what),
            space=self._distributions,
            is_new=self._is_new_point,
            imported=self._imported,
        )


# ------------------------------------------------------------------------------------- axes


def _name(axis: Axis) -> str:
    return "+".join(axis.names)


def _is_indexed(axis: Axis) -> bool:
    """Whether the sampler sees the index of a step instead of a value."""
    match axis:
        case Axis((IntegerRange(points=None) | FloatRange(count=None),), None):
            return False
    return True


def _distribution(axis: Axis) -> BaseDistribution:
    match axis:
        case Axis((IntegerRange(points=None, log=True) as integers,), None):
            return IntDistribution(integers.low, integers.high, log=True)
        case Axis((IntegerRange(points=None, count=int(count)) as integers,), None):
            return IntDistribution(integers.low, integers.at(count - 1), step=integers.step)
        case Axis((FloatRange(count=None) as numbers,), None):
            return FloatDistribution(numbers.low, numbers.high, log=numbers.log)
    assert axis.count is not None
    if _is_unordered(axis):
        return CategoricalDistribution(range(axis.count))
    return IntDistribution(0, axis.count - 1)


def _encode(axis: Axis, configuration: Mapping[str, Value]) -> Value:
    """What the sampler sees of a configuration; the middle of the axis if it has no value on it."""
    if not all(name in configuration for name in axis.names):
        configuration = dict(zip(axis.names, axis.from_unit(0.5), strict=True))
    values = [configuration[name] for name in axis.names]
    if not _is_indexed(axis):
        return values[0]
    index = axis.index(values)
    # The other value of a parameter whose condition does not hold may be outside its range.
    return 0 if index is None else index


def _decode(axis: Axis, found: Value) -> tuple[Value, ...]:
    if _is_indexed(axis):
        return axis.at(int(found))
    return (int(found) if isinstance(axis.parameters[0], IntegerRange) else float(found),)


def _is_unordered(axis: Axis) -> bool:
    return axis.rows is not None or any(_has_no_order(parameter) for parameter in axis.parameters)


def _has_no_order(parameter: Parameter) -> bool:
    """Whether these are not numbers in ascending or descending order."""
    if not isinstance(parameter, Choice):
        return False
    if any(isinstance(value, (bool, str)) for value in parameter.values):
        return True
    pairs = list(pairwise(float(value) for value in parameter.values))
    return not (all(a < b for a, b in pairs) or all(a > b for a, b in pairs))


def _beside(space: SearchSpace, configuration: Configuration, random: Random) -> Iterator[Configuration]:
    """Yield endless configurations, ever farther away; they may repeat and violate constraints.

    A step goes to a neighbouring value of one axis, or to any other value if its values have no order.  Axes
    without steps stay where they are; if there are no others, nothing is yielded.
    """
    places: list[tuple[Axis, int]] = []
    for axis in space.axes:
        known = [configuration[name] for name in axis.names if name in configuration]
        place = axis.index(known) if len(known) == len(axis.names) and (axis.count or 0) > 1 else None
        if place is not None:
            places.append((axis, place))
    tries = 0
    while places:
        moved = [place for _, place in places]
        for _ in range(1 + tries // (_TRIES_PER_AXIS * len(places))):
            number = random.randrange(len(places))
            moved[number] = _moved(places[number][0], moved[number], random)
        values: dict[str, Value] = dict(configuration)
        for (axis, _), place in zip(places, moved, strict=True):
            values.update(zip(axis.names, axis.at(place), strict=True))
        yield space.complete(values)
        tries += 1


def _moved(axis: Axis, place: int, random: Random) -> int:
    count = axis.count or 1
    if _is_unordered(axis):
        return (place + random.randrange(1, count)) % count
    return min(count - 1, max(0, place + random.choice((-1, 1))))
