"""One trial as other tools hold it: parameters, final metrics, curves, times and remarks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpisweep.records import Value
from mpisweep.results.load import CurveArrays, Sweep

__all__ = ["TrialFacts", "trial_facts"]

#: Columns that are told with a trial.
_TOLD = ("state", "cause", "message", "host", "device", "attempt", "repeat")


@dataclass(frozen=True, slots=True)
class TrialFacts:
    """One trial.

    Attributes:
        state: as in :attr:`Sweep.trials`, such as ``complete``.
        params: the searched parameters that it has.
        fixed: the others.
        metrics: final values that are finite.
        curves: metric -> its reports.
        started_at: seconds since 1970; NaN before it starts.
        ended_at: seconds since 1970; NaN before it ends.
        told: remarks by name: host, device, cause of a failure, and what the objective set.
    """

    number: int
    state: str
    params: dict[str, Value]
    fixed: dict[str, Value]
    metrics: dict[str, float]
    curves: dict[str, CurveArrays]
    started_at: float
    ended_at: float
    told: dict[str, object] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """Whether it has run to an end."""
        return math.isfinite(self.ended_at)

    @property
    def finals(self) -> dict[str, float]:
        """The final values that are not the last report of a curve."""
        last = {name: float(curve.value[-1]) for name, curve in self.curves.items()}
        return {name: value for name, value in self.metrics.items() if value != last.get(name)}

    @property
    def last_steps(self) -> dict[str, int]:
        """Metric -> the last step of its curve."""
        return {name: int(curve.step[-1]) for name, curve in self.curves.items()}


def _plain(value: Any) -> Any:
    """A number of NumPy as one of Python."""
    return value.item() if isinstance(value, np.generic) else value


def trial_facts(sweep: Sweep) -> Iterator[TrialFacts]:
    """Yield the trials of a sweep, in the order of their numbers."""
    searched = set(sweep.spec.space.names)
    for number, row in enumerate(sweep.trials):
        values = sweep.configuration(number)
        finals = {name: float(row[sweep.metric_column(name)]) for name in sweep.metrics}
        curves = {name: sweep.curve(number, name) for name in sweep.curve_names}
        told: dict[str, object] = {name: _plain(row[name]) for name in _TOLD}
        yield TrialFacts(
            number,
            str(row["state"]),
            {name: value for name, value in values.items() if name in searched},
            {name: value for name, value in values.items() if name not in searched},
            {name: value for name, value in finals.items() if math.isfinite(value)},
            {name: curve for name, curve in curves.items() if len(curve.step)},
            float(row["started_at"]),
            float(row["ended_at"]),
            {name: value for name, value in told.items() if value != ""} | sweep.user_attrs(number),
        )
