"""The measured steps of a trial, its curves, and its final metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpisweep.workloads.trial import Trial

__all__ = ["History", "MeasuredStep"]


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
    """

    def __init__(self, trial: Trial, *, batch_size: int, warmup: int) -> None:
        self._trial = trial
        self._batch_size = batch_size
        self._warmup = warmup
        self._steps: list[MeasuredStep] = []
        #: Step, loss and accuracy of each validation.
        self._validations: list[tuple[int, float, float]] = []
        #: The first step of each attempt.
        self._attempts: list[int] = []

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
            self._trial.report(number, loss=loss, iteration_time=taken)

    def add_validation(self, number: int, loss: float, accuracy: float) -> None:
        """Add and report a validation after a step."""
        self._validations.append((number, loss, accuracy))
        self._trial.report(number, val_loss=loss, val_accuracy=accuracy)

    @property
    def measured(self) -> dict[str, list[float]]:
        """The measurements for a checkpoint."""
        return {
            "seconds": [step.seconds for step in self._steps],
            "loss": [step.loss for step in self._steps],
            "accuracy": [step.accuracy for step in self._steps],
            "attempts": [float(first) for first in self._attempts],
            "validations": [value for each in self._validations for value in each],
        }

    def restore(self, measured: Mapping[str, list[float]]) -> None:
        """Report the steps of earlier attempts again, because the curve belongs to this attempt."""
        losses = zip(measured.get("loss", []), measured.get("accuracy", []), strict=True)
        self.add(measured.get("seconds", []), list(losses))
        self._attempts = [int(first) for first in measured.get("attempts", [])]
        values = iter(measured.get("validations", []))
        for number, loss, accuracy in zip(values, values, values, strict=True):
            self.add_validation(int(number), loss, accuracy)

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
        usual = median(step.seconds for step in self._steady)
        steady = {step.number for step in self._steady}
        return sum(
            step.seconds if step.number in steady else min(step.seconds, usual) for step in self._steps
        )

    @property
    def first_excess(self) -> float:
        """Seconds of this attempt's first step beyond the median of the steady ones."""
        first = self._steps[self._attempts[-1]].seconds
        return max(0.0, first - median(step.seconds for step in self._steady))

    def metrics(self, *, real_labels: bool) -> dict[str, float]:
        """The metrics of the whole trial; needs at least one step."""
        steps, steady = self._steps, self._steady
        tail = steps[-max(1, len(steps) // 10) :]
        metrics = {
            "loss": steps[-1].loss,
            "loss_mean": sum(step.loss for step in tail) / len(tail),
            "train_time": self._train_time,
            "step_time": median(step.seconds for step in steady),
            "images_per_second": self._batch_size * len(steady) / sum(step.seconds for step in steady),
        }
        if self._validations:
            _, metrics["val_loss"], metrics["val_accuracy"] = self._validations[-1]
        if real_labels:
            metrics["accuracy"] = sum(step.accuracy for step in tail) / len(tail)
        return metrics
