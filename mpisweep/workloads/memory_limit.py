"""How much main memory a workload may use."""

from __future__ import annotations

import contextlib
import resource

__all__ = ["MemoryLimit", "memory_is_limited"]


class MemoryLimit(contextlib.AbstractContextManager[None]):
    """What is inside may write to so much memory; a class, because leaving it must not need any."""

    def __init__(self, limit: int) -> None:
        # What is written to counts, and not address space: torch maps gigabytes that it never touches.
        self._before = resource.getrlimit(resource.RLIMIT_DATA)
        hard = self._before[1]
        self._inside = (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)

    def __enter__(self) -> None:
        resource.setrlimit(resource.RLIMIT_DATA, self._inside)

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_DATA, self._before)


def memory_is_limited() -> bool:
    """Whether this process has a limit of its memory, from whomever."""
    limits = resource.RLIMIT_DATA, resource.RLIMIT_AS
    return any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in limits)
