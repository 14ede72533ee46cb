"""What a sweep has used: device-hours, and energy where the GPUs measure it.

An attempt uses the devices of its slot from its start to its end, whatever its end.  A trial's result says
how long its last attempt ran; any other attempt ran from its assignment, or from the end of the attempt
before it in its slot.  A reclaimed attempt never began, and one that runs counts when it has ended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mpisweep.records import AttemptEnd
from mpisweep.results.load import Sweep
from mpisweep.results.trial_table import Rows

__all__ = ["Usage", "usage_lines", "usage_of"]

_ENDED, _RECLAIMED = AttemptEnd.ENDED.label, AttemptEnd.RECLAIMED.label
_JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Usage:
    """The use of devices over all attempts.

    Attributes:
        core_hours: hours of CPU cores.
        gpu_hours: hours of GPUs; a trial on half a GPU uses half as many.
        energy_kwh: energy of the GPUs during trials, as far as it is known; None if that of no trial is.
        energy_trials: number of trials whose energy is known.
        ran: number of trials with a wall time.
    """

    core_hours: float
    gpu_hours: float
    energy_kwh: float | None
    energy_trials: int
    ran: int


def usage_of(sweep: Sweep) -> Usage:
    """Add up the attempts of a sweep."""
    workers, attempts, ranks = sweep.workers, sweep.attempts, sweep.ranks
    hours = _hours(sweep)
    keys = zip(attempts["trial"].tolist(), attempts["attempt"].tolist(), strict=True)
    of_attempt = dict(zip(keys, hours, strict=True))
    # The other ranks of a trial run as long as its rank 0.
    keys = zip(ranks["trial"].tolist(), ranks["attempt"].tolist(), strict=True)
    rank_hours = [of_attempt.get(key, 0.0) for key in keys]

    def used(per_worker: Rows) -> float:
        # The last entry is that of an unknown worker, whose row is -1.
        count = np.append(per_worker, 0.0)
        return float(np.dot(hours, count[attempts["worker"]]) + np.dot(rank_hours, count[ranks["worker"]]))

    energy = sweep.trials["device_energy"]
    known = energy[np.isfinite(energy)]
    return Usage(
        core_hours=used(workers["cores"] / np.maximum(workers["slots"], 1)),
        gpu_hours=used(np.nan_to_num(workers["gpus"])),
        energy_kwh=float(known.sum()) / _JOULES_PER_KWH if len(known) else None,
        energy_trials=len(known),
        ran=int(np.isfinite(sweep.trials["wall_time"]).sum()),
    )


def _hours(sweep: Sweep) -> list[float]:
    """For each attempt, how long it ran, in hours."""
    attempts, trials = sweep.attempts, sweep.trials
    numbers, ends = attempts["trial"], attempts["end"]
    hours = [0.0] * len(attempts)
    #: (worker, slot) -> when the last attempt there ended.
    free_at: dict[tuple[int, int], float] = {}
    for row in np.argsort(attempts["ended_at"], kind="stable").tolist():
        ended_at = float(attempts["ended_at"][row])
        if not math.isfinite(ended_at) or ends[row] == _RECLAIMED:
            continue
        slot = int(attempts["worker"][row]), int(attempts["slot"][row])
        duration = float(trials["wall_time"][numbers[row]]) if ends[row] == _ENDED else math.nan
        if not math.isfinite(duration):
            began = max(float(attempts["assigned_at"][row]), free_at.get(slot, -math.inf))
            duration = max(ended_at - began, 0.0)
        free_at[slot] = ended_at
        hours[row] = duration / 3600
    return hours


def usage_lines(usage: Usage, complete: int) -> list[str]:
    """Put it into words, with the share of each of `complete` trials."""
    if not usage.core_hours and not usage.gpu_hours:
        return []
    hours, unit = (usage.gpu_hours, "GPU") if usage.gpu_hours else (usage.core_hours, "core")
    used, each = [f"{hours:.3g} {unit}-hours"], [f"{hours / max(complete, 1):.3g} {unit}-hours"]
    if usage.energy_kwh is not None:
        is_part = usage.energy_trials < usage.ran
        measured = f" (measured in {usage.energy_trials:,} of {usage.ran:,} trials)" if is_part else ""
        used.append(f"{usage.energy_kwh:.3g} kWh{measured}")
        if not is_part:
            each.append(f"{1000 * usage.energy_kwh / max(complete, 1):.3g} Wh")
    per_trial = f"; per complete trial {', '.join(each)}" if complete else ""
    return [f"  {', '.join(used)}{per_trial}"]
