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
    """Have libraries that are loaded in this block compute in one thread."""
    before = {variable: os.environ.get(variable) for variable in THREAD_VARIABLES}
    use_one_core()
    try:
        yield
    finally:
        for variable, value in before.items():
            if value is None:
                del os.environ[variable]
            else:
                os.environ[variable] = value
