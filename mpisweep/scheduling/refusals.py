"""Which trials a user's request does not apply to, in words.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from mpisweep.records import TrialState

__all__ = ["UNKNOWN", "refusal"]

#: Stands for the state of a trial that does not exist.
UNKNOWN = -1
#: Most trials that a refusal names.
_NAMED = 5


def refusal(refused: Mapping[int, int]) -> str:
    """For example ``trials 3 and 4 are complete, trial 5 is running``; empty for none.

    Args:
        refused: trial -> its state, or :data:`UNKNOWN`.
    """
    of_state: dict[int, list[int]] = {}
    for number, state in refused.items():
        of_state.setdefault(state, []).append(number)
    return ", ".join(
        f"{_named(numbers)} {'unknown' if state == UNKNOWN else TrialState(state).label}"
        for state, numbers in of_state.items()
    )


def _named(numbers: list[int]) -> str:
    texts = list(map(str, numbers))
    if len(texts) == 1:
        return f"trial {texts[0]} is"
    if len(texts) > _NAMED:
        texts[_NAMED - 1 :] = [f"{len(texts) - _NAMED + 1} more"]
    return f"trials {', '.join(texts[:-1])} and {texts[-1]} are"
