"""Batch sizes compared at equal iterations, samples or seconds, with their noise.

A reading is the smoothed loss at a budget, by the rule of ``mpisweep top --at``
(:mod:`mpisweep.results.budgets`).

Which sizes cannot be told apart from the best is decided as in all tables of mpisweep
(:mod:`mpisweep.statistics.best_set`), of the logarithm of the loss: small batches have larger losses with
larger noise, so noise is relative, and means are geometric.

Without repeats the noise comes from neighbouring sizes: each against the line between its neighbours (Gasser,
Sroka and Jennen-Steinmetz, "Residual variance and residual pattern in nonlinear regression", 1986), as if it
were the same at each.  Sizes are then told apart by Tukey's honest significant differences, at 95% for all
pairs at once; so it does not matter that the best was picked after the fact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import studentized_range, t

import mpisweep
from mpisweep.results.budgets import Budget
from mpisweep.statistics.best_set import best_set, is_worse
from mpisweep.statistics.means import CONFIDENCE, means_of

__all__ = ["Budget", "Comparison", "Runs", "budget_text", "budgets_for", "compare", "readings", "runs_of"]

Floats = NDArray[np.float64]

#: Asymptotic efficiency of the noise from neighbours, relative to that from residuals of the true curve.
_NEIGHBOURS = 18 / 35
#: Results from before there were repeats have them as values of this parameter, each with its own seed.
_EARLIER_REPEAT = "loaders"


def budget_text(budget: Budget) -> str:
    """A budget in words: ``300 iterations``."""
    exact = budget.axis != "seconds" or budget.amount >= 100
    amount = f"{budget.amount:,.0f}" if exact else f"{budget.amount:.3g}"
    return f"{amount} {'iterations' if budget.axis == 'step' else budget.axis}"


@dataclass(frozen=True)
class Runs:
    """The completed trials, one entry each."""

    number: NDArray[np.int64]
    size: NDArray[np.int64]
    repeat: NDArray[np.int64]
    wall_time_s: Floats
    #: Of the last step.
    last_loss: Floats
    #: What each trial used in all: steps, samples, and seconds of training.
    steps: Floats
    samples: Floats
    seconds: Floats

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The different batch sizes, ascending."""
        return np.unique(self.size)

    def mean_by_size(self, values: Floats) -> Floats:
        """Mean over the repeats of each size, without NaN; NaN if there is none."""
        return means_of(self.by_size(values, self.sizes)).mean

    def by_size(self, values: Floats, sizes: NDArray[np.int64]) -> Floats:
        """Values by size and repeat, shape (sizes, repeats); NaN where there is none."""
        found = np.full((len(sizes), int(self.repeat.max(initial=0)) + 1), np.nan)
        known = np.isin(self.size, sizes)
        found[np.searchsorted(sizes, self.size[known]), self.repeat[known]] = values[known]
        return found


def runs_of(sweep: mpisweep.Sweep) -> Runs:
    """The completed trials of a sweep over batch sizes."""
    done = sweep.trials[sweep.trials["state"] == "complete"]
    numbers = [int(number) for number in done["number"]]
    repeat = done["repeat"].astype(np.int64)
    if _EARLIER_REPEAT in sweep.spec.space.names:
        repeat = done[_EARLIER_REPEAT].astype(np.int64)
    used = sweep.at(step=int(sweep.configuration(numbers[0])["num_iter"])).trials[numbers]
    return Runs(
        number=np.array(numbers),
        size=done["batch_size"].astype(np.int64),
        repeat=repeat,
        wall_time_s=done["wall_time"].astype(np.float64),
        last_loss=np.array([sweep.curve(number, "loss").value[-1] for number in numbers]),
        steps=used["at_steps"],
        samples=used["at_samples"],
        seconds=used["at_seconds"],
    )


def readings(sweep: mpisweep.Sweep, runs: Runs, budget: Budget) -> Floats:
    """The smoothed loss of each trial at a budget; NaN where it ended before."""
    found: Floats = sweep.at(**budget.arguments).trials["loss_mean"][runs.number]
    return found


