"""Keep the libraries of a process to one core.  Trials need the others.

OpenBLAS starts a thread per core when numpy is imported, and each of them first waits busily, for some 50 ms.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["THREAD_VARIABLES", "on_one_core", "use_one_core"]

#: Numbers of threads that libraries read when they are loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def use_one_core() -> None:
    """Have libraries that this process loads from now on compute in one thread."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"


@contextlib.contextmanager
def on_one_core() -> Iterator[None]:
    """Have libraries that this thread loads in this block compute in one thread.

    OpenBLAS counts the cores that the loading thread may use.  Setting variables for a moment would not do:
    another thread may start a process meanwhile, which would keep them.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cores)
