"""Checking a device before its first trial.

Checked are free memory, ECC errors, the clock, and the speed of a short matrix product.

A process of its own measures and ends: the trial process keeps no memory on the device and no context, and a
device that hangs costs a bounded time.  That process is forked before anything here has touched the device.

The product needs torch.  If the workload has not imported it, only the sensors are read: importing torch
takes seconds, and a command line may need none of it.  The sweep file asks for more by setting
``limits.slow_devices``: then torch is imported, and cores are checked too.

Trials that share a GPU disturb each other's products and memory, so only its errors count there.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from mpisweep.blocks import CheckedRecord
from mpisweep.devices.energy import EnergyMeter, meter_of
from mpisweep.devices.nvml import GpuSensors, open_sensors
from mpisweep.processes.kernel import die_with_parent
from mpisweep.spec import Spec
from mpisweep.workloads.matmul import cpu_rate, torch_rate

__all__ = ["TrialDevice"]

#: How long the process may take, in seconds; most of it is for importing torch from a slow disk.
_WITHIN_S = 60.0
#: How long a killed process may take to end, in seconds.
_ENDS_S = 1.0


class TrialDevice:
    """The device of a trial process.

    Args:
        name: ``cpu``, or ``cuda:0``.
        gpus: the identities of its GPUs; NVIDIA's are UUIDs.
        worker: the rank.
        checks: whether this process is to check it.
        spec: the sweep file.
    """

    def __init__(self, name: str, gpus: Sequence[str], *, worker: int, checks: bool, spec: Spec) -> None:
        self.name = name
        self._gpus = gpus
        self._worker = worker
        self._is_shared = spec.devices_per_trial < 1
        #: None if the sweep file does not set it.
        self._mode = spec.limits.slow_devices if checks else "off"

    def check(self) -> CheckedRecord | None:
        """Check it, after the workload was imported; None if it is not to be checked."""
        is_gpu, mode, is_shared = self.name != "cpu", self._mode, self._is_shared
        if mode == "off" or (mode is None and not is_gpu):
            return None
        with_product = not is_shared and (mode is not None or "torch" in sys.modules)
        if is_gpu and _is_in_use():
            with_product = False
        found = _in_child(lambda: _measure(is_gpu, self._gpus, with_product, is_shared), _WITHIN_S)
        return CheckedRecord(self._worker, time.time(), **found)

    def open_sensors(self) -> Sequence[GpuSensors]:
        """The sensors of its GPUs; after the check, whose process opens them for itself."""
        return open_sensors(self._gpus)

    def meter_of(self, sensors: Sequence[GpuSensors]) -> EnergyMeter:
        """The meter of its energy, by its sensors."""
        # The counter of a shared GPU also counts the energy of other workers' trials.
        return meter_of(() if self._is_shared else sensors)


def _is_in_use() -> bool:
    """Whether the workload's import has already created a context, which a forked process cannot use."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _measure(is_gpu: bool, gpus: Sequence[str], with_product: bool, is_shared: bool) -> dict[str, Any]:
    """Measure; the result has fields of a CheckedRecord."""
    sensors = open_sensors(gpus)
    found: dict[str, Any] = {
        "free_bytes": None if is_shared else _least([one.free_bytes for one in sensors]),
        "errors": _most([one.uncorrected_errors for one in sensors]),
    }
    if with_product:
        try:
            found["rate"] = min(torch_rate(f"cuda:{n}") for n in range(len(gpus))) if is_gpu else cpu_rate()
        except ImportError:
            pass
        except Exception as error:
            found["problem"] = f"{type(error).__name__}: {error}".partition("\n")[0]
    # While it is still warm: an idle GPU lowers its clock.
    found["clock_mhz"] = _least([one.clock_mhz for one in sensors])
    return found


def _least(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return min(known, default=None) if len(known) == len(values) else None


def _most(values: Sequence[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _in_child(measure: Callable[[], dict[str, Any]], within_s: float) -> dict[str, Any]:
    """Measure in a forked process; its problem if it does not end in time, or dies."""
    parent = os.getpid()
    reader, writer = os.pipe()
    try:
        child = os.fork()
    except OSError:
        # No room for a process: trials will have their own trouble.
        os.close(reader)
        os.close(writer)
        return {}
    if child == 0:
        try:
            die_with_parent(parent)
            os.write(writer, json.dumps(measure()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    is_in_time = bool(select.select([reader], [], [], within_s)[0])
    text = os.read(reader, select.PIPE_BUF) if is_in_time else b""
    os.close(reader)
    _end(child)
    if text:
        found: dict[str, Any] = json.loads(text)
        return found
    return {"problem": "its process died" if is_in_time else f"it did not end within {within_s:g} s"}


def _end(child: int) -> None:
    """End the process and reap it, unless not even SIGKILL ends it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    until = time.monotonic() + _ENDS_S
    while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < until:
        time.sleep(0.001)