def budgets_for(runs: Runs) -> list[Budget]:
    """All iterations; then as many samples, and seconds, as three quarters and half of the sizes reach."""
    found = [Budget("step", float(runs.steps.max()))]
    for axis, used in (("samples", runs.samples), ("seconds", runs.seconds)):
        reached = runs.mean_by_size(used)
        for share in (0.25, 0.5):
            found.append(Budget(axis, float(np.quantile(reached, share, method="lower"))))
    return found


@dataclass(frozen=True)
class Comparison:
    """Sizes that reached a budget; arrays have one entry per size."""

    budget: Budget
    size: NDArray[np.int64]
    #: Logarithms of the losses, shape (sizes, repeats); NaN where there is none.
    logs: Floats
    #: Geometric mean, and half its 95% interval as a logarithm.
    mean: Floats
    half_width: Floats
    count: NDArray[np.int64]
    #: Relative standard deviation of a single run, and where it comes from.
    noise: float
    source: str
    #: Entry of the best size, without the luck of seeds that others lack, and whether each size cannot be
    #: told apart from it.
    best: int
    alike: NDArray[np.bool_]
    #: Repeat -> the size that wins if only this repeat had been run.
    winners: tuple[int, ...]

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
            f"| {budget_text(self.budget)} | {len(self.size)} ({self.size.min()} to {self.size.max()}) | "
            f"{self.size[self.best]} | {self.mean[self.best]:.3f} | {default} | "
            f"{', '.join(map(str, self.size[self.alike]))} |"
        )

    def differ(self, size: int, other: int) -> bool:
        """Whether the means of two sizes that were chosen beforehand differ, at 95%."""
        one, two = (self.logs[np.flatnonzero(self.size == each)[0]] for each in (size, other))
        return is_worse(one, two) or is_worse(two, one)


def compare(runs: Runs, budget: Budget, values: Floats) -> Comparison | None:
    """Compare the sizes at a budget; None if fewer than three got there.

    Args:
        runs: the trials.
        budget: how much training.
        values: of each trial; NaN where it did not get there.
    """
    values = np.log(values)
    size = np.unique(runs.size[np.isfinite(values)])
    if len(size) < 3:
        return None
    logs = runs.by_size(values, size)
    means, compared = means_of(logs), best_set(logs)
    assert compared is not None
    half_width = (means.high - means.low) / 2
    if compared.noise is not None:
        noise, source, alike = compared.noise, "repeats", compared.is_in
    else:
        noise, freedom, source = *_noise_of_neighbours(size, means.mean), "neighbouring sizes"
        alike = means.mean - means.mean.min() <= _wide(len(size), freedom) * noise * 2**0.5
        half_width = np.full(len(size), float(t.ppf(0.5 + CONFIDENCE / 2, freedom)) * noise)
    # A repeat that has only a few of the sizes has no winner.
    whole = logs[:, np.isfinite(logs).all(axis=0)]
    winners = tuple(size[np.argmin(whole, axis=0)].tolist())
    return Comparison(
        budget, size, logs, np.exp(means.mean), half_width, means.count, noise, source,
        compared.best, alike, winners,
    )  # fmt: skip


@cache
def _wide(sizes: int, freedom: float) -> float:
    """Standard errors of a difference beyond which two of so many sizes are told apart; slow to compute."""
    return float(studentized_range.ppf(CONFIDENCE, sizes, freedom)) / 2**0.5


def _noise_of_neighbours(size: NDArray[np.int64], mean: Floats) -> tuple[float, float]:
    """Standard deviation of a single run, and its degrees of freedom."""
    left, here, right = size[:-2], size[1:-1], size[2:]
    before = (right - here) / (right - left)
    after = 1 - before
    residual = before * mean[:-2] + after * mean[2:] - mean[1:-1]
    square = float((residual**2 / (before**2 + after**2 + 1)).mean())
    return square**0.5, max(1.0, _NEIGHBOURS * (len(size) - 2))
