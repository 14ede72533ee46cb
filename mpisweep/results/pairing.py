"""Two sweeps over the same space, paired by configuration and repeat.

Pairing removes what the two have in common: how hard a configuration is, and, where both sweeps have the same
seed, the luck of the seed of each repeat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisweep.records import Value
from mpisweep.results import ResultsError
from mpisweep.results.configurations import runs_of
from mpisweep.results.load import Sweep
from mpisweep.spec.space import Configuration
from mpisweep.statistics.means import means_of

__all__ = ["Change", "PairedSweeps", "mean_change", "paired"]

Floats = NDArray[np.float64]

#: Entries of the environment that say nothing about the results.
_OF_NO_INTEREST = ("command", "code", "python_executable", "user_folder")
#: Longest text of an entry that is compared: a diff of the user's code is no setting.
_TEXT_AT_MOST = 200


@dataclass(frozen=True, slots=True)
class Change:
    """A mean over configurations with its 95% interval; NaN where too few are known.

    Attributes:
        count: configurations that have a value in both sweeps.
        mean: of the differences; of factors, the geometric mean.
        low: lower end of the interval.
        high: its upper end.
    """

    count: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedSweeps:
    """The configurations of two sweeps in pairs; arrays have one entry per common configuration.

    Attributes:
        metric: its name.
        minimize: whether a smaller value is better; None if the first sweep does not rank by the metric.
        configurations: the searched parameters of each.
        alone: number of configurations of the first sweep only, and of the second one only.
        first: mean of the metric over the completed runs of the first sweep.
        second: the same of the second one.
        difference: mean of second minus first, over the repeats that both have.
        half_width: half the 95% interval of `difference`; NaN below two repeats.
        first_s: mean wall time of the completed runs of the first sweep, in seconds.
        second_s: the same of the second one.
        change: of the metric, second minus first.
        time: factor from the wall times of the first sweep to those of the second one.
        energy: the same of the energy of the devices.
        settings: parameters that differ in every trial, with both values; None for none.
        environment: entries of the environment that differ, with both texts.
    """

    metric: str
    minimize: bool | None
    configurations: tuple[Configuration, ...]
    alone: tuple[int, int]
    first: Floats
    second: Floats
    difference: Floats
    half_width: Floats
    first_s: Floats
    second_s: Floats
    change: Change
    time: Change
    energy: Change
    settings: Mapping[str, tuple[Value | None, Value | None]]
    environment: Mapping[str, tuple[str, str]]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that any configuration has."""
        return tuple(dict.fromkeys(name for one in self.configurations for name in one))

    @property
    def is_better(self) -> bool | None:
        """Whether the second sweep is better; None if the interval does not tell."""
        if self.minimize is None or not (self.change.low > 0 or self.change.high < 0):
            return None
        return (self.change.mean < 0) == self.minimize


def paired(a: Sweep, b: Sweep, metric: str | None = None) -> PairedSweeps:
    """Pair two sweeps.

    Args:
        a: the first one.
        b: the second one, over the same parameters.
        metric: to compare; the objective of `a` unless given.

    Raises:
        KeyError: when one of them has no such metric.
        ResultsError: when they have no configuration in common.
    """
    name = metric or a.objective
    names = tuple(dict.fromkeys([*a.spec.space.names, *b.spec.space.names]))
    one, other = _Configurations(a, name, names), _Configurations(b, name, names)
    common = [key for key in one.places if key in other.places]
    if not common:
        raise ResultsError(
            f"{a.path} and {b.path} have no configuration in common; "
            f"searched are {', '.join(names) or 'none'}"
        )
    first, second = one.of(common), other.of(common)
    repeats = min(first.values.shape[1], second.values.shape[1])
    each = means_of(second.values[:, :repeats] - first.values[:, :repeats])
    return PairedSweeps(
        metric=name,
        minimize=next((bool(found.sign > 0) for found in a.objectives if found.name == name), None),
        configurations=tuple(
            {name: value for name, value in zip(names, key, strict=True) if value is not None}
            for key in common
        ),
        alone=(len(one.places) - len(common), len(other.places) - len(common)),
        first=means_of(first.values).mean,
        second=means_of(second.values).mean,
        difference=each.mean,
        half_width=each.half_width,
        first_s=first.time_s,
        second_s=second.time_s,
        change=mean_change(each.mean),
        time=_factor(first.time_s, second.time_s),
        energy=_factor(first.energy, second.energy),
        settings=_settings(a, b, names),
        environment=_environment(a, b),
    )


class _Values(NamedTuple):
    """The values of configurations: the metric by repeat, mean time and mean energy of a run."""

    values: Floats
    time_s: Floats
    energy: Floats


class _Configurations:
    """The configurations of one sweep by the values of their parameters."""

    def __init__(self, sweep: Sweep, metric: str, names: Sequence[str]) -> None:
        runs = runs_of(sweep.trials, sweep.metric_column(metric))
        energy = runs_of(sweep.trials, "device_energy")
        self._all = _Values(runs.values, runs.wall_time_s, means_of(energy.values).mean)
        #: Values of the parameters -> row.
        self.places: dict[tuple[Value | None, ...], int] = {}
        for row, trial in enumerate(runs.first.tolist()):
            values = sweep.configuration(trial)
            # A baseline with fixed parameters of its own is not the configuration of the space.
            if all(values.get(key) == value for key, value in sweep.spec.fixed.items()):
                self.places.setdefault(tuple(values.get(name) for name in names), row)

    def of(self, keys: Sequence[tuple[Value | None, ...]]) -> _Values:
        rows = [self.places[key] for key in keys]
        return _Values(*(column[rows] for column in self._all))


def mean_change(differences: Floats) -> Change:
    """The mean of one difference per configuration, with the interval of the mean."""
    found = means_of(differences[None, :])
    return Change(int(found.count[0]), float(found.mean[0]), float(found.low[0]), float(found.high[0]))


def _factor(first: Floats, second: Floats) -> Change:
    """The geometric mean of second over first."""
    known = (first > 0) & (second > 0)
    found = mean_change(np.log(second[known] / first[known]))
    return Change(found.count, *(float(np.exp(value)) for value in (found.mean, found.low, found.high)))


def _settings(a: Sweep, b: Sweep, names: Sequence[str]) -> dict[str, tuple[Value | None, Value | None]]:
    fixed = dict.fromkeys([*a.spec.fixed, *b.spec.fixed])
    pairs = {name: (a.spec.fixed.get(name), b.spec.fixed.get(name)) for name in fixed if name not in names}
    return {name: (of_a, of_b) for name, (of_a, of_b) in pairs.items() if of_a != of_b}


def _environment(a: Sweep, b: Sweep) -> dict[str, tuple[str, str]]:
    first, second = ({"hosts": _hosts(sweep)} | sweep.environment for sweep in (a, b))
    pairs = {name: (first.get(name, ""), second.get(name, "")) for name in dict.fromkeys([*first, *second])}
    return {
        name: texts
        for name, texts in pairs.items()
        if texts[0] != texts[1] and name not in _OF_NO_INTEREST and max(map(len, texts)) <= _TEXT_AT_MOST
    }


def _hosts(sweep: Sweep) -> str:
    return ", ".join(sorted({str(host) for host in sweep.trials["host"] if host}))
