"""How long trials of shared GPUs would have taken alone, by the recorded gains.  Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mpisweep.results.state import SweepState
from mpisweep.scheduling.sharing import slowdown_between

__all__ = ["alone_times"]


def alone_times(state: SweepState, numbers: Sequence[int]) -> tuple[list[int], list[float]]:
    """Trials and their durations in seconds, divided by what sharing their GPU has cost.

    A trial for which that is unknown is left out; one that shared none keeps its duration.
    """
    slowdowns: dict[str, dict[int, float]] = {}
    for kind, trials, gain in zip(
        *(state.sharing[name] for name in ("device_kind", "trials", "gain")), strict=True
    ):
        slowdowns.setdefault(kind, {1: 1.0})[trials] = trials / gain if gain > 0 else math.nan
    found: dict[int, float] = {}
    for number in numbers:
        mean, worker = state.trials["device_trials"][number], state.trials["worker"][number]
        if not math.isfinite(mean):
            found[number] = state.trials["wall_time"][number]
            continue
        known = slowdowns.get(state.workers["device_kind"][worker] if worker >= 0 else "", {1: 1.0})
        slowdown = slowdown_between(known, mean)
        if slowdown is not None:
            found[number] = state.trials["wall_time"][number] / slowdown
    return list(found), list(found.values())
