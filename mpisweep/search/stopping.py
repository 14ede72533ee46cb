"""The rules of ``[stop]``: a target, patience with the objective, and device-hours.

A *complete* trial counts, with the objective that it has; a pruned or failed one counts as neither result
nor improvement.  Before the first finite objective there is nothing to improve, and patience does not count.

A run that a rule has ended is final as long as that rule is unchanged: trials that return while the run ends
may improve the objective, and the next run must not continue for that.

Pure: no clock, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from mpisweep.records import Direction, EndReason, TrialState
from mpisweep.spec.model import StopRules

__all__ = ["Stopping"]

_COMPLETE = int(TrialState.COMPLETE)
_HOUR_S = 3600.0
#: How often the use of devices is counted, in seconds.
_COUNT_EVERY_S = 1.0


class Stopping:
    """The rules of a sweep, and how far each is from holding.

    Args:
        rules: the rules.
        objective: name of the metric that is minimised or maximised.
        direction: whether a smaller or a larger objective is better.
        core_s: core-seconds used so far.
        gpu_s: GPU-seconds used so far.
        ended_by: the unchanged rule that ended the last run; None if there is none.

    Attributes:
        since: number of complete trials since the last improvement.
        ended_by: the unchanged rule that ended the last run.
    """

    def __init__(
        self,
        rules: StopRules,
        objective: str,
        direction: Direction,
        *,
        core_s: float = 0.0,
        gpu_s: float = 0.0,
        ended_by: EndReason | None = None,
    ) -> None:
        self.rules = rules
        self.objective = objective
        self.since = 0
        self._sign = 1.0 if direction is Direction.MINIMIZE else -1.0
        #: The best objective so far, times the sign: smaller is better.
        self._best = math.inf
        self._core_s = core_s
        self._gpu_s = gpu_s
        self.ended_by = ended_by
        #: Rank -> cores and GPUs per slot; and when their use was counted last.
        self._devices: dict[int, tuple[float, float]] = {}
        self._counted_at: float | None = None

    @property
    def used_hours(self) -> float:
        """GPU-hours used so far; core-hours if no GPU was."""
        return (self._gpu_s or self._core_s) / _HOUR_S

    @property
    def unit(self) -> str:
        """What :attr:`used_hours` counts: ``GPU-hours`` or ``core-hours``."""
        return "GPU-hours" if self._gpu_s else "core-hours"

    def note(self, states: Iterable[int], values: Sequence[float | None] | None) -> None:
        """Note trials that have ended, in order.

        Args:
            states: of these trials, as :class:`~mpisweep.records.TrialState`.
            values: their objectives; None if none of them has one.
        """
        for index, state in enumerate(states):
            if state != _COMPLETE:
                continue
            value = values[index] if values is not None else None
            value = math.inf if value is None or not math.isfinite(value) else self._sign * value
            if value < self._best:
                self._best, self.since = value, 0
            elif self._best < math.inf:
                self.since += 1

    def note_worker(self, rank: int, cores: float, gpus: float) -> None:
        """Note the cores and GPUs of each slot of a rank."""
        self._devices[rank] = cores, gpus

    def is_due(self, now: float) -> bool:
        """Whether :meth:`note_time` is to be called."""
        if self._counted_at is None:
            self._counted_at = now
        return self.rules.device_hours is not None and now - self._counted_at >= _COUNT_EVERY_S

    def note_time(self, now: float, busy: Iterable[tuple[int, int]]) -> None:
        """Count the use of devices since the last call.

        Args:
            now: seconds of a monotonic clock.
            busy: for each slot that runs a trial now, its rank, and how many trials share the GPU there, if
                measurements decide that; else 0.
        """
        elapsed_s = 0.0 if self._counted_at is None else now - self._counted_at
        self._counted_at = now
        for rank, sharing in busy:
            cores, gpus = self._devices[rank]
            self._core_s += elapsed_s * cores / max(sharing, 1)
            self._gpu_s += elapsed_s * (1 / sharing if sharing else gpus)

    def reached(self) -> EndReason | None:
        """The rule that holds; None if none does."""
        rules = self.rules
        if self.ended_by is not None:
            return self.ended_by
        if rules.target is not None and self._best <= self._sign * rules.target:
            return EndReason.TARGET
        if rules.patience is not None and self.since >= rules.patience:
            return EndReason.PATIENCE
        if rules.device_hours is not None and self.used_hours >= rules.device_hours:
            return EndReason.DEVICE_HOURS
        return None

    def texts(self) -> list[str]:
        """How far each rule is from holding, in words."""
        rules, found = self.rules, []
        if rules.target is not None:
            sign = "<=" if self._sign > 0 else ">="
            found.append(f"{self.objective} {sign} {rules.target:g}")
        if rules.patience is not None:
            found.append(f"{self.since:,} of {rules.patience:,} trials without improvement")
        if rules.device_hours is not None:
            found.append(f"{self.used_hours:.3g} of {rules.device_hours:g} {self.unit}")
        return found
