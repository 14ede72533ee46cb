"""How often configurations are run: parsing ``repeats``, and what it goes with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from mpisweep.spec.keys import LEARNING, REPEATS_AT_MOST, key_of, names_of, unknown_key
from mpisweep.spec.model import Repeats, Spec
from mpisweep.spec.wording import Wording

__all__ = ["check_repeats", "parse_repeats", "repeats_value"]


def parse_repeats(wording: Wording, raw: Mapping[str, Any]) -> Repeats:
    """Parse the key ``repeats``.

    Args:
        wording: of the sweep.
        raw: the sweep file.

    Raises:
        SpecError: if it is invalid.
    """
    found = raw.get("repeats", key_of("repeats").default)
    if not isinstance(found, dict):
        if not _is_count(found, 1):
            _fail(wording, found)
        return Repeats(found, found)
    for name in found:
        if name not in names_of("repeats"):
            wording.fail(f"repeats.{name}", unknown_key(name, "repeats"))
    first: Any = found.get("from", key_of("from", "repeats").default)
    most: Any = found.get("to")
    if not _is_count(first, 2) or not _is_count(most, 3) or most <= first:
        _fail(wording, found)
    return Repeats(first, most)


def repeats_value(text: str) -> int | dict[str, int] | None:
    """What a sweep file has for ``3`` or ``2:10`` on the command line; None for anything else."""
    numbers = text.split(":")
    if not 1 <= len(numbers) <= 2 or not all(number.isdecimal() for number in numbers):
        return None
    return int(text) if len(numbers) == 1 else {"from": int(numbers[0]), "to": int(numbers[1])}


def check_repeats(wording: Wording, spec: Spec) -> None:
    """Reject repeats of a search that cannot use them.

    Raises:
        SpecError: if it cannot.
    """
    if spec.search == "largest_batch" and spec.repeats.most > 1:
        wording.fail(
            "repeats",
            f"is {spec.repeats}, but {wording.set('search', 'largest_batch')} measures memory and speed, "
            "which no seed changes; remove it",
        )
    if spec.search == "batch_size" and spec.repeats.most > 1:
        wording.fail(
            "repeats",
            f"is {spec.repeats}, but {wording.set('search', 'batch_size')} runs similar sizes in place of "
            "repeats; remove it",
        )
    if spec.search in LEARNING and spec.repeats.is_race:
        wording.fail(
            "repeats",
            f"is {spec.repeats}, but a race needs all configurations at its start, and a search that learns "
            f"proposes them one by one; set {wording.set('repeats', spec.repeats.first)}",
        )
    if len(spec.objectives) > 1 and spec.repeats.is_race:
        wording.fail(
            "repeats",
            f"is {spec.repeats}, but a race ranks configurations by one objective; "
            f"set {wording.set('repeats', spec.repeats.first)}",
        )


def _fail(wording: Wording, found: object) -> NoReturn:
    race = "FROM:TO, such as 2:10" if wording.is_typed else "{ from = 2, to = 10 }"
    wording.fail(
        "repeats",
        f"is {found!r}; expected an integer from 1 to {REPEATS_AT_MOST:,}, or {race}, with at least 2 first "
        "and more at most",
    )


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= REPEATS_AT_MOST
