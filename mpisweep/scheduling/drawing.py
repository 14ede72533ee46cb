"""Durations of the trials that are left, drawn many times.

A draw is one possible sweep.  Its noise and the uncertain weights of the regression
(:mod:`mpisweep.scheduling.durations`) are drawn for each: an error of the weights makes all trials of a draw
longer or shorter together, so it does not average out over many trials.  Trials that fail or are pruned end
early, and attempts are lost with their workers, at the rates that earlier runs observed; rates are uncertain
too (a beta distribution), and what was never observed does not occur.

Pure: the caller passes the random generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisweep.scheduling.durations import DurationModel, Predictive

__all__ = ["Ahead", "Drawn", "Observed", "draw_durations"]

#: Distance of the scheduler's upper bounds from the expected logarithm, in standard deviations.
_SIGMAS = 2.0


@dataclass(frozen=True, slots=True)
class Observed:
    """What earlier runs tell beside the durations of complete trials.

    Attributes:
        ended: number of trials that ended.
        early: durations of those that failed or were pruned, as shares of their expected durations.
        attempts: number of attempts.
        lost: number of them that were lost, or had to run again for another reason.
    """

    ended: int = 0
    early: tuple[float, ...] = ()
    attempts: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Ahead:
    """The trials that are left.

    Attributes:
        model: predicts durations.
        numbers: trials that wait.
        to_come: number of trials that a search is still to propose, of one rank each.
        widths: number of ranks of each trial, by its number; None if all have one.
        timeout_s: time limit of a trial in seconds; None for none.
        retries: number of retries after a lost worker.
        observed: rates of early ends and lost attempts.
    """

    model: DurationModel
    numbers: Sequence[int]
    to_come: int = 0
    widths: Sequence[int] | None = None
    timeout_s: float | None = None
    retries: int = 0
    observed: Observed = Observed()

    @property
    def count(self) -> int:
        """Number of trials."""
        return len(self.numbers) + self.to_come

    @property
    def widest(self) -> int:
        """Largest number of ranks of a trial."""
        return 1 if self.widths is None else max((self.widths[number] for number in self.numbers), default=1)

    def in_order(self) -> list[int]:
        """The trials that have a number, in the order in which they start, the widest first."""
        ordered = self.model.next_last(self.numbers)[::-1]
        widths = self.widths
        return ordered if widths is None else sorted(ordered, key=lambda number: -widths[number])


class Drawn(NamedTuple):
    """Durations in seconds, in the order in which the trials start.

    Attributes:
        expected_s: shape (trials,).
        widths: number of ranks, shape (trials,).
        durations_s: with retries; shape (draws, trials).
        upper_s: what the scheduler will expect at most when it starts the trial; shape (draws, trials).
        uncertainty: usual ratio of the upper bounds to the expected durations.
    """

    expected_s: NDArray[np.float64]
    widths: NDArray[np.int64]
    durations_s: NDArray[np.float64]
    upper_s: NDArray[np.float64]
    uncertainty: float


def draw_durations(ahead: Ahead, draws: int, random: np.random.Generator) -> Drawn | None:
    """Draw the durations of all trials that are left.

    Without measurements every trial takes its timeout, in a single draw.

    Returns:
        None if nothing is known: there are neither measurements nor a timeout.
    """
    order = ahead.in_order()
    widths = np.ones(ahead.count, dtype=np.int64)
    if ahead.widths is not None:
        widths[: len(order)] = [ahead.widths[number] for number in order]
    known, usual = ahead.model.predictive(order), ahead.model.usual()
    if known is None or usual is None:
        if ahead.timeout_s is None:
            return None
        bound = np.full((1, ahead.count), ahead.timeout_s)
        return Drawn(bound[0], widths, bound, bound, 1.0)
    durations, upper = _drawn(known, draws, random)
    expected = np.exp(np.clip(known.logs, *known.bounds))
    if ahead.to_come:
        durations = np.hstack([durations, _unknown(usual, ahead.to_come, draws, random)])
        later = np.full((draws, ahead.to_come), float(np.exp(usual.logs[0] + _SIGMAS * usual.spread)))
        upper = np.hstack([upper, later])
        expected = np.append(expected, np.full(ahead.to_come, float(np.exp(usual.logs[0]))))
    if ahead.timeout_s is not None:
        durations, upper = np.minimum(durations, ahead.timeout_s), np.minimum(upper, ahead.timeout_s)
        expected = np.minimum(expected, ahead.timeout_s)
    _end_early(durations, ahead.observed, random)
    _lose_attempts(durations, ahead.observed, ahead.retries, random)
    return Drawn(expected, widths, durations, upper, math.exp(_SIGMAS * known.spread))


def _drawn(
    known: Predictive, draws: int, random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Durations, and the upper bounds that a scheduler has learned by then; shape (draws, trials)."""
    spread = _spreads(known, draws, random)
    weights = random.standard_normal((draws, known.factors.shape[1]))
    means = known.logs + spread * (weights @ known.factors.T)
    noise = random.standard_normal((draws, len(known.logs)))
    durations = np.exp(np.clip(means + spread * noise, *known.bounds))
    return durations, np.exp(np.clip(means, *known.bounds) + _SIGMAS * spread)


def _unknown(
    usual: Predictive, count: int, draws: int, random: np.random.Generator
) -> NDArray[np.float64]:  # (draws, count)
    """Durations of trials whose parameters are not known yet."""
    spread = _spreads(usual, draws, random)
    means = usual.logs + spread * usual.factors[0, 0] * random.standard_normal((draws, 1))
    found: NDArray[np.float64] = np.exp(
        np.clip(means + spread * random.standard_normal((draws, count)), *usual.bounds)
    )
    return found


def _spreads(known: Predictive, draws: int, random: np.random.Generator) -> NDArray[np.float64]:
    """The standard deviation of the residuals in each draw, shape (draws, 1)."""
    found: NDArray[np.float64] = known.spread * np.sqrt(
        known.freedom / random.chisquare(known.freedom, (draws, 1))
    )
    return found


def _end_early(durations: NDArray[np.float64], observed: Observed, random: np.random.Generator) -> None:
    if not observed.early:
        return
    draws, count = durations.shape
    rest = max(observed.ended - len(observed.early), 0)
    share = random.beta(len(observed.early), rest, (draws, 1)) if rest else 1.0
    is_early = random.random((draws, count)) < share
    durations[is_early] *= random.choice(np.asarray(observed.early), int(is_early.sum()))


def _lose_attempts(
    durations: NDArray[np.float64], observed: Observed, retries: int, random: np.random.Generator
) -> None:
    """Add the attempts that are lost: each takes a part of the duration."""
    if not observed.lost:
        return
    draws, count = durations.shape
    rest = max(observed.attempts - observed.lost, 0)
    share = random.beta(observed.lost, rest, (draws, 1)) if rest else 1.0
    whole, is_lost = durations.copy(), np.ones((draws, count), bool)
    for _ in range(retries):
        is_lost &= random.random((draws, count)) < share
        durations += is_lost * random.random((draws, count)) * whole
