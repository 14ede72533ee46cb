"""From a sweep file to a frozen Spec.  Every error that a user can make in one is found here."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpisweep.records import Direction, Value
from mpisweep.spec.catalogue import BUILTIN, SPEED, BuiltinDescription
from mpisweep.spec.commandline import (
    CommandError,
    CommandWorkload,
    check_formats,
    parse_command,
    parse_pattern,
)
from mpisweep.spec.model import (
    RANKS,
    USUAL_OBJECTIVE,
    BuiltinWorkload,
    FunctionWorkload,
    Limits,
    Spec,
    SpecError,
    Workload,
    ends,
    nearest,
)
from mpisweep.spec.space import Configuration, FloatRange, Parameter, SearchSpace, SpaceError, parse_parameter
from mpisweep.spec.units import parse_bytes, parse_duration

__all__ = ["COMMAND_LINE", "SEARCH_NAMES", "load_spec", "parse_spec"]

#: The source of a sweep that was given by flags: what is wrong with it is told in the words of flags.
COMMAND_LINE = "command line"

SEARCH_NAMES = ("grid", "random", "sobol", "largest_batch")
#: A grid of more points than this needs the sweep file's word that it is meant.
_POINTS_WITHOUT_CONSENT = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
#: Tables of a sweep file whose entries are flags, NAME=... each.
_FLAGS = {"parameters": "-p", "fixed": "-p", "baseline": "--baseline", "metrics": "--metric"}
_TOP_KEYS = (
    "name", "workload", "objective", "direction", "search", "trials", "seed", "max_points", "devices_per_trial", "ranks_per_trial",
    "fresh_process",
    "parameters", "fixed", "baseline", "metrics", "limits",
)  # fmt: skip
_LIMIT_KEYS = (
    "timeout", "stall", "retries", "grace", "silence", "disk", "restarts", "same_failures", "quarantine", "memory",
)  # fmt: skip
_RANKS_AT_MOST = 4096
#: More GPUs in one node, or more workers on one GPU, than anybody has.
_DEVICES_AT_MOST = 64


def load_spec(path: Path) -> Spec:
    """Read a sweep file.

    Raises:
        SpecError: when it cannot be read or says something wrong.
    """
    try:
        # Editors on Windows put a mark before the first line.
        text = path.read_text(encoding="utf-8-sig")
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


class _Parser:
    """Takes a sweep file apart; knows how messages call it."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._is_typed = source == COMMAND_LINE

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
        self._objective_is_reported(built_in, self._text(raw, "objective", USUAL_OBJECTIVE))
        search = self._choice(raw, "search", "grid", SEARCH_NAMES)
        if search == "largest_batch":
            space, raw = self._largest_batch(raw, space, built_in)
        spec = Spec(
            name=self._name(raw),
            workload=workload,
            objective=self._text(raw, "objective", USUAL_OBJECTIVE),
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
            fresh_process=self._flag(raw, "fresh_process", False),
        )
        self._ranks_fit(spec)
        self._size_fits(spec, self._integer(raw, "max_points", None, 1))
        return spec

    def _fail(self, key: str, problem: str) -> None:
        key = self._place(key)
        text = f"{key}: {problem}" if key else problem
        # Keys and values are the user's, and may hold anything; a message is one line.
        raise SpecError(f"{self._source}: {' '.join(text.splitlines())}")

    def _place(self, key: str) -> str:
        """Where the user has said it: the key in the file, or the flag."""
        table, _, name = key.partition(".")
        if not self._is_typed or table in ("", "workload", RANKS):
            return "after --" if self._is_typed and key == "workload.command" else key
        if table == "limits":
            return f"--{name}"
        flag = _FLAGS.get(table, f"--{table.replace('_', '-')}")
        return f"{flag} {name}" if name else flag

    def _set(self, key: str, value: str | int) -> str:
        """How the user would say that a key has a value."""
        if self._is_typed:
            return f"--{key.replace('_', '-')} {value}"
        return f"{key} = \"{value}\"" if isinstance(value, str) and value != "N" else f"{key} = {value}"

    def _known_keys(self, raw: Mapping[str, Any], known: Iterable[str], prefix: str) -> None:
        names = list(known)
        for key in raw:
            if key not in names:
                self._fail(prefix + key, f"is not a known key; {nearest(key, names)}")

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
            values[parameter.name] = ends(parameter)
        try:
            check_formats(workload, values)
        except CommandError as error:
            self._fail(error.key, error.problem)
        for name in space.names:
            # What a template asks for is seen when the template is read.
            if name not in workload.names and not workload.template and name != RANKS:
                self._fail(
                    f"parameters.{name}",
                    f"is not used: the command has no {{{name}}}" if self._is_typed
                    else f"is not used: neither workload.command nor workload.env has {{{name}}}",
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
                self._fail(f"{table}.{name}", f"{built_in.name} has no such option; {nearest(name, known)}")

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
            named += [("parameters", parameter.name, value) for value in ends(parameter)]
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
            self._fail("objective", f"{built_in.name} has no metric {objective!r}; {nearest(objective, metrics)}")

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

    def _flag(self, raw: Mapping[str, Any], key: str, default: bool, prefix: str = "") -> bool:
        value = raw.get(key, default)
        if not isinstance(value, bool):
            self._fail(prefix + key, f"is {value!r}; expected true or false")
        return bool(value)

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
                named += [(f"parameters.{RANKS}", value) for value in ends(parameter)]
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

        return Limits(
            timeout_s=self._duration(table, "timeout"),
            retries=count("retries", usual.retries),
            grace_s=self._duration(table, "grace") or usual.grace_s,
            stall_s=self._duration(table, "stall"),
            silence_s=self._duration(table, "silence") or usual.silence_s,
            disk_s=self._duration(table, "disk") or usual.disk_s,
            restarts=count("restarts", usual.restarts),
            same_failures=count("same_failures", usual.same_failures),
            quarantine=self._flag(table, "quarantine", usual.quarantine, "limits."),
            memory_bytes=self._memory(table),
        )

    def _memory(self, limits: Mapping[str, Any]) -> int | None:
        if "memory" not in limits:
            return None
        size = parse_bytes(limits["memory"])
        if size is None:
            self._fail("limits.memory", f"is {limits['memory']!r}; expected a size like \"4GiB\" or \"500MB\"")
        return size

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
            self._fail("parameters", f"has {len(space.parameters)}; {self._set('search', 'largest_batch')} needs one, the batch size")
        [parameter] = space.parameters
        values = ends(parameter)
        if parameter.count is None or any(isinstance(value, (bool, str)) or value <= 0 for value in values):
            self._fail(
                f"parameters.{parameter.name}",
                f"has {parameter.describe()}; {self._set('search', 'largest_batch')} needs finitely many numbers above 0",
            )
        if parameter.memory == "decreasing":
            self._fail(f"parameters.{parameter.name}", f"'memory' is 'decreasing'; {self._set('search', 'largest_batch')} needs 'increasing'")
        if "trials" in raw:
            self._fail("trials", f"is for searches that sample; {self._set('search', 'largest_batch')} ends when it has its answers")
        has_speed = built_in is not None and any(metric.name == SPEED for metric in built_in.metrics)
        if "objective" not in raw and not has_speed:
            self._fail("objective", f"is missing; {self._set('search', 'largest_batch')} needs to know which metric is the speed")
        usual = {"objective": SPEED, "direction": Direction.MAXIMIZE.value}
        return SearchSpace((replace(parameter, memory="increasing"),)), usual | raw

    def _size_fits(self, spec: Spec, consent: int | None) -> None:
        space = spec.space
        if spec.search == "largest_batch":
            return
        if spec.search != "grid":
            if spec.trials is None:
                self._fail("trials", f"is missing; a {spec.search} search needs to know how many, e.g. {self._set('trials', 100)}")
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
                f"{self._how_many(continuous)}, or {self._set('search', 'random')} with {self._set('trials', 'N')}",
            )
            return
        if space.size > (consent or _POINTS_WITHOUT_CONSENT):
            allowed = consent or _POINTS_WITHOUT_CONSENT
            self._fail(
                "parameters",
                f"the grid has {space.size:,} points, more than {allowed:,}; if that is meant, "
                f"say {self._set('max_points', space.size)}",
            )

    def _how_many(self, continuous: Parameter) -> str:
        """How the user would say which numbers of a range a grid takes."""
        if not self._is_typed:
            return "give 'step' or 'points'"
        assert isinstance(continuous, FloatRange)
        scale = ":log" if continuous.log else ""
        return f"say how many, e.g. -p {continuous.name}={continuous.low!r}:{continuous.high!r}{scale}:points=8"


def _workloads_text() -> str:
    named = ", ".join(repr(name) for name in BUILTIN)
    return named + ", a function like 'my_train:train', or { command = \"python train.py --x={x}\" }"
