"""From a sweep file, or from flags, to a frozen Spec.  Every error that a user can make is found here.

A :class:`SpecError` is one sentence: which file, which key, what was found and what would be right.  Nothing
after this module checks the user's input again.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpisweep.catalogue import BUILTIN, SPEED, BuiltinDescription
from mpisweep.commandline import (
    CommandError,
    CommandWorkload,
    check_formats,
    parse_command,
    parse_pattern,
)
from mpisweep.records import Direction, Value
from mpisweep.space import (
    Choice,
    Configuration,
    FloatRange,
    IntegerRange,
    Parameter,
    SearchSpace,
    SpaceError,
    parse_parameter,
    parse_quick,
)

__all__ = [
    "RANKS",
    "SEARCH_NAMES",
    "BuiltinWorkload",
    "CommandWorkload",
    "FunctionWorkload",
    "Limits",
    "Spec",
    "SpecError",
    "Workload",
    "load_spec",
    "parse_duration",
    "parse_spec",
    "spec_from_flags",
]

SEARCH_NAMES = ("grid", "random", "sobol", "largest_batch")
#: A grid of more points than this needs the sweep file's word that it is meant.
_POINTS_WITHOUT_CONSENT = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)(i?)B")
_CLOCK = re.compile(r"(\d+):([0-5]\d):([0-5]\d)")

_TOP_KEYS = (
    "name", "workload", "objective", "direction", "search", "trials", "seed", "max_points", "devices_per_trial", "ranks_per_trial",
    "parameters", "fixed", "baseline", "metrics", "limits",
)  # fmt: skip
_LIMIT_KEYS = (
    "timeout", "stall", "retries", "grace", "silence", "disk", "restarts", "same_failures", "quarantine", "memory",
)  # fmt: skip


#: A duration longer than this, in seconds, or written longer than this is a slip of the pen: 30,000 years.
_LONGEST_S = 1e12
_DURATION_TEXT = 40
#: The parameter that says how many ranks a trial has; every workload has it.
RANKS = "ranks_per_trial"
_RANKS_AT_MOST = 4096
#: More GPUs in one node, or more workers on one GPU, than anybody has.
_DEVICES_AT_MOST = 64


class SpecError(ValueError):
    """The user's input is wrong; the message is one sentence that says where, what and how it would be right."""


@dataclass(frozen=True, slots=True)
class BuiltinWorkload:
    """A workload that comes with mpisweep."""

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
        silence_s: seconds after which a rank that gives no sign of life counts as lost.
        disk_s: how long the journal may fail before the sweep stops.
        restarts: how often the launcher starts the ranks again after a loss that MPI did not survive.
        same_failures: so many first trials that fail alike stop the sweep; 0 for never.
        quarantine: whether a device that fails or is slow where the others are not gets no more trials.
        memory_bytes: main memory that a trial process may have; None for no limit.
    """

    timeout_s: float | None = None
    retries: int = 2
    grace_s: float = 10.0
    stall_s: float | None = None
    silence_s: float = 30.0
    disk_s: float = 600.0
    restarts: int = 20
    same_failures: int = 20
    quarantine: bool = True
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Spec:
    """A sweep as its file describes it.

    Attributes:
        devices_per_trial: GPUs that a trial gets: a whole number, or 1 over one.
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

    def ranks(self, configuration: Mapping[str, Value]) -> int:
        """How many ranks a trial of this configuration has."""
        return int(configuration.get(RANKS, self.fixed.get(RANKS, 1)))

    @property
    def says_ranks(self) -> bool:
        """Whether the sweep says how many ranks its trials have; if so each is started like one of several."""
        return RANKS in self.fixed or RANKS in self.space.names or RANKS in (self.baseline or {})

    @property
    def most_ranks(self) -> int:
        """How many ranks the widest trial can have."""
        searched = [value for p in self.space.parameters if p.name == RANKS for value in _ends(p)]
        return max(self.ranks({RANKS: value}) for value in searched) if searched else self.ranks(self.baseline or {})

    @property
    def built_in(self) -> BuiltinDescription | None:
        """The description of the built-in workload; None when the workload is the user's."""
        return BUILTIN[self.workload.name] if isinstance(self.workload, BuiltinWorkload) else None

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


# ------------------------------------------------------------------------------------- entrances


