"""The measured steps of a trial, its curves, and its final metrics."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from mpisweep.spec.training import Target
from mpisweep.workloads.resnet50.noise import GradientNoise, noise_scale
from mpisweep.workloads.resnet50.train_time import TrainTime

if TYPE_CHECKING:
    from mpisweep.workloads.trial import Trial

__all__ = ["History", "MeasuredStep"]

#: Fewest steps over which a target is judged: a few small batches may be easy ones.
_STEPS_JUDGED = 10


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """One step."""

    number: int
    seconds: float
    loss: float
    accuracy: float


class History:
    """All steps of a trial, over all of its attempts.

    Args:
        trial: gets the curves.
        batch_size: images in a step.
        warmup: steps at the start of each attempt that do not count for speed.
        target: ends the trial; None for none.
        has_noise: whether the gradient noise is measured.
        bounds: of a trial that ends at the last of them; the losses at each are metrics.
    """

    def __init__(
        self, trial: Trial, *, batch_size: int, warmup: int, target: Target | None = None,
        has_noise: bool = False, bounds: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        self._trial = trial
        self._batch_size = batch_size
        self._warmup = warmup
        self._target = target
        self._has_noise = has_noise
        self._bounds = bounds or {}
        self._steps: list[MeasuredStep] = []
        self._time = TrainTime()
        #: Step, loss and accuracy of each validation.
        self._validations: list[tuple[int, float, float]] = []
        self._noise: list[tuple[int, GradientNoise]] = []
        #: The first step of each attempt.
        self._attempts: list[int] = []
        #: The step that reached the target.
        self._reached_by: int | None = None
        #: Sums of the target's metric over the first steps, from none to all.
        self._sums = [0.0]

    def begin_attempt(self) -> None:
        """Begin an attempt, which has its own warm-up."""
        self._attempts.append(len(self._steps))

    def add(self, seconds: Sequence[float], measured: Sequence[Sequence[float]]) -> None:
        """Add steps and report them.

        Args:
            seconds: of each step.
            measured: loss and accuracy of each.
        """
        for taken, (loss, accuracy) in zip(seconds, measured, strict=True):
            number = len(self._steps)
            self._steps.append(MeasuredStep(number, taken, loss, accuracy))
            self._time.add(taken, is_warm=self._is_warm(number))
            # Known from the first step after the warm-up on.
            known = {"train_time": self._time.until_now} if self._time.is_known else {}
            self._trial.report(number, loss=loss, iteration_time=taken, **known)
            self._judge_step(number, loss, accuracy)

    def _is_warm(self, number: int) -> bool:
        return any(first <= number < first + self._warmup for first in self._attempts)

    def _judge_step(self, number: int, loss: float, accuracy: float) -> None:
        """Compare the mean over the last tenth of the steps, and at least some, with the target."""
        if self._target is None or self._target.metric not in ("loss_mean", "accuracy"):
            return
        # A loss that is not finite stays in the sums: the training has diverged and reaches nothing any more.
        self._sums.append(self._sums[-1] + (loss if self._target.metric == "loss_mean" else accuracy))
        count = number + 1
        last = max(_STEPS_JUDGED, count // 10)
        if count >= _STEPS_JUDGED:
            self._judge(number, (self._sums[-1] - self._sums[-1 - last]) / last)

    def _judge(self, number: int, value: float) -> None:
        assert self._target is not None
        if self._reached_by is None and self._target.is_reached_by(value):
            self._reached_by = number

    def add_validation(self, number: int, loss: float, accuracy: float) -> None:
        """Add and report a validation after a step."""
        self._validations.append((number, loss, accuracy))
        self._trial.report(number, val_loss=loss, val_accuracy=accuracy)
        if self._target is not None and self._target.metric in ("val_loss", "val_accuracy"):
            self._judge(number, loss if self._target.metric == "val_loss" else accuracy)

    def add_noise(self, number: int, noise: GradientNoise) -> None:
        """Add and report a measurement before a step."""
        self._noise.append((number, noise))
        self._trial.report(number, gradient_variance=noise.variance, gradient_square=noise.square)

    @property
    def count(self) -> int:
        """Number of steps."""
        return len(self._steps)

    @property
    def seconds(self) -> float:
        """Time of all steps at a steady pace, over all attempts."""
        return self._time.until_now

    def step_at(self, axis: str, amount: float) -> int | None:
        """The step, from 0, that reached a bound; None if none did. See :func:`last_bounds`."""
        if axis != "seconds":
            return int(amount) - 1 if self.count >= amount else None
        if not self.count or self.seconds < amount:
            return None
        return min(bisect_left(range(self.count), amount, key=self._time.after), self.count - 1)

    @property
    def has_reached_target(self) -> bool:
        """Whether the target was reached."""
        return self._reached_by is not None

    @property
    def last_validation(self) -> int | None:
        """The last step that was followed by a validation."""
        return self._validations[-1][0] if self._validations else None

    @property
    def measured(self) -> dict[str, list[float]]:
        """The measurements for a checkpoint."""
        return {
            "seconds": [step.seconds for step in self._steps],
            "loss": [step.loss for step in self._steps],
            "accuracy": [step.accuracy for step in self._steps],
            "attempts": [float(first) for first in self._attempts],
            "validations": [value for each in self._validations for value in each],
            "noise": [value for number, noise in self._noise for value in (number, *noise)],
        }

    def restore(self, measured: Mapping[str, list[float]]) -> None:
        """Report the steps of earlier attempts again, because the curve belongs to this attempt."""
        self._attempts = [int(first) for first in measured.get("attempts", [])]
        losses = zip(measured.get("loss", []), measured.get("accuracy", []), strict=True)
        self.add(measured.get("seconds", []), list(losses))
        values = iter(measured.get("validations", []))
        for number, loss, accuracy in zip(values, values, values, strict=True):
            self.add_validation(int(number), loss, accuracy)
        values = iter(measured.get("noise", []))
        for number, variance, square in zip(values, values, values, strict=True):
            self.add_noise(int(number), GradientNoise(variance, square))

    @property
    def _steady(self) -> list[MeasuredStep]:
        """The steps after each attempt's warm-up."""
        warm = {first + n for first in self._attempts for n in range(self._warmup)}
        # A run shorter than its warm-up is timed as a whole: a rough speed is better than none.
        return [step for step in self._steps if step.number not in warm] or self._steps

    @property
    def excess(self) -> float:
        """Seconds of warm-up steps beyond the median of the others: choosing kernels, compiling."""
        return sum(step.seconds for step in self._steps) - self._train_time

    @property
    def _train_time(self) -> float:
        return self._time.after(len(self._steps) - 1)

    @property
    def first_excess(self) -> float:
        """Seconds of this attempt's first step beyond the median of the steady ones."""
        if self._attempts[-1] == len(self._steps):
            # The checkpoint was that of the last step.
            return 0.0
        first = self._steps[self._attempts[-1]].seconds
        return max(0.0, first - median(step.seconds for step in self._steady))

    def metrics(self, *, real_labels: bool) -> dict[str, float]:
        """End the trial: its metrics; needs at least one step.

        Reports `train_time` if the trial was shorter than its warm-up and has not reported it.
        """
        steps, steady = self._steps, self._steady
        tail = steps[-max(1, len(steps) // 10) :]
        metrics = {
            "loss": steps[-1].loss,
            "loss_mean": sum(step.loss for step in tail) / len(tail),
            "train_time": self._train_time,
            "step_time": median(step.seconds for step in steady),
            "images_per_second": self._batch_size * len(steady) / sum(step.seconds for step in steady),
            "steps": float(len(steps)),
            "samples": float(len(steps) * self._batch_size),
        }
        if not self._time.is_known:
            self._trial.report(steps[-1].number, train_time=self._train_time)
        if self._validations:
            _, metrics["val_loss"], metrics["val_accuracy"] = self._validations[-1]
        if real_labels:
            metrics["accuracy"] = sum(step.accuracy for step in tail) / len(tail)
        return metrics | self._bound_metrics() | self._target_metrics() | self._noise_metrics()

    def _bound_metrics(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for axis, amount in self._bounds.items():
            step = self.step_at(axis, amount)
            if step is None:
                continue
            tail = self._steps[: step + 1][-max(1, (step + 1) // 10) :]
            found[f"loss_mean_at_{axis}"] = sum(each.loss for each in tail) / len(tail)
            after = next((loss for number, loss, _ in self._validations if number >= step), None)
            if after is not None:
                found[f"val_loss_at_{axis}"] = after
        return found

    def _target_metrics(self) -> dict[str, float]:
        if self._target is None:
            return {}
        number = self._reached_by
        steps = math.nan if number is None else float(number + 1)
        return {
            "reached_target": float(number is not None),
            "steps_to_target": steps,
            "samples_to_target": steps * self._batch_size,
            "seconds_to_target": math.nan if number is None else self._time.after(number),
        }

    def _noise_metrics(self) -> dict[str, float]:
        if not self._has_noise:
            return {}
        # A loss that is scaled for fp16 may overflow, and a training may diverge.
        found = [noise for _, noise in self._noise if all(map(math.isfinite, noise))]
        scale, error = noise_scale(found)
        count = len(found) or math.nan
        return {
            "noise_scale": scale,
            "noise_scale_error": error,
            "gradient_variance": math.fsum(noise.variance for noise in found) / count,
            "gradient_square": math.fsum(noise.square for noise in found) / count,
        }
