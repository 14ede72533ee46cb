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
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Sampler, Subset
from torchvision import datasets, transforms

__all__ = [
    "Batches",
    "DataError",
    "Images",
    "cropped_and_flipped",
    "every_image_once",
    "folder_batches",
    "folder_images",
    "held_out",
    "load_images",
    "memory_batches",
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
    _check_root(data, root)
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
    indices = _EndlessEpochs(len(data), batch_size, seed, first, piece)
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
    mean, std = _normal(images.device)
    large = functional.interpolate(
        images.float() / 255, size=(image_size, image_size), mode="bilinear", align_corners=False
    )
    return ((large.expand(-1, 3, -1, -1) - mean) / std).contiguous(memory_format=layout)


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


def folder_batches(
    root: str,
    batch_size: int,
    image_size: int,
    seed: int,
    device: torch.device,
    loaders: int,
    first: int = 0,
    piece: slice = _WHOLE,
    layout: torch.memory_format = torch.contiguous_format,
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
        layout: of the images.

    Raises:
        DataError: when there are no such folders.
    """
    found = folder_images(root, image_size)
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        found,
        batch_sampler=_EndlessEpochs(len(found), batch_size, seed, first, piece),
        num_workers=loaders,
        # Without its own generator it would draw from the model's.
        generator=torch.Generator().manual_seed(seed),
        pin_memory=device.type == "cuda",
    )
    moved = (
        (
            images.to(device, non_blocking=True, memory_format=layout),
            labels.to(device, non_blocking=True),
        )
        for images, labels in loader
    )
    return moved, len(found.classes)


def folder_images(root: str, image_size: int, option: str = "data_root") -> datasets.ImageFolder:
    """Model inputs from the images under a folder, one folder per class.

    Args:
        root: the folder.
        image_size: S.
        option: that names the folder, for messages.

    Raises:
        DataError: when there are no such folders.
    """
    _check_root("imagefolder", root, option)
    transform = transforms.Compose([
        transforms.Resize((image_size, image_size)), transforms.ToTensor(), transforms.Normalize(_MEAN, _STD),
    ])  # fmt: skip
    try:
        return datasets.ImageFolder(root, transform=transform)
    except (RuntimeError, FileNotFoundError) as error:
        raise DataError(f"{option} = {root!r}: no imagefolder data there: {error}") from error


def every_image_once(
    found: datasets.ImageFolder,
    batch_size: int,
    device: torch.device,
    layout: torch.memory_format,
    whose: slice,
    loaders: int,
) -> Batches:
    """Batches of every image of a folder once, in order; `whose` selects this rank's."""
    own = Subset(found, range(len(found))[whose])
    for images, labels in DataLoader(own, batch_size=batch_size, num_workers=loaders):
        yield images.to(device, memory_format=layout), labels.to(device)


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


def _check_root(data: str, root: str, option: str = "data_root") -> None:
    if not root:
        raise DataError(f"data = {data!r} needs {option}, the folder of the images")
    if not Path(root).is_dir():
        raise DataError(f"{option} = {root!r}: no such folder for data = {data!r}")
