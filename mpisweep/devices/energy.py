"""The energy of a trial, from its GPUs' counters: one reading before it, one after.

A counter belongs to a GPU, not to a process: a GPU that several trials share gives none of them its energy.
It advances about every 0.1 s, so a trial under :data:`SHORTEST_S` has no energy either, and no second reading
is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from mpisweep.devices.nvml import GpuSensors

__all__ = ["SHORTEST_S", "EnergyMeter", "meter_of"]

#: The shortest trial whose energy is known, in seconds.
SHORTEST_S = 0.5
#: A reading this recent serves as that before the next trial, in seconds: a reading takes up to milliseconds.
_RECENT_S = 0.01


class EnergyMeter:
    """Measures one trial after another.

    Args:
        sensors: of all GPUs of the trial; without any it measures nothing.
        clock: a monotonic clock.

    Attributes:
        energy_j: energy of the last trial in joules, over its GPUs; None if it is unknown.
    """

    def __init__(self, sensors: Sequence[GpuSensors], clock: Callable[[], float] = time.monotonic) -> None:
        self._sensors = sensors
        self._clock = clock
        #: The last reading, and its time.
        self._reading: int | None = None
        self._read_at = float("-inf")
        self.energy_j: float | None = None

    def begin(self) -> None:
        """Take the reading before a trial."""
        if not self._sensors:
            return
        self.energy_j = None
        if self._clock() - self._read_at >= _RECENT_S:
            self._read()

    def end(self, wall_time_s: float) -> None:
        """Take the reading after a trial of this duration."""
        if not self._sensors or wall_time_s < SHORTEST_S:
            return
        before, after = self._reading, self._read()
        # A driver that was loaded again counts from 0.
        if before is not None and after is not None and after >= before:
            self.energy_j = (after - before) / 1e3

    def _read(self) -> int | None:
        readings = [sensors.energy_mj for sensors in self._sensors]
        known = [reading for reading in readings if reading is not None]
        self._reading = sum(known) if len(known) == len(readings) else None
        self._read_at = self._clock()
        return self._reading


def meter_of(sensors: Sequence[GpuSensors]) -> EnergyMeter:
    """A meter for these GPUs; it measures nothing unless all of them have a counter."""
    return EnergyMeter(sensors if all(gpu.energy_mj is not None for gpu in sensors) else ())
