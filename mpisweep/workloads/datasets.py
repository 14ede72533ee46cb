"""The images for the built-in workloads.

The seed and the position alone determine the images of a batch: an epoch is a permutation drawn from the
seed, epochs follow one another without a gap, and a batch may be larger than the data set.

Small data sets are held on the device at their original size, once per process, and are resized there, batch
by batch.  Folders of images, which may be as large as ImageNet, are in :mod:`mpisweep.workloads.folder`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torchvision import datasets

__all__ = [
    "Batches",
    "DataError",
    "EndlessEpochs",
    "Images",
    "check_root",
    "cropped_and_flipped",
    "held_out",
    "load_images",
    "memory_batches",
    "normalised",
    "synthetic_batches",
    "without_held_out",
]

Batches = Iterator[tuple[Tensor, Tensor]]

#: Mean and standard deviation of ImageNet's channels, the usual normalisation for ResNets.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


#: All images of a batch.
_WHOLE = slice(None)


class DataError(Exception):
    """Data is missing; the message is for the user."""


@dataclass(frozen=True, eq=False)
class Images:
    """A labelled data set in memory: images (N, C, H, W) uint8, labels (N,) int64."""

    images: Tensor
    labels: Tensor
    #: The same on other devices.
    _moved: dict[torch.device, Images] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """Number of different labels."""
        return int(self.labels.max()) + 1

    def on(self, device: torch.device) -> Images:
        """The same on a device, moved there once per process."""
        if device.type == "cpu":
            return self
        if device not in self._moved:
            self._moved[device] = Images(self.images.to(device), self.labels.to(device))
        return self._moved[device]

    def each_once(
        self, batch_size: int, image_size: int, device: torch.device, layout: torch.memory_format,
        whose: slice,
    ) -> Batches:  # fmt: skip
        """Batches of every image once, in order; `whose` chooses this rank's."""
        here = self.on(device)
        images, labels = here.images[whose], here.labels[whose]
        for first in range(0, len(labels), batch_size):
            some, theirs = images[first : first + batch_size], labels[first : first + batch_size]
            yield _prepared(some, image_size, layout), theirs


@cache
def held_out(data: str, images: Images, root: str) -> Images:
    """The held-out images of a small data set.

    Args:
        data: ``digits`` or ``cifar10``.
        images: all that :func:`load_images` gives.
        root: folder of the data.
    """
    if data == "cifar10":
        return _cifar10(root, train=False)
    return _part(images, _held_out_rows(len(images)))


@cache
def without_held_out(data: str, images: Images) -> Images:
    """The images for the training if some are held out."""
    if data == "cifar10":
        return images
    held = set(_held_out_rows(len(images)).tolist())
    return _part(images, torch.tensor([row for row in range(len(images)) if row not in held]))


def _held_out_rows(count: int) -> Tensor:
    # Independent of the trial's seed: all trials of all sweeps are validated on the same fifth.
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[: count // 5]


def _part(images: Images, rows: Tensor) -> Images:
    return Images(images.images[rows], images.labels[rows])


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
    check_root(data, root)
    return _cifar10(root, train=True)


def _cifar10(root: str, *, train: bool) -> Images:
    try:
        found = datasets.CIFAR10(root, train=train)
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
    piece: slice = _WHOLE, layout: torch.memory_format = torch.contiguous_format, *, augment: bool = False,
) -> Batches:  # fmt: skip
    """Endless batches of a data set in memory, or a piece of each, starting with batch `first`.

    The data set is on the device, which gathers, crops and flips (with `augment`), resizes and normalises
    the batches.  Images are (B, 3, S, S) float32, labels (B,).
    """
    here = data.on(device)
    indices = EndlessEpochs(len(data), batch_size, seed, first, piece)
    for position, chosen in enumerate(indices, first):
        rows = torch.tensor(chosen, device=device)
        own = here.images[rows]  # (B, C, H, W) uint8
        if augment:
            own = cropped_and_flipped(own, batch_size, seed, position, piece)
        yield _prepared(own, image_size, layout), here.labels[rows]


