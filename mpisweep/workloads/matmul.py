"""The speed of a device in a short matrix product, in TFLOP/s.

It takes about half a second, warm-up included.  The number tells a device from its peers, which run the same
product; it is no benchmark.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["cpu_rate", "torch_rate"]

#: Duration of the warm-up, in which clocks rise and libraries load, and of the measurement, in seconds.
_WARM_UP_S = 0.2
_MEASURED_S = 0.3
#: Products are timed in batches of at least this duration, in seconds, so that launching them costs nothing.
_BATCH_S = 0.02
#: Size of the square matrices, on a GPU and on cores.
_GPU_SIZE = 4096
_CPU_SIZE = 512


def torch_rate(device: str) -> float:
    """The rate of a torch device: half precision on a GPU, single precision on cores.

    Raises:
        ImportError: when torch is not installed.
        RuntimeError: when the device fails.
    """
    import torch

    is_gpu = device != "cpu"
    size, kind = (_GPU_SIZE, torch.float16) if is_gpu else (_CPU_SIZE, torch.float32)
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    c = torch.empty_like(a)

    def multiply(count: int) -> None:
        for _ in range(count):
            torch.matmul(a, b, out=c)
        if is_gpu:
            torch.cuda.synchronize(device)

    return _rate(multiply, size)


def cpu_rate() -> float:
    """The rate of this process's cores, in single precision with numpy."""
    import numpy as np

    a, b = np.random.default_rng(0).standard_normal((2, _CPU_SIZE, _CPU_SIZE), dtype=np.float32)
    c = np.empty_like(a)

    def multiply(count: int) -> None:
        for _ in range(count):
            np.matmul(a, b, out=c)

    return _rate(multiply, _CPU_SIZE)


def _rate(multiply: Callable[[int], None], size: int) -> float:
    """The rate of products of square matrices; `multiply` runs so many and waits for them."""
    count, warm_at = 1, time.perf_counter() + _WARM_UP_S
    began = ended = time.perf_counter()
    while ended < warm_at:
        began = ended
        multiply(count)
        ended = time.perf_counter()
        if ended - began < _BATCH_S:
            count *= 2
    done, began = 0, ended
    while ended - began < _MEASURED_S:
        multiply(count)
        done += count
        ended = time.perf_counter()
    return 2 * size**3 * done / (ended - began) / 1e12
