"""The JSON schema of sweep files, for editors that check and complete TOML.

Made from the table of keys (:mod:`~mpisweep.spec.keys`) and the options of workloads, and shipped as
``sweep-file.schema.json``.  It accepts everything that the parser accepts.  It rejects unknown keys, wrong
types and numbers out of range; ``mpisweep check`` also checks that keys agree with each other.

Draft 7 of JSON Schema, the latest that Taplo and its derivatives read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from mpisweep.plugins import SEARCHES, WORKLOADS, plugin_names
from mpisweep.records import Value
from mpisweep.spec.catalogue import BUILTIN, Option, WorkloadDescription, describe_if_there
from mpisweep.spec.keys import (
    AUTO,
    DEVICES_AT_MOST,
    FUNCTION,
    IDENTIFIER,
    INTEGER_AT_MOST,
    NAME,
    OPTUNA,
    PRUNER_NAMES,
    RANKS,
    RANKS_AT_MOST,
    REPEATS_AT_MOST,
    SEARCH_NAMES,
    TEXT_CHARS,
    Key,
    key_of,
    keys_of,
)
from mpisweep.spec.pruner import WRAPPED
from mpisweep.spec.units import CHARS_AT_MOST, DURATION_AT_MOST_S

__all__ = ["schema", "schema_text"]

Schema = dict[str, Any]

_DURATION = (
    # A duration must be above 0.
    r"^\s*(?![0hms.: ]*$)(\d+(\.\d+)?|\d+:[0-5]\d:[0-5]\d|(\d+(\.\d+)?h)?(\d+(\.\d+)?m)?(\d+(\.\d+)?s)?)\s*$"
)
_SIZE = r"^\s*\d+(\.\d+)?\s*[kKMGT]?i?B\s*$"
_BESIDE = r"^(?!/)(?!(.*/)?\.\.(/|$))"
_TEXT: Schema = {"type": "string", "minLength": 1}
#: One metric and its value.
_TARGET: Schema = {
    "type": "object", "additionalProperties": {"type": "number"}, "minProperties": 1, "maxProperties": 1,
}  # fmt: skip
_VALUE: Schema = {"type": ["number", "string", "boolean"]}
_SAMPLER: Schema = {
    "type": "object",
    "properties": {"sampler": _TEXT},
    "required": ["sampler"],
    "additionalProperties": {"type": ["number", "string", "boolean", "array"]},
}
_SOURCE: Schema = {
    "type": "object",
    "properties": {"from": _TEXT, "study": _TEXT},
    "required": ["from"],
    "additionalProperties": False,
}
_PRUNER: Schema = {
    "type": "object",
    "properties": {"pruner": _TEXT, WRAPPED: {"anyOf": [_TEXT, {"$ref": "#/definitions/pruner"}]}},
    "required": ["pruner"],
    "additionalProperties": {"type": ["number", "string", "boolean"]},
}
#: One value, by its kind.
_ONE: list[Schema] = [
    {"type": "number"}, {"type": "string", "maxLength": TEXT_CHARS}, {"type": "boolean"},
]  # fmt: skip
#: What stands for a number of the sweep that ``after`` names.
_BEST: Schema = {"type": "string", "pattern": r"\{best\."}
_NUMBER_OR_BEST: Schema = {"anyOf": [{"type": "number"}, _BEST]}
#: A results file, or what results files have in place of its name.
_AFTER: Schema = {"anyOf": [_TEXT, {"type": "object", "required": ["file", "best"]}]}
_RANGE: Schema = {"$ref": "#/definitions/range"}
_LIST: Schema = {"$ref": "#/definitions/list"}


def schema_text(*, with_plugins: bool = False) -> str:
    """Render the schema as JSON; see :func:`schema`."""
    return json.dumps(schema(with_plugins=with_plugins), indent=2, ensure_ascii=False) + "\n"


def schema(*, with_plugins: bool = False) -> Schema:
    """Build the schema of sweep files.

    Args:
        with_plugins: whether to include installed plugins; of those that cannot be loaded, only the name.
    """
    workloads = plugin_names(WORKLOADS) if with_plugins else list(BUILTIN)
    searches = plugin_names(SEARCHES) if with_plugins else list(SEARCH_NAMES)
    described = filter(None, map(describe_if_there, workloads))
    made = _table(keys_of(""), {
        "workload": _workload(workloads),
        "search": {"anyOf": [{"enum": [name for name in searches if name != OPTUNA]}, _SAMPLER]},
        "prune": {"anyOf": [{"enum": list(PRUNER_NAMES)}, {"$ref": "#/definitions/pruner"}]},
        "parameters": _named(_parameter()),
        # A table is only for the options of a workload that take one.
        "fixed": _named({"anyOf": [_VALUE, _TARGET]}),
        "baseline": _named({"anyOf": [_VALUE, _TARGET]}),
        # `step` is the axis of curves.
        "metrics": _named(_TEXT, f"^(?!step$){IDENTIFIER}$"),
        "limits": _table(keys_of("limits")),
        "stop": _table(keys_of("stop")),
        "hooks": _table(keys_of("hooks")),
    })  # fmt: skip
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "mpisweep sweep file",
        "definitions": {"range": _range(), "list": _list(), "pruner": _PRUNER},
        **made,
        "allOf": [_options_of(workload) for workload in described],
    }


def _table(keys: Iterable[Key], special: dict[str, Schema] | None = None) -> Schema:
    """Build the schema of a table with these keys and no others."""
    keys = tuple(keys)
    required = [key.name for key in keys if key.is_required]
    properties = {key.name: (special or {}).get(key.name) or _form(key) for key in keys}
    for key in keys:
        default = {} if key.default is None or key.usual else {"default": key.default}
        properties[key.name] = {"description": key.meaning, **default, **properties[key.name]}
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | ({"required": required} if required else {})


def _form(key: Key) -> Schema:
    """Build the schema of a key's value."""
    match key.kind:
        case "text":
            return _TEXT
        case "name":
            return {"type": "string", "pattern": f"^{NAME}$"}
        case "choice":
            return {"enum": list(key.values)}
        case "texts":
            return {"anyOf": [_TEXT, _choices(_TEXT)]}
        case "choices":
            word: Schema = {"enum": list(key.values)}
            return {"anyOf": [word, {"type": "array", "items": word, "minItems": 1}]}
        case "integer":
            high = INTEGER_AT_MOST if key.high is None else key.high
            return {"type": "integer", "minimum": key.low or 0, "maximum": high}
        case "number":
            return {"type": "number"} | ({} if key.low is None else {"exclusiveMinimum": key.low})
        case "flag":
            return {"type": "boolean"}
        case "duration":
            number: Schema = {"type": "number", "exclusiveMinimum": 0, "maximum": DURATION_AT_MOST_S}
            return {"anyOf": [{"type": "string", "pattern": _DURATION, "maxLength": CHARS_AT_MOST}, number]}
        case "size":
            return {"type": "string", "pattern": _SIZE, "maxLength": CHARS_AT_MOST}
        case "devices":
            whole: Schema = {"type": "number", "minimum": 1, "maximum": DEVICES_AT_MOST, "multipleOf": 1}
            share: Schema = {"type": "number", "minimum": 1 / DEVICES_AT_MOST, "maximum": 1}
            return {"anyOf": [whole, share, {"const": AUTO}]}
        case "command":
            return {"anyOf": [_TEXT, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
        case "template":
            return {"type": "string", "pattern": _BESIDE}
        case "variables":
            texts: Schema = {"type": ["string", "number", "boolean"]}
            return _named(texts)
        case "values":
            return {"anyOf": [_choices(one) for one in _ONE]}
        case "value":
            return _VALUE
        case "conditions":
            return {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}
        case "groups":
            name: Schema = {"type": "string", "pattern": f"^{IDENTIFIER}$"}
            group: Schema = {"type": "array", "items": name, "minItems": 2, "uniqueItems": True}
            return {"type": "array", "items": group}
        case "repeats":
            count: Schema = {"type": "integer", "minimum": 1, "maximum": REPEATS_AT_MOST}
            return {"anyOf": [count, _table(keys_of("repeats"))]}
        case "imports":
            one: Schema = {"anyOf": [_TEXT, _SOURCE]}
            return {"anyOf": [_TEXT, _SOURCE, {"type": "array", "items": one, "minItems": 1}]}
        case "after":
            return _AFTER
        case "points":
            tables: Schema = {"type": "array", "items": _named(_VALUE) | {"minProperties": 1}, "minItems": 1}
            lists = _named({"type": "array", "items": _VALUE, "minItems": 1}) | {"minProperties": 1}
            return {"anyOf": [_TEXT, tables, lists]}
    raise AssertionError(f"{key.path} has a form of its own")


def _workload(names: Iterable[str]) -> Schema:
    # Python's \w matches letters of every script; in a JSON schema it matches ASCII only.
    function = FUNCTION.replace(r"[\w.]", "[^\\s:\"'()\\[\\]{}/-]")
    return {
        "anyOf": [
            {"enum": list(names)},
            {"type": "string", "pattern": f"^{function}$"},
            _table(keys_of("workload")),
        ]
    }


def _named(entry: Schema, name: str = f"^{IDENTIFIER}$") -> Schema:
    """Build the schema of a table whose keys match a pattern."""
    return {"type": "object", "patternProperties": {name: entry}, "additionalProperties": False}


def _choices(value: Schema) -> Schema:
    return {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}


def _parameter() -> Schema:
    """Build the schema of an entry of [parameters]: choices, a range, or a list with `memory`."""
    return {"anyOf": [*map(_choices, _ONE), _choices(_NUMBER_OR_BEST), _RANGE, _LIST]}


#: An entry with a condition: `else` needs `when`, which excludes `memory`.
_CONDITIONAL: Schema = {"dependencies": {"else": ["when"], "when": {"not": {"required": ["memory"]}}}}


def _list() -> Schema:
    numbers: Schema = {"properties": {"values": _choices(_NUMBER_OR_BEST)}}
    has_memory: Schema = {"required": ["memory"]}
    return _table(keys_of("list")) | _CONDITIONAL | {
        "anyOf": [{"allOf": [has_memory, numbers]}, {"required": ["when"]}]
    }  # fmt: skip


def _range() -> Schema:
    above_0: Schema = {"type": "number", "exclusiveMinimum": 0}
    ends = dict.fromkeys(("from", "to"), _NUMBER_OR_BEST)
    found = _table(keys_of("range"), {"step": {"anyOf": [above_0, _BEST]}, **ends})
    log: Schema = {"properties": {"scale": {"const": "log"}}, "required": ["scale"]}
    return found | _CONDITIONAL | {
        "not": {"anyOf": [
            {"required": ["step", "points"]},
            {"allOf": [log, {"required": ["step"]}]},
            {"allOf": [log, {"properties": {"from": {"type": "number", "maximum": 0}}}]},
        ]},
    }  # fmt: skip


def _options_of(workload: WorkloadDescription) -> Schema:
    """Build the conditional schema of a workload's options and metrics."""
    ranks: Schema = {
        "type": "integer",
        "minimum": 1,
        "maximum": RANKS_AT_MOST,
        "description": key_of(RANKS).meaning,
    }
    one = {RANKS: ranks} | {
        option.name: {"default": option.default, **_about(option), **_value(option)}
        for option in workload.options
    }
    searched = {RANKS: _parameter()} | {
        option.name: _about(option) | _searched(option) for option in workload.options
    }
    tables: Schema = {
        table: {"properties": options, "additionalProperties": False}
        for table, options in (("parameters", searched), ("fixed", one), ("baseline", one))
    }
    metric: Schema = {"enum": [metric.name for metric in workload.metrics]}
    return {
        "if": {"required": ["workload"], "properties": {"workload": {"const": workload.name}}},
        "then": {"properties": {**tables, "objective": {"anyOf": [metric, _choices(metric)]}}},
    }


def _about(option: Option) -> Schema:
    units = f" [{option.units}]" if option.units else ""
    return {"description": option.description + units}


def _value(option: Option) -> Schema:
    """Build the schema of one value of an option."""
    least: dict[str, Value] = {} if option.low is None else {"minimum": option.low}
    match option.kind:
        case "choice":
            return {"enum": list(option.values)}
        case "boolean":
            return {"type": "boolean"}
        case "text":
            return {"type": "string"}
        case "target":
            return {"anyOf": [{"type": "string"}, _TARGET]}
        case "integer":
            return {"type": "integer", **least}
        case "number":
            return {"type": "number", **least}


def _searched(option: Option) -> Schema:
    """Build the schema of a searched option."""
    one: Schema = {"type": "string"} if option.kind == "target" else _value(option)
    if option.kind not in ("integer", "number"):
        with_condition: Schema = {"properties": {"values": _choices(one), "else": one}}
        return {"anyOf": [_choices(one), {"allOf": [_LIST, with_condition]}]}
    step = {"step": {"type": "integer"}} if option.kind == "integer" else {}
    ranges = {"allOf": [_RANGE, {"properties": {"from": one, "to": one, "else": one, **step}}]}
    lists = {"allOf": [_LIST, {"properties": {"values": _choices(one), "else": one}}]}
    return {"anyOf": [_choices(one), ranges, lists]}
