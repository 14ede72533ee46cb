"""Reading image files, and decoding and resizing them on a CPU."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from mpisweep.workloads.datasets import DataError

__all__ = ["decode_resized", "read"]


def read(path: str) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: when it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"image {path} cannot be read: {error.strerror or error}") from error


def decode_resized(data: bytes, path: str, size: int) -> Tensor:
    """Decode an image and resize it to (3, size, size) uint8.

    Raises:
        DataError: when it is not an image, or is damaged.
    """
    image = _decoded(data, path).resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()  # (3, S, S)


def _decoded(data: bytes, path: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except UnidentifiedImageError as error:
        raise DataError(f"image {path} cannot be decoded: its format is unknown, or it is damaged") from error
    # Pillow's decoders raise these for damaged files.
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"image {path} cannot be decoded: {error}") from error
