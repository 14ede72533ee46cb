"""Batches of a training and of a validation, from the images of a folder."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from mpisweep.workloads.datasets import Batches, EndlessEpochs
from mpisweep.workloads.folder.device import prepared
from mpisweep.workloads.folder.loading import Loaders, loaders_for
from mpisweep.workloads.folder.scan import ImageFiles

__all__ = ["Target", "every_image_once", "folder_batches", "one_ahead", "start_validation"]

_WHOLE = slice(None)


@dataclass(frozen=True, slots=True)
class Target:
    """How the images of a folder are read, and what they become.

    Attributes:
        size: S; images are resized to S x S.
        device: of the batches.
        layout: of the images.
        loaders: processes that read; 0 reads between the steps.
        on_device: whether the device decodes JPEGs.
    """

    size: int
    device: torch.device
    layout: torch.memory_format = torch.contiguous_format
    loaders: int = 0
    on_device: bool = False


def folder_batches(
    files: ImageFiles, batch_size: int, seed: int, target: Target, first: int = 0, piece: slice = _WHOLE
) -> Batches:
    """Endless batches of a folder's images; on a GPU, the next one is prepared during a step.

    Args:
        files: the images.
        batch_size: B, of all ranks together.
        seed: of the order.
        target: how they are read, and what they become.
        first: number of the first batch.
        piece: the images of each batch to read.

    Raises:
        DataError: from the batch with an image that cannot be read or decoded.
    """
    loaders = loaders_for("training", files, target.loaders)
    order = EndlessEpochs(len(files), batch_size, seed, first, piece)
    batches = _assembled(loaders, order, target)
    if target.device.type == "cuda":
        batches = one_ahead(batches, target.device, loaders.end_turn)
    return batches


def every_image_once(files: ImageFiles, batch_size: int, target: Target, whose: slice) -> Batches:
    """Batches of every image of a folder once, in order; `whose` selects this rank's.

    :func:`start_validation` comes before.

    Raises:
        DataError: when an image cannot be read or decoded.
    """
    rows = range(len(files))[whose]
    order = [list(rows[first : first + batch_size]) for first in range(0, len(rows), batch_size)]
    loaders = loaders_for("validation", files, target.loaders)
    return _assembled(loaders, order, target)


def start_validation(files: ImageFiles, target: Target) -> None:
    """Start the loaders of a validation, while no thread holds locks that a fork would copy."""
    loaders_for("validation", files, target.loaders).start()


def _assembled(loaders: Loaders, order: EndlessEpochs | list[list[int]], target: Target) -> Batches:
    parts = []
    for part in loaders.parts(order, target.size, keep_encoded=target.on_device):
        parts.append(part)
        if part.is_last:
            yield prepared(parts, loaders.files, target.size, target.device, target.layout)
            parts = []


def one_ahead(batches: Batches, device: torch.device, cancel: Callable[[], None]) -> Batches:
    """The same batches, each prepared while the one before is used.

    That happens in a thread and a stream of its own.  The first batch is prepared on demand, and none ahead
    of the second: after the first one the step may be captured as a CUDA graph, and meanwhile no other thread
    may use the device.

    Args:
        batches: endless.
        device: of the batches.
        cancel: ends a wait for the next batch.
    """
    yield next(batches)
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    with ThreadPoolExecutor(1, "next-batch") as thread:
        try:
            coming = thread.submit(_next, batches, stream)
            while True:
                images, labels, ready = coming.result()
                coming = thread.submit(_next, batches, stream)
                if ready is not None:
                    present = torch.cuda.current_stream(device)
                    present.wait_event(ready)
                    for tensor in (images, labels):
                        tensor.record_stream(present)
                yield images, labels
        finally:
            cancel()


def _next(
    batches: Batches, stream: torch.cuda.Stream | None
) -> tuple[Tensor, Tensor, torch.cuda.Event | None]:
    """The next batch, and the event after which it is complete."""
    if stream is None:
        return *next(batches), None
    with torch.cuda.stream(stream):
        images, labels = next(batches)
        return images, labels, stream.record_event()
