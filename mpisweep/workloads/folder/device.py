"""Decoding, resizing and normalising images on the device that trains.

A CPU's loader processes decode with Pillow.  A GPU decodes JPEGs with nvJPEG through torchvision, many in one
call, and resizes images of one shape together.  Both resize with a triangular filter (bilinear, antialiased);
Pillow rounds to 8 bits after each of its two passes, the device does not round.  Pixels of the same decoded
image differ by at most one of 255 levels; the decoders themselves may differ by more at coloured edges,
because JPEG leaves the interpolation of colours open.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from mpisweep.workloads.datasets import normalised
from mpisweep.workloads.folder.loading import Part
from mpisweep.workloads.folder.reading import decode_resized
from mpisweep.workloads.folder.scan import ImageFiles

__all__ = ["decode_on_device", "is_decoding", "prepared"]

#: JPEGs decoded in one call: enough for the decoder's parallel units, few enough for little memory (46 MB at
#: 500 x 375 pixels).
_AT_ONCE = 64
#: Failures of the device and its memory, not of an image.
_OF_DEVICE = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))
#: Failures of a torchvision that decodes no lists of JPEGs, was built without nvJPEG, or finds no device.
_UNABLE = (RuntimeError, ImportError, AttributeError, TypeError, ValueError)


def is_decoding(choice: str, device: torch.device) -> bool:
    """Whether the device decodes JPEGs.

    Args:
        choice: the option `decode`: ``auto``, ``cpu`` or ``gpu``.
        device: of the trial.

    Raises:
        ValueError: when it is asked for and not possible.
    """
    if choice == "cpu" or (choice == "auto" and device.type != "cuda"):
        return False
    if device.type != "cuda":
        raise ValueError(f"decode = 'gpu' needs a CUDA device, and this trial runs on {device.type}")
    problem = _why_not(device)
    if problem and choice == "gpu":
        raise ValueError(f"decode = 'gpu' needs nvJPEG, and this torchvision cannot use it: {problem}")
    if problem:
        warnings.warn(f"JPEGs are decoded on the CPU: {problem}", stacklevel=2)
    return not problem


@cache
def _why_not(device: torch.device) -> str:
    """Why the device decodes no JPEGs; empty if it does."""
    # A build without nvJPEG has the same functions, which fail.
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    try:
        decode_on_device([torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)], device)
    except torch.OutOfMemoryError:
        raise
    except _UNABLE as error:
        return str(error).partition("\n")[0]
    return ""


def decode_on_device(encoded: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Decode JPEGs in one call.

    Args:
        encoded: the bytes of each file, (N,) uint8, in main memory.
        device: of the images.

    Returns:
        Images (3, H, W) uint8.

    Raises:
        RuntimeError: when one of them cannot be decoded.
    """
    # TorchCodec is to take its place in torchvision.
    from torchvision.io import ImageReadMode, decode_jpeg

    images: list[Tensor] = decode_jpeg(list(encoded), mode=ImageReadMode.RGB, device=device)
    return images


def prepared(
    parts: Sequence[Part], files: ImageFiles, size: int, device: torch.device, layout: torch.memory_format
) -> tuple[Tensor, Tensor]:
    """A batch from its parts: images (B, 3, S, S) float32, labels (B,), on the device.

    Args:
        parts: of the batch.
        files: of the rows in the parts.
        size: S.
        device: of the batch.
        layout: of the images.

    Raises:
        DataError: when an image cannot be decoded.
    """
    labels = _moved(torch.cat([part.labels for part in parts]), device)
    if any(len(part.encoded) for part in parts):
        images = torch.cat([
            _resized(_decoded(some, files, size, device), size, device) for some in _at_once(parts)
        ])  # fmt: skip
    else:
        images = _moved(torch.cat([part.resized for part in parts]), device)
    # The same order of operations as torchvision's ToTensor and Normalize: the same bits.
    return normalised(images.contiguous(memory_format=layout).float().div(255)), labels


def _moved(values: Tensor, device: torch.device) -> Tensor:
    # From pinned memory, so that the copy does not wait for the steps that are queued.
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values


@dataclass(frozen=True, slots=True)
class _Image:
    """An image in main memory."""

    row: int
    #: Bytes (N,) if encoded, else pixels (3, S, S) uint8.
    data: Tensor

    @property
    def is_encoded(self) -> bool:
        return self.data.ndim == 1


def _at_once(parts: Iterable[Part]) -> Iterator[list[_Image]]:
    found: list[_Image] = []
    for part in parts:
        encoded = iter(torch.split(part.encoded, [length for length in part.lengths if length]))
        resized = iter(part.resized)
        for row, length in zip(part.rows, part.lengths, strict=True):
            found.append(_Image(row, next(encoded if length else resized)))
            if len(found) == _AT_ONCE:
                yield found
                found = []
    if found:
        yield found


def _decoded(images: Sequence[_Image], files: ImageFiles, size: int, device: torch.device) -> list[Tensor]:
    """The images (3, H, W) uint8 on the device."""
    encoded = [image for image in images if image.is_encoded]
    decoded = iter(_with_fallback(encoded, files, size, device) if encoded else ())
    return [next(decoded) if image.is_encoded else image.data.to(device) for image in images]


def _with_fallback(
    images: Sequence[_Image], files: ImageFiles, size: int, device: torch.device
) -> list[Tensor]:
    """Decode on the device; an image that it cannot decode, on the CPU."""
    try:
        return decode_on_device([image.data for image in images], device)
    except _OF_DEVICE:
        raise
    except RuntimeError:
        # It does not say which image it was.
        if len(images) > 1:
            return [_with_fallback([image], files, size, device)[0] for image in images]
        [image] = images
        return [decode_resized(image.data.numpy().tobytes(), files.path(image.row), size).to(device)]


def _resized(images: Sequence[Tensor], size: int, device: torch.device) -> Tensor:
    """Images (B, 3, S, S) float32 in [0, 255] from images (3, H, W) uint8, those of one shape together."""
    places: dict[torch.Size, list[int]] = {}
    for place, image in enumerate(images):
        places.setdefault(image.shape, []).append(place)
    found: list[Tensor] = []
    for alike in places.values():
        some = torch.stack([images[place] for place in alike]).float()
        if some.shape[2:] != (size, size):
            some = functional.interpolate(
                some, size=(size, size), mode="bilinear", align_corners=False, antialias=True
            )
        found.append(some)
    order = torch.tensor([place for alike in places.values() for place in alike]).argsort()
    return torch.cat(found)[order.to(device)]
