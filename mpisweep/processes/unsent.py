"""What a trial has reported and not sent yet, in memory that its worker sees too: it is there also when the
trial is killed.

The trial process writes each report down here as it is made, and clears the memory when it has sent them.
When the process is gone, whatever it died of, the worker reads what is left.  A report is there once the
length says so, which is written last, in one piece; and what was being sent when the process was killed is
known by the number of its block.
"""

from __future__ import annotations

import struct
from array import array

from mpisweep.blocks import Curve

__all__ = ["UNSENT_BYTES", "Unsent"]

#: Two thousand reports, more than a trial makes between two blocks that it sends.
UNSENT_BYTES = 1 << 16
_NUMBERS = 2
_POINT = struct.Struct("<Hqdd")
_NAME = struct.Struct("<HH")
#: Stands where the index of a metric does, before the name of the next metric.
_NEW = 0xFFFF


class Unsent:
    """Reports that were not sent.

    Args:
        memory: :data:`UNSENT_BYTES` bytes that both processes see, all zero in the beginning.
    """

    def __init__(self, memory: memoryview) -> None:
        #: How many blocks of this trial were sent before; how many bytes are written.
        self._numbers = memory[: 8 * _NUMBERS].cast("q")
        self._points = memory[8 * _NUMBERS :]
        self._indices: dict[str, int] = {}

    def release(self) -> None:
        """Let the memory go."""
        self._numbers.release()
        self._points.release()

    # Written by the trial process.

    def add(self, name: str, step: int, time_s: float, value: float) -> bool:
        """Write one point down; False when there is no more room, and something has to be sent first."""
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
        """Everything was sent; `sent` blocks of this trial were."""
        self._numbers[1] = 0
        self._numbers[0] = sent
        self._indices.clear()

    # Read by the worker, when the process is gone.

    def curves(self, received: int) -> dict[str, Curve]:
        """The points that no block has; `received` blocks of the trial have come."""
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
