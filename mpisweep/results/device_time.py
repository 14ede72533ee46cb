"""How long the devices of a sweep have run trials.

An attempt uses the devices of its slot from its start to its end, whatever its end.  A trial's result says
how long its last attempt ran; any other attempt ran from its assignment, or from the end of the attempt
before it in its slot.  A reclaimed attempt never began.  Pure.
"""

from __future__ import annotations

import math

from mpisweep.records import AttemptEnd
from mpisweep.results.state import SweepState

__all__ = ["device_seconds"]


def device_seconds(state: SweepState, now: float | None = None) -> tuple[float, float]:
    """Core-seconds and GPU-seconds of all attempts; half a GPU counts half.

    If three trials shared a GPU as measured, each counts a third.

    Args:
        state: the sweep.
        now: count running attempts until then, in seconds since 1970; None to count only those that ended.
    """
    workers = state.workers
    cores = [c / max(s, 1) for c, s in zip(workers["cores"], workers["slots"], strict=True)]
    gpus = [count if count == count else 0.0 for count in workers["gpus"]]
    used = _attempts(state, now)
    #: Worker, seconds divided by the trials that shared them, and GPUs.
    spent: list[tuple[int, float, float]] = []
    for row, seconds in used.items():
        worker, sharing = state.attempts["worker"][row], _trials_there(state, row)
        spent.append((worker, seconds, gpus[worker]) if sharing is None else (worker, seconds / sharing, 1.0))
    # The other ranks of a trial run as long as its rank 0.
    ranks = state.ranks
    if ranks["trial"]:
        of = {(state.attempts["trial"][r], state.attempts["attempt"][r]): s for r, s in used.items()}
        keys = zip(ranks["trial"], ranks["attempt"], strict=True)
        spent += [
            (worker, of.get(key, 0.0), gpus[worker])
            for worker, key in zip(ranks["worker"], keys, strict=True)
        ]
    known = [(worker, seconds, count) for worker, seconds, count in spent if worker >= 0]
    return sum(s * cores[worker] for worker, s, _ in known), sum(s * count for _, s, count in known)


def _trials_there(state: SweepState, row: int) -> float | None:
    """Mean number of trials on the GPU, if the attempt set its trial's end and that is known."""
    mean: float = state.trials["device_trials"][state.attempts["trial"][row]]
    return mean if state.attempts["end"][row] == AttemptEnd.ENDED and math.isfinite(mean) else None


def _attempts(state: SweepState, now: float | None) -> dict[int, float]:
    """Row of an attempt -> how long it ran, in seconds."""
    attempts = state.attempts
    found: dict[int, float] = {}
    #: (worker, slot) -> when the last attempt there ended.
    free_at: dict[tuple[int, int], float] = {}

    def began(row: int) -> float:
        before = free_at.get((attempts["worker"][row], attempts["slot"][row]), -math.inf)
        return float(max(attempts["assigned_at"][row], before))

    ended = [row for row, at in enumerate(attempts["ended_at"]) if math.isfinite(at)]
    for row in sorted(ended, key=attempts["ended_at"].__getitem__):
        end = attempts["end"][row]
        if end == AttemptEnd.RECLAIMED:
            continue
        ended_at = attempts["ended_at"][row]
        seconds = math.nan
        if end == AttemptEnd.ENDED:
            seconds = state.trials["wall_time"][attempts["trial"][row]]
        found[row] = seconds if math.isfinite(seconds) else max(ended_at - began(row), 0.0)
        free_at[attempts["worker"][row], attempts["slot"][row]] = ended_at
    if now is not None:
        for row in state.begun():
            if math.isfinite(attempts["assigned_at"][row]):
                found[row] = max(now - began(row), 0.0)
    return found
