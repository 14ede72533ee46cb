"""The device-hours that a sweep has used, and the energy of its GPUs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpisweep.results.load import Sweep, used_seconds

__all__ = ["Usage", "usage_lines", "usage_of"]

_HOUR_S = 3600.0
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
    """Add up the attempts of a sweep that have ended."""
    core_s, gpu_s = used_seconds(sweep)
    energy = sweep.trials["device_energy"]
    known = energy[np.isfinite(energy)]
    return Usage(
        core_hours=core_s / _HOUR_S,
        gpu_hours=gpu_s / _HOUR_S,
        energy_kwh=float(known.sum()) / _JOULES_PER_KWH if len(known) else None,
        energy_trials=len(known),
        ran=int(np.isfinite(sweep.trials["wall_time"]).sum()),
    )


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
