"""The images for the built-in workloads.

The seed and the position alone determine the images of a batch: an epoch is a permutation drawn from the
seed, epochs follow one another without a gap, and a batch may be larger than the data set.

Small data sets are held in memory at their original size, once per process, and are resized on the device,
batch by batch.  Folders of images, which may be as large as ImageNet, are read by the data loader's
processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Sampler
from torchvision import datasets, transforms

__all__ = [
    "Batches",
    "DataError",
    "Images",
    "folder_batches",
    "load_images",
    "memory_batches",
    "synthetic_batches",
]

Batches = Iterator[tuple[Tensor, Tensor]]

#: Mean and standard deviation of ImageNet's channels, the usual normalisation for ResNets.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


#: All images of a batch.
_WHOLE = slice(None)


class DataError(Exception):
    """Data is missing; the message is for the user."""


@dataclass(frozen=True)
class Images:
    """A labelled data set in memory: images (N, C, H, W) uint8, labels (N,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """Number of different labels."""
        return int(self.labels.max()) + 1


@cache
def load_images(data: str, root: str) -> Images:
    """Load a small data set.

    Args:
        data: ``digits`` or ``cifar10``.
        root: folder of the data; digits come with scikit-learn.

    Raises:
        DataError: when the data is not at `root`.
    """
    if data == "digits":
        return _digits()
    _check_root(data, root)
    try:
        found = datasets.CIFAR10(root, train=True)
    except RuntimeError as error:
        raise DataError(f"data_root = {root!r}: no cifar10 data there: {error}") from error
    return Images(torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(found.targets))


def _digits() -> Images:
    """1,797 handwritten digits of 8 x 8 pixels in 17 shades of grey, from scikit-learn."""
    from sklearn.datasets import load_digits

    found = load_digits()
    grey = torch.tensor(found.images, dtype=torch.float32)[:, None] * (255 / 16)  # (N, 1, 8, 8)
    return Images(grey.round().to(torch.uint8), torch.tensor(found.target, dtype=torch.int64))


def memory_batches(
    data: Images, batch_size: int, image_size: int, seed: int, device: torch.device, first: int = 0,
    piece: slice = _WHOLE,
) -> Batches:  # fmt: skip
    """Endless batches of a data set in memory, or a piece of each, starting with batch `first`.

    Images are (B, 3, S, S) float32, labels (B,).
    """
    mean = torch.tensor(_MEAN, device=device)[None, :, None, None]
    std = torch.tensor(_STD, device=device)[None, :, None, None]
    for chosen in _EndlessEpochs(len(data), batch_size, seed, first, piece):
        own = data.images[chosen].to(device, non_blocking=True)  # (B, C, H, W)
        large = functional.interpolate(
            own.float() / 255, size=(image_size, image_size), mode="bilinear", align_corners=False
        )
        yield (large.expand(-1, 3, -1, -1) - mean) / std, data.labels[chosen].to(device, non_blocking=True)


def folder_batches(
    root: str,
    batch_size: int,
    image_size: int,
    seed: int,
    device: torch.device,
    loaders: int,
    first: int = 0,
    piece: slice = _WHOLE,
) -> tuple[Batches, int]:
    """Endless batches of images from one folder per class, and the number of classes.

    Args:
        root: the folder that contains the class folders.
        batch_size: B.
        image_size: S; images are resized to S x S.
        seed: of the order.
        device: of the batches.
        loaders: processes that read and resize; 0 does that between the steps.
        first: number of the first batch.
        piece: the images of each batch to read.

    Raises:
        DataError: when there are no such folders.
    """
    _check_root("imagefolder", root)
    transform = transforms.Compose([
        transforms.Resize((image_size, image_size)), transforms.ToTensor(), transforms.Normalize(_MEAN, _STD),
    ])  # fmt: skip
    try:
        found = datasets.ImageFolder(root, transform=transform)
    except (RuntimeError, FileNotFoundError) as error:
        raise DataError(f"data_root = {root!r}: no imagefolder data there: {error}") from error
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        found,
        batch_sampler=_EndlessEpochs(len(found), batch_size, seed, first, piece),
        num_workers=loaders,
        # Without its own generator it would draw from the model's.
        generator=torch.Generator().manual_seed(seed),
        pin_memory=device.type == "cuda",
    )
    moved = (
        (images.to(device, non_blocking=True), labels.to(device, non_blocking=True))
        for images, labels in loader
    )
    return moved, len(found.classes)


def synthetic_batches(
    batch_size: int, image_size: int, num_classes: int, seed: int, device: torch.device
) -> Batches:
    """One random batch on the device, repeated: the cost of training without the cost of data."""
    generator = torch.Generator(device).manual_seed(seed)
    images = torch.randn(batch_size, 3, image_size, image_size, generator=generator, device=device)
    labels = torch.randint(num_classes, (batch_size,), generator=generator, device=device)
    while True:
        yield images, labels


class _EndlessEpochs(Sampler[list[int]]):
    """Indices of consecutive batches; a batch may span epochs, and none drops images."""

    def __init__(self, size: int, batch_size: int, seed: int, first: int = 0, piece: slice = _WHOLE) -> None:
        self._first = first
        self._piece = piece
        self._size = size
        self._batch_size = batch_size
        self._seed = seed

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self._seed)
        left: list[int] = []
        for position in itertools.count():
            while len(left) < self._batch_size:
                left += torch.randperm(self._size, generator=generator).tolist()
            chosen, left = left[: self._batch_size], left[self._batch_size :]
            if position >= self._first:
                yield chosen[self._piece]


def _check_root(data: str, root: str) -> None:
    if not root:
        raise DataError(f"data = {data!r} needs data_root, the folder of the images")
    if not Path(root).is_dir():
        raise DataError(f"data_root = {root!r}: no such folder for data = {data!r}")
