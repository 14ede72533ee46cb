"""The images that the built-in workloads train on.

A data set is held in memory once a process, and a batch is a function of the seed and the position alone:
an epoch is a permutation drawn from the seed, epochs follow one another without a gap, and a batch may be
larger than the data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torchvision import datasets, transforms

__all__ = ["DataError", "Images", "batches", "load_images", "synthetic_batches"]

#: Mean and spread of ImageNet's channels, which every ResNet recipe normalises by.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class DataError(Exception):
    """Data that is not there; the message is for the user."""


@dataclass(frozen=True)
class Images:
    """A labelled data set in memory: images (N, 3, S, S) float32, normalised; labels (N,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@cache
def load_images(data: str, root: str, image_size: int) -> Images:
    """Load a real data set, resized.

    Args:
        data: ``digits``, ``cifar10`` or ``imagefolder``.
        root: folder of the data; digits come with scikit-learn.
        image_size: height and width in pixels.

    Raises:
        DataError: when the data is not at `root`.
    """
    if data == "digits":
        return _digits(image_size)
    if not root:
        raise DataError(f"data = {data!r} needs data_root, the folder where the images are")
    if not Path(root).is_dir():
        raise DataError(f"data_root = {root!r}: there is no such folder for data = {data!r}")
    transform = transforms.Compose([
        transforms.Resize((image_size, image_size)), transforms.ToTensor(), transforms.Normalize(_MEAN, _STD),
    ])  # fmt: skip
    try:
        found = (
            datasets.CIFAR10(root, train=True, transform=transform)
            if data == "cifar10"
            else datasets.ImageFolder(root, transform=transform)
        )
    except (RuntimeError, FileNotFoundError) as error:
        raise DataError(f"data_root = {root!r}: no {data} data there: {error}") from error
    images, labels = zip(*(found[index] for index in range(len(found))), strict=True)
    return Images(torch.stack(images), torch.tensor(labels))


def _digits(image_size: int) -> Images:
    """1,797 handwritten digits of 8 x 8 pixels, enlarged; they ship with scikit-learn."""
    from sklearn.datasets import load_digits

    found = load_digits()
    grey = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16  # (N, 1, 8, 8), in [0, 1]
    large = functional.interpolate(grey, size=(image_size, image_size), mode="bilinear", align_corners=False)
    mean, std = torch.tensor(_MEAN)[None, :, None, None], torch.tensor(_STD)[None, :, None, None]
    images = (large.expand(-1, 3, -1, -1) - mean) / std  # (N, 3, S, S)
    return Images(images.contiguous(), torch.tensor(found.target, dtype=torch.int64))


def batches(data: Images, batch_size: int, seed: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches: images (B, 3, S, S) and labels (B,), on `device`."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < batch_size:
            order = torch.cat([order, torch.randperm(len(data), generator=generator)])
        chosen, order = order[:batch_size], order[batch_size:]
        images, labels = data.images[chosen], data.labels[chosen]
        yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def synthetic_batches(
    batch_size: int, image_size: int, num_classes: int, seed: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """One random batch, made on the device, again and again: the cost of training without that of data."""
    generator = torch.Generator(device).manual_seed(seed)
    images = torch.randn(batch_size, 3, image_size, image_size, generator=generator, device=device)
    labels = torch.randint(num_classes, (batch_size,), generator=generator, device=device)
    while True:
        yield images, labels
