"""A trial's use of its GPU: memory of its process, and time in which the GPU computes.

*Busy* is what the driver has sampled: the part of the last seconds in which the GPU ran at least one kernel,
of whichever process.

*Memory* is measured where trials share GPUs by measurement (``devices_per_trial = "auto"``).  For torch it is
the most that its allocator had reserved, and what the process holds besides: context, libraries.  For other
packages it is what the driver says of this process when the trial ends; those that keep a pool, as JAX and
TensorFlow do, hold the most then.  For a program it is the most that the driver said of its process group.
The driver numbers processes as the node does.  In a container with process ids of its own, nothing is known
of other packages and programs.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from mpisweep.devices.nvml import GpuSensors

__all__ = ["GpuUse"]

#: The shortest trial of which it is said how busy the GPU was, in seconds: the driver samples a few times a
#: second.
_SHORTEST_S = 1.0
#: How often the memory of a program is read, in seconds.
_EVERY_S = 0.5
#: What a process holds beside the allocator's memory if the driver does not say: context, cuDNN and cuBLAS
#: take about half of it.
_CONTEXT_BYTES = 1 << 30


class GpuUse:
    """Measures one trial after another.

    Args:
        with_memory: whether to measure memory, and to release what earlier trials have left.
        clock: seconds since 1970, as the driver's samples have them.

    Attributes:
        memory: largest share of its GPU's memory that the last trial's process held; None if unknown.
        busy: part of the time in which its GPUs computed; None if unknown.
    """

    def __init__(self, *, with_memory: bool, clock: Callable[[], float] = time.time) -> None:
        self._with_memory = with_memory
        self._clock = clock
        self._sensors: Sequence[GpuSensors] = ()
        self._started_at = self._watched_at = 0.0
        #: The most that a program has held, in bytes; None before it held any.
        self._of_program: int | None = None
        self.memory: float | None = None
        self.busy: float | None = None
        #: Whether this process holds memory on a GPU that trials of other processes could use.
        self.holds_memory = False

    def open(self, sensors: Sequence[GpuSensors]) -> None:
        """Measure with these sensors of the GPUs from now on."""
        self._sensors = sensors

    def begin(self) -> None:
        """Note that a trial begins."""
        if not (self._with_memory or self._sensors):
            return
        self.memory = self.busy = self._of_program = None
        self._started_at = self._clock()
        if self._with_memory and (torch := _torch_on_gpu()) is not None:
            with suppress(Exception):
                torch.cuda.reset_peak_memory_stats()

    def watch(self, group: int) -> None:
        """Read the memory of a program's process group, if that is due."""
        if not self._with_memory or not self._sensors:
            return
        now = self._clock()
        if now - self._watched_at < _EVERY_S:
            return
        self._watched_at = now
        found = self._sensors[0].bytes_of(lambda process: _group_of(process) == group)
        if found is not None:
            self._of_program = max(found, self._of_program or 0)

    def end(self, wall_time_s: float) -> None:
        """Note that a trial of this duration has ended."""
        if self._with_memory:
            self.memory = self._memory()
        if self._sensors and wall_time_s >= _SHORTEST_S:
            found = [sensors.busy_since(self._started_at) for sensors in self._sensors]
            known = [busy for busy in found if busy is not None]
            self.busy = sum(known) / len(known) if known and len(known) == len(found) else None

    def release(self) -> None:
        """Release the memory that a trial has left behind, so that it counts for no later one."""
        if not self._with_memory:
            return
        torch = _torch_on_gpu()
        self.holds_memory = torch is not None or self._own_bytes() is not None
        if torch is not None:
            gc.collect()
            # After some failures every CUDA call fails.
            with suppress(Exception):
                torch.cuda.empty_cache()

    def _own_bytes(self) -> int | None:
        """What the driver says that this process holds; None if it does not say."""
        own = os.getpid()
        return self._sensors[0].bytes_of(lambda process: process == own) if self._sensors else None

    def _memory(self) -> float | None:
        torch = _torch_on_gpu()
        own = self._own_bytes()
        if torch is not None:
            try:
                total: int | None = torch.cuda.mem_get_info()[1]
                peak, now = torch.cuda.max_memory_reserved(), torch.cuda.memory_reserved()
            except Exception:
                return None
            beside = _CONTEXT_BYTES if own is None else max(0, own - now)
            held = peak + beside
        else:
            total = self._sensors[0].total_bytes if self._sensors else None
            known = [one for one in (own, self._of_program) if one is not None]
            if not known:
                return None
            held = max(known)
        return held / total if total else None


def _torch_on_gpu() -> Any:
    """The module torch, if this process has imported it and uses a GPU with it; None otherwise."""
    torch: Any = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_initialized() else None


def _group_of(process: int) -> int:
    try:
        return os.getpgid(process)
    except OSError:
        return -1
