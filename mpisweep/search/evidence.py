"""What the end of a trial says about memory.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from enum import Enum

from mpisweep.records import FailureCause, TrialState

__all__ = ["Evidence", "evidence_of"]

_FAILED = int(TrialState.FAILED)


class Evidence(Enum):
    """What the end of a trial says about memory."""

    FITS = "fits"
    TOO_LARGE = "too large"
    NOTHING = "nothing"


def evidence_of(state: int, cause: int) -> Evidence:
    """Read the end of a trial; one that used all its time did not run out of memory in it."""
    if state in (TrialState.COMPLETE, TrialState.PRUNED):
        return Evidence.FITS
    if state == _FAILED and cause == FailureCause.OUT_OF_MEMORY:
        return Evidence.TOO_LARGE
    if state == _FAILED and cause == FailureCause.TIMEOUT:
        return Evidence.FITS
    return Evidence.NOTHING
