"""Number the trials of a sweep.

Numbers are permanent.  A new sweep numbers its trials in the order of its search, the baseline last unless
the search contains it.  A resumed sweep keeps its numbers, matched by configuration, and gives the next
numbers to configurations that its file adds.

Pure: configurations in, columns out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mpisweep.blocks import ColumnValues
from mpisweep.records import TrialState, Value
from mpisweep.search import Sampler
from mpisweep.spec import Spec

__all__ = ["Known", "Trials", "number_trials"]

#: Ends that a run has observed; a trial that was inferred to be infeasible may still run.
_OBSERVED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)

#: Parameter -> its value in every trial; None where it is absent.
Columns = dict[str, list[Value | None]]


@dataclass(frozen=True, slots=True)
class Known:
    """Trials in a results file; entry *n* of each sequence belongs to trial *n*."""

    parameters: Mapping[str, Sequence[Value | None]]
    states: Sequence[int]
    attempts: Sequence[int]
    baseline: int | None
    #: The trial with the best objective so far, and that objective; None if there is none.
    best: tuple[int, float] | None = None


@dataclass(frozen=True, slots=True)
class Trials:
    """All trials of a sweep; entry *n* of each list belongs to trial *n*."""

    #: None where a trial does not have the parameter.
    parameters: dict[str, list[Value | None]]
    states: list[int]
    attempts: list[int]
    baseline: int | None
    #: Number of the first new trial.
    first_new: int
    #: The value of a parameter in a trial that does not say it.
    usual: Mapping[str, Value] = field(default_factory=dict)
    #: Parameters that some configurations do not have.
    absentable: frozenset[str] = frozenset()
    #: Unended trials that violate a constraint that the sweep file has now -> that constraint.
    excluded: dict[int, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of trials."""
        return len(self.states)

    def grow(self, configurations: Sequence[Mapping[str, Value]]) -> None:
        """Append trials; a missing parameter is absent if it may be, else it takes its usual value."""
        for name, column in self.parameters.items():
            usual = None if name in self.absentable else self.usual.get(name)
            column.extend(configuration.get(name, usual) for configuration in configurations)
        self.states.extend([int(TrialState.WAITING)] * len(configurations))
        self.attempts.extend([0] * len(configurations))

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
    if known is None or not known.states:
        waiting = [int(TrialState.WAITING)] * count
        return Trials(asked, waiting, [0] * count, baseline_row, 0, spec.full({}), spec.space.absentable)
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
    # Values lost to damage become the workload's defaults; "" matches no configuration.
    lost: dict[str, Value | None] = {
        name: None if name in spec.space.absentable else usual.get(name, "") for name in names
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
    number_of = {values: number for number, values in enumerate(_rows(parameters, known_count))}
    baseline = known.baseline
    count = known_count
    for row, values in enumerate(_rows(wanted, asked_count)):
        number = number_of.get(values)
        if number is None:
            number = number_of[values] = count
            count += 1
            for name, value in zip(names, values, strict=True):
                parameters[name].append(value)
        if row == baseline_row:
            baseline = number
    new = count - known_count
    found = Trials(
        parameters,
        [*known.states, *[int(TrialState.WAITING)] * new],
        [*known.attempts, *[0] * new],
        baseline,
        known_count,
        usual,
        spec.space.absentable,
    )
    return replace(found, excluded=_excluded(spec, found))


def _first(column: Sequence[Value | None]) -> Value | None:
    return column[0] if column else ""


def _excluded(spec: Spec, trials: Trials) -> dict[int, str]:
    """Known trials that have not ended and violate a constraint, which was added or changed since."""
    found: dict[int, str] = {}
    for number in range(trials.first_new if spec.space.constraints else 0):
        if trials.states[number] in _OBSERVED or number == trials.baseline:
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
