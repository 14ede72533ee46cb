"""Render the tables of keys, options and metrics as Markdown for the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mpisweep.spec.catalogue import BUILTIN, WorkloadDescription
from mpisweep.spec.keys import REPEATS_AT_MOST, Key, keys_of

__all__ = ["keys_markdown", "metrics_markdown", "options_markdown", "workload_markdown"]

_KINDS = {
    "text": "string",
    "texts": "string, or list of strings",
    "name": "string, a valid file name",
    "number": "number",
    "flag": "true or false",
    "duration": "duration",
    "size": "size",
    "devices": 'integer, 1/integer or `"auto"`',
    "table": "table",
    "workload": "string or table",
    "command": "string, or list of strings",
    "template": "file name",
    "variables": "table of strings",
    "values": "list",
    "value": "number, string, true or false",
    "conditions": "string, or list of strings",
    "groups": "list of lists of names",
    "points": "list, table or file name",
    "repeats": f"integer from 1 to {REPEATS_AT_MOST:,}, or table",
    "after": "file name",
    "imports": "file name, URL or table, or list of them",
}


def keys_markdown(table: str) -> str:
    """Render the keys of one table of a sweep file; see :mod:`~mpisweep.spec.keys`."""
    rows = [
        (f"`{key.name}`", _kind(key), _default(key), _unit(key), key.meaning, key.since)
        for key in keys_of(table)
    ]
    return _table(("key", "type", "default", "unit", "meaning", "since"), rows)


def workload_markdown(name: str) -> str:
    """Render the options of a built-in workload, then its metrics."""
    described = BUILTIN[name]
    return f"{options_markdown(described)}\n\n{metrics_markdown(described)}"


def options_markdown(workload: WorkloadDescription) -> str:
    """Render the options of a workload."""
    rows = []
    for option in workload.options:
        allowed = f" ({', '.join(option.values)})" if option.values else ""
        default = str(option.default).lower() if option.kind == "boolean" else str(option.default)
        shown = f"`{default}`" if default else "none"
        rows.append((f"`{option.name}`", shown, option.units, option.description + allowed))
    return _table(("option", "default", "units", "meaning"), rows)


def metrics_markdown(workload: WorkloadDescription) -> str:
    """Render the metrics of a workload."""
    rows = [(f"`{metric.name}`", metric.units, metric.description) for metric in workload.metrics]
    return _table(("metric", "units", "meaning"), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, *rows]
    written = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([written[0], "|" + "---|" * len(heads), *written[1:]])


def _kind(key: Key) -> str:
    if key.kind == "choice":
        return " or ".join(f"`{value}`" for value in key.values)
    if key.kind == "choices":
        return " or ".join(f"`{value}`" for value in key.values) + ", or list of these"
    if key.kind == "integer":
        low = key.low or 0
        return f"integer from {low} to {key.high:,}" if key.high is not None else f"integer, at least {low}"
    return _KINDS[key.kind]


def _default(key: Key) -> str:
    if key.usual:
        return key.usual
    if key.default is None:
        return "required" if key.is_required else "empty"
    shown = str(key.default).lower() if isinstance(key.default, bool) else str(key.default)
    return f"`{shown}`"


def _unit(key: Key) -> str:
    # Applies to plain numbers; strings contain their unit.
    return {"duration": "s", "size": "byte"}.get(key.kind, key.unit)
