"""The results of a trial that was run again, beside those that its sweep has of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mpisweep.blocks import Curve, EndedBlock
from mpisweep.records import FailureCause, TrialState
from mpisweep.results.load import Sweep

__all__ = ["Comparison", "Rerun", "compare"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One number, then and now."""

    name: str
    then: float
    now: float

    @property
    def is_same(self) -> bool:
        """Whether they are equal to the last bit, or both NaN."""
        return self.then == self.now or (math.isnan(self.then) and math.isnan(self.now))

    @property
    def relative(self) -> float:
        """The difference over the larger of the two; 0 if they are the same."""
        if self.is_same:
            return 0.0
        return abs(self.now - self.then) / max(abs(self.now), abs(self.then))


@dataclass(frozen=True, slots=True)
class Rerun:
    """The outcome of a trial that was run again.

    Attributes:
        state: how the trial ended now.
        message: why it failed; empty if it did not.
        metrics: final values; durations among them depend on the machine, not on the configuration.
        curves: for each metric the report that differs most, or the last one if none does.
        first_difference: for each metric whose curve differs, the first step at which it does, or that one of
            them lacks.
        wall_time_s: then and now.
        output: the output of a command line.
    """

    state: TrialState
    message: str
    metrics: tuple[Comparison, ...]
    curves: tuple[Comparison, ...]
    first_difference: dict[str, int]
    wall_time_s: Comparison
    output: str


def compare(sweep: Sweep, number: int, ended: EndedBlock, curves: Mapping[str, Curve], output: str) -> Rerun:
    """Compare the results of a trial that was run again with those that its sweep has.

    Args:
        sweep: the sweep of the trial.
        number: of the trial.
        ended: its end now.
        curves: what it has reported now.
        output: the output of a command line.
    """
    row = sweep.trials[number]
    now = {name: column[0] for name, column in ended.metrics.items()}
    metrics: list[Comparison] = []
    for name in dict.fromkeys([*sweep.metrics, *now]):
        then = float(row[sweep.metric_column(name)]) if name in sweep.metrics else math.nan
        value = now.get(name)
        metrics.append(Comparison(name, then, math.nan if value is None else value))
    compared: list[Comparison] = []
    first: dict[str, int] = {}
    for name in (name for name in sweep.curve_names if name in curves):
        then_curve, now_values = sweep.curve(number, name).value, np.array(curves[name].value)
        count = min(len(then_curve), len(now_values))
        if not count:
            continue
        differs = (then_curve[:count] != now_values[:count]) & ~(
            np.isnan(then_curve[:count]) & np.isnan(now_values[:count])
        )
        if differs.any():
            first[name] = int(curves[name].step[int(differs.argmax())])
        elif len(then_curve) != len(now_values):
            # They are the same up to the end of the shorter one.
            longer = curves[name].step if len(now_values) > count else sweep.curve(number, name).step
            first[name] = int(longer[count])
        # NaN in only one of them is the largest difference.
        gaps = np.nan_to_num(
            np.where(differs, np.abs(then_curve[:count] - now_values[:count]), 0.0), nan=np.inf
        )
        worst = int(np.argmax(gaps)) if differs.any() else count - 1
        compared.append(Comparison(name, float(then_curve[worst]), float(now_values[worst])))
    message = ended.messages[0] if ended.messages else ""
    if ended.causes and ended.causes[0]:
        message = f"{FailureCause(ended.causes[0]).label}: {message}"
    return Rerun(
        TrialState(ended.states[0]), message, tuple(metrics), tuple(compared), first,
        Comparison("wall_time", float(row["wall_time"]), ended.wall_time_s[0]), output,
    )  # fmt: skip
