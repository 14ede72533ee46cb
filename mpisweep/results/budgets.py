"""Trials compared after equal steps, samples or seconds, whatever budget each of them had.

How far a trial was at each of its reports:

* *steps*: the steps done.  If a trial's steps count from 0, the report of step 299 is one after 300 steps;
  else a report's step is the number of steps done.
* *samples*: the trial's curve ``samples``, the samples of all steps so far; else ``batch_size`` times steps,
  for a workload whose description says so, such as ResNet50.
* *seconds*: the trial's curve ``train_time``, the training time so far without setup, which ResNet50 reports;
  else the time since the trial's start.

A budget is rounded up to whole steps, as in a trial that has this budget; between two reports, samples and
seconds grow in proportion to steps.  A metric's value at a budget is the mean over the last tenth of its
reports until then, at least one: the rule of ResNet50's ``loss_mean``.  A trial that has not used as much has
no value, NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisweep.blocks import Curve
from mpisweep.results import ResultsError
from mpisweep.results.state import SweepState
from mpisweep.spec import Spec, parse_duration
from mpisweep.spec.units import number_text

__all__ = ["AT_METRICS", "NO_PROGRESS", "Budget", "Progress", "parse_budget", "progress_of", "state_at"]

Floats = NDArray[np.float64]

#: Curves that say how far a trial is; their values add up and have no mean.
_SAMPLES, _TRAIN_TIME = "samples", "train_time"
#: What each trial had used at a budget, as metrics -> their units.
AT_METRICS = {"at_steps": "", "at_samples": "", "at_seconds": "s"}
_AXES = ("step", "samples", "seconds")


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount of training.

    Attributes:
        axis: ``step``, ``samples`` or ``seconds``.
        amount: of it, above 0.

    Raises:
        ValueError: when the axis is another, or the amount is not above 0.
    """

    axis: str
    amount: float

    def __post_init__(self) -> None:
        if self.axis not in _AXES or not 0 < self.amount < math.inf:
            raise ValueError(
                f"{self.axis}={self.amount!r} is no budget; expected step=N, samples=N or seconds=N above 0"
            )

    @classmethod
    def of(cls, given: Mapping[str, float | None]) -> Budget:
        """The one that is not None."""
        found = [(axis, amount) for axis, amount in given.items() if amount is not None]
        if len(found) != 1:
            raise ValueError(f"found {len(found)} budgets; expected one of {', '.join(given)}")
        return cls(*found[0])

    def __str__(self) -> str:
        amount = f"{self.amount:,.0f}" if self.amount == round(self.amount) else number_text(self.amount)
        return f"{'steps' if self.axis == 'step' else self.axis} = {amount}"

    @property
    def arguments(self) -> dict[str, float]:
        """As keyword arguments of :meth:`mpisweep.results.load.Sweep.at`."""
        return {self.axis: self.amount}


def parse_budget(text: str) -> Budget:
    """Parse ``step=300``, ``samples=76800``, ``seconds=60`` or ``seconds=10m``.

    Raises:
        ValueError: if it is none of these.
    """
    axis, _, amount = text.partition("=")
    problem = f"{text!r} is no budget; expected step=N, samples=N or seconds=N"
    try:
        value = parse_duration(amount) if axis == "seconds" else float(amount)
    except ValueError:
        raise ValueError(problem) from None
    if value is None or axis not in _AXES or not 0 < value < math.inf:
        raise ValueError(problem)
    return Budget(axis, value)


class Progress(NamedTuple):
    """How far a trial was at each report of a metric.

    Arrays of shape (reports,); NaN where unknown.
    """

    steps: Floats
    samples: Floats
    seconds: Floats


#: Of a trial that has not reported a metric.
NO_PROGRESS = Progress(np.empty(0), np.empty(0), np.empty(0))


class _Scale(NamedTuple):
    """What a trial has used after some numbers of steps; both increase."""

    steps: Floats
    used: Floats

    def used_after(self, steps: Floats) -> Floats:
        """What was used after these steps; NaN beyond the last."""
        if not len(self.steps):
            return np.full(len(steps), np.nan)
        found: Floats = np.interp(steps, [0.0, *self.steps], [0.0, *self.used], right=np.nan)
        return found

    def steps_for(self, amount: float) -> float:
        """The whole number of steps that use this amount; NaN if the trial never did."""
        # Also a NaN at the end of the scale means that it never did.
        if not len(self.used) or not self.used[-1] >= amount:
            return math.nan
        last = int(np.searchsorted(self.used, amount))
        if self.used[last] == amount:
            return float(self.steps[last])
        before = (self.steps[last - 1], self.used[last - 1]) if last else (0.0, 0.0)
        share = (amount - before[1]) / (self.used[last] - before[1])
        exact = before[0] + share * (self.steps[last] - before[0])
        # A whole number of steps may come out a little above.
        return float(min(math.ceil(exact * (1 - 1e-12)), self.steps[last]))


