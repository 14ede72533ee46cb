"""What objectives of Optuna have suggested, recorded with the ends of their trials.

The columns of parameters hold what was proposed until a trial has ended, and from then on what it asked for.
A column has one type; the table ``suggested`` keeps every value as it was.  Pure.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from typing import Any

from mpisweep.results.state import SweepState
from mpisweep.spec import RANKS

__all__ = ["note_suggested", "restore_params", "searched_part", "suggested_of"]

_FIELDS = ("params", "distributions", "user_attrs")


def note_suggested(state: SweepState, number: int, suggested: Mapping[str, Any] | None) -> None:
    """Record what an ended trial has asked for; None if that is unknown."""
    if suggested is None:
        return
    state.suggested["trial"].append(number)
    for name in _FIELDS:
        state.suggested[name].append(json.dumps(suggested[name]))
    for name in dict.fromkeys((*state.parameters, *suggested["params"])):
        if name != RANKS:
            # None if it was proposed, but this trial has not asked for it.
            state.parameter_column(name)[number] = suggested["params"].get(name)


def restore_params(state: SweepState, suggested: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> None:
    """Put the exact values of ended trials into the columns, which have one type each in a file."""
    for number, own in suggested.items():
        for name, value in own["params"].items() if 0 <= number < state.count else ():
            state.parameter_column(name)[number] = value


def searched_part(suggested: Mapping[str, Any]) -> dict[str, Any]:
    """The part of it that a search learns from."""
    return {name: suggested[name] for name in ("params", "distributions")}


def suggested_of(
    table: Mapping[str, list[Any]], only: Container[int] | None = None
) -> dict[int, dict[str, dict[str, Any]]]:
    """Trial -> what it has asked for, in the order of ends; rows lost to damage are left out.

    Args:
        table: the table ``suggested``.
        only: the trials that count; None for all.
    """
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for number, *texts in zip(table["trial"], *(table[name] for name in _FIELDS), strict=True):
        if only is not None and number not in only:
            continue
        try:
            found[number] = {name: dict(json.loads(text)) for name, text in zip(_FIELDS, texts, strict=True)}
        except (ValueError, TypeError):
            continue
    return found
