"""Number the trials of a sweep, and their configurations.

Numbers are permanent.  A new sweep numbers its configurations in the order of its search, the baseline last
unless the search contains it; its trials are all configurations for the first time, then all for the second
time, and so on.  A resumed sweep keeps its numbers, matched by configuration and repeat, and gives the next
numbers to what its file adds: configurations, repeats, or both.

Pure: configurations in, columns out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count as count_from

from mpisweep.blocks import ColumnValues, TrialsBlock
from mpisweep.records import TrialState, Value
from mpisweep.search import Sampler
from mpisweep.spec import Spec

__all__ = ["Known", "Trials", "number_trials"]

#: Ends that a run has observed or a user asked for; a trial that was inferred to be infeasible may still run.
_OBSERVED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED, TrialState.SKIPPED)

#: Parameter -> its value in every trial; None where it is absent.
Columns = dict[str, list[Value | None]]


@dataclass(frozen=True, slots=True)
class Known:
    """Trials in a results file; entry *n* of each sequence belongs to trial *n*."""

    parameters: Mapping[str, Sequence[Value | None]]
    states: Sequence[int]
    attempts: Sequence[int]
    baseline: int | None
    #: Number of each trial's configuration, and which repeat of it the trial is; -1 if lost.  Empty: trials
    #: of equal parameters have one configuration, and are its first repeat.
    configurations: Sequence[int] = ()
    repeats: Sequence[int] = ()


@dataclass(slots=True)
class Trials:
    """All trials of a sweep; entry *n* of each list belongs to trial *n*.

    To add a proposal costs the same however many trials there are.
    """

    #: None where a trial does not have the parameter.
    parameters: dict[str, list[Value | None]]
    states: list[int]
    attempts: list[int]
    #: Number of the trial's configuration, and which repeat of it the trial is.
    configuration_of: list[int]
    repeat_of: list[int]
    baseline: int | None
    #: Number of the first new trial.
    first_new: int
    #: The value of a parameter in a trial that does not say it.
    usual: Mapping[str, Value] = field(default_factory=dict)
    #: Parameters that some configurations do not have.
    absentable: frozenset[str] = frozenset()
    #: Whether configurations may bring parameters that no trial had before.
    is_open: bool = False
    #: Unended trials that violate a constraint that the sweep file has now -> that constraint.
    excluded: dict[int, str] = field(default_factory=dict)
    #: Number of configurations.
    configurations: int = field(init=False)

    def __post_init__(self) -> None:
        self.configurations = max(self.configuration_of, default=-1) + 1

    @property
    def count(self) -> int:
        """Number of trials."""
        return len(self.states)

    def grow(self, configurations: Sequence[Mapping[str, Value]], repeats: int = 1) -> None:
        """Append the repeats of new configurations, repeat by repeat.

        A missing parameter is absent if it may be, else it takes its usual value.
        """
        first, new = self.configurations, len(configurations)
        if self.is_open:
            for name in (name for one in configurations for name in one):
                if name not in self.parameters:
                    self.parameters[name] = [None] * self.count
        for name, column in self.parameters.items():
            usual = None if name in self.absentable else self.usual.get(name)
            column.extend([one.get(name, usual) for one in configurations] * repeats)
        self.append([*range(first, first + new)] * repeats, _repeat_by_repeat(new, repeats))

    def unknown(
        self, configurations: Iterable[Mapping[str, Value]], besides: Iterable[Mapping[str, Value]] = ()
    ) -> list[dict[str, Value]]:
        """Those of these configurations that no trial has and that are not in `besides`, complete."""
        names = list(self.parameters)
        known = set(_rows(self.parameters, self.count))
        known.update(tuple(map(one.get, names)) for one in besides)
        found: list[dict[str, Value]] = []
        usual = {name: None if name in self.absentable else self.usual.get(name) for name in names}
        for one in configurations:
            values = tuple(one.get(name, usual[name]) for name in names)
            if values not in known:
                known.add(values)
                pairs = zip(names, values, strict=True)
                found.append({name: value for name, value in pairs if value is not None})
        return found

    def repeat(self, configurations: Sequence[int], repeats: Sequence[int]) -> None:
        """Append repeats of configurations that have trials."""
        first_of = self.first_trials()
        for column in self.parameters.values():
            column.extend([column[first_of[one]] for one in configurations])
        self.append(configurations, repeats)

    def first_trials(self) -> dict[int, int]:
        """Configuration -> its first trial."""
        first_of: dict[int, int] = {}
        for number, configuration in enumerate(self.configuration_of):
            first_of.setdefault(configuration, number)
        return first_of

    def append(self, configuration_of: Sequence[int], repeat_of: Sequence[int]) -> None:
        """Append waiting trials, whose parameters are there already."""
        self.states.extend([int(TrialState.WAITING)] * len(repeat_of))
        self.attempts.extend([0] * len(repeat_of))
        self.configuration_of.extend(configuration_of)
        self.configurations = max(self.configurations, max(configuration_of, default=-1) + 1)
        self.repeat_of.extend(repeat_of)

    def repeats_of(self, numbers: Sequence[int]) -> list[int]:
        """Which repeats of their configurations these trials are; empty if all are the first."""
        repeats = [self.repeat_of[number] for number in numbers]
        return repeats if any(repeats) else []

    def block(self, numbers: list[int], baseline: int | None = None, known: int | None = None) -> TrialsBlock:
        """The record of these trials; without any it only says which is the baseline."""
        if not numbers:
            return TrialsBlock([], {}, baseline)
        of = [self.configuration_of[number] for number in numbers]
        repeats = [self.repeat_of[number] for number in numbers]
        if of == numbers and not any(repeats):
            of, repeats = [], []
        return TrialsBlock(numbers, self.columns(numbers), baseline, known, of, repeats)

    def columns(self, numbers: Sequence[int]) -> dict[str, ColumnValues]:
        """Parameters of these trials; a single value for a parameter that is the same in all."""
        columns: dict[str, ColumnValues] = {}
        for name, column in self.parameters.items():
            values = [column[number] for number in numbers]
            columns[name] = values[0] if _all_equal(values) else values
        return columns

    def configuration(self, number: int) -> dict[str, Value]:
        """The parameters that one trial has."""
        values = ((name, column[number]) for name, column in self.parameters.items())
        return {name: value for name, value in values if value is not None}


def number_trials(spec: Spec, sampler: Sampler, known: Known | None) -> Trials:
    """Number the trials of a sweep, new or resumed.

    Args:
        spec: the sweep.
        sampler: its configurations, in order.
        known: the trials in the results file; None if there is none.
    """
    asked, count, baseline_row = _asked_for(spec, sampler)
    repeats = spec.repeats.first
    if known is None or not known.states:
        return Trials(
            {name: column * repeats for name, column in asked.items()},
            [int(TrialState.WAITING)] * count * repeats,
            [0] * count * repeats,
            [*range(count)] * repeats,
            _repeat_by_repeat(count, repeats),
            baseline_row,
            0,
            spec.full({}),
            spec.space.absentable,
            spec.is_defined_by_run,
        )
    return _continued(spec, asked, count, baseline_row, known)


def _asked_for(spec: Spec, sampler: Sampler) -> tuple[Columns, int, int | None]:
    """Columns of the configurations in the sweep file, their count, and the baseline's row."""
    count = len(sampler)
    rows = [sampler[index] for index in range(count)]
    columns: Columns = {name: [row.get(name) for row in rows] for name in spec.space.names}
    for name, value in spec.fixed.items():
        columns.setdefault(name, [value] * count)
    baseline = spec.baseline_configuration()
    if baseline is None:
        return columns, count, None
    names = [*columns, *(name for name in baseline if name not in columns)]
    usual = spec.full({})
    for name in names:
        if name not in columns:
            filler: Value | None = usual.get(name, baseline[name])
            columns[name] = [filler] * count
    wanted = tuple(map(baseline.get, names))
    for row, values in enumerate(zip(*(columns[name] for name in names), strict=True)):
        if values == wanted:
            return columns, count, row
    for name, own in zip(names, wanted, strict=True):
        columns[name].append(own)
    return columns, count + 1, count


