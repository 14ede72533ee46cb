"""Parse a sweep file into a frozen Spec.

The table in :mod:`~mpisweep.spec.keys` checks the value of each key; :mod:`~mpisweep.spec.fitting` checks
that keys agree with each other.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpisweep.dataclass import replace
from mpisweep.plugins import SEARCHES, WORKLOADS, PluginError, find_plugin, plugin_names
from mpisweep.spec import fitting
from mpisweep.spec.after import ReadAfter, with_best
from mpisweep.spec.catalogue import BUILTIN, SPEED, WorkloadDescription, describe, describe_if_there
from mpisweep.spec.commandline import CommandError, CommandWorkload, parse_command, parse_pattern
from mpisweep.spec.conditions import RawCondition, split_condition, with_rules
from mpisweep.spec.hooks import parse_hooks
from mpisweep.spec.imports import parse_imports
from mpisweep.spec.keys import (
    AUTO,
    FUNCTION,
    IDENTIFIER,
    NAME,
    OPTUNA,
    RANKS,
    SEARCH_NAMES,
    closest,
    key_of,
    names_of,
    one_of,
    unknown_key,
)
from mpisweep.spec.mapping import with_inline
from mpisweep.spec.model import (
    BuiltinWorkload,
    FunctionWorkload,
    Limits,
    SamplerChoice,
    Spec,
    SpecError,
    Workload,
)
from mpisweep.spec.parameters import parse_parameter
from mpisweep.spec.points import parse_points, read_points_file, with_points_inline
from mpisweep.spec.pruner import parse_pruner
from mpisweep.spec.repeats import check_repeats, parse_repeats
from mpisweep.spec.space import Configuration, Parameter, SearchSpace, SpaceError
from mpisweep.spec.stopping import parse_stop
from mpisweep.spec.training import target_problem, target_text
from mpisweep.spec.wording import Wording

__all__ = ["load_spec", "parse_spec"]

_NAME = re.compile(NAME)
_IDENTIFIER = re.compile(IDENTIFIER)
_FUNCTION = re.compile(FUNCTION)
_SAMPLER_EXAMPLE = 'a sampler of Optuna, such as { sampler = "TPESampler", multivariate = true }'


def load_spec(path: Path, folder: Path | None = None, read_after: ReadAfter | None = None) -> Spec:
    """Read and parse a sweep file.

    Args:
        path: of the file.
        folder: where its modules, programs and relative paths are found; its own unless given.
        read_after: see :func:`parse_spec`.

    Raises:
        SpecError: if it cannot be read or is invalid.
    """
    try:
        # Editors on Windows write a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    return parse_spec(text, source=str(path), folder=folder or path.resolve().parent, read_after=read_after)


def parse_spec(
    text: str,
    *,
    source: str,
    folder: Path,
    is_recorded: bool = False,
    read_after: ReadAfter | None = None,
) -> Spec:
    """Parse the text of a sweep file.

    Args:
        text: TOML.
        source: name of the file in messages.
        folder: folder of the file.
        is_recorded: whether the text comes from a results file; its plugins then need not be installed.
        read_after: reads the results that the key ``after`` names; None for a text that has what was read.

    Raises:
        SpecError: see the class.
    """
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # ValueError covers TOMLDecodeError, and integers of thousands of digits, which Python refuses.
        raise SpecError(f"{source}: is not TOML: {error}") from error
    wording = Wording(source)
    if read_after is not None and isinstance(file := raw.get("after"), str) and file:
        table = read_after(file, str(raw.get("name", key_of("name").default))).table
        raw, text = raw | {"after": table}, with_inline(wording, text, raw, "after", table)
    return _Parser(source, is_recorded=is_recorded).spec(raw, text, folder)


class _Parser:
    """The parser of one sweep file."""

    def __init__(self, source: str, *, is_recorded: bool = False) -> None:
        self._wording = Wording(source)
        self._is_recorded = is_recorded
        self._options: WorkloadDescription | None = None

    def spec(self, raw: dict[str, Any], text: str, folder: Path) -> Spec:
        wording = self._wording
        self._known_keys(raw, "")
        # Finding a key in the text compares it with what was read from there: `raw` is unchanged until then.
        raw, text = self._with_points(raw, text, folder)
        raw, after = with_best(wording, raw)
        workload = self._workload(raw)
        fitting.check_metrics(wording, raw, workload)
        described = self._options = self._described(workload)
        space, found = self._space(raw)
        fixed = self._fixed(raw, space)
        constants = self._defaults(workload) | {RANKS: 1} | fixed
        space = with_rules(wording, raw, space, found, constants, is_recorded=self._is_recorded)
        baseline = self._configuration(raw, "baseline") if "baseline" in raw else None
        if described is not None:
            fitting.check_options(wording, described, space, fixed, baseline)
        fitting.check_command(wording, workload, space, fixed)
        if not self._is_recorded:
            fitting.check_baseline(wording, workload, space, baseline)
        search = self._search(raw, names_own=isinstance(workload, FunctionWorkload) and not space.parameters)
        fitting.check_one_objective(wording, search, self._get(raw, "objective"))
        if search == "largest_batch":
            space, raw = fitting.with_largest_batch(
                wording, raw, space, has_speed=self._has_speed(workload, described)
            )
        if search == "batch_size":
            space = fitting.with_batch_size(wording, space)
        names, directions = self._get(raw, "objective"), self._get(raw, "direction")
        spec = Spec(
            name=self._get(raw, "name"),
            workload=workload,
            objectives=fitting.objectives_of(wording, described, names, directions),
            search=search,
            trials=self._get(raw, "trials"),
            seed=self._get(raw, "seed"),
            space=space,
            fixed=fixed,
            baseline=baseline,
            limits=self._limits(raw),
            folder=folder,
            text=text,
            source=wording.source,
            order=self._get(raw, "order"),
            max_points=self._get(raw, "max_points"),
            devices_per_trial=self._get(raw, "devices_per_trial"),
            packs=raw.get("devices_per_trial") == AUTO,
            fresh_process=self._get(raw, "fresh_process"),
            sampler=self._sampler(raw),
            repeats=parse_repeats(wording, raw),
            stop=parse_stop(wording, raw),
            imports=parse_imports(wording, raw, search),
            prune=parse_pruner(wording, raw["prune"]) if "prune" in raw else None,
            hooks=parse_hooks(wording, raw),
            after=after,
            stage_data=os.fspath(folder / staged) if (staged := self._get(raw, "stage_data")) else "",
        )
        for check in (fitting.check_ranks, fitting.check_rules_of_one, fitting.check_size, check_repeats):
            check(wording, spec)
        return spec

    def _get(self, raw: Mapping[str, Any], name: str, table: str = "") -> Any:
        """Check and return the value of a key, or its default."""
        key = key_of(name, table)
        problem = key.problem(raw[name]) if name in raw else None
        if problem:
            self._wording.fail(key.path, problem)
        return key.get(raw)

    def _known_keys(self, raw: Mapping[str, Any], table: str) -> None:
        for name in raw:
            if name not in names_of(table):
                path = f"{table}.{name}" if table else name
                self._wording.fail(path, unknown_key(name, table))

    def _workload(self, raw: Mapping[str, Any]) -> Workload:
        if "workload" not in raw:
            self._wording.fail("workload", f"is missing; expected {_workloads_text()}")
        found = raw["workload"]
        if isinstance(found, str) and found in BUILTIN:
            return BuiltinWorkload(found)
        if isinstance(found, str) and _FUNCTION.fullmatch(found):
            module, _, function = found.partition(":")
            # A file beside the sweep file, as it is typed.
            return FunctionWorkload(module.removesuffix(".py"), function)
        if isinstance(found, dict):
            return self._command(found, self._table(raw, "metrics"))
        is_name = isinstance(found, str) and _NAME.fullmatch(found) is not None
        if not is_name or not self._is_plugin(WORKLOADS, "workload", found):
            self._wording.fail("workload", f"is {found!r}; expected {_workloads_text(found)}")
        return BuiltinWorkload(found)

    def _is_plugin(self, group: str, key: str, name: str) -> bool:
        """Whether a plugin has this name; a recorded sweep is trusted, its plugin may be gone."""
        if self._is_recorded:
            return True
        try:
            return find_plugin(group, name) is not None
        except PluginError as error:
            self._wording.fail(key, str(error))

    def _described(self, workload: Workload) -> WorkloadDescription | None:
        """The description to check the sweep against; None if recorded: it was checked then."""
        if self._is_recorded or not isinstance(workload, BuiltinWorkload):
            return None
        try:
            return describe(workload.name)
        except PluginError as error:
            self._wording.fail("workload", str(error))

    def _has_speed(self, workload: Workload, described: WorkloadDescription | None) -> bool:
        is_known = self._is_recorded and isinstance(workload, BuiltinWorkload)
        return any(metric.name == SPEED for metric in described.metrics) if described else is_known

    def _search(self, raw: Mapping[str, Any], *, names_own: bool) -> str:
        """The search; `names_own`: whether the workload can name parameters of its own, as Optuna's do."""
        usual = "points" if "points" in raw else "tpe" if names_own and "trials" in raw else None
        name = raw.get("search", usual)
        if isinstance(name, dict):
            name = OPTUNA
        elif name == OPTUNA:
            self._wording.fail("search", f"is {OPTUNA!r}; expected {_SAMPLER_EXAMPLE}")
        if (name == "points") != ("points" in raw):
            self._wording.fail("search", f"is {name!r}; " + (
                "with 'points' every point runs; remove 'search'" if "points" in raw
                else "set 'points' to the list of points"
            ))  # fmt: skip
        if name == OPTUNA:
            return OPTUNA
        # Listing installed packages is slow, so it happens only for a name that is not built in.
        if not isinstance(name, str) or name in SEARCH_NAMES:
            return str(self._get(raw if name is None else {"search": name}, "search"))
        if not self._is_plugin(SEARCHES, "search", name):
            self._wording.fail("search", f"is {name!r}; expected {one_of(name, _searches())}")
        return name

    def _sampler(self, raw: Mapping[str, Any]) -> SamplerChoice | None:
        table = raw.get("search")
        if not isinstance(table, dict):
            return None
        name, options = table.get("sampler"), {k: v for k, v in table.items() if k != "sampler"}
        if not isinstance(name, str) or any(isinstance(value, dict) for value in options.values()):
            self._wording.fail("search", f"is {table!r}; expected {_SAMPLER_EXAMPLE}")
        return SamplerChoice(name, options)

    def _command(self, table: Mapping[str, Any], metrics: Mapping[str, Any]) -> CommandWorkload:
        try:
            patterns = tuple(parse_pattern(name, pattern) for name, pattern in metrics.items())
            return replace(parse_command(table), metrics=patterns)
        except CommandError as error:
            self._wording.fail(error.key, error.problem)

    def _with_points(self, raw: dict[str, Any], text: str, folder: Path) -> tuple[dict[str, Any], str]:
        """Put the points of a file in place of its name."""
        if not isinstance(raw.get("points"), str):
            return raw, text
        columns = read_points_file(self._wording, folder / raw["points"])
        return raw | {"points": columns}, with_points_inline(self._wording, text, raw, columns)

    def _space(self, raw: Mapping[str, Any]) -> tuple[SearchSpace, dict[str, RawCondition]]:
        """Parse [parameters] or ``points``, without the rules that a space obeys."""
        table = self._table(raw, "parameters")
        if "points" in raw:
            if table:
                self._wording.fail("points", "is also the search space; remove it, or [parameters]")
            return parse_points(self._wording, raw["points"]), {}
        parameters: list[Parameter] = []
        conditions: dict[str, RawCondition] = {}
        for name, described in table.items():
            self._parameter_name("parameters", name)
            domain, condition = split_condition(described)
            if condition is not None:
                conditions[name] = condition
            try:
                parameters.append(parse_parameter(name, domain))
            except SpaceError as error:
                self._wording.fail(f"parameters.{name}", str(error))
        return SearchSpace(tuple(parameters)), conditions

    def _defaults(self, workload: Workload) -> Configuration:
        """Defaults of a named workload; empty for others, and if its plugin is not installed."""
        described = describe_if_there(workload.name) if isinstance(workload, BuiltinWorkload) else None
        return described.defaults if described else {}

    def _fixed(self, raw: Mapping[str, Any], space: SearchSpace) -> Configuration:
        """Parse [fixed], and ``ranks_per_trial`` at the top of the file."""
        fixed = self._configuration(raw, "fixed")
        ranks = self._get(raw, RANKS)
        if ranks is not None:
            if RANKS in fixed or RANKS in space.names:
                self._wording.fail(RANKS, "is also under [parameters] or [fixed]; set it once")
            fixed[RANKS] = ranks
        fitting.check_twice(self._wording, space, fixed)
        return fixed

    def _configuration(self, raw: Mapping[str, Any], key: str) -> Configuration:
        table = self._table(raw, key)
        for name, value in table.items():
            self._parameter_name(key, name)
            if isinstance(value, dict) and self._is_target(name):
                value = table[name] = target_text(value) or value
                if isinstance(value, dict):
                    self._wording.fail(f"{key}.{name}", str(target_problem(value)))
            if not isinstance(value, (int, float, str, bool)):
                self._wording.fail(f"{key}.{name}", f"is {value!r}; expected one number, string or boolean")
            if isinstance(value, float) and not math.isfinite(value):
                self._wording.fail(f"{key}.{name}", f"is {value!r}; expected a finite number")
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                self._wording.fail(f"{key}.{name}", f"is {value}; expected an integer of at most 64 bits")
        return dict(table)

    def _is_target(self, name: str) -> bool:
        """Whether an option may be a table, { METRIC = VALUE }; a recorded sweep is trusted."""
        option = self._options.option(name) if self._options else None
        return self._is_recorded or (option is not None and option.kind == "target")

    def _table(self, raw: Mapping[str, Any], name: str) -> dict[str, Any]:
        return self._get(raw, name) or {}

    def _parameter_name(self, table: str, name: str) -> None:
        if not _IDENTIFIER.fullmatch(name):
            self._wording.fail(
                table, f"{name!r} is not a valid parameter name; expected letters, digits and underscores"
            )

    def _limits(self, raw: Mapping[str, Any]) -> Limits:
        table = self._table(raw, "limits")
        self._known_keys(table, "limits")
        return Limits(
            timeout_s=self._get(table, "timeout", "limits"),
            retries=self._get(table, "retries", "limits"),
            grace_s=self._get(table, "grace", "limits"),
            stall_s=self._get(table, "stall", "limits"),
            silence_s=self._get(table, "silence", "limits"),
            disk_s=self._get(table, "disk", "limits"),
            restarts=self._get(table, "restarts", "limits"),
            same_failures=self._get(table, "same_failures", "limits"),
            quarantine=self._get(table, "quarantine", "limits"),
            memory_bytes=self._get(table, "memory", "limits"),
            slow_devices=self._get(table, "slow_devices", "limits"),
            diverged=self._get(table, "diverged", "limits"),
        )


def _searches() -> list[str]:
    return [name for name in plugin_names(SEARCHES) if name != OPTUNA]


def _workloads_text(found: object = "") -> str:
    """Say what a workload can be, and suggest one that has a similar name."""
    names = plugin_names(WORKLOADS)
    named = ", ".join(map(repr, names))
    close = closest(found, names)
    return f"{named}, a function like 'my_train:train', or {{ command = \"python train.py --x={{x}}\" }}" + (
        f"; did you mean {close!r}?" if close else ""
    )
