"""Batch sizes compared at equal iterations, samples or seconds, with their noise.

A reading is the mean loss over the last tenth of a budget, as `loss_mean` is over the last tenth of the
steps.  Step *k* of a trial with batch size B has seen (k + 1) B samples.  Seconds are those of the steps at a
steady pace: a warm-up step counts as the median of the others, as in `train_time`.

Which sizes cannot be told apart from the best: Tukey's honest significant differences, in Kramer's form for
unequal counts, at 95% for all pairs at once; so it does not matter that the best was picked after the fact.
They are taken of the logarithm of the loss, because small batches have larger losses with larger noise: noise
is relative, and means are geometric.  It is pooled over the repeats of all sizes, as if it were the same at
each.  Without repeats it comes from neighbouring sizes: each against the line between its neighbours (Gasser,
Sroka and Jennen-Steinmetz, "Residual variance and residual pattern in nonlinear regression", 1986).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import studentized_range, t
from sweep import REPEAT

import mpisweep

__all__ = ["Budget", "Comparison", "Runs", "budgets_for", "compare", "readings", "runs_of"]

Floats = NDArray[np.float64]
Kind = Literal["iterations", "samples", "seconds"]

CONFIDENCE = 0.95
#: Asymptotic efficiency of the noise from neighbours, relative to that from residuals of the true curve.
_NEIGHBOURS = 18 / 35


@dataclass(frozen=True)
class Budget:
    """How much training is compared."""

    kind: Kind
    amount: float

    def __str__(self) -> str:
        amount = (
            f"{self.amount:,.0f}" if self.kind != "seconds" or self.amount >= 100 else f"{self.amount:.3g}"
        )
        return f"{amount} {self.kind}"


@dataclass(frozen=True)
class Runs:
    """The completed trials, one entry each."""

    number: NDArray[np.int64]
    size: NDArray[np.int64]
    repeat: NDArray[np.int64]
    wall_time_s: Floats
    #: Step -> loss of each trial.
    losses: tuple[Floats, ...]
    #: Step -> seconds of training until its end.
    seconds: tuple[Floats, ...]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The different batch sizes, ascending."""
        return np.unique(self.size)

    def mean_by_size(self, values: Floats) -> Floats:
        """Mean over the repeats of each size, without NaN; NaN if there is none."""
        return np.array([_mean(values[self.size == size]) for size in self.sizes])


