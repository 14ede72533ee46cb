"""How a process beside the master behaves among the trials of its node."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

__all__ = ["behave"]


def behave(name: str) -> None:
    """Take this name, one core, and a lower priority than trials.

    Args:
        name: what `ps` and `top` show.
    """
    # What it does is asked for ahead of time; a trial's data loader on the same core is urgent.
    with contextlib.suppress(OSError):
        os.nice(5)
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="ascii")
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    # The fork server has loaded torch if the workload needs it, and torch reads these variables only then.
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
