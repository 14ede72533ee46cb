"""When a trial ends: after a number of steps, after a time, or at a target.

Steps are counted without waiting for the device.  Time and target are known once losses and times have been
read, so steps are read when the time is expected to be up; a target may be passed by the steps that are read
together.
"""

from __future__ import annotations

from collections.abc import Mapping

from mpisweep.records import Value
from mpisweep.spec.training import contradiction, last_bounds, parse_target, planned_steps
from mpisweep.workloads.ranks import Ranks
from mpisweep.workloads.resnet50.history import History

__all__ = ["Budget"]


class Budget:
    """The bounds of one trial.

    Args:
        options: of the trial.
        ranks: of the trial; their times differ, and rank 0's count.

    Raises:
        ValueError: when the options contradict each other.
    """

    def __init__(self, options: Mapping[str, Value], ranks: Ranks) -> None:
        if found := contradiction(options):
            raise ValueError(" ".join(found))
        self.target = parse_target(str(options["until"]))
        self._steps = planned_steps(options)
        #: The bounds of a trial that ends at the last of them.
        self._bounds = last_bounds(options)
        self._seconds = float(options["seconds"])
        self._ranks = ranks

    def is_last(self, step: int) -> bool:
        """Whether a step, counted from 1, is the last one by number."""
        return step == self._steps

    def is_over(self, history: History) -> bool:
        """Whether a trial with these steps, all of which are read, has ended."""
        if self._bounds:
            is_there = all(history.step_at(axis, amount) is not None for axis, amount in self._bounds.items())
            return self._ranks.any(self._ranks.leads and is_there)
        if history.has_reached_target or (self._steps is not None and history.count >= self._steps):
            return True
        if not self._seconds:
            return False
        return self._ranks.any(self._ranks.leads and history.seconds >= self._seconds)

    def steps_to_read(self, history: History, most: int) -> int:
        """Number of steps until the next reading: all that are left, if known, and at most `most`."""
        for axis in ("steps", "samples"):
            if (steps := int(self._bounds.get(axis, 0)) - history.count) > 0:
                # The losses at a bound are those of its step.
                most = min(most, steps)
        if not self._seconds:
            return most
        left = 1.0
        if self._ranks.leads and history.seconds > 0:
            left = (self._seconds - history.seconds) / (history.seconds / history.count)
            if self._bounds and left <= 0:
                left = float(most)  # the seconds are used up, and another bound is not reached
        return max(1, min(most, int(self._ranks.most(left))))

    def lacks_validation(self, history: History) -> bool:
        """Whether a trial that ends at its last bound has reached one without a validation since."""
        if not self._bounds:
            return False
        last = -1 if history.last_validation is None else history.last_validation
        reached = (history.step_at(axis, amount) for axis, amount in self._bounds.items())
        return self._ranks.any(
            self._ranks.leads and any(step is not None and step > last for step in reached)
        )