def load_spec(path: Path) -> Spec:
    """Read a sweep file.

    Raises:
        SpecError: when it cannot be read or says something wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    return parse_spec(text, source=str(path), folder=path.resolve().parent)


def parse_spec(text: str, *, source: str, folder: Path) -> Spec:
    """The Spec in a sweep file's text.

    Args:
        text: TOML.
        source: how messages call the file.
        folder: where the file lies.

    Raises:
        SpecError: see the class.
    """
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError is a ValueError, and so is what Python says to an integer of thousands of digits.
        raise SpecError(f"{source}: is not TOML: {error}") from error
    return _Parser(source).spec(raw, text, folder)


def spec_from_flags(
    workload: str | Sequence[str],
    parameters: Sequence[str],
    *,
    folder: Path,
    baseline: Sequence[str] = (),
    options: Mapping[str, Value | None] | None = None,
    limits: Mapping[str, Value | None] | None = None,
    metrics: Sequence[str] = (),
) -> Spec:
    """The Spec of the quick form, ``mpisweep run resnet50 -p batch_size=1:700 -p num_iter=300``.

    Args:
        workload: name of a built-in one, or ``module:function``; or the arguments of a command line.
        parameters: ``name=RANGE``, ``name=a,b,c`` or ``name=VALUE``.
        folder: where the command was typed.
        baseline: ``name=VALUE``.
        options: top-level keys of a sweep file; None values are left out.
        limits: keys of its [limits]; None values are left out.
        metrics: ``name=PATTERN``, of a command line.

    Raises:
        SpecError: see the class.
    """
    searched: list[Parameter] = []
    fixed: Configuration = {}
    for name, text in _split_flags("-p", parameters):
        try:
            found = parse_quick(name, text)
        except SpaceError as error:
            raise SpecError(f"command line: -p {name}: {error}") from error
        if isinstance(found, (IntegerRange, FloatRange, Choice)):
            searched.append(found)
        else:
            fixed[name] = found
    wanted = {name: _only_value(name, text) for name, text in _split_flags("--baseline", baseline)}
    head: dict[str, Value] = {key: value for key, value in (options or {}).items() if value is not None}
    head.setdefault("name", _name_from(workload, searched))
    lines = [f"{key} = {_toml(value)}" for key, value in head.items()]
    if isinstance(workload, str):
        lines.insert(0, f"workload = {_toml(workload)}")
    else:
        lines.insert(0, f"workload = {{ command = [{', '.join(_toml(argument) for argument in workload)}] }}")
    lines += ["", "[parameters]", *(f"{_key(p.name)} = {_parameter_toml(p)}" for p in searched)]
    patterns: Configuration = dict(_split_flags("--metric", metrics))
    tables = {"fixed": fixed, "baseline": wanted, "metrics": patterns, "limits": {k: v for k, v in (limits or {}).items() if v is not None}}
    for table, entries in tables.items():
        if entries:
            lines += ["", f"[{table}]", *(f"{_key(k)} = {_toml(v)}" for k, v in entries.items())]
    text = "\n".join(lines) + "\n"
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise SpecError("command line: has bytes in it that are not UTF-8 text")
    return parse_spec(text, source="command line", folder=folder)


def parse_duration(raw: object) -> float | None:
    """Seconds in ``90``, ``"90s"``, ``"10m"``, ``"1h30m"`` or ``"1:30:00"``; None for anything else."""
    if isinstance(raw, str):
        seconds = _text_seconds(raw) if len(raw) <= _DURATION_TEXT else None
    elif isinstance(raw, (int, float)) and not isinstance(raw, bool):
        seconds = float(raw) if 0 < raw <= _LONGEST_S else None
    else:
        return None
    return seconds if seconds is not None and seconds <= _LONGEST_S else None


def _text_seconds(raw: str) -> float | None:
    text = raw.strip()
    if clock := _CLOCK.fullmatch(text):
        hours, minutes, seconds = (int(part) for part in clock.groups())
        return float(3600 * hours + 60 * minutes + seconds) or None
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text) or None
    if text and (parts := _DURATION.fullmatch(text)):
        hours_s, minutes_s, seconds_s = (float(part or 0) for part in parts.groups())
        return 3600 * hours_s + 60 * minutes_s + seconds_s or None
    return None


# ------------------------------------------------------------------------------------- the parser


class _Parser:
    """Takes a sweep file apart; knows how messages call it."""

    def __init__(self, source: str) -> None:
        self._source = source

    def spec(self, raw: dict[str, Any], text: str, folder: Path) -> Spec:
        self._known_keys(raw, _TOP_KEYS, "")
        workload = self._workload(raw)
        if "metrics" in raw and not isinstance(workload, CommandWorkload):
            self._fail("metrics", "is for workloads that are command lines; others report their metrics themselves")
        built_in = BUILTIN[workload.name] if isinstance(workload, BuiltinWorkload) else None
        space = self._space(raw)
        fixed = self._configuration(raw, "fixed")
        baseline = self._configuration(raw, "baseline") if "baseline" in raw else None
        if RANKS in raw:
            self._integer(raw, RANKS, None, 1)
            if RANKS in fixed or RANKS in space.names:
                self._fail(RANKS, "is also under [parameters] or [fixed]; say it once")
            fixed[RANKS] = raw[RANKS]
        for name in fixed:
            if name in space.names:
                self._fail(f"fixed.{name}", "is also under [parameters]; a parameter is either searched or fixed")
        for table, names in (("parameters", space.names), ("fixed", fixed), ("baseline", baseline or ())):
            self._options(built_in, table, names)
        self._values_fit(built_in, space, fixed, baseline)
        self._command_fits(workload, space, fixed)
        self._baseline_is_complete(built_in, space, baseline)
        self._objective_is_reported(built_in, self._text(raw, "objective", "loss"))
        search = self._choice(raw, "search", "grid", SEARCH_NAMES)
        if search == "largest_batch":
            space, raw = self._largest_batch(raw, space, built_in)
        spec = Spec(
            name=self._name(raw),
            workload=workload,
            objective=self._text(raw, "objective", "loss"),
            direction=Direction(self._choice(raw, "direction", "minimize", [d.value for d in Direction])),
            search=search,
            trials=self._integer(raw, "trials", None, 1),
            seed=self._integer(raw, "seed", 0, 0) or 0,
            space=space,
            fixed=fixed,
            baseline=baseline,
            limits=self._limits(raw),
            folder=folder,
            text=text,
            source=self._source,
            devices_per_trial=self._devices(raw),
        )
        self._ranks_fit(spec)
        self._size_fits(spec, self._integer(raw, "max_points", None, 1))
        return spec

    def _fail(self, key: str, problem: str) -> None:
        text = f"{key}: {problem}" if key else problem
        # Keys and values are the user's, and may hold anything; a message is one line.
        raise SpecError(f"{self._source}: {' '.join(text.splitlines())}")

    def _known_keys(self, raw: Mapping[str, Any], known: Iterable[str], prefix: str) -> None:
        names = list(known)
        for key in raw:
            if key not in names:
                self._fail(prefix + key, f"is not a known key; {_nearest(key, names)}")

    def _workload(self, raw: Mapping[str, Any]) -> Workload:
        if "workload" not in raw:
            self._fail("workload", f"is missing; expected {_workloads_text()}")
        found = raw["workload"]
        if isinstance(found, str) and found in BUILTIN:
            return BuiltinWorkload(found)
        if isinstance(found, str) and _FUNCTION.fullmatch(found):
            module, _, function = found.partition(":")
            return FunctionWorkload(module, function)
        if isinstance(found, dict):
            return self._command(found, self._table(raw, "metrics"))
        self._fail("workload", f"is {found!r}; expected {_workloads_text()}")
        raise AssertionError

    def _command(self, table: Mapping[str, Any], metrics: Mapping[str, Any]) -> CommandWorkload:
        try:
            patterns = tuple(parse_pattern(name, pattern) for name, pattern in metrics.items())
            return replace(parse_command(table), metrics=patterns)
        except CommandError as error:
            self._fail(error.key, error.problem)
        raise AssertionError

    def _command_fits(self, workload: Workload, space: SearchSpace, fixed: Configuration) -> None:
        if not isinstance(workload, CommandWorkload):
            return
        values: dict[str, list[Value]] = {name: [value] for name, value in fixed.items()}
        for parameter in space.parameters:
            values[parameter.name] = _ends(parameter)
        try:
            check_formats(workload, values)
        except CommandError as error:
            self._fail(error.key, error.problem)
        for name in space.names:
            # What a template asks for is seen when the template is read.
            if name not in workload.names and not workload.template and name != RANKS:
                self._fail(
                    f"parameters.{name}",
                    f"is not used: neither workload.command nor workload.env has {{{name}}}",
                )

    def _space(self, raw: Mapping[str, Any]) -> SearchSpace:
        table = self._table(raw, "parameters")
        parameters: list[Parameter] = []
        for name, described in table.items():
            self._parameter_name("parameters", name)
            try:
                parameters.append(parse_parameter(name, described))
            except SpaceError as error:
                self._fail(f"parameters.{name}", str(error))
        return SearchSpace(tuple(parameters))

    def _configuration(self, raw: Mapping[str, Any], key: str) -> Configuration:
        table = self._table(raw, key)
        for name, value in table.items():
            self._parameter_name(key, name)
            if not isinstance(value, (int, float, str, bool)):
                self._fail(f"{key}.{name}", f"is {value!r}; expected one number, string or boolean")
            if isinstance(value, float) and not math.isfinite(value):
                self._fail(f"{key}.{name}", f"is {value!r}; expected a finite number")
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                self._fail(f"{key}.{name}", f"is {value}; expected an integer of at most 64 bits")
        return dict(table)

    def _table(self, raw: Mapping[str, Any], key: str) -> dict[str, Any]:
        table = raw.get(key, {})
        if not isinstance(table, dict):
            self._fail(key, f"is {table!r}; expected a table, [{key}]")
        return dict(table)

    def _parameter_name(self, table: str, name: str) -> None:
        if not _IDENTIFIER.fullmatch(name):
            self._fail(table, f"{name!r} is no name for a parameter; expected letters, digits and underscores")

    def _options(self, built_in: BuiltinDescription | None, table: str, names: Iterable[str]) -> None:
        if built_in is None:
            return
        known = [*(option.name for option in built_in.options), RANKS]
        for name in names:
            if name not in known:
                self._fail(f"{table}.{name}", f"{built_in.name} has no such option; {_nearest(name, known)}")

    def _values_fit(
        self,
        built_in: BuiltinDescription | None,
        space: SearchSpace,
        fixed: Configuration,
        baseline: Configuration | None,
    ) -> None:
        if built_in is None:
            return
        named: list[tuple[str, str, Value]] = [("fixed", name, value) for name, value in fixed.items()]
        named += [("baseline", name, value) for name, value in (baseline or {}).items()]
        for parameter in space.parameters:
            named += [("parameters", parameter.name, value) for value in _ends(parameter)]
        for table, name, value in named:
            option = built_in.option(name)
            problem = option.problem(value) if option else None
            if problem:
                self._fail(f"{table}.{name}", problem)

    def _baseline_is_complete(
        self, built_in: BuiltinDescription | None, space: SearchSpace, baseline: Configuration | None
    ) -> None:
        if baseline is None or built_in is not None:
            return
        for name in space.names:
            if name not in baseline:
                self._fail("baseline", f"{name!r} is missing; a baseline names every searched parameter")

    def _objective_is_reported(self, built_in: BuiltinDescription | None, objective: str) -> None:
        if built_in is None:
            return
        metrics = [metric.name for metric in built_in.metrics]
        if objective not in metrics:
            self._fail("objective", f"{built_in.name} has no metric {objective!r}; {_nearest(objective, metrics)}")

    def _name(self, raw: Mapping[str, Any]) -> str:
        name = self._text(raw, "name", "sweep")
        if not _NAME.fullmatch(name):
            self._fail("name", f"is {name!r}; expected letters, digits, '.', '_' and '-', as in a file name")
        return name

    def _text(self, raw: Mapping[str, Any], key: str, default: str) -> str:
        value = raw.get(key, default)
        if not isinstance(value, str) or not value:
            self._fail(key, f"is {value!r}; expected a text")
        return str(value)

    def _choice(self, raw: Mapping[str, Any], key: str, default: str, known: Sequence[str]) -> str:
        value = raw.get(key, default)
        if value not in known:
            self._fail(key, f"is {value!r}; expected one of {', '.join(known)}")
        return str(value)

    def _integer(self, raw: Mapping[str, Any], key: str, default: int | None, low: int, prefix: str = "") -> int | None:
        value = raw.get(key, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 2**63:
            self._fail(prefix + key, f"is {value!r}; expected an integer of at least {low}")
        return int(value)

    def _devices(self, raw: Mapping[str, Any]) -> float:
        found = raw.get("devices_per_trial", 1)
        is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
        if is_number and 1 <= found <= _DEVICES_AT_MOST and found == round(found):
            return float(found)
        if is_number and 1 / _DEVICES_AT_MOST <= found < 1 and abs(1 / found - round(1 / found)) < 0.05:
            return float(1 / round(1 / found))
        self._fail("devices_per_trial", f"is {found!r}; expected 1, 2, ... GPUs, or a share like 0.5 or 0.25")
        raise AssertionError

    def _ranks_fit(self, spec: Spec) -> None:
        named: list[tuple[str, Value]] = [
            (f"{table}.{RANKS}", values[RANKS])
            for table, values in (("fixed", spec.fixed), ("baseline", spec.baseline or {}))
            if RANKS in values
        ]
        for parameter in spec.space.parameters:
            if parameter.name == RANKS:
                named += [(f"parameters.{RANKS}", value) for value in _ends(parameter)]
        for key, value in named:
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _RANKS_AT_MOST:
                self._fail(key, f"is {value!r}; expected an integer from 1 to {_RANKS_AT_MOST:,}")
            elif value > 1 and spec.devices_per_trial < 1:
                share = f"{spec.devices_per_trial:g}"
                self._fail(
                    "devices_per_trial", f"is {share}, but trials have several ranks, which cannot meet on one GPU; leave it out"
                )

    def _limits(self, raw: Mapping[str, Any]) -> Limits:
        table = self._table(raw, "limits")
        self._known_keys(table, _LIMIT_KEYS, "limits.")
        usual = Limits()

        def count(key: str, default: int) -> int:
            found = self._integer(table, key, default, 0, "limits.")
            return default if found is None else found

        quarantine = table.get("quarantine", usual.quarantine)
        if not isinstance(quarantine, bool):
            self._fail("limits.quarantine", f"is {quarantine!r}; expected true or false")
        return Limits(
            timeout_s=self._duration(table, "timeout"),
            retries=count("retries", usual.retries),
            grace_s=self._duration(table, "grace") or usual.grace_s,
            stall_s=self._duration(table, "stall"),
            silence_s=self._duration(table, "silence") or usual.silence_s,
            disk_s=self._duration(table, "disk") or usual.disk_s,
            restarts=count("restarts", usual.restarts),
            same_failures=count("same_failures", usual.same_failures),
            quarantine=bool(quarantine),
            memory_bytes=self._memory(table),
        )

    def _memory(self, limits: Mapping[str, Any]) -> int | None:
        if "memory" not in limits:
            return None
        found = limits["memory"]
        size = _MEMORY.fullmatch(found.strip()) if isinstance(found, str) and len(found) <= _DURATION_TEXT else None
        if size is None:
            self._fail("limits.memory", f"is {found!r}; expected a size like \"4GiB\" or \"500MB\"")
            raise AssertionError
        prefix, binary = size[2].upper(), bool(size[3])
        return int(float(size[1]) * (1024 if binary else 1000) ** (" KMGT".index(prefix) if prefix else 0))

    def _duration(self, limits: Mapping[str, Any], key: str) -> float | None:
        if key not in limits:
            return None
        seconds = parse_duration(limits[key])
        if seconds is None:
            self._fail(f"limits.{key}", f"is {limits[key]!r}; expected a duration like \"10m\" or 600")
        return seconds

    def _largest_batch(
        self, raw: dict[str, Any], space: SearchSpace, built_in: BuiltinDescription | None
    ) -> tuple[SearchSpace, dict[str, Any]]:
        """The space and the sweep file with all that a search for the largest batch implies."""
        if len(space.parameters) != 1:
            self._fail("parameters", f"has {len(space.parameters)}; search = \"largest_batch\" needs one, the batch size")
        [parameter] = space.parameters
        values = _ends(parameter)
        if parameter.count is None or any(isinstance(value, (bool, str)) or value <= 0 for value in values):
            self._fail(
                f"parameters.{parameter.name}",
                f"has {parameter.describe()}; search = \"largest_batch\" needs finitely many numbers above 0",
            )
        if parameter.memory == "decreasing":
            self._fail(f"parameters.{parameter.name}", "'memory' is 'decreasing'; search = \"largest_batch\" needs 'increasing'")
        if "trials" in raw:
            self._fail("trials", "is for searches that sample; search = \"largest_batch\" ends when it has its answers")
        has_speed = built_in is not None and any(metric.name == SPEED for metric in built_in.metrics)
        if "objective" not in raw and not has_speed:
            self._fail("objective", "is missing; search = \"largest_batch\" needs to know which metric is the speed")
        usual = {"objective": SPEED, "direction": Direction.MAXIMIZE.value}
        return SearchSpace((replace(parameter, memory="increasing"),)), usual | raw

    def _size_fits(self, spec: Spec, consent: int | None) -> None:
        space = spec.space
        if spec.search == "largest_batch":
            return
        if spec.search != "grid":
            if spec.trials is None:
                self._fail("trials", f"is missing; a {spec.search} search needs to know how many, e.g. trials = 100")
            if not space.parameters:
                self._fail("parameters", f"is empty; a {spec.search} search needs at least one parameter")
            return
        if spec.trials is not None:
            self._fail("trials", "is for searches that sample; a grid runs every point")
        if space.size is None:
            continuous = next(p for p in space.parameters if p.count is None)
            self._fail(
                f"parameters.{continuous.name}",
                f"has {continuous.describe()}, infinitely many for a grid; "
                "give 'step' or 'points', or search = \"random\" with trials = N",
            )
            return
        if space.size > (consent or _POINTS_WITHOUT_CONSENT):
            allowed = consent or _POINTS_WITHOUT_CONSENT
            self._fail(
                "parameters",
                f"the grid has {space.size:,} points, more than {allowed:,}; if that is meant, "
                f"say max_points = {space.size}",
            )


# ------------------------------------------------------------------------------------- words


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known are " + ", ".join(known)


def _workloads_text() -> str:
    named = ", ".join(repr(name) for name in BUILTIN)
    return named + ", a function like 'my_train:train', or { command = \"python train.py --x={x}\" }"


def _ends(parameter: Parameter) -> list[Value]:
    """The smallest and the largest value of a range; all values of a choice."""
    return list(parameter.values) if isinstance(parameter, Choice) else [parameter.low, parameter.high]


def _workload_text(workload: Workload) -> str:
    if isinstance(workload, CommandWorkload):
        variables = [f"{name}={value}" for name, value in workload.environment]
        return " ".join([*variables, workload.text, *([f"< {workload.template}"] if workload.template else [])])
    if isinstance(workload, BuiltinWorkload):
        return workload.name
    return f"{workload.module}:{workload.function}"


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)


def _contains_all(now: Parameter, before: Parameter) -> bool:
    count = before.count
    return count is not None and all(now.contains(before.at(index)) for index in range(count))


def _split_flags(flag: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise SpecError(f"command line: {flag} {text}: expected NAME=VALUE, e.g. batch_size=256")
        if name in dict(pairs):
            raise SpecError(f"command line: {flag} {name}: is given twice")
        pairs.append((name, value))
    return pairs


def _only_value(name: str, text: str) -> Value:
    found = parse_quick(name, text) if "," not in text and ":" not in text else None
    if found is None or isinstance(found, (IntegerRange, FloatRange, Choice)):
        raise SpecError(f"command line: --baseline {name}: found {text!r}; expected one value")
    return found


def _name_from(workload: str | Sequence[str], searched: Sequence[Parameter]) -> str:
    if not isinstance(workload, str):
        # The script says more than the interpreter that runs it.
        scripts = [Path(argument).stem for argument in workload if argument.endswith((".py", ".sh", ".jl", ".R"))]
        workload = scripts[0] if scripts else Path(workload[0]).name
    words = [workload.replace(":", "-"), *(p.name.replace("_", "-") for p in searched[:2])]
    name = "-".join(words)
    return name if _NAME.fullmatch(name) else "sweep"


def _key(name: str) -> str:
    return name if _IDENTIFIER.fullmatch(name) else _toml(name)


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A JSON string is a TOML string, except that TOML wants DEL escaped as well.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _parameter_toml(parameter: Parameter) -> str:
    if isinstance(parameter, Choice):
        return "[" + ", ".join(_toml(value) for value in parameter.values) + "]"
    parts = [f"from = {parameter.low!r}", f"to = {parameter.high!r}"]
    if parameter.step not in (None, 1) or (isinstance(parameter, FloatRange) and parameter.step is not None):
        parts.append(f"step = {parameter.step!r}")
    if parameter.log:
        parts.append('scale = "log"')
    if parameter.points is not None:
        parts.append(f"points = {parameter.points}")
    if parameter.memory:
        parts.append(f'memory = "{parameter.memory}"')
    return "{ " + ", ".join(parts) + " }"
