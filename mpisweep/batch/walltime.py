"""When a run has to stop so that everything is on disk before the allocation ends: pure.

    the request ------- grace ------> trials have stopped ------- closing ------> everything on disk, ranks
    gone

The grace is the sweep file's.  The time for closing (the journal's last sync, the last snapshot, leaving)
depends on the size of the sweep and on the file system, so it is learned: every run measures it, the results
file keeps it (``/allocations/closing_time``), and the next run of the sweep leaves twice as much.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from mpisweep.batch.jobfacts import Allocation

__all__ = ["HURRIED_GRACE_S", "StopPlan", "closing_s", "earliest_end", "plan_stop", "why_too_short"]

#: The grace when SIGXCPU asks, in seconds.  PJM sends it at the elapse limit, and SIGKILL ten seconds later:
#: three for the trials leave six for closing and one for the signal's own way.
HURRIED_GRACE_S = 3.0

#: The first guess of the time for closing: this share of what is left, and at most so many seconds.
_GUESS_SHARE = 1 / 20
_GUESS_AT_MOST_S = 30.0
#: What was measured counts so many times,
_SAFETY = 2.0
#: and leaving, which nobody is left to measure, takes so many seconds.
_LEAVING_S = 2.0
#: So many of the last measurements count: a file system is not slow for ever.
_REMEMBERED = 3
#: Closing never takes more than this share of the walltime from the trials.
_SHARE_AT_MOST = 1 / 4


@dataclass(frozen=True, slots=True)
class StopPlan:
    """Moments of the monotonic clock.

    Attributes:
        stop_at: when running trials are asked to return.
        trials_end_at: when the last of them has stopped; none is started that is not expected to end by then.
        ends_at: when the allocation ends.
    """

    stop_at: float
    trials_end_at: float
    ends_at: float


def closing_s(left_s: float, measured: Iterable[float] = ()) -> float:
    """Time to keep for closing, in seconds.

    Args:
        left_s: until the allocation ends.
        measured: what closing took in earlier runs of the sweep, the last one last; NaN where nobody knows.
    """
    known = [seconds for seconds in measured if math.isfinite(seconds) and seconds >= 0][-_REMEMBERED:]
    wanted = _SAFETY * max(known) + _LEAVING_S if known else min(_GUESS_AT_MOST_S, _GUESS_SHARE * left_s)
    return max(0.0, min(wanted, _SHARE_AT_MOST * left_s))


def earliest_end(allocation: Allocation, walltime_s: float | None, now: float) -> tuple[float | None, str]:
    """When this run has to be over, in seconds since 1970, and what says so; None and nothing where nobody
    does.

    Args:
        allocation: with its end, where it is known.
        walltime_s: that the user has given, counted from now.
        now: seconds since 1970.
    """
    if walltime_s is None or (allocation.ends_at is not None and allocation.ends_at <= now + walltime_s):
        return allocation.ends_at, allocation.ends_by
    return now + walltime_s, "--walltime"


def plan_stop(
    now: float, left_s: float | None, grace_s: float, measured: Iterable[float] = ()
) -> StopPlan | None:
    """When to stop; None where no end is known.

    Args:
        now: the monotonic clock.
        left_s: until the allocation ends; None where nobody knows.
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
    """Why no trial can run within a walltime, and what would be enough; empty where one can.

    Args:
        walltime_s: from now.
        grace_s: of the sweep file.
        measured: see :func:`closing_s`.
        setting: what the user could make smaller for a shorter grace; empty for nothing.
    """
    measured = list(measured)
    closing = closing_s(walltime_s, measured)
    if walltime_s > grace_s + closing:
        return ""
    enough_s = next(s for s in itertools.count(math.ceil(grace_s)) if s > grace_s + closing_s(s, measured))
    return (
        f"{walltime_s:g} s is no longer than the {grace_s:g} s in which running trials return (the grace) "
        f"and the {closing:.2g} s for closing together, and leaves no time for trials; give at least "
        f"{enough_s} s" + (f", or a smaller {setting}" if setting else "")
    )
