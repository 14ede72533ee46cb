"""The limit on a workload's main memory."""

from __future__ import annotations

import contextlib
import resource

__all__ = ["MemoryLimit", "memory_is_limited"]


class MemoryLimit(contextlib.AbstractContextManager[None]):
    """Limits the memory written inside it; a class, because its exit must not allocate memory."""

    def __init__(self, limit: int) -> None:
        # RLIMIT_DATA, not address space: torch maps gigabytes that it never touches.
        self._before = resource.getrlimit(resource.RLIMIT_DATA)
        hard = self._before[1]
        self._inside = (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)

    def __enter__(self) -> None:
        resource.setrlimit(resource.RLIMIT_DATA, self._inside)

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_DATA, self._before)


def memory_is_limited() -> bool:
    """Whether this process has a memory limit from any source."""
    limits = resource.RLIMIT_DATA, resource.RLIMIT_AS
    return any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in limits)
