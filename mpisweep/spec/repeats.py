"""How often configurations are run: parsing ``repeats``, and what it goes with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mpisweep.spec.keys import REPEATS_AT_MOST, key_of
from mpisweep.spec.model import Repeats, Spec
from mpisweep.spec.wording import Wording

__all__ = ["check_repeats", "parse_repeats"]


def parse_repeats(wording: Wording, raw: Mapping[str, Any]) -> Repeats:
    """Parse the key ``repeats``.

    Args:
        wording: of the sweep.
        raw: the sweep file.

    Raises:
        SpecError: if it is invalid.
    """
    found = raw.get("repeats", key_of("repeats").default)
    if not _is_count(found, 1):
        wording.fail("repeats", f"is {found!r}; expected an integer from 1 to {REPEATS_AT_MOST:,}")
    return Repeats(found, found)


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


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= REPEATS_AT_MOST
