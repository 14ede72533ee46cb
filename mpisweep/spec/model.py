"""A sweep as its file describes it, and how that may differ from what its results record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpisweep.dataclass import dataclass, field
from mpisweep.errors import UserError
from mpisweep.records import Direction, Objective, Value
from mpisweep.spec.after import After
from mpisweep.spec.catalogue import WorkloadDescription, describe_if_there
from mpisweep.spec.commandline import CommandWorkload
from mpisweep.spec.hooks import Hooks
from mpisweep.spec.keys import ADDING, LEARNING, RANKS, USUAL_OBJECTIVE
from mpisweep.spec.space import Configuration, Parameter, SearchSpace, ends

__all__ = [
    "RANKS", "BuiltinWorkload", "CommandWorkload", "FunctionWorkload", "ImportSource", "Limits",
    "PrunerChoice", "Repeats", "SamplerChoice", "Spec", "SpecError", "StopRules", "Workload",
]  # fmt: skip


class SpecError(UserError, ValueError):
    """Invalid user input; the message is one sentence: where, what was found, what is expected."""


@dataclass(frozen=True, slots=True)
class BuiltinWorkload:
    """A named workload: built in, or from a plugin."""

    name: str


@dataclass(frozen=True, slots=True)
class FunctionWorkload:
    """A function of one argument in the user's module."""

    module: str
    function: str


