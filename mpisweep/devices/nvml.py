"""The sensors of NVIDIA GPUs: energy counter, memory, use, memory errors, clock.

The only module that uses pynvml (the package nvidia-ml-py).  A GPU is found by its UUID, never by an index:
CUDA numbers the devices that a process sees, NVML numbers those of the node.  What cannot be read is None,
for whatever reason: no driver, no package, no such sensor.  A MIG instance has no sensors of its own, nor has
a GPU of another vendor.

Source: NVIDIA, "NVML API Reference Guide": the energy counter (Volta and newer) counts millijoules since the
driver was loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

__all__ = ["GpuSensors", "open_sensors"]

Value = TypeVar("Value")
#: Prefix of the UUID of a whole GPU.
_WHOLE_GPU = "GPU-"


class GpuSensors:
    """The sensors of one GPU.

    Args:
        nvml: the module pynvml, initialised.
        handle: NVML's handle of the GPU.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    @property
    def energy_mj(self) -> int | None:
        """Energy since the driver was loaded, in millijoules."""
        return self._read(lambda: int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)))

    @property
    def free_bytes(self) -> int | None:
        """Free memory."""
        return self._read(lambda: int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).free))

    @property
    def total_bytes(self) -> int | None:
        """All its memory."""
        return self._read(lambda: int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).total))

    def bytes_of(self, is_counted: Callable[[int], bool]) -> int | None:
        """Memory of the counted processes, by their ids on the node; None if none holds any."""
        running = self._read(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle))
        held = [one.usedGpuMemory for one in running or () if is_counted(one.pid)]
        return None if not held or None in held else sum(held)

    def busy_since(self, moment: float) -> float | None:
        """Part of the time in which it computed, by the driver's samples since a moment.

        Args:
            moment: in seconds since 1970; the driver keeps the samples of some seconds.
        """
        nvml = self._nvml
        found = self._read(
            lambda: nvml.nvmlDeviceGetSamples(
                self._handle, nvml.NVML_GPU_UTILIZATION_SAMPLES, int(moment * 1e6)
            )
        )
        percent = [sample.sampleValue.uiVal for sample in found[1]] if found else []
        return sum(percent) / len(percent) / 100 if percent else None

    @property
    def clock_mhz(self) -> int | None:
        """Present clock of the multiprocessors."""
        nvml = self._nvml
        return self._read(lambda: int(nvml.nvmlDeviceGetClockInfo(self._handle, nvml.NVML_CLOCK_SM)))

    @property
    def uncorrected_errors(self) -> int | None:
        """Uncorrected ECC errors since the driver was loaded."""
        nvml = self._nvml
        return self._read(
            lambda: int(
                nvml.nvmlDeviceGetTotalEccErrors(
                    self._handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
                )
            )
        )

    def _read(self, call: Callable[[], Value]) -> Value | None:
        try:
            return call()
        except self._nvml.NVMLError:
            return None


def open_sensors(uuids: Sequence[str]) -> tuple[GpuSensors, ...]:
    """The sensors of these GPUs; none at all unless every one of them is a whole NVIDIA GPU.

    Args:
        uuids: as ``nvidia-smi -L`` prints them.
    """
    if not uuids or not all(uuid.startswith(_WHOLE_GPU) for uuid in uuids):
        return ()
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
        return tuple(GpuSensors(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid)) for uuid in uuids)
    except pynvml.NVMLError:
        return ()
