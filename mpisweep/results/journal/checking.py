"""Validation of records read from disk: a correct checksum does not make fields valid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from mpisweep.blocks import ImportedBlock, Record, ReportBlock, RequestRecord, TrialsBlock
from mpisweep.records import AttemptEnd, FailureCause, RequestKind, TrialState

__all__ = ["is_valid"]

Check = Callable[[Any], bool]

_INT64 = 1 << 63


def _is_int(value: Any) -> bool:
    return type(value) is int and -_INT64 <= value < _INT64


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _INT64


def _is_number(value: Any) -> bool:
    return type(value) is float or _is_int(value)


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_value(value: Any) -> bool:
    return type(value) in (str, bool) or _is_number(value)


def _list_of(check: Check) -> Check:
    return lambda value: type(value) is list and all(map(check, value))


def _dict_of(check: Check) -> Check:
    return lambda value: type(value) is dict and all(map(check, value.values()))


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _one_of(*values: int) -> Check:
    return lambda value: type(value) is int and value in values


def _is_column(value: Any) -> bool:
    # A trial may lack a parameter that has a condition.
    return value is None or _is_value(value) or _list_of(_or_none(_is_value))(value)


def _are_slots(value: Any) -> bool:
    return bool(value) and _list_of(lambda slot: _list_of(_is_count)(slot) and len(slot) == 2)(value)


def _is_table(value: Any) -> bool:
    return type(value) is dict


def _is_suggested(value: Any) -> bool:
    checks = {"params": _is_value, "distributions": _is_table, "user_attrs": lambda _: True}
    if type(value) is not dict or value.keys() != checks.keys():
        return False
    return all(_dict_of(check)(value[name]) for name, check in checks.items())


#: Kind of record -> field -> its check.
_FIELDS: Mapping[str, Mapping[str, Check]] = {
    "run": {
        "run": _is_text, "epoch": _is_count, "host": _is_text, "pid": _is_int, "started_at": _is_number,
        "ranks": _is_count, "batch_system": _is_text, "job_id": _is_text, "command": _list_of(_is_text),
        "version": _is_text, "spec": _is_text, "source": _is_text, "environment": _dict_of(_is_text),
        "launch": _is_text, "follows": _or_none(_dict_of(_is_count)),
        "deadline": _or_none(_is_number), "queue_wait_s": _or_none(_is_number),
    },
    "trials": {
        "numbers": _list_of(_is_count), "parameters": _dict_of(_is_column), "baseline": _or_none(_is_count),
        "known": _or_none(_is_count), "configurations": _list_of(_is_count), "repeats": _list_of(_is_count),
    },
    "imported": {
        "sources": _list_of(_is_text), "configurations": _list_of(_dict_of(_is_value)),
        "objectives": _list_of(_is_number), "wall_time_s": _list_of(_or_none(_is_number)),
    },
    "joined": {
        "worker": _is_count, "host": _is_text, "device": _is_text, "cores": _is_count, "slots": _is_count,
        "joined_at": _is_number, "device_kind": _is_text, "gpus": _is_number,
    },
    "checked": {
        "worker": _is_count, "at": _is_number, "rate": _or_none(_is_number),
        "free_bytes": _or_none(_is_count), "errors": _or_none(_is_count),
        "clock_mhz": _or_none(_is_count), "problem": _is_text, "finding": _is_text,
    },
    "assigned": {
        "slots": _are_slots, "assigned_at": _is_number, "numbers": _list_of(_is_count),
        "attempts": _list_of(_is_count), "parameters": _dict_of(_is_column), "fresh": _is_flag,
        "repeats": _list_of(_is_count),
    },
    "inferred": {"numbers": _list_of(_is_count), "why": _is_text},
    "reports": {"worker": _is_count, "number": _is_count, "attempt": _is_count, "sequence": _is_count},
    "ended": {
        "worker": _is_count, "slot": _is_count, "numbers": _list_of(_is_count),
        "attempts": _list_of(_is_count),
        "states": _list_of(_one_of(*(int(state) for state in TrialState if state.is_end))),
        "started_at": _list_of(_is_number), "wall_time_s": _list_of(_is_number),
        "metrics": _dict_of(_list_of(_or_none(_is_number))),
        "causes": _list_of(_one_of(*map(int, FailureCause))), "messages": _list_of(_is_text),
        "warm": _is_flag, "energy_j": _list_of(_or_none(_is_number)), "pruned_at": _list_of(_is_int),
        "suggested": _list_of(_or_none(_is_suggested)), "gpu_memory": _list_of(_or_none(_is_number)),
        "gpu_busy": _list_of(_or_none(_is_number)), "gpu_trials": _list_of(_or_none(_is_number)),
    },
    "unfinished": {
        "worker": _is_count, "numbers": _list_of(_is_count), "attempts": _list_of(_is_count),
        "end": _one_of(*map(int, AttemptEnd)), "at": _is_number,
    },
    "left": {"worker": _is_count, "left_at": _is_number, "why": _is_text},
    "quarantine": {"worker": _is_count, "at": _is_number, "why": _is_text},
    "sharing": {
        "at": _is_number, "device_kind": _is_text, "trials": _is_count, "gain": _is_number,
    },
    "request": {
        "request": _is_text, "what": lambda value: value in tuple(RequestKind), "by": _is_text,
        "asked_at": _is_number, "applied_at": _is_number, "numbers": _list_of(_is_count),
        "attempts": _list_of(_is_count), "refused": _is_text, "parameters": _dict_of(_is_column),
        "configurations": _list_of(_is_count), "repeats": _list_of(_is_count),
    },
    "predicted": {"time_s": _is_number, "bound_s": _is_number, "after": _is_count},
    "closed": {"closed_at": _is_number, "why": _is_text},
}  # fmt: skip


def is_valid(record: Record) -> bool:
    """Whether every field has a type, range and length that our writers produce."""
    if not all(check(getattr(record, name)) for name, check in _FIELDS[record.kind].items()):
        return False
    if isinstance(record, ReportBlock):
        return all(len({len(c.step), len(c.value), len(c.time)}) == 1 for c in record.curves.values())
    return _lengths_agree(record)


def _lengths_agree(record: Record) -> bool:
    if isinstance(record, ImportedBlock):
        lengths = {len(record.configurations), len(record.objectives), len(record.wall_time_s)}
        return lengths == {len(record.sources)}
    numbers = getattr(record, "numbers", None)
    if numbers is None:
        return True
    count = len(numbers)
    columns = [getattr(record, name, numbers) for name in ("attempts", "states", "started_at", "wall_time_s")]
    columns += getattr(record, "metrics", {}).values()
    columns += [c for c in getattr(record, "parameters", {}).values() if isinstance(c, list)]
    optional = (
        "causes", "messages", "energy_j", "pruned_at", "suggested", "configurations", "repeats",
        "gpu_memory", "gpu_busy", "gpu_trials",
    )  # fmt: skip
    columns += [column for name in optional if (column := getattr(record, name, None))]
    adds = record.kind == "trials" or (isinstance(record, RequestRecord) and record.what == RequestKind.ADD)
    if adds and numbers != list(range(numbers[0], numbers[0] + count) if numbers else []):
        return False
    if bool(getattr(record, "causes", None)) != bool(getattr(record, "messages", None)):
        return False
    if isinstance(record, TrialsBlock | RequestRecord) and bool(record.configurations) != bool(
        record.repeats
    ):
        return False
    return all(len(column) == count for column in columns) and not any(
        math.isinf(value) for value in getattr(record, "started_at", []) if isinstance(value, float)
    )
