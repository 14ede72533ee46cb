"""The loops that the built-in workload is compared with: ResNet50 in plain PyTorch, as an expert writes it.

One batch of random images on the device, SGD with momentum, cross entropy; on a GPU bf16 autocast, images
and model channels last, and the fused optimiser.  cuDNN's benchmark mode is off: on an H200 it cost 3 s or
more per size, and the step was the same to 1%.  Nothing is read back, reported, or checked.

    eager            Python launches every kernel
    graph            the whole step is captured once as a CUDA graph and replayed
    compile          torch.compile of the model for this batch size alone
    compile + graph  both
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional
from torchvision.models import resnet50

__all__ = ["CPU_EXECUTIONS", "EXECUTIONS", "Shape", "Speed", "bare_loop", "best_precision"]

EXECUTIONS = ("eager", "graph", "compile", "compile + graph")
CPU_EXECUTIONS = ("eager", "compile")

#: Steps before a capture, on a stream of their own: PyTorch's notes on CUDA graphs.
_BEFORE_CAPTURE = 3


@dataclass(frozen=True)
class Shape:
    """What one loop trains: its images (B, 3, S, S), and the steps before and within its timing."""

    batch_size: int
    image_size: int
    steps: int
    warmup: int


@dataclass(frozen=True)
class Speed:
    """The timed steps of one loop; `setup_s` is everything else."""

    images_per_second: float
    setup_s: float
    peak_memory_bytes: float


def best_precision(device: torch.device) -> str:
    """The format that the built-in workload chooses too, but for GPUs without bf16."""
    is_gpu = device.type == "cuda"
    return "bf16" if is_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def bare_loop(execution: str, shape: Shape, device: torch.device) -> Speed:
    """Train `warmup` steps, then time `steps`."""
    started = time.perf_counter()
    is_gpu = device.type == "cuda"
    layout = torch.channels_last if is_gpu else torch.contiguous_format
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(1)
    model = resnet50(num_classes=1000).to(device, memory_format=layout).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=is_gpu or None
    )
    size = shape.image_size
    images = torch.randn(shape.batch_size, 3, size, size, device=device).to(memory_format=layout)  # (B,3,S,S)
    labels = torch.randint(1000, (shape.batch_size,), device=device)  # (B,)
    forward = torch.compile(model, dynamic=False) if execution.startswith("compile") else model
    is_bf16 = best_precision(device) == "bf16"
    # A captured step must not find weights that an earlier replay has cast.
    cached = not execution.endswith("graph")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=is_bf16, cache_enabled=cached):
            loss = functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()

    run: Callable[[], None] = captured(step) if execution.endswith("graph") else step
    for _ in range(shape.warmup):
        run()
    synchronize(device)
    begun = time.perf_counter()
    for _ in range(shape.steps):
        run()
    synchronize(device)
    seconds = time.perf_counter() - begun
    usual = seconds / shape.steps
    peak = float(torch.cuda.max_memory_allocated()) if is_gpu else float("nan")
    return Speed(shape.batch_size / usual, begun - started - shape.warmup * usual, peak)


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """The step as a CUDA graph."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_BEFORE_CAPTURE):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
