"""The critical batch size, fitted to the steps to a target at several batch sizes.

S. McCandlish et al., "An empirical model of large-batch training", 2018, arXiv:1812.06162, equation 5.4: to
the same target a training at batch size B takes::

    steps    S(B) = S0 (1 + Bcrit / B)         S0: fewest steps, at large B
    samples  E(B) = E0 (1 + B / Bcrit)         E0: fewest samples, at small B

Samples are steps times B, so both curves are one: E0 = S0 Bcrit.  C. J. Shallue et al., "Measuring the
effects of data parallelism on neural network training", 2019, find the same shape in other trainings.

*The fit.*  The logarithm of the steps scatters about log S(B) with the same standard deviation at every size.
A training that did not reach the target is a bound: it needs more steps than it took (the likelihood of
Tobin, "Estimation of relationships for limited dependent variables", 1958).  To leave such trainings out
would favour those that were lucky.

*The interval* of Bcrit is that of the profile likelihood: for every Bcrit, S0 and scatter are fitted again.
Its threshold is that of Student's t with as many degrees of freedom as trainings reached the target, less
two; without bounds this is the interval of the F test.  An end of the interval is 0 or infinite if the sizes
do not bound Bcrit there: all of them on one side of it.

Pure: arrays in, numbers out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEWEST", "CriticalBatch", "fit_critical_batch"]

Floats = NDArray[np.float64]

#: Fewest trainings that reach the target, at as many different sizes as a fit has parameters, and one more.
FEWEST = 4
#: Values of Bcrit that are tried, from a share of the smallest size to a multiple of the largest.
_TRIED, _BEYOND = 241, 1e3
#: Least scatter of the logarithm of steps: their rounding.
_LEAST_SCATTER = 1e-6
_NEWTON_STEPS = 60


@dataclass(frozen=True, slots=True)
class CriticalBatch:
    """A fit.

    Attributes:
        size: the critical batch size, in samples.
        low: lower end of its 95% interval; 0 if the sizes do not bound it.
        high: upper end; infinite if the sizes do not bound it.
        least_steps: S0, the fewest steps.
        scatter: standard deviation of the logarithm of a training's steps.
        reached: number of trainings that reached the target.
        bounds: number of trainings that did not.
        accepted: (Bcrit, S0) of curves inside the interval, shape (curves, 2), to draw its band.
    """

    size: float
    low: float
    high: float
    least_steps: float
    scatter: float
    reached: int
    bounds: int
    accepted: Floats

    @property
    def least_samples(self) -> float:
        """E0, the fewest samples."""
        return self.least_steps * self.size

    def steps(self, sizes: Floats) -> Floats:
        """Steps to the target at these batch sizes, shape (sizes,)."""
        found: Floats = self.least_steps * (1.0 + self.size / sizes)
        return found

    def band(self, sizes: Floats) -> tuple[Floats, Floats]:
        """The fewest and most steps by any accepted curve, each of shape (sizes,)."""
        curves = self.accepted[:, 1:] * (1.0 + self.accepted[:, :1] / sizes)
        return curves.min(0), curves.max(0)


def fit_critical_batch(sizes: Floats, steps: Floats, reached: NDArray[np.bool_]) -> CriticalBatch:
    """Fit the model.

    Args:
        sizes: batch size of each training, shape (trainings,).
        steps: steps to the target; steps taken, where it was not reached.
        reached: whether the training reached the target.

    Raises:
        ValueError: if fewer than four trainings at three sizes reached the target; the message is the end of
            a sentence.
    """
    count = int(reached.sum())
    distinct = len(np.unique(sizes[reached]))
    if count < FEWEST or distinct < 3:
        raise ValueError(
            f"{count} trials at {distinct} batch sizes reached the target; a fit needs {FEWEST} at three"
        )
    tried = np.geomspace(sizes[reached].min() / _BEYOND, sizes[reached].max() * _BEYOND, _TRIED)
    # Beside the best, the grid is repeated more finely.
    logs = _fits(tried, sizes, steps, reached)[0]
    best = int(np.argmax(logs))
    fine = np.geomspace(tried[max(0, best - 1)], tried[min(_TRIED - 1, best + 1)], 41)
    tried = np.unique(np.concatenate([tried, fine]))
    logs, least, scatter = _fits(tried, sizes, steps, reached)
    best = int(np.argmax(logs))
    inside = 2.0 * (logs[best] - logs) <= _threshold(count)
    low, high = _ends(tried, inside)
    return CriticalBatch(
        size=float(tried[best]),
        low=low,
        high=high,
        least_steps=float(np.exp(least[best])),
        scatter=float(scatter[best]),
        reached=count,
        bounds=len(sizes) - count,
        accepted=np.stack([tried[inside], np.exp(least[inside])], axis=1),
    )


def _ends(tried: Floats, inside: NDArray[np.bool_]) -> tuple[float, float]:
    """Ends of the interval, half a step outside of what is inside it."""
    first, last = np.flatnonzero(inside)[[0, -1]]
    low = 0.0 if first == 0 else math.sqrt(tried[first - 1] * tried[first])
    high = math.inf if last == len(tried) - 1 else math.sqrt(tried[last] * tried[last + 1])
    return low, high


def _threshold(reached: int) -> float:
    """The most by which twice the logarithm of the likelihood may fall inside the interval."""
    from scipy.stats import t

    freedom = reached - 2
    return reached * math.log1p(float(t.ppf(0.975, freedom)) ** 2 / freedom)


def _fits(
    tried: Floats, sizes: Floats, steps: Floats, reached: NDArray[np.bool_]
) -> tuple[Floats, Floats, Floats]:
    """Largest logarithm of the likelihood for each Bcrit, with log S0 and scatter, shapes (tried,).

    Without bounds they follow in closed form.  With bounds the likelihood is concave in 1 / scatter and
    log S0 / scatter (Olsen, "Note on the uniqueness of the maximum likelihood estimator for the Tobit model",
    1978), where Newton's method finds them.
    """
    rest = np.log(steps) - np.log1p(tried[:, None] / sizes)  # (tried, trainings)
    known = rest[:, reached]
    count = known.shape[1]
    least = known.mean(1)
    scatter = np.maximum(known.std(1), _LEAST_SCATTER)
    if not reached.all():
        least, scatter = _with_bounds(known, rest[:, ~reached], least, scatter)
    else:
        return -count * np.log(scatter), least, scatter
    inverse, shift = 1.0 / scatter, least / scatter
    logs = _log_likelihood(known, rest[:, ~reached], inverse, shift)
    # The same constant as without bounds.
    return logs + count / 2, least, scatter


def _log_likelihood(known: Floats, bounds: Floats, inverse: Floats, shift: Floats) -> Floats:
    from scipy.special import log_ndtr

    misfit = inverse[:, None] * known - shift[:, None]
    above = shift[:, None] - inverse[:, None] * bounds
    found: Floats = known.shape[1] * np.log(inverse) - 0.5 * (misfit**2).sum(1) + log_ndtr(above).sum(1)
    return found


def _with_bounds(known: Floats, bounds: Floats, least: Floats, scatter: Floats) -> tuple[Floats, Floats]:
    """Find log S0 and scatter by Newton's method, each step halved until the likelihood grows."""
    from scipy.special import log_ndtr

    count = known.shape[1]
    inverse, shift = 1.0 / scatter, least / scatter
    value = _log_likelihood(known, bounds, inverse, shift)
    for _ in range(_NEWTON_STEPS):
        misfit = inverse[:, None] * known - shift[:, None]
        above = shift[:, None] - inverse[:, None] * bounds
        ratio = np.exp(-0.5 * above**2 - 0.5 * math.log(2 * math.pi) - log_ndtr(above))
        bend = ratio * (above + ratio)
        slope_inverse = count / inverse - (misfit * known).sum(1) - (ratio * bounds).sum(1)
        slope_shift = misfit.sum(1) + ratio.sum(1)
        ii = count / inverse**2 + (known**2).sum(1) + (bend * bounds**2).sum(1)
        ss = count + bend.sum(1)
        si = -known.sum(1) - (bend * bounds).sum(1)
        determinant = ii * ss - si**2
        step_inverse = (ss * slope_inverse - si * slope_shift) / determinant
        step_shift = (ii * slope_shift - si * slope_inverse) / determinant
        size = np.ones(len(inverse))
        for _ in range(30):
            next_inverse = np.maximum(inverse + size * step_inverse, 1e-9)
            next_shift = shift + size * step_shift
            next_value = _log_likelihood(known, bounds, next_inverse, next_shift)
            worse = ~(next_value >= value - 1e-12)
            if not worse.any():
                break
            size = np.where(worse, size / 2, size)
        keep = next_value >= value
        gain = float(np.max(np.where(keep, next_value - value, 0.0)))
        inverse, shift = np.where(keep, next_inverse, inverse), np.where(keep, next_shift, shift)
        value = np.where(keep, next_value, value)
        if gain < 1e-9:
            break
    return shift / inverse, 1.0 / inverse