def _mean(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def runs_of(sweep: mpisweep.Sweep) -> Runs:
    """The completed trials of a sweep over batch sizes."""
    done = sweep.trials[sweep.trials["state"] == "complete"]
    numbers = [int(number) for number in done["number"]]
    warmup = int(sweep.configuration(numbers[0])["warmup_iter"])
    return Runs(
        number=np.array(numbers),
        size=done["batch_size"].astype(np.int64),
        repeat=done[REPEAT].astype(np.int64),
        wall_time_s=done["wall_time"].astype(np.float64),
        losses=tuple(sweep.curve(number, "loss").value for number in numbers),
        seconds=tuple(_steady(sweep.curve(number, "iteration_time").value, warmup) for number in numbers),
    )


def _steady(step_s: Floats, warmup: int) -> Floats:
    usual = float(np.median(step_s[warmup:])) if len(step_s) > warmup else float(np.median(step_s))
    counted = np.where(np.arange(len(step_s)) < warmup, np.minimum(step_s, usual), step_s)
    return np.cumsum(counted)


def readings(runs: Runs, budget: Budget) -> Floats:
    """The reading of each trial at a budget; NaN where it ended before."""
    found = np.full(len(runs.number), np.nan)
    for index, loss in enumerate(runs.losses):
        used = _used(runs, index, budget.kind)
        if len(used) == 0 or used[-1] < budget.amount * (1 - 1e-9):
            continue
        within = used <= budget.amount * (1 + 1e-9)
        if not within.any():
            continue
        tail = within & (used > 0.9 * budget.amount)
        found[index] = loss[tail].mean() if tail.any() else loss[within][-1]
    return found


def _used(runs: Runs, index: int, kind: Kind) -> Floats:
    """How much of a budget a trial has used after each of its steps."""
    if kind == "seconds":
        return runs.seconds[index]
    steps = np.arange(1, len(runs.losses[index]) + 1, dtype=np.float64)
    return steps if kind == "iterations" else steps * float(runs.size[index])


def budgets_for(runs: Runs) -> list[Budget]:
    """All iterations; then as many samples, and seconds, as three quarters and half of the sizes reach."""
    steps = max(map(len, runs.losses))
    found = [Budget("iterations", steps)]
    for kind in ("samples", "seconds"):
        reached = runs.mean_by_size(np.array([_used(runs, i, kind)[-1] for i in range(len(runs.number))]))
        for share in (0.25, 0.5):
            found.append(Budget(kind, float(np.quantile(reached, share, method="lower"))))
    return found


@dataclass(frozen=True)
class Comparison:
    """Sizes that reached a budget; arrays have one entry per size."""

    budget: Budget
    size: NDArray[np.int64]
    #: Geometric mean.
    mean: Floats
    count: NDArray[np.int64]
    #: Relative standard deviation of a single run, its degrees of freedom, and where it comes from.
    noise: float
    freedom: float
    source: str
    #: Whether the size cannot be told apart from the best.
    alike: NDArray[np.bool_]
    #: Repeat -> the size that wins if only this repeat had been run.
    winners: tuple[int, ...]

    @property
    def best(self) -> int:
        """Entry of the best size."""
        return int(np.argmin(self.mean))

    def entry(self, size: int) -> int | None:
        """Entry of a size; None if it did not reach the budget."""
        found = np.flatnonzero(self.size == size)
        return int(found[0]) if len(found) else None

    def row(self, baseline: int) -> str:
        """A line of a table in Markdown."""
        entry = self.entry(baseline)
        if entry is None:
            default = "did not get there"
        elif entry == self.best:
            default = "the best"
        else:
            behind = 100 * (self.mean[entry] / self.mean[self.best] - 1)
            default = f"{behind:.0f}% larger, {'not told apart' if self.alike[entry] else 'told apart'}"
        return (
            f"| {self.budget} | {len(self.size)} ({self.size.min()} to {self.size.max()}) | "
            f"{self.size[self.best]} | {self.mean[self.best]:.3f} | {default} | "
            f"{', '.join(map(str, self.size[self.alike]))} |"
        )

    def differ(self, size: int, other: int) -> bool:
        """Whether the means of two sizes that were chosen beforehand differ, at 95%."""
        one, two = np.flatnonzero(self.size == size)[0], np.flatnonzero(self.size == other)[0]
        error = self.noise * (1 / self.count[one] + 1 / self.count[two]) ** 0.5
        gap = abs(np.log(self.mean[one] / self.mean[two]))
        return bool(gap > t.ppf(0.5 + CONFIDENCE / 2, self.freedom) * error)

    def half_width(self, entry: int) -> float:
        """Half the 95% interval of one size's mean, by itself, relative to the mean."""
        return float(t.ppf(0.5 + CONFIDENCE / 2, self.freedom)) * self.noise / float(self.count[entry]) ** 0.5


def compare(runs: Runs, budget: Budget, values: Floats | None = None) -> Comparison | None:
    """Compare the sizes at a budget; None if fewer than three got there.

    Args:
        runs: the trials.
        budget: how much training.
        values: of each trial, instead of the readings at the budget.
    """
    values = np.log(readings(runs, budget) if values is None else values)
    finite = np.isfinite(values)
    size = np.unique(runs.size[finite])
    if len(size) < 3:
        return None
    groups = [values[finite & (runs.size == one)] for one in size]
    mean, count = np.array([g.mean() for g in groups]), np.array([len(g) for g in groups])
    noise, freedom, source = _noise(size, mean, groups)
    best = int(np.argmin(mean))
    margin = _wide(len(size), freedom) * noise * np.sqrt(1 / count + 1 / count[best])
    winners = []
    for repeat in np.unique(runs.repeat[finite]):
        own = finite & (runs.repeat == repeat)
        # A repeat that has only a few of the sizes has no winner.
        if own.sum() == len(size):
            winners.append(int(runs.size[own][np.argmin(values[own])]))
    return Comparison(
        budget, size, np.exp(mean), count, noise, freedom, source, mean - mean[best] <= margin, tuple(winners)
    )


@cache
def _wide(sizes: int, freedom: float) -> float:
    """Standard errors of a difference beyond which two of so many sizes are told apart; slow to compute."""
    return float(studentized_range.ppf(CONFIDENCE, sizes, freedom)) / 2**0.5


def _noise(size: NDArray[np.int64], mean: Floats, groups: list[Floats]) -> tuple[float, float, str]:
    freedom = sum(len(group) - 1 for group in groups)
    if freedom >= 3:
        square = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / freedom
        return square**0.5, float(freedom), "repeats"
    left, here, right = size[:-2], size[1:-1], size[2:]
    before = (right - here) / (right - left)
    after = 1 - before
    residual = before * mean[:-2] + after * mean[2:] - mean[1:-1]
    square = float((residual**2 / (before**2 + after**2 + 1)).mean())
    return square**0.5, max(1.0, _NEIGHBOURS * (len(size) - 2)), "neighbouring sizes"
