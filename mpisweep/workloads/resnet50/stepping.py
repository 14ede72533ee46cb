"""One training step: forward, loss, backward, optimiser, record of loss and accuracy.

Everything that a step reads and changes is on the device, and no step waits for another.  So a step can be
captured once as a CUDA graph and replayed: one launch instead of a thousand.  On an H200 an eager step takes
16 to 20 ms at any batch size, because of Python and launches; a replay takes 3 to 7 ms at 64 pixels.

Capturing takes a step or more of warm-up, in which kernels are chosen and memory is allocated.  It must leave
no trace: :class:`Traces` restores parameters, statistics of batch normalisation, the optimiser, the loss
scaler, the record and the random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpisweep.records import Value
from mpisweep.workloads.ranks import Ranks
from mpisweep.workloads.resnet50.recipe import Precision

__all__ = ["Capture", "CapturedStep", "Record", "Step", "TrainStep", "capture_cuda_graph"]

#: Warm-up steps before a capture; PyTorch's notes on CUDA graphs use as many.
_WARMUP = 3


class Step(Protocol):
    """One step of the training on a batch."""

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """Take images (B, 3, S, S) and labels (B,) that lie on the device."""


class Record:
    """Loss and accuracy of the last `size` steps on the device."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.size = size
        #: (size, 2) float32: loss, accuracy.
        self.values = torch.zeros(size, 2, device=device)
        #: Row of the next step.
        self.row = torch.zeros(1, dtype=torch.int64, device=device)

    def write(self, loss: Tensor, accuracy: Tensor) -> None:
        """Write those of one step."""
        self.values.index_copy_(0, self.row, torch.stack([loss.float(), accuracy.float()])[None])
        self.row.add_(1).remainder_(self.size)

    def last(self, count: int) -> Tensor:
        """Those of the last `count` steps in order, (count, 2), on the device."""
        rows = (self.row - count + torch.arange(count, device=self.row.device)) % self.size
        return self.values[rows]


class TrainStep:
    """One eager step.

    Args:
        options: of the trial.
        model: maps (B, 3, S, S) to (B, classes).
        optimizer: changes the parameters.
        precision: the number format.
        ranks: of the trial.
        record: takes loss and accuracy.
    """

    def __init__(
        self, options: Mapping[str, Value], model: nn.Module, optimizer: torch.optim.Optimizer,
        precision: Precision, ranks: Ranks, record: Record,
    ) -> None:  # fmt: skip
        self.model = model
        self.optimizer = optimizer
        self.scaler = precision.scaler
        self.significand_bits = precision.significand_bits
        self.record = record
        self._precision = precision
        self._ranks = ranks
        self._smoothing = float(options["label_smoothing"])
        self._parts = int(options["accumulate"])
        self._longest = float(options["clip_norm"])

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """Take one step."""
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[Tensor] = []
        rights: list[Tensor] = []
        parts = min(self._parts, len(labels))
        for some, theirs in zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True):
            with self._precision.autocast():
                logits = self.model(some)  # (B, classes)
                loss = functional.cross_entropy(logits, theirs, label_smoothing=self._smoothing)
            share = len(theirs) / len(labels)
            self.scaler.scale(self._ranks.weighted(loss) * share).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach() * share)
            rights.append((logits.detach().argmax(1) == theirs).float().mean() * share)
        if self._longest > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self._longest)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.record.write(torch.stack(losses).sum(), torch.stack(rights).sum())


#: Captures the launches of a function, and returns a function that repeats them.
Capture = Callable[[Callable[[], None]], Callable[[], None]]


class CapturedStep:
    """A step that is captured once, on its first batch, and replayed for every batch.

    Args:
        step: the step to capture.
        images: a batch, (B, 3, S, S); the graph reads a copy of it.
        labels: its labels, (B,).
        capture: :func:`capture_cuda_graph` on a GPU.
    """

    def __init__(self, step: TrainStep, images: Tensor, labels: Tensor, capture: Capture) -> None:
        self._images, self._labels = images.clone(), labels.clone()
        traces = Traces(step)
        try:
            self._replay = capture(lambda: step(self._images, self._labels))
        finally:
            traces.wipe()

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """Replay the step on this batch."""
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._replay()


class Traces:
    """The values of everything that a step changes; a captured graph keeps their addresses.

    The optimiser creates its state in its first step.  State that is new is set to zero, with which SGD and
    AdamW begin.
    """

    def __init__(self, step: TrainStep) -> None:
        self._step = step
        self._tensors = {name: value.clone() for name, value in step.model.state_dict().items()}
        self._optimizer = {
            (parameter, name): value.clone()
            for parameter, state in step.optimizer.state.items()
            for name, value in state.items() if isinstance(value, Tensor)
        }  # fmt: skip
        self._scaler = step.scaler.state_dict()
        self._random = torch.get_rng_state()
        device = step.record.values.device
        self._cuda_random = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        self._record = step.record.values.clone(), step.record.row.clone()

    def wipe(self) -> None:
        """Restore everything in place."""
        step = self._step
        with torch.no_grad():
            for name, value in step.model.state_dict().items():
                value.copy_(self._tensors[name])
            for parameter, state in step.optimizer.state.items():
                for name, value in state.items():
                    if isinstance(value, Tensor):
                        before = self._optimizer.get((parameter, name))
                        value.zero_() if before is None else value.copy_(before)
            step.record.values.copy_(self._record[0])
            step.record.row.copy_(self._record[1])
        step.scaler.load_state_dict(self._scaler)
        torch.set_rng_state(self._random)
        if self._cuda_random is not None:
            torch.cuda.set_rng_state(self._cuda_random, step.record.values.device)


def capture_cuda_graph(step: Callable[[], None]) -> Callable[[], None]:
    """Capture a step after a warm-up on its own stream, as PyTorch's notes on CUDA graphs do.

    Raises:
        torch.OutOfMemoryError: also if the memory ran out within the capture, which ends in another error.
    """
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARMUP):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            step()
    except RuntimeError as error:
        if (cause := _out_of_memory(error)) is not None:
            raise cause from None
        raise
    return graph.replay


def _out_of_memory(error: BaseException) -> torch.OutOfMemoryError | None:
    """The out-of-memory error behind this error, if any."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, torch.OutOfMemoryError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
