"""Means of configurations without the luck of seeds that some have and others lack.

A run is modelled as ``mean of its configuration + effect of its repeat + noise``.  Configurations that share
repeats share seeds, so the effect of a repeat cancels in their differences.  Means and effects come from
least squares, which also compares configurations that lack some repeats.

Needs NumPy alone: the master ranks configurations by these means while the sweep runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FittedMeans", "fit_means"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FittedMeans:
    """Means and effects, of shape (configurations,) unless another one is given.

    Attributes:
        own: mean of each configuration's runs.
        mean: the same without the effects of its repeats.
        count: number of its runs.
        share: each repeat's share in that mean, shape (configurations, repeats).
        effects: of the repeats, shape (repeats,); 0 if they share no seeds.
        inverse: of the normal equations of the effects, shape (repeats, repeats).
    """

    own: Floats
    mean: Floats
    count: Floats
    share: Floats
    effects: Floats
    inverse: Floats

    @property
    def ranked(self) -> Floats:
        """The means to rank configurations by: their own, if the runs suffice for no more."""
        present = (self.share > 0).sum(axis=0)
        normal = np.diag(present) - self.share.T @ (self.share > 0)
        # One degree of freedom per run, less one per configuration and per effect that is determined.
        freedom = present.sum() - len(self.mean) - float((normal * self.inverse).sum())
        return self.mean if freedom > 0.5 else self.own


def fit_means(values: Floats, *, common: bool = True) -> FittedMeans:
    """Fit means and effects of repeats.

    Args:
        values: shape (configurations, repeats), each row with at least one finite value.
        common: whether a column has the same seed in all rows.
    """
    known = np.isfinite(values)
    present, runs = known.astype(np.float64), np.where(known, values, 0.0)
    count = present.sum(axis=1)
    share = present / count[:, None]
    inverse = np.zeros((values.shape[1],) * 2)
    if common:
        inverse = np.linalg.pinv(np.diag(present.sum(axis=0)) - share.T @ present, hermitian=True)
    own = runs.sum(axis=1) / count
    effects = inverse @ (runs - present * own[:, None]).sum(axis=0)
    return FittedMeans(own, own - share @ effects, count, share, effects, inverse)
