"""Unsent reports in memory shared with the worker, which survive the death of the trial.

The trial process writes each report here as it is made, and clears the memory when it has sent them.  When
the process is dead, for whatever reason, the worker reads the rest.  A report is valid once the length covers
it; the length is written last, atomically.  The number of the block tells whether a block that was being sent
at the kill has arrived.
"""

from __future__ import annotations

import struct
from array import array

from mpisweep.blocks import Curve

__all__ = ["UNSENT_BYTES", "Unsent"]

#: Some 2,000 reports, more than a trial makes between two blocks.
UNSENT_BYTES = 1 << 16
_NUMBERS = 2
_POINT = struct.Struct("<Hqdd")
_NAME = struct.Struct("<HH")
#: Marks the name of the next metric, in place of a metric's index.
_NEW = 0xFFFF


class Unsent:
    """The reports of a trial that were not sent.

    Args:
        memory: :data:`UNSENT_BYTES` bytes shared by both processes, all zero at first.
    """

    def __init__(self, memory: memoryview) -> None:
        #: Number of blocks that this trial has sent before; number of bytes written.
        self._numbers = memory[: 8 * _NUMBERS].cast("q")
        self._points = memory[8 * _NUMBERS :]
        self._indices: dict[str, int] = {}

    def release(self) -> None:
        """Release the memory."""
        self._numbers.release()
        self._points.release()

    # Written by the trial process.

    def add(self, name: str, step: int, time_s: float, value: float) -> bool:
        """Write one point; False if the memory is full, so that the reports must be sent first."""
        at = self._numbers[1]
        index = self._indices.get(name)
        if index is None:
            raw = name.encode("utf-8", "surrogatepass")
            end = at + _NAME.size + len(raw)
            if end + _POINT.size > len(self._points) or len(raw) >= _NEW:
                return False
            index = len(self._indices)
            _NAME.pack_into(self._points, at, _NEW, len(raw))
            self._points[at + _NAME.size : end] = raw
            self._indices[name] = index
            at = end
        elif at + _POINT.size > len(self._points):
            return False
        _POINT.pack_into(self._points, at, index, step, time_s, value)
        self._numbers[1] = at + _POINT.size
        return True

    def clear(self, sent: int) -> None:
        """Forget the points after they were sent; the trial has now sent `sent` blocks."""
        self._numbers[1] = 0
        self._numbers[0] = sent
        self._indices.clear()

    # Read by the worker, when the process has ended.

    def curves(self, received: int) -> dict[str, Curve]:
        """The points that are in no block; the worker has received `received` blocks of the trial."""
        if self._numbers[0] < received:
            return {}
        curves: dict[str, Curve] = {}
        names: list[str] = []
        at, end = 0, self._numbers[1]
        while at < end:
            (index,) = struct.unpack_from("<H", self._points, at)
            if index == _NEW:
                _, length = _NAME.unpack_from(self._points, at)
                at += _NAME.size
                names.append(bytes(self._points[at : at + length]).decode("utf-8", "surrogatepass"))
                at += length
                continue
            _, step, time_s, value = _POINT.unpack_from(self._points, at)
            at += _POINT.size
            curve = curves.setdefault(names[index], Curve(array("q"), array("d"), array("d")))
            curve.step.append(step)
            curve.time.append(time_s)
            curve.value.append(value)
        return curves
