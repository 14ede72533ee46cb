"""torch's allocator of GPU memory: expandable segments.

With them a block of freed memory can be part of any larger one, so that a process in which trials of many
sizes have run, or images of many shapes are decoded, fits what a new process fits.  CUDA graphs work with
them: a graph's private pool has segments of its own, and PyTorch runs its tests of graphs in both modes.

They need the driver's virtual memory management, which some virtual GPUs lack; there every allocation would
fail.
"""

from __future__ import annotations

import ctypes
import os

import torch

__all__ = ["use_expandable_segments"]

#: Variables of torch that set up the allocator; the first is the one that all its versions read.
_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
#: CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED of the CUDA driver's interface.
_ATTRIBUTE = 102


def use_expandable_segments() -> None:
    """Use expandable segments, if the device can and the user has not set up the allocator.

    Torch reads the variable once, when CUDA is first used.
    """
    is_chosen = any(name in os.environ for name in _VARIABLES)
    if not is_chosen and torch.version.cuda and _has_virtual_memory():
        os.environ[_VARIABLES[0]] = "expandable_segments:True"


def _has_virtual_memory() -> bool:
    """Whether the first GPU supports virtual memory management; a trial sees only its own."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    device, value = ctypes.c_int(), ctypes.c_int()
    return (
        driver.cuInit(0) == 0
        and driver.cuDeviceGet(ctypes.byref(device), 0) == 0
        and driver.cuDeviceGetAttribute(ctypes.byref(value), _ATTRIBUTE, device) == 0
        and value.value == 1
    )
