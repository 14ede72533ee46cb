"""Training time at a steady pace, which ``train_time`` reports and ``seconds`` bounds.

A warm-up step counts as the median of the steady steps so far, at most as what it took: choosing kernels and
compiling are setup.  Before the first steady step the fastest warm-up step stands in for that median, and
the first step alone counts as nothing, because it may have compiled.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from itertools import accumulate

__all__ = ["TrainTime"]


class TrainTime:
    """Adds up the steps of a trial, one by one."""

    def __init__(self) -> None:
        self._steady: list[float] = []
        self._steady_sum = 0.0
        self._warm: list[float] = []
        #: Time after each step, once there is a steady step.
        self._after: list[float] = []

    def add(self, seconds: float, *, is_warm: bool) -> None:
        """Add a step."""
        if is_warm:
            self._warm.append(seconds)
        else:
            insort(self._steady, seconds)
            self._steady_sum += seconds
        if not self._steady:
            return
        usual = _middle(self._steady)
        if not self._after:
            self._after = list(accumulate(min(each, usual) for each in self._warm))
        now = self._steady_sum + sum(min(each, usual) for each in self._warm)
        # A median that falls must not turn time back.
        self._after.append(max(now, self._after[-1] if self._after else 0.0))

    @property
    def is_known(self) -> bool:
        """Whether there is a steady step."""
        return bool(self._steady)

    @property
    def until_now(self) -> float:
        """Seconds of all steps."""
        if self._after:
            return self._after[-1]
        return len(self._warm) * min(self._warm) if len(self._warm) > 1 else 0.0

    def after(self, step: int) -> float:
        """Seconds after a step, counted from 0; a trial without a steady step is timed as it was."""
        return self._after[step] if self._after else sum(self._warm[: step + 1])


def _middle(values: Sequence[float]) -> float:
    """The median of sorted values."""
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2
