"""A sweep as its file describes it: frozen data, and what may differ between a file and its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mpisweep.records import Direction, Value
from mpisweep.spec.catalogue import WorkloadDescription, describe_if_there
from mpisweep.spec.commandline import CommandWorkload
from mpisweep.spec.keys import RANKS, USUAL_OBJECTIVE
from mpisweep.spec.space import Choice, Configuration, Parameter, SearchSpace

__all__ = [
    "RANKS", "BuiltinWorkload", "CommandWorkload", "FunctionWorkload", "Limits", "Spec", "SpecError",
    "Workload", "ends",
]  # fmt: skip


class SpecError(ValueError):
    """The user's input is wrong; the message is one sentence: where, what, and how it would be right."""


@dataclass(frozen=True, slots=True)
class BuiltinWorkload:
    """A workload that has a name: one that comes with mpisweep, or with a plugin."""

    name: str


@dataclass(frozen=True, slots=True)
class FunctionWorkload:
    """A function of one argument in the user's module."""

    module: str
    function: str


Workload = BuiltinWorkload | FunctionWorkload | CommandWorkload


@dataclass(frozen=True, slots=True)
class Limits:
    """What a trial may cost.

    Attributes:
        timeout_s: seconds from a trial's start until it is killed; None for no limit.
        retries: how often a trial is tried again after its worker was lost.
        grace_s: seconds that running trials get to return when the sweep is stopped.
        stall_s: seconds without a report after which a trial is killed; None for no limit.
        silence_s: seconds after which a rank that gives no sign of life counts as lost, and a killed process
            as one that stays.
        disk_s: how long the journal may fail before the sweep stops.
        restarts: how often the launcher starts the ranks again after a loss that MPI did not survive.
        same_failures: so many first trials that fail alike stop the sweep; 0 for never.
        quarantine: whether a device that fails or is slow where the others are not gets no more trials.
        memory_bytes: main memory that a trial process may have; None for no limit.
    """

    timeout_s: float | None
    retries: int
    grace_s: float
    stall_s: float | None
    silence_s: float
    disk_s: float
    restarts: int
    same_failures: int
    quarantine: bool
    memory_bytes: int | None


