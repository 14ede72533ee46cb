"""Failures of a trial that its device, or what drives it, has reported; by the type and the text of the
exception.

Some such failures outlive their trial: after a device-side assertion or an illegal address every call to CUDA
fails in that process, and the trial that notices need not be the one that is to blame.

Near the end of a device's memory cuDNN and cuBLAS do not say that it is used up: they say that something
inside has failed, or that they cannot be initialised.  Where the device was nearly full, memory is what was
missing.  (Seen on an H200: CUDNN_STATUS_INTERNAL_ERROR from 8% above the largest batch that fits.)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["is_of_device", "lacks_memory", "text_of"]

#: By name: a trial process whose workload does not use a library never imports it.
_TYPES = (
    "AcceleratorError",
    "DistBackendError",
    "CUDARuntimeError",
    "CUDADriverError",
    "CudaAPIError",
    "CudaDriverError",
)
_OF_DEVICE = re.compile(
    r"\bCUDA (driver |runtime )?error\b|\bCUDA_ERROR_|\bcudaError|\bHIP error\b|\bhipError"
    r"|\bcu(DNN|BLAS|SOLVER|SPARSE|FFT|RAND) error\b|\bCU(DNN|BLAS|SOLVER|SPARSE|RAND)_STATUS_"
    r"|\bCUFFT_[A-Z]|\bMIOPEN|\bmiopenStatus"
    r"|\b[NR]CCL error\b|\bnccl[A-Z]\w*Error\b"
    r"|device-side assert|illegal memory access|unspecified launch failure"
    r"|unable to find an engine to execute"
)
#: What is said where there may be too little memory for a handle or a workspace.
_OF_MEMORY = re.compile(
    r"\bCUDNN_STATUS_(ALLOC_FAILED|INTERNAL_ERROR|NOT_INITIALIZED|EXECUTION_FAILED)"
    r"|\bCU(BLAS|SOLVER|SPARSE)_STATUS_(ALLOC_FAILED|INTERNAL_ERROR|NOT_INITIALIZED|INSUFFICIENT_RESOURCES)"
    r"|\bCUFFT_(ALLOC_FAILED|INTERNAL_ERROR)|miopenStatus(AllocFailed|InternalError)"
    r"|unable to find an engine to execute"
)
#: A device is nearly full where less than this share of it is free; a workspace of cuDNN takes a few percent.
_NEARLY_FULL = 0.1


def is_of_device(error: BaseException) -> bool:
    """Whether a device, its driver or its library has failed, here or in a cause of this."""
    return any(type(link).__name__ in _TYPES or _OF_DEVICE.search(text_of(link)) for link in _links(error))


def lacks_memory(error: BaseException) -> bool:
    """Whether a library has failed as it does on a full device, and the device was nearly full."""
    return any(_OF_MEMORY.search(text_of(link)) for link in _links(error)) and _was_nearly_full()


def _links(error: BaseException) -> Iterator[BaseException]:
    """An exception, and those that it was raised from, or while they were handled."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def text_of(error: BaseException) -> str:
    """What the exception says; nothing where saying it fails."""
    try:
        return str(error)
    except Exception:
        return ""


def _was_nearly_full() -> bool:
    """Whether the device was, when this process held the most; others may share it."""
    torch: Any = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_initialized():
            return False
        free, total = torch.cuda.mem_get_info()
        given_back = torch.cuda.max_memory_reserved() - torch.cuda.memory_reserved()
    except Exception:
        # After some failures CUDA does not answer any more.
        return False
    return bool(free - given_back < _NEARLY_FULL * total)
