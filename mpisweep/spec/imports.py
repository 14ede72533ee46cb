"""Parse ``import``: the sources of trials that are known from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mpisweep.spec.keys import GENERATIONAL, LEARNING, OPTUNA, SEARCH_NAMES
from mpisweep.spec.model import ImportSource
from mpisweep.spec.wording import Wording

__all__ = ["parse_imports"]

_EXAMPLE = 'a file name, the URL of an Optuna storage, or { from = "sqlite:///old.db", study = "NAME" }'


def parse_imports(wording: Wording, raw: Mapping[str, Any], search: str) -> tuple[ImportSource, ...]:
    """Parse the sources of a sweep file.

    Raises:
        SpecError: if they are invalid, or the search has no use for them.
    """
    if "import" not in raw:
        return ()
    if search in SEARCH_NAMES and search not in LEARNING:
        wording.fail(
            "import", f"is only for a search that learns, such as {LEARNING[0]!r}; the search is {search!r}"
        )
    if search in GENERATIONAL or (search == OPTUNA and raw["search"].get("sampler") in GENERATIONAL):
        wording.fail("import", f"is not for {search!r}, which learns from its own trials alone")
    found = raw["import"]
    sources: list[ImportSource] = []
    for one in found if isinstance(found, list) and found else [found]:
        table = one if isinstance(one, dict) else {"from": one}
        texts = [table.get("from"), table.get("study", "-")]
        if table.keys() - {"from", "study"} or not all(isinstance(text, str) and text for text in texts):
            wording.fail("import", f"is {one!r}; expected {_EXAMPLE}")
        sources.append(ImportSource(table["from"], table.get("study", "")))
    return tuple(sources)