@dataclass(frozen=True)
class Spec:
    """A sweep as its file describes it.

    Attributes:
        devices_per_trial: GPUs that a trial gets: a whole number, or 1 over one.
        fresh_process: whether every trial has a process that has run nothing before; a program always has.
        folder: of the sweep file; trials run there and user modules are found there.
        text: TOML that parses to this Spec.
        source: how messages call the sweep file.
    """

    name: str
    workload: Workload
    objective: str
    direction: Direction
    search: str
    trials: int | None
    seed: int
    space: SearchSpace
    fixed: Configuration
    baseline: Configuration | None
    limits: Limits
    folder: Path
    text: str
    source: str
    devices_per_trial: float = 1.0
    fresh_process: bool = False

    def ranks(self, configuration: Mapping[str, Value]) -> int:
        """How many ranks a trial of this configuration has."""
        return int(configuration.get(RANKS, self.fixed.get(RANKS, 1)))

    @property
    def measures(self) -> bool:
        """Whether it is known beforehand that trials have metrics."""
        if self.built_in is not None or self.objective != USUAL_OBJECTIVE:
            return True
        return isinstance(self.workload, CommandWorkload) and bool(self.workload.metrics)

    @property
    def says_ranks(self) -> bool:
        """Whether the sweep says how many ranks trials have; if so each is started like one of several."""
        return RANKS in self.fixed or RANKS in self.space.names or RANKS in (self.baseline or {})

    @property
    def most_ranks(self) -> int:
        """How many ranks the widest trial can have."""
        searched = [value for p in self.space.parameters if p.name == RANKS for value in ends(p)]
        return (
            max(self.ranks({RANKS: value}) for value in searched)
            if searched
            else self.ranks(self.baseline or {})
        )

    @property
    def built_in(self) -> WorkloadDescription | None:
        """The description of a workload that has a name; None for others, and where it is not installed."""
        return describe_if_there(self.workload.name) if isinstance(self.workload, BuiltinWorkload) else None

    def full(self, configuration: Mapping[str, Value]) -> Configuration:
        """The workload's defaults, overridden by the fixed values, overridden by `configuration`."""
        defaults = self.built_in.defaults if self.built_in else {}
        if RANKS in self.space.names or RANKS in (self.baseline or {}):
            defaults = defaults | {RANKS: 1}
        return defaults | self.fixed | dict(configuration)

    def baseline_configuration(self) -> Configuration | None:
        """The baseline with every searched and fixed parameter in it; None when there is none."""
        if self.baseline is None:
            return None
        usual = self.full(self.baseline)
        names = [*self.space.names, *self.fixed, *self.baseline]
        return {name: usual[name] for name in dict.fromkeys(names)}

    def differences(self, recorded: Spec) -> list[str]:
        """What forbids going on with a results file that was made from `recorded`.

        Limits and the name may change; the space may grow, and so may ``trials``.

        Returns:
            One sentence a difference; empty when the sweep may go on.
        """
        found: list[str] = []
        pairs: list[tuple[str, object, object]] = [
            ("workload", _workload_text(recorded.workload), _workload_text(self.workload)),
            ("objective", recorded.objective, self.objective),
            ("direction", recorded.direction.value, self.direction.value),
            ("search", recorded.search, self.search),
            ("seed", recorded.seed, self.seed),
        ]
        for name in dict.fromkeys([*recorded.fixed, *self.fixed]):
            pairs.append((f"fixed.{name}", recorded.fixed.get(name), self.fixed.get(name)))
        if recorded.baseline is not None:
            pairs.append(("baseline", recorded.baseline, self.baseline))
        for key, old, new in pairs:
            if old != new:
                found.append(f"{key}: the results file has {_shown(old)}, {self.source} has {_shown(new)}")
        if (recorded.trials or 0) > (self.trials or 0):
            found.append(
                f"trials: the results file has {recorded.trials}, {self.source} has {_shown(self.trials)}; "
                f"it may grow but not shrink"
            )
        return found + self._space_differences(recorded.space)

    def _space_differences(self, old: SearchSpace) -> list[str]:
        if old.names != self.space.names:
            before_and_now = f"{', '.join(old.names)}, {self.source} has {', '.join(self.space.names)}"
            return [f"parameters: the results file has {before_and_now}"]
        found: list[str] = []
        for before, now in zip(old.parameters, self.space.parameters, strict=True):
            if before == now:
                continue
            if self.search not in ("grid", "largest_batch"):
                found.append(
                    f"parameters.{now.name}: the results file has {before.describe()}, {self.source} has "
                    f"{now.describe()}; every proposal of a {self.search} search would change"
                )
            elif not _contains_all(now, before):
                found.append(
                    f"parameters.{now.name}: the results file has {before.describe()}, {self.source} has "
                    f"{now.describe()}; a space may grow but must keep its old values"
                )
        return found


def _workload_text(workload: Workload) -> str:
    if isinstance(workload, CommandWorkload):
        variables = [f"{name}={value}" for name, value in workload.environment]
        return " ".join(
            [*variables, workload.text, *([f"< {workload.template}"] if workload.template else [])]
        )
    if isinstance(workload, BuiltinWorkload):
        return workload.name
    return f"{workload.module}:{workload.function}"


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)


def _contains_all(now: Parameter, before: Parameter) -> bool:
    count = before.count
    return count is not None and all(now.contains(before.at(index)) for index in range(count))


def ends(parameter: Parameter) -> list[Value]:
    """The smallest and the largest value of a range; all values of a choice."""
    return list(parameter.values) if isinstance(parameter, Choice) else [parameter.low, parameter.high]
