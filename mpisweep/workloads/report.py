"""``mpisweep.report``: metrics from a program that mpisweep runs as a command line.

It needs only the standard library, imports in a millisecond, and does nothing if mpisweep did not start the
program, so that the calls can stay in the program::

    import mpisweep
    for step in range(300):
        loss = train_step()
        mpisweep.report(step=step, loss=loss)
"""

from __future__ import annotations

import json
import math
import operator
import os
from typing import SupportsFloat, SupportsIndex

__all__ = ["REPORT_VARIABLE", "report", "whole_step"]

#: Holds the pipe's descriptor, its inode, and the process that reads it: ``5:123456:789``.
REPORT_VARIABLE = "MPISWEEP_REPORT"

_pipe: int | None = None
_pipe_is_known = False


def report(step: int | None = None, **metrics: float) -> None:
    """Add one step to the curves of this trial.

    Args:
        step: any increasing integer, or a float that is whole; by default the calls are counted.
        metrics: metric names and their values, of any type that ``float()`` accepts.

    Raises:
        TypeError: when the step is not an integer.
    """
    whole = None if step is None else whole_step(step)
    pipe = _find_pipe()
    if pipe is None or not metrics:
        return
    numbers: dict[str, float | int] = {name: _number(value) for name, value in metrics.items()}
    if whole is not None:
        numbers["step"] = whole
    # A pipe takes up to 4096 bytes atomically, even with several writers.
    os.write(pipe, (json.dumps(numbers) + "\n").encode())


def _number(value: SupportsFloat) -> float:
    try:
        return float(value)
    except OverflowError:
        # An integer too large for a float.
        return math.nan


def whole_step(step: SupportsIndex | SupportsFloat) -> int:
    """Convert a step to an integer.

    Raises:
        TypeError: when it is not whole, or does not fit into 64 bits.
    """
    try:
        whole = operator.index(step)  # type: ignore[arg-type]
    except TypeError:
        number = math.nan if isinstance(step, (str, bytes)) or not hasattr(step, "__float__") else float(step)
        if not number.is_integer():
            raise TypeError(
                f"the step of a report is {step!r}; expected an integer that increases, e.g. the iteration"
            ) from None
        whole = int(number)
    if not -(2**63) <= whole < 2**63:
        raise TypeError(f"the step of a report is {step!r}; expected an integer of at most 64 bits")
    return whole


def _find_pipe() -> int | None:
    """The pipe's descriptor; None if mpisweep did not start this program."""
    global _pipe, _pipe_is_known
    if _pipe_is_known:
        return _pipe
    _pipe_is_known = True
    stated = os.environ.get(REPORT_VARIABLE, "").split(":")
    if len(stated) != 3 or not all(part.isdigit() for part in stated):
        return None
    file, inode, reader = (int(part) for part in stated)
    try:
        if os.fstat(file).st_ino == inode:
            _pipe = file
            return file
    except OSError:
        pass
    # A program in between, such as torchrun, has closed it; on Linux /proc can open it again.
    try:
        found = _open_again(reader, inode)
    except OSError:
        found = None
    _pipe = found
    return found


def _open_again(reader: int, inode: int) -> int | None:
    with os.scandir(f"/proc/{reader}/fd") as files:
        found = next((file.path for file in files if file.stat().st_ino == inode), None)
    return None if found is None else os.open(found, os.O_WRONLY)