def _continued(
    spec: Spec, asked: Columns, asked_count: int, baseline_row: int | None, known: Known
) -> Trials:
    usual = spec.full({})
    names = [*asked, *(name for name in known.parameters if name not in asked)]
    known_count = len(known.states)
    # An objective of Optuna may ask for other parameters in every trial.
    absentable = (
        frozenset(known.parameters) - {*spec.fixed} if spec.is_defined_by_run else spec.space.absentable
    )
    # Values lost to damage become the workload's defaults; "" matches no configuration.
    lost: dict[str, Value | None] = {
        name: None if name in absentable else usual.get(name, "") for name in names
    }
    parameters: Columns = {
        name: [
            lost[name] if value is None else value
            for value in known.parameters.get(name) or [None] * known_count
        ]
        for name in names
    }
    wanted: Columns = {
        name: asked.get(name) or [usual.get(name, _first(parameters[name]))] * asked_count for name in names
    }
    found = Trials(
        parameters,
        [*known.states],
        [*known.attempts],
        *_known_numbering(known, _rows(parameters, known_count)),
        known.baseline,
        known_count,
        usual,
        absentable,
        spec.is_defined_by_run,
    )
    baseline = _add_missing(found, list(_rows(wanted, asked_count)), spec.repeats.first, baseline_row)
    found = replace(found, baseline=baseline)
    return replace(found, excluded=_excluded(spec, found))


