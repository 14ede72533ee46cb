"""When a run must stop so that everything is on disk before the allocation ends: pure.

    request ---- grace ----> trials have stopped ---- closing ----> everything on disk, ranks have exited

The grace is set in the sweep file.  The time for closing (the journal's last sync, the last snapshot,
exiting) depends on the size of the sweep and on the file system, so every run measures it, the results file
keeps it (``/allocations/closing_time``), and the next run of the sweep leaves twice as much.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

from mpisweep.batch.jobfacts import Allocation
from mpisweep.dataclass import dataclass

__all__ = ["HURRIED_GRACE_S", "StopPlan", "closing_s", "earliest_end", "plan_stop", "why_too_short"]

#: The grace after SIGXCPU, in seconds.  PJM sends it at the elapse limit, and SIGKILL ten seconds later:
#: three for the trials leave six for closing and one for delivering the signal.
HURRIED_GRACE_S = 3.0

#: The first guess of the time for closing: this share of the time left, up to so many seconds.
_GUESS_SHARE = 1 / 20
_GUESS_AT_MOST_S = 30.0
#: Factor on the measured time,
_SAFETY = 2.0
#: plus the time for exiting, which cannot be measured, in seconds.
_LEAVING_S = 2.0
#: Number of recent measurements that count: a file system is not slow for ever.
_REMEMBERED = 3
#: Greatest share of the walltime for closing.
_SHARE_AT_MOST = 1 / 4


@dataclass(frozen=True, slots=True)
class StopPlan:
    """Moments of the monotonic clock.

    Attributes:
        stop_at: when running trials are asked to return.
        trials_end_at: when all trials have stopped; none starts that is not expected to end by then.
        ends_at: when the allocation ends.
    """

    stop_at: float
    trials_end_at: float
    ends_at: float


def closing_s(left_s: float, measured: Iterable[float] = ()) -> float:
    """Compute the time to reserve for closing, in seconds.

    Args:
        left_s: until the allocation ends.
        measured: closing times of earlier runs of the sweep, the last one last; NaN for unknown.
    """
    known = [seconds for seconds in measured if math.isfinite(seconds) and seconds >= 0][-_REMEMBERED:]
    wanted = _SAFETY * max(known) + _LEAVING_S if known else min(_GUESS_AT_MOST_S, _GUESS_SHARE * left_s)
    return max(0.0, min(wanted, _SHARE_AT_MOST * left_s))


def earliest_end(allocation: Allocation, walltime_s: float | None, now: float) -> tuple[float | None, str]:
    """Find the end of this run, in seconds since 1970, and its source; None for unknown.

    Args:
        allocation: with its end, if known.
        walltime_s: the user's, from now.
        now: seconds since 1970.
    """
    if walltime_s is None or (allocation.ends_at is not None and allocation.ends_at <= now + walltime_s):
        return allocation.ends_at, allocation.ends_by
    return now + walltime_s, "--walltime"


def plan_stop(
    now: float, left_s: float | None, grace_s: float, measured: Iterable[float] = ()
) -> StopPlan | None:
    """Plan when to stop; None if no end is known.

    Args:
        now: the monotonic clock.
        left_s: until the allocation ends; None for unknown.
        grace_s: of the sweep file.
        measured: see :func:`closing_s`.
    """
    if left_s is None:
        return None
    trials_end_at = now + left_s - closing_s(left_s, measured)
    return StopPlan(trials_end_at - grace_s, trials_end_at, now + left_s)


def why_too_short(
    walltime_s: float, grace_s: float, measured: Iterable[float] = (), setting: str = "limits.grace"
) -> str:
    """Say why no trial can run within a walltime, and what would be enough; empty if one can.

    Args:
        walltime_s: from now.
        grace_s: of the sweep file.
        measured: see :func:`closing_s`.
        setting: the setting for a shorter grace; empty for none.
    """
    measured = list(measured)
    closing = closing_s(walltime_s, measured)
    if walltime_s > grace_s + closing:
        return ""
    enough_s = next(s for s in itertools.count(math.ceil(grace_s)) if s > grace_s + closing_s(s, measured))
    return (
        f"{walltime_s:g} s leaves no time for trials: running trials get {grace_s:g} s to return (the "
        f"grace), and closing takes {closing:.2g} s; use at least {enough_s} s"
        + (f", or a smaller {setting}" if setting else "")
    )