@cache
def _normal(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and spread of the channels, (1, 3, 1, 1), copied to the device once per process."""
    mean, std = (torch.tensor(values, device=device)[None, :, None, None] for values in (_MEAN, _STD))
    return mean, std


def _prepared(images: Tensor, image_size: int, layout: torch.memory_format) -> Tensor:
    """Turn images (B, C, H, W) uint8 into model inputs (B, 3, S, S) float32."""
    large = functional.interpolate(
        images.float() / 255, size=(image_size, image_size), mode="bilinear", align_corners=False
    )
    return normalised(large.expand(-1, 3, -1, -1)).contiguous(memory_format=layout)


def normalised(images: Tensor) -> Tensor:
    """Normalise images (B, 3, S, S) float32 in [0, 1] to mean 0 and spread 1, as over ImageNet."""
    mean, std = _normal(images.device)
    return (images - mean) / std


def cropped_and_flipped(images: Tensor, batch_size: int, seed: int, position: int, piece: slice) -> Tensor:
    """Images (B, C, H, W) shifted by up to an eighth of their size and half of them mirrored.

    The result depends only on the seed and the image's place in the sequence of batches: it is the same on
    any number of ranks and after a restart.

    Args:
        images: this rank's piece of the batch.
        batch_size: of all ranks together.
        seed: of the trial.
        position: of the batch in the sequence.
        piece: which images of the batch these are.
    """
    height, width = images.shape[2:]
    margin = max(1, height // 8)
    generator = torch.Generator().manual_seed((seed << 24) ^ position)
    shifts = torch.randint(2 * margin + 1, (batch_size, 2), generator=generator)[piece].to(images.device)
    mirrored = (torch.rand(batch_size, generator=generator)[piece] < 0.5).to(images.device)
    padded = functional.pad(images, (margin,) * 4)
    rows = shifts[:, :1] + torch.arange(height, device=images.device)  # (B, H)
    columns = torch.arange(width, device=images.device).expand(len(images), -1)
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns) + shifts[:, 1:]  # (B, W)
    picked = padded[
        torch.arange(len(images), device=images.device)[:, None, None],
        :,
        rows[:, :, None],
        columns[:, None, :],
    ]  # (B, H, W, C)
    return picked.permute(0, 3, 1, 2)


def synthetic_batches(
    batch_size: int, image_size: int, num_classes: int, seed: int, device: torch.device,
    layout: torch.memory_format = torch.contiguous_format,
) -> Batches:  # fmt: skip
    """One random batch on the device, repeated: the cost of training without the cost of data."""
    generator = torch.Generator(device).manual_seed(seed)
    images = torch.randn(batch_size, 3, image_size, image_size, generator=generator, device=device)
    images = images.contiguous(memory_format=layout)
    labels = torch.randint(num_classes, (batch_size,), generator=generator, device=device)
    while True:
        yield images, labels


class EndlessEpochs:
    """Indices of consecutive batches; a batch may span epochs, and none drops images.

    Args:
        size: of the data set.
        batch_size: of all ranks together.
        seed: of the order.
        first: number of the first batch.
        piece: which images of each batch.
    """

    def __init__(self, size: int, batch_size: int, seed: int, first: int = 0, piece: slice = _WHOLE) -> None:
        self._first = first
        self._piece = piece
        self._size = size
        self._batch_size = batch_size
        self._seed = seed

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self._seed)
        # A tensor: the slices of a list of a million rows would take 4 ms in each step.
        left = torch.empty(0, dtype=torch.int64)
        for position in itertools.count():
            while len(left) < self._batch_size:
                left = torch.cat([left, torch.randperm(self._size, generator=generator)])
            chosen, left = left[: self._batch_size], left[self._batch_size :]
            if position >= self._first:
                yield chosen[self._piece].tolist()


def check_root(data: str, root: str, option: str = "data_root") -> None:
    """Check that the folder of the data exists.

    Raises:
        DataError: when it does not.
    """
    if not root:
        raise DataError(f"data = {data!r} needs {option}, the folder of the images")
    if not Path(root).is_dir():
        raise DataError(f"{option} = {root!r}: no such folder for data = {data!r}")