@dataclass(frozen=True, slots=True)
class SamplerChoice:
    """A sampler of Optuna by its class name, and its options."""

    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often configurations are run, each time with another seed.

    Attributes:
        first: how often every configuration is run.
        most: how often one is run at most, if the race cannot tell it from the best before.
    """

    first: int = 1
    most: int = 1

    def __str__(self) -> str:
        return f"{self.first} to {self.most}" if self.is_race else str(self.first)

    @property
    def is_race(self) -> bool:
        """Whether only configurations in doubt get all repeats."""
        return self.most > self.first


@dataclass(frozen=True, slots=True)
class PrunerChoice:
    """A pruner by its short name or Optuna's class name, and its options.

    The option ``wrapped_pruner`` is a PrunerChoice itself.
    """

    name: str
    options: Mapping[str, Any]


Workload = BuiltinWorkload | FunctionWorkload | CommandWorkload


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a trial, and of what the sweep tolerates.

    Attributes:
        timeout_s: seconds from a trial's start until it is killed; None for no limit.
        retries: how often a trial is retried after losing its worker.
        grace_s: seconds that running trials get to return when the sweep stops.
        stall_s: seconds without a report after which a trial is killed; None for no limit.
        silence_s: seconds without a heartbeat after which a rank counts as lost; also seconds after which a
            killed process counts as unkillable.
        disk_s: seconds that the journal may fail before the sweep stops.
        restarts: how often the launcher restarts the ranks after a loss that MPI did not survive.
        same_failures: stop the sweep if this many first trials all fail alike; 0 for never.
        quarantine: whether a device that fails, or is slow, while others are not gets no more trials.
        memory_bytes: main memory per trial process; None for no limit.
        slow_devices: ``warn``, ``exclude`` or ``off``; None if the sweep file does not set it.
        diverged: whether a report of an objective that is not finite ends the trial: ``ignore`` or ``stop``.
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
    slow_devices: str | None = None
    diverged: str = "ignore"


@dataclass(frozen=True, slots=True)
class ImportSource:
    """A source of trials: a file, or the URL of an Optuna storage, and there a study."""

    place: str
    study: str = ""


@dataclass(frozen=True, slots=True)
class StopRules:
    """When a sweep stops although trials are left; None for a rule that is not set.

    Attributes:
        target: stop when a complete trial has this objective or a better one.
        patience: stop when this many trials have completed since the last improvement.
        device_hours: stop when this many GPU-hours were used, or core-hours without GPUs.
    """

    target: float | None = None
    patience: int | None = None
    device_hours: float | None = None

    @property
    def is_set(self) -> bool:
        """Whether any rule is set."""
        return self != StopRules()


@dataclass(frozen=True)
class Spec:
    """A sweep as its file describes it.

    Attributes:
        folder: folder of the sweep file; trials run there and import user modules from there.
        text: TOML that parses to this Spec.
        source: name of the sweep file in messages.
        max_points: size of the largest grid allowed.
        objectives: one or several, with different names.
        order: which trials run first: ``longest`` or ``spread``.
        devices_per_trial: GPUs per trial: an integer, or 1/integer to share a GPU.
        packs: whether that is the smallest share, and measurements decide how many trials share a GPU.
        fresh_process: whether every trial starts in a pristine process; command lines always do.
        sampler: of the search "optuna", which names one; None for any other.
        prune: decides which trials end early; None if none do.
        imports: trials that are known from elsewhere.
        hooks: programs that the launcher starts.
        after: best configuration of an earlier sweep, which the file takes values from; None for none.
        stage_data: path of the folder or tar file that every node gets a copy of; empty for none.
    """

    name: str
    workload: Workload
    objectives: tuple[Objective, ...]
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
    order: str = "longest"
    max_points: int = 1_000_000
    devices_per_trial: float = 1.0
    packs: bool = False
    fresh_process: bool = False
    sampler: SamplerChoice | None = None
    repeats: Repeats = Repeats()
    stop: StopRules = StopRules()
    imports: tuple[ImportSource, ...] = ()
    prune: PrunerChoice | None = None
    hooks: Hooks = field(default_factory=Hooks)
    after: After | None = None
    stage_data: str = ""

    def ranks(self, configuration: Mapping[str, Value]) -> int:
        """Number of ranks of a trial with this configuration."""
        return int(configuration.get(RANKS, self.fixed.get(RANKS, 1)))

    @property
    def objective(self) -> str:
        """Name of the first objective."""
        return self.objectives[0].name

    @property
    def direction(self) -> Direction:
        """Direction of the first objective."""
        return self.objectives[0].direction

    @property
    def is_defined_by_run(self) -> bool:
        """Whether the workload is an objective of Optuna, which names its parameters while it runs."""
        is_function = isinstance(self.workload, FunctionWorkload)
        return is_function and self.search in LEARNING and not self.space.parameters

    @property
    def search_text(self) -> str:
        """The search and its options in one line."""
        if self.sampler is None:
            return self.search
        return ", ".join([self.sampler.name, *(f"{k} = {v!r}" for k, v in self.sampler.options.items())])

    @property
    def prune_text(self) -> str:
        """The pruner and its options in one line; empty if there is none."""
        return "" if self.prune is None else _pruner_text(self.prune)

    @property
    def measures(self) -> bool:
        """Whether trials are known to have metrics before any has run."""
        if self.built_in is not None or any(one.name != USUAL_OBJECTIVE for one in self.objectives):
            return True
        return isinstance(self.workload, CommandWorkload) and bool(self.workload.metrics)

    @property
    def says_ranks(self) -> bool:
        """Whether the sweep sets ranks per trial; each trial is then started with a rendezvous."""
        return RANKS in self.fixed or RANKS in self.space.names or RANKS in (self.baseline or {})

    @property
    def most_ranks(self) -> int:
        """Number of ranks of the widest trial."""
        searched = [value for p in self.space.parameters if p.name == RANKS for value in ends(p)]
        others = (condition.otherwise for condition in self.space.conditions if condition.name == RANKS)
        searched += [value for value in others if value is not None]
        return (
            max(self.ranks({RANKS: value}) for value in searched)
            if searched
            else self.ranks(self.baseline or {})
        )

    @property
    def built_in(self) -> WorkloadDescription | None:
        """Description of a named workload; None for others, and if its plugin is not installed."""
        return describe_if_there(self.workload.name) if isinstance(self.workload, BuiltinWorkload) else None

    def full(self, configuration: Mapping[str, Value]) -> Configuration:
        """The workload's defaults, overridden by fixed values, overridden by `configuration`."""
        given = {*self.space.names, *self.fixed, *configuration}
        defaults = self.built_in.defaults_beside(given) if self.built_in else {}
        if RANKS in self.space.names or RANKS in (self.baseline or {}):
            defaults = defaults | {RANKS: 1}
        return defaults | self.fixed | dict(configuration)

    def baseline_configuration(self) -> Configuration | None:
        """The baseline, completed by every searched and fixed parameter; None if there is none."""
        if self.baseline is None:
            return None
        usual = self.full(self.baseline)
        searched = self.space.complete(usual)
        others = [name for name in (*self.fixed, *self.baseline) if name not in self.space.names]
        return searched | {name: usual[name] for name in others}

    def differences(self, recorded: Spec) -> list[str]:
        """List what forbids resuming a results file that was made from `recorded`.

        Limits, rules of [stop], the name, the order, the pruner and the constraints may change; the space,
        ``trials`` and ``repeats`` may grow.

        Returns:
            One sentence per difference; empty if the sweep can be resumed.
        """
        found: list[str] = []
        pairs: list[tuple[str, object, object]] = [
            ("workload", _workload_text(recorded.workload), _workload_text(self.workload)),
            ("objective", _names(recorded), _names(self)),
            ("direction", _directions(recorded), _directions(self)),
            ("search", recorded.search_text, self.search_text),
            ("seed", recorded.seed, self.seed),
            ("import", _places(recorded.imports), _places(self.imports)),
            ("after", recorded.after and recorded.after.file, self.after and self.after.file),
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
        return found + self._repeat_differences(recorded.repeats) + self._space_differences(recorded.space)

    def _repeat_differences(self, old: Repeats) -> list[str]:
        now = self.repeats
        if now == old:
            return []
        found = f"repeats: the results file has {old}, {self.source} has {now}"
        if self.search in LEARNING:
            return [f"{found}; a {self.search} search was told the means of all repeats"]
        if now.first < old.first or now.most < old.most:
            return [f"{found}; it may grow but not shrink"]
        return []

    def _space_differences(self, old: SearchSpace) -> list[str]:
        if old.names != self.space.names:
            before_and_now = f"{', '.join(old.names)}, {self.source} has {', '.join(self.space.names)}"
            return [f"parameters: the results file has {before_and_now}"]
        if self.space.points is not None:
            left = set(old.points or ()) - set(self.space.points)
            missing = f"points: {next(iter(left))} is missing" if left else ""
            return [f"{missing}; points may be added but not removed"] if left else []
        found = self._rule_differences(old)
        for before, now in zip(old.parameters, self.space.parameters, strict=True):
            if before == now:
                continue
            if self.search not in ("grid", "points", *ADDING):
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

    def _rule_differences(self, old: SearchSpace) -> list[str]:
        """Differences of conditions and groups, which say what the points of the space are."""
        found: list[str] = []
        before = {c.name: (c.when.text, c.otherwise) for c in old.conditions}
        now = {c.name: (c.when.text, c.otherwise) for c in self.space.conditions}
        for name in dict.fromkeys([*before, *now]):
            if before.get(name) != now.get(name):
                found.append(f"parameters.{name}: 'when' or 'else' differ from those in the results file")
        if set(old.zipped) != set(self.space.zipped):
            found.append(f"zip: the results file has {old.zipped}, {self.source} has {self.space.zipped}")
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


def _places(imports: tuple[ImportSource, ...]) -> str | None:
    return ", ".join(f"{one.place} {one.study}".strip() for one in imports) or None


def _names(spec: Spec) -> str | list[str]:
    return _one_or_all([objective.name for objective in spec.objectives])


def _directions(spec: Spec) -> str | list[str]:
    return _one_or_all([objective.direction.value for objective in spec.objectives])


def _one_or_all(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values


def _pruner_text(choice: PrunerChoice) -> str:
    options = (
        f"{name} = ({_pruner_text(value)})" if isinstance(value, PrunerChoice) else f"{name} = {value!r}"
        for name, value in choice.options.items()
    )  # fmt: skip
    return ", ".join([choice.name, *options])


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)


def _contains_all(now: Parameter, before: Parameter) -> bool:
    count = before.count
    return count is not None and all(now.contains(before.at(index)) for index in range(count))
