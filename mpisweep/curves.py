"""Curves of metrics, and their text in records: little-endian 64-bit numbers in base64."""

from __future__ import annotations

import sys
from array import array
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from mpisweep.dataclass import dataclass

__all__ = ["Curve", "curves_from_text", "curves_to_text"]


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric over one trial or a stretch of it: three arrays of equal length.

    ``time`` is seconds since the trial's start.
    """

    step: array[int]
    value: array[float]
    time: array[float]


def curves_to_text(curves: Mapping[str, Curve]) -> dict[str, list[str]]:
    """Encode curves: three texts each."""
    return {
        metric: [_array_to_text(curve.step), _array_to_text(curve.value), _array_to_text(curve.time)]
        for metric, curve in curves.items()
    }


def curves_from_text(curves: Mapping[str, list[str]]) -> dict[str, Curve]:
    """Decode what :func:`curves_to_text` encoded; other text raises ValueError or TypeError."""
    return {
        metric: Curve(_array_from_text("q", step), _array_from_text("d", value), _array_from_text("d", time))
        for metric, (step, value, time) in curves.items()
    }


def _array_to_text(numbers: array[Any]) -> str:
    return b64encode(_little_endian(numbers).tobytes()).decode("ascii")


def _array_from_text(typecode: str, text: str) -> array[Any]:
    numbers: array[Any] = array(typecode)
    numbers.frombytes(b64decode(text, validate=True))
    return _little_endian(numbers)


def _little_endian(numbers: array[Any]) -> array[Any]:
    if sys.byteorder == "big":
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers
