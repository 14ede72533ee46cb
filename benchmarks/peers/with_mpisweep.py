"""mpisweep: mpisweep run with_mpisweep:train -p x=0:COUNT-1 -n WORKERS -o results.h5."""

from __future__ import annotations

import os
from pathlib import Path

from work import TRIALS, WHAT, sleep


def train(trial) -> float:
    x = trial.params["x"]
    return sleep(x, rank_pid()) if WHAT == "sleep" else TRIALS[WHAT](x)


def rank_pid() -> int:
    """The rank that this trial process belongs to: the parent of the fork server."""
    status = Path(f"/proc/{os.getppid()}/stat").read_text()
    return int(status.rpartition(")")[2].split()[1])
