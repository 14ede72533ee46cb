"""Parse ``[stop]``: when a search has found or used enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mpisweep.spec.keys import key_of, keys_of, names_of, unknown_key
from mpisweep.spec.model import StopRules
from mpisweep.spec.wording import Wording

__all__ = ["parse_stop"]


def parse_stop(wording: Wording, raw: Mapping[str, Any]) -> StopRules:
    """Parse the rules of a sweep file.

    Raises:
        SpecError: if they are invalid.
    """
    table = raw.get("stop", {})
    if problem := key_of("stop").problem(table):
        wording.fail("stop", problem)
    for name in table:
        if name not in names_of("stop"):
            wording.fail(f"stop.{name}", unknown_key(name, "stop"))
    for key in keys_of("stop"):
        if key.name in table and (problem := key.problem(table[key.name])):
            wording.fail(key.path, problem)
    return StopRules(*(key.get(table) for key in keys_of("stop")))
