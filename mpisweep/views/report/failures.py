"""The failed trials of a sweep in groups: same cause, and same message but for its numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mpisweep.results.load import Sweep

__all__ = ["FailureGroup", "failure_groups"]

#: A number within a message, which may differ from trial to trial; exit codes and signals tell causes apart.
_NUMBER = re.compile(r"(?<!code )(?<!signal )\b(?:0x[0-9a-fA-F]+|\d+(?:[.,:]\d+)*(?:e[+-]?\d+)?)")


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failed trials that fail alike.

    Attributes:
        cause: ``exception`` and so on.
        message: first line of the message, with an ellipsis for a number that differs.
        count: number of trials.
        example: number of the first one.
    """

    cause: str
    message: str
    count: int
    example: int


def failure_groups(sweep: Sweep) -> list[FailureGroup]:
    """Group the failed trials; the largest group first."""
    failed = sweep.trials[sweep.trials["state"] == "failed"]
    groups: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for number, cause, message in zip(failed["number"], failed["cause"], failed["message"], strict=True):
        first = str(message).strip().partition("\n")[0]
        groups.setdefault((str(cause), _NUMBER.sub("…", first)), []).append((int(number), first))
    found = [
        FailureGroup(
            cause, masked if len({text for _, text in alike}) > 1 else alike[0][1], len(alike), alike[0][0]
        )
        for (cause, masked), alike in groups.items()
    ]
    return sorted(found, key=lambda group: (-group.count, group.example))