def _known_numbering(known: Known, rows: Iterator[tuple[Value | None, ...]]) -> tuple[list[int], list[int]]:
    """Numbers of the known trials' configurations, and their repeats."""
    repeat_of = [max(0, repeat) for repeat in known.repeats] or [0] * len(known.states)
    if not known.configurations:
        seen: dict[tuple[Value | None, ...], int] = {}
        return [seen.setdefault(values, len(seen)) for values in rows], repeat_of
    taken = set(known.configurations)
    free = (number for number in count_from() if number not in taken)
    return [number if number >= 0 else next(free) for number in known.configurations], repeat_of


def _add_missing(
    trials: Trials, wanted: Sequence[tuple[Value | None, ...]], repeats: int, baseline_row: int | None
) -> int | None:
    """Append the trials that the sweep file adds; returns the baseline's number."""
    names, baseline = list(trials.parameters), trials.baseline
    rows = list(_rows(trials.parameters, trials.count))
    number_of = {key: number for number, key in enumerate(zip(rows, trials.repeat_of, strict=True))}
    configuration_of = dict(zip(rows, trials.configuration_of, strict=True))
    next_one, count = trials.configurations, trials.count
    new: list[tuple[int, int]] = []
    for repeat in range(repeats):
        for row, values in enumerate(wanted):
            number = number_of.get((values, repeat))
            if number is None:
                number = number_of[values, repeat] = count + len(new)
                if values not in configuration_of:
                    configuration_of[values] = next_one
                    next_one += 1
                new.append((configuration_of[values], repeat))
                for name, value in zip(names, values, strict=True):
                    trials.parameters[name].append(value)
            if row == baseline_row and repeat == 0:
                baseline = number
    trials.append([one for one, _ in new], [repeat for _, repeat in new])
    return baseline


def _repeat_by_repeat(count: int, repeats: int) -> list[int]:
    return [repeat for repeat in range(repeats) for _ in range(count)]


def _first(column: Sequence[Value | None]) -> Value | None:
    return column[0] if column else ""


def _excluded(spec: Spec, trials: Trials) -> dict[int, str]:
    """Known trials that have not ended and violate a constraint, which was added or changed since."""
    found: dict[int, str] = {}
    baseline = None if trials.baseline is None else trials.configuration_of[trials.baseline]
    for number in range(trials.first_new if spec.space.constraints else 0):
        if trials.states[number] in _OBSERVED or trials.configuration_of[number] == baseline:
            continue
        broken = spec.space.broken_constraint(trials.configuration(number))
        if broken is not None:
            found[number] = broken.text
    return found


def _rows(columns: Columns, count: int) -> Iterator[tuple[Value | None, ...]]:
    """Yield one tuple per trial, even without columns."""
    return zip(*columns.values(), strict=True) if columns else iter([()] * count)


def _all_equal(values: list[Value | None]) -> bool:
    first = values[0]
    return all(value == first for value in values) and len({type(value) for value in values}) == 1
