"""The quick form: turn flags into the text of a sweep file, and parse that."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mpisweep.records import Value
from mpisweep.spec.keys import NAME
from mpisweep.spec.mapping import toml_key, toml_text
from mpisweep.spec.model import Spec
from mpisweep.spec.parameters import parse_quick, parse_quick_value
from mpisweep.spec.repeats import repeats_value
from mpisweep.spec.space import Choice, Configuration, FloatRange, IntegerRange, Parameter, SpaceError
from mpisweep.spec.sweepfile import parse_spec
from mpisweep.spec.units import toml_value
from mpisweep.spec.wording import COMMAND_LINE, Wording

__all__ = ["default_name", "spec_from_flags"]

_NAME = re.compile(NAME)
_WORDING = Wording(COMMAND_LINE)


def spec_from_flags(
    workload: str | Sequence[str],
    parameters: Sequence[str],
    *,
    folder: Path,
    baseline: Sequence[str] = (),
    options: Mapping[str, Value | Sequence[str] | None] | None = None,
    limits: Mapping[str, Value | None] | None = None,
    stop: Mapping[str, Value | None] | None = None,
    metrics: Sequence[str] = (),
    where: Sequence[str] = (),
    imports: Sequence[str] = (),
) -> Spec:
    """Build a Spec from flags: ``mpisweep run resnet50 -p batch_size=1:700 -p num_iter=300``.

    Args:
        workload: a workload's name, ``module:function``, or the arguments of a command line.
        parameters: ``name=RANGE``, ``name=a,b,c`` or ``name=VALUE``.
        folder: the working directory.
        baseline: ``name=VALUE``.
        options: top-level keys of a sweep file; None values are omitted.
        limits: keys of [limits]; None values are omitted.
        stop: keys of [stop]; None values are omitted.
        metrics: ``name=PATTERN``, for a command line.
        where: constraints.
        imports: files and storages whose trials are known.

    Raises:
        SpecError: see the class.
    """
    searched: list[Parameter] = []
    fixed: Configuration = {}
    for name, text in _split_flags("parameters", parameters):
        try:
            found = parse_quick(name, text)
        except SpaceError as error:
            _WORDING.fail(f"parameters.{name}", str(error))
        if isinstance(found, (IntegerRange, FloatRange, Choice)):
            searched.append(found)
        else:
            fixed[name] = found
    wanted = _baseline(baseline, searched, fixed)
    head = {key: value for key, value in (options or {}).items() if value is not None}
    head.setdefault("name", default_name(workload, [parameter.name for parameter in searched]))
    lines = [_workload_line(workload), *(_head_line(key, value) for key, value in head.items())]
    several = {"where": where, "import": imports}
    lines += [f"{key} = {toml_text(texts)}" for key, texts in several.items() if texts]
    if searched or "points" not in head:
        lines += ["", "[parameters]", *(f"{toml_key(p.name)} = {_parameter_toml(p)}" for p in searched)]
    patterns: Configuration = dict(_split_flags("metrics", metrics))
    tables = {"fixed": fixed, "baseline": wanted, "metrics": patterns, "limits": limits, "stop": stop}
    for table, entries in tables.items():
        given = [f"{toml_key(k)} = {toml_value(v)}" for k, v in (entries or {}).items() if v is not None]
        lines += ["", f"[{table}]", *given] if given else []
    text = "\n".join(lines) + "\n"
    if any("\ud800" <= character <= "\udfff" for character in text):
        _WORDING.fail("", "contains bytes that are not UTF-8")
    return parse_spec(text, source=COMMAND_LINE, folder=folder)


def _head_line(key: str, value: Value | Sequence[str]) -> str:
    found = repeats_value(value) if key == "repeats" and isinstance(value, str) else None
    return f"{key} = {toml_text(value if found is None else found)}"


def _workload_line(workload: str | Sequence[str]) -> str:
    if isinstance(workload, str):
        return f"workload = {toml_value(workload)}"
    return f"workload = {{ command = {toml_text(workload)} }}"


def _baseline(baseline: Sequence[str], searched: Sequence[Parameter], fixed: Configuration) -> Configuration:
    """Parse ``--baseline``."""
    # The baseline of a choice of strings is a string, even if it looks like a number.
    texts = {p.name for p in searched if isinstance(p, Choice) and isinstance(p.values[0], str)}
    texts |= {name for name, value in fixed.items() if isinstance(value, str)}
    return {
        name: text if name in texts else _one_value(name, text)
        for name, text in _split_flags("baseline", baseline)
    }


def _split_flags(table: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            _WORDING.fail(f"{table}.{text}", "expected NAME=VALUE, e.g. batch_size=256")
        if name in dict(pairs):
            _WORDING.fail(f"{table}.{name}", "is given twice")
        pairs.append((name, value))
    return pairs


def _one_value(name: str, text: str) -> Value:
    try:
        return parse_quick_value(text)
    except SpaceError as error:
        _WORDING.fail(f"baseline.{name}", str(error))


def default_name(workload: str | Sequence[str], searched: Sequence[str]) -> str:
    """The name of a sweep that was not given any.

    Args:
        workload: its name, ``module:function``, or the arguments of a command line.
        searched: names of the searched parameters.
    """
    if not isinstance(workload, str):
        # The script is a better name than its interpreter.
        scripts = [
            Path(argument).stem for argument in workload if argument.endswith((".py", ".sh", ".jl", ".R"))
        ]
        workload = scripts[0] if scripts else Path(workload[0]).name
    words = [
        workload.replace(".py:", ":").replace(":", "-"),
        *(name.replace("_", "-") for name in searched[:2]),
    ]
    name = "-".join(words)
    return name if _NAME.fullmatch(name) else "sweep"


def _parameter_toml(parameter: Parameter) -> str:
    if isinstance(parameter, Choice):
        values = "[" + ", ".join(toml_value(value) for value in parameter.values) + "]"
        return f'{{ values = {values}, memory = "{parameter.memory}" }}' if parameter.memory else values
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
