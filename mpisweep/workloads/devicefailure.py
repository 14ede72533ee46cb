"""Recognising device failures of a trial by the type and text of the exception.

Some of these failures outlive their trial: after a device-side assertion or an illegal address every CUDA
call fails in that process, and the trial that fails need not be the one that caused it.

Near the end of a device's memory cuDNN and cuBLAS do not report out of memory: they report an internal error
or a failed initialisation.  If the device was nearly full, the failure counts as out of memory.  (Seen on an
H200: CUDNN_STATUS_INTERNAL_ERROR from 8% above the largest batch that fits.)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["is_of_device", "lacks_memory", "text_of"]

#: Matched by name, because a trial process imports only the libraries that its workload uses.
_TYPES = (
    "AcceleratorError",
    "DistBackendError",
    "CUDARuntimeError",
    "CUDADriverError",
    "CudaAPIError",
    "CudaDriverError",
)
#: Compiled when a trial fails, not in every trial process.
_OF_DEVICE = (
    r"\bCUDA (driver |runtime )?error\b|\bCUDA_ERROR_|\bcudaError|\bHIP error\b|\bhipError"
    r"|\bcu(DNN|BLAS|SOLVER|SPARSE|FFT|RAND) error\b|\bCU(DNN|BLAS|SOLVER|SPARSE|RAND)_STATUS_"
    r"|\bCUFFT_[A-Z]|\bMIOPEN|\bmiopenStatus"
    r"|\b[NR]CCL error\b|\bnccl[A-Z]\w*Error\b"
    r"|device-side assert|illegal memory access|unspecified launch failure"
    r"|unable to find an engine to execute"
)
#: Texts that may mean too little memory for a handle or a workspace.
_OF_MEMORY = (
    r"\bCUDNN_STATUS_(ALLOC_FAILED|INTERNAL_ERROR|NOT_INITIALIZED|EXECUTION_FAILED)"
    r"|\bCU(BLAS|SOLVER|SPARSE)_STATUS_(ALLOC_FAILED|INTERNAL_ERROR|NOT_INITIALIZED|INSUFFICIENT_RESOURCES)"
    r"|\bCUFFT_(ALLOC_FAILED|INTERNAL_ERROR)|miopenStatus(AllocFailed|InternalError)"
    r"|unable to find an engine to execute"
)
#: A device counts as nearly full below this share of free memory; a cuDNN workspace takes a few percent.
_NEARLY_FULL = 0.1


def is_of_device(error: BaseException) -> bool:
    """Whether a device, its driver or its library failed, in this exception or a cause of it."""
    return any(
        type(link).__name__ in _TYPES or re.search(_OF_DEVICE, text_of(link)) for link in _links(error)
    )


def lacks_memory(error: BaseException) -> bool:
    """Whether a library has failed as on a full device, and the device was nearly full."""
    return any(re.search(_OF_MEMORY, text_of(link)) for link in _links(error)) and _was_nearly_full()


def _links(error: BaseException) -> Iterator[BaseException]:
    """An exception and all exceptions that it was raised from or during."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def text_of(error: BaseException) -> str:
    """The text of an exception; empty if its __str__ fails."""
    try:
        return str(error)
    except Exception:
        return ""


def _was_nearly_full() -> bool:
    """Whether the device was nearly full at this process's peak; other processes may share it."""
    torch: Any = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_initialized():
            return False
        free, total = torch.cuda.mem_get_info()
        released = torch.cuda.max_memory_reserved() - torch.cuda.memory_reserved()
    except Exception:
        # After some failures every CUDA call fails.
        return False
    return bool(free - released < _NEARLY_FULL * total)