class _Trial:
    """The curves of one trial, by the steps done.

    Args:
        curves: by metric.
        samples_per_step: if the workload says so.
    """

    def __init__(self, curves: Mapping[str, Curve], samples_per_step: float | None) -> None:
        self._curves = {name: curve for name, curve in curves.items() if len(curve.step)}
        self._samples_per_step = samples_per_step
        first = min((curve.step[0] for curve in self._curves.values()), default=1)
        self._offset = 1 if first == 0 else 0
        self._steps = {name: self._steps_of(curve) for name, curve in self._curves.items()}
        self._longest = max(self._curves, key=lambda name: len(self._curves[name].step), default=None)
        self._scales = {axis: self._scale(axis) for axis in _AXES}

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that have been reported."""
        return tuple(self._curves)

    def steps(self, metric: str) -> Floats:
        """Steps done at each report of a metric; empty if there is none."""
        return self._steps.get(metric, np.empty(0))

    def scale(self, axis: str) -> _Scale | None:
        """What was used of a budget by the steps done; None if unknown."""
        return self._scales[axis]

    def _steps_of(self, curve: Curve) -> Floats:
        steps = np.array(curve.step, dtype=np.float64) + self._offset
        return np.asarray(np.maximum.accumulate(steps))

    def _scale(self, axis: str) -> _Scale | None:
        if self._longest is None:
            return None
        if axis == "seconds":
            name = _TRAIN_TIME if _TRAIN_TIME in self._curves else self._longest
            curve = self._curves[name]
            return _scale(self._steps[name], np.array(curve.value if name == _TRAIN_TIME else curve.time))
        if axis == "samples" and _SAMPLES in self._curves:
            return _scale(self._steps[_SAMPLES], np.array(self._curves[_SAMPLES].value))
        per_step = self._samples_per_step if axis == "samples" else 1.0
        if per_step is None:
            return None
        last = max(float(steps[-1]) for steps in self._steps.values())
        steps = np.arange(1.0, last + 1) if last < 2 else np.array([1.0, last])
        return _Scale(steps, steps * per_step)

    def value(self, name: str, steps: float) -> float:
        """The smoothed value of a curve after these steps; NaN if there is none."""
        curve = self._curves.get(name)
        if curve is None or math.isnan(steps):
            return math.nan
        count = int(np.searchsorted(self._steps[name], steps, side="right"))
        if not count:
            return math.nan
        values = np.array(curve.value[:count])
        if name in (_SAMPLES, _TRAIN_TIME):
            return float(values[-1])
        with np.errstate(invalid="ignore", over="ignore"):
            return float(values[-max(1, count // 10) :].mean())


def _scale(steps: Floats, used: Floats) -> _Scale:
    known = np.isfinite(used)
    return _Scale(steps[known], np.maximum.accumulate(used[known]) if known.any() else used[known])


def progress_of(state: SweepState, spec: Spec, number: int) -> dict[str, Progress]:
    """How far a trial was at each report, by metric; the trial's curves are read once."""
    trial = _Trial(_curves(state, number), _samples_per_step(state, spec, number))
    found: dict[str, Progress] = {}
    for metric in trial.metrics:
        steps = trial.steps(metric)
        samples, seconds = (
            np.full(len(steps), np.nan) if scale is None else scale.used_after(steps)
            for scale in (trial.scale("samples"), trial.scale("seconds"))
        )
        found[metric] = Progress(steps, samples, seconds)
    return found


def state_at(state: SweepState, spec: Spec, budget: Budget) -> SweepState:
    """The sweep with the values of its curves at a budget as metrics.

    Metrics without a curve are left out.

    Raises:
        ResultsError: when no trial says how much of the budget it has used.
    """
    curve_of = _curves_of_metrics(state, spec)
    names = [*curve_of, *AT_METRICS]
    found: dict[str, list[float]] = {name: [math.nan] * state.count for name in names}
    is_known = False
    for number in range(state.count):
        trial = _Trial(_curves(state, number), _samples_per_step(state, spec, number))
        scale = trial.scale(budget.axis)
        if scale is None:
            continue
        is_known = True
        steps = scale.steps_for(budget.amount)
        for name, curve in curve_of.items():
            found[name][number] = trial.value(curve, steps)
        for name, axis in zip(AT_METRICS, _AXES, strict=True):
            other = trial.scale(axis)
            if other is not None and not math.isnan(steps):
                found[name][number] = float(other.used_after(np.array([steps]))[0])
    if not is_known:
        raise ResultsError(_why_unknown(state, budget))
    return replace(state, metrics=found)


def _why_unknown(state: SweepState, budget: Budget) -> str:
    if not state.curve_names:
        return f"no trial has reported curves, so none has a value at {budget}"
    return (
        f"the trials do not say how many samples they have used; report it, e.g. "
        f"trial.report(step, {state.curve_names[0]}=..., samples=...)"
    )


def _curves(state: SweepState, number: int) -> Mapping[str, Curve]:
    return state.curves.of_trial(number, state.curves.lengths(number))


def _curves_of_metrics(state: SweepState, spec: Spec) -> dict[str, str]:
    """Metric -> the curve that gives its value at a budget."""
    described = spec.built_in.metrics if spec.built_in else ()
    smooths = {metric.name: metric.smooths for metric in described if metric.smooths}
    curves = state.curve_names
    pairs = {name: smooths.get(name, name) for name in dict.fromkeys([*state.metrics, *curves, *smooths])}
    return {name: curve for name, curve in pairs.items() if curve in curves and name not in AT_METRICS}


def _samples_per_step(state: SweepState, spec: Spec, number: int) -> float | None:
    built_in = spec.built_in
    if built_in is None or not built_in.samples_per_step:
        return None
    column = state.parameters.get(built_in.samples_per_step)
    value = column[number] if column else None
    return float(spec.full({})[built_in.samples_per_step] if value is None else value)
