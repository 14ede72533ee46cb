"""A race: more repeats for the configurations that may be the best, none for the others.

All configurations are run with the first seeds.  Then rounds follow, of one repeat each.  After a round the
configuration with the best mean leads, and each of the others is compared with it on the seeds that both have
run: a seed's luck cancels.  It leaves the race if it is worse by a one-sided paired t test at the level

    alpha / ((configurations - 1) * (rounds))

so that, by the union bound, the best configuration leaves with a probability of at most alpha = 5%, however
often it is compared.  O. Maron and A. Moore, "The racing algorithm", 1997, bound the error in this way.  The
races with paired tests on common seeds of M. Birattari et al., "A racing algorithm for configuring
metaheuristics", GECCO 2002, and M. López-Ibáñez et al., "The irace package", 2016, do not correct for the
number of comparisons.

*Variance.*  Two or three differences say little about their variance.  With :data:`MANY` configurations or
more the first repeats of all of them are evidence about it: the variances of the configurations are taken to
be drawn from a scaled inverse chi-squared distribution, which is fitted to them and moderates each of them
(G. Smyth, "Linear models and empirical Bayes methods", 2004).  The more the variances differ from each other,
the less it does, down to the plain t test.

*Failures.*  A configuration of which a repeat failed, or has no finite objective, gets no more repeats.  A
repeat that was lost with its worker is missing, and says nothing.

*No barrier.*  What is dropped after a round follows from the results of that round alone, in whatever order
they came.  A device that would be idle until the last result of a round gets a repeat of one that the results
so far leave in the race.

Pure: no clock, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import polygamma, psi, stdtrit

from mpisweep.blocks import EndedBlock
from mpisweep.records import Direction, FailureCause, TrialState
from mpisweep.spec import Repeats

__all__ = ["ALPHA", "MANY", "Race", "fit_variances"]

#: Probability with which the best configuration may leave the race.
ALPHA = 0.05
#: Number of configurations from which on their variances are fitted together.
MANY = 10

Floats = NDArray[np.float64]


class Race:
    """Which repeats of which configurations to run next.

    Args:
        repeats: how many each configuration has at first, and at most.
        objective: the metric by which configurations are ranked.
        direction: whether smaller or larger objectives are better.
        configuration_of: number of each trial's configuration, when the race begins.
        repeat_of: which repeat of it each trial is.
        kept: a configuration that gets all repeats as long as the race lasts: the baseline; None for none.
    """

    def __init__(
        self,
        repeats: Repeats,
        objective: str,
        direction: Direction,
        configuration_of: Sequence[int],
        repeat_of: Sequence[int],
        kept: int | None = None,
    ) -> None:
        count = max(configuration_of, default=-1) + 1
        self._first, self._most = repeats.first, repeats.most
        self._objective = objective
        self._sign = 1.0 if direction is Direction.MINIMIZE else -1.0
        self._kept = kept
        #: (configuration, repeat) of each trial.
        self._of: list[tuple[int, int]] = []
        #: Configuration -> its first trial.
        self._first_trial: dict[int, int] = {}
        #: Objectives, the smaller the better; NaN where there is none.
        self._values: Floats = np.full((count, self._most), np.nan)
        self._has_ended = np.zeros((count, self._most), dtype=bool)
        self._has_failed = np.zeros(count, dtype=bool)
        #: Number of repeats that exist, in sequence.
        self._made = np.zeros(count, dtype=np.int64)
        #: Configurations in the race, and the number of repeats after which they are compared next.
        self._racing = np.arange(count)
        self._round = self._first
        #: Whether each configuration gets the repeats of this round, and how many of their results it still
        #: waits for; None if that is to be counted.
        self._runs = np.ones(count, dtype=bool)
        self._open: int | None = None
        self._prior: tuple[float, float] | None = None
        self.is_over = count < 2
        for configuration, repeat in zip(configuration_of, repeat_of, strict=True):
            self.add(configuration, repeat)

    @property
    def racing(self) -> list[int]:
        """The configurations that are in the race."""
        return [int(one) for one in self._racing]

    @property
    def round(self) -> int:
        """Number of repeats after which they are compared next."""
        return self._round

    def first_trial(self, configuration: int) -> int:
        """A trial of a configuration."""
        return self._first_trial[configuration]

    # ------------------------------------------------------------------------------------- events

    def add(self, configuration: int, repeat: int) -> None:
        """Register the next trial."""
        self._first_trial.setdefault(configuration, len(self._of))
        self._of.append((configuration, repeat))
        if repeat < self._most:
            self._made[configuration] = max(self._made[configuration], repeat + 1)

    def tell(self, block: EndedBlock) -> None:
        """Learn from trials that ended."""
        values = block.metrics.get(self._objective)
        for index, number in enumerate(block.numbers):
            cause = block.causes[index] if block.causes else int(FailureCause.NONE)
            self.note(number, block.states[index], cause, values[index] if values else None)

    def note(self, number: int, state: int, cause: int, objective: float | None) -> None:
        """Learn from a trial that ended with this TrialState, FailureCause and objective."""
        configuration, repeat = self._of[number]
        if repeat >= self._most or self._has_ended[configuration, repeat]:
            return
        self._has_ended[configuration, repeat] = True
        if self._open is not None and repeat < self._round and self._runs[configuration]:
            self._open -= 1
        if state == TrialState.COMPLETE and objective is not None and math.isfinite(objective):
            self._values[configuration, repeat] = self._sign * objective
        elif cause != FailureCause.LOST:
            self._has_failed[configuration] = True

    def ask(self, idle: int) -> list[tuple[int, int]]:
        """Say which repeats to run, (configuration, repeat); the caller adds their trials in order.

        Args:
            idle: number of devices for which no trial waits.
        """
        wanted = self._next_round()
        return wanted if wanted or self.is_over else self._ahead(idle)

    # ------------------------------------------------------------------------------------- rounds

    def _next_round(self) -> list[tuple[int, int]]:
        """Compare after each round that is complete; the repeats that the next one lacks."""
        while not self.is_over:
            if self._open is None:
                runners = self._runners()
                lacking = [
                    (int(one), repeat)
                    for repeat in range(self._round)
                    for one in runners[self._made[runners] <= repeat]
                ]
                if lacking:
                    return lacking
                self._runs[:] = False
                self._runs[runners] = True
                self._open = int((~self._has_ended[runners, : self._round]).sum())
            if self._open:
                return []
            self._open = None
            if self._round < self._most:
                self._racing = self._racing[~self._worse(self._racing, self._round)]
                self._round += 1
            else:
                self.is_over = True
            self.is_over |= len(self._racing) < 2
        return []

    def _runners(self) -> NDArray[np.int64]:
        """The configurations that get the repeats of this round."""
        if self._kept is None or self._kept in self._racing:
            return self._racing
        return np.sort(np.append(self._racing, self._kept))

    def _ahead(self, idle: int) -> list[tuple[int, int]]:
        """Repeats of later rounds for idle devices, of those that the results so far leave in the race."""
        racing, made = self._racing, self._made[self._racing]
        has_ended = self._has_ended[racing].sum(axis=1) >= made
        ready = racing[has_ended & (made < self._most)]
        if idle <= 0 or not len(ready):
            return []
        complete = racing[self._has_ended[racing, : self._round].all(axis=1)]
        ready = ready[np.isin(ready, complete[~self._worse(complete, self._round)])]
        means = _means(self._values[ready, : self._round])
        order = np.lexsort((ready, means, self._made[ready]))
        return [(int(one), int(self._made[one])) for one in ready[order[:idle]]]

    # ------------------------------------------------------------------------------------- the test

    def _worse(self, configurations: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
        """Which of these are clearly worse than the best of them in the first `count` repeats, or failed."""
        failed = self._has_failed[configurations]
        values = self._values[configurations, :count]
        means = np.where(failed, np.inf, _means(values))
        if not np.isfinite(means).any():
            return failed & ~failed.all()
        differences = values - values[np.argmin(means)]
        pairs = np.isfinite(differences).sum(axis=1)
        mean = _means(differences)
        degrees = np.maximum(pairs - 1.0, 0.0)
        squares = np.nansum((differences - mean[:, None]) ** 2, axis=1)
        prior_degrees, prior_variance = self._fitted()
        # A difference has the noise of two configurations.
        freedom = prior_degrees + degrees
        with np.errstate(divide="ignore", invalid="ignore"):
            moderated = (prior_degrees * 2.0 * prior_variance + squares) / freedom
            # A configuration that is noisier than others is not made less so by them.
            variance = np.fmax(moderated, squares / degrees)
            statistic = mean / np.sqrt(variance / pairs)
        compared, rounds = len(self._values) - 1, self._most - self._first
        bound = stdtrit(np.maximum(freedom, 1.0), 1.0 - ALPHA / (compared * rounds))
        worse: NDArray[np.bool_] = failed | ((pairs > 1) & (statistic > bound))
        return worse

    def _fitted(self) -> tuple[float, float]:
        """Degrees of freedom and variance of what the first repeats of all say about their noise."""
        if self._prior is None:
            block = self._values[:, : self._first]
            block = block[np.isfinite(block).all(axis=1)]
            if len(block) < MANY or not self._has_ended[:, : self._first].all():
                prior = (0.0, 0.0)
            else:
                # Without the luck of the seeds.
                residuals = block - np.median(block, axis=0)
                prior = fit_variances(residuals.var(axis=1, ddof=1), self._first - 1)
            if not self._has_ended[:, : self._first].all():
                return prior
            self._prior = prior
        return self._prior


def _means(values: Floats) -> Floats:
    """Mean of each row without NaN; infinite for a row without any number."""
    counts = np.isfinite(values).sum(axis=1)
    sums: Floats = np.nansum(values, axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)


def fit_variances(variances: Floats, degrees: int) -> tuple[float, float]:
    """Fit the distribution of variances to estimates of them (Smyth 2004, section 6.2).

    Args:
        variances: estimates, each with so many degrees of freedom.
        degrees: these degrees of freedom.

    Returns:
        Degrees of freedom and variance that the distribution adds to each estimate; 0 and 0 for nothing.
    """
    positive = variances[variances > 0]
    if len(positive) < max(MANY, 0.9 * len(variances)):
        return 0.0, 0.0
    logs = np.log(positive) - psi(degrees / 2) + math.log(degrees / 2)
    spread = float(logs.var(ddof=1) - polygamma(1, degrees / 2))
    # As much as all of them together know.
    most = float(len(positive) * degrees)
    prior = min(most, 2.0 * _trigamma_inverse(spread)) if spread > 0 else most
    return prior, math.exp(float(logs.mean()) + float(psi(prior / 2)) - math.log(prior / 2))


def _trigamma_inverse(value: float) -> float:
    """The argument at which the trigamma function has a value, by Newton's method (Smyth 2004)."""
    if value > 1e7:
        return 1.0 / math.sqrt(value)
    if value < 1e-6:
        return 1.0 / value
    found = 0.5 + 1.0 / value
    for _ in range(50):
        step = polygamma(1, found) * (1.0 - polygamma(1, found) / value) / polygamma(2, found)
        found += float(step)
        if -step / found < 1e-8:
            break
    return found
