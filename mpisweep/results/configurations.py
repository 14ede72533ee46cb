"""The configurations of a sweep, one row each, with the means of their repeats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisweep.records import TrialState
from mpisweep.results.trial_table import Table, TrialTable, structured
from mpisweep.statistics.common_seeds import fit_means

if TYPE_CHECKING:
    from mpisweep.statistics.best_set import BestSet

__all__ = ["ConfigurationTable", "Runs", "configuration_table", "runs_of"]


class ConfigurationTable(Table):
    """Configurations as a structured array, one row per configuration.

    Columns: ``number`` of the configuration, its searched parameters, and of a metric:

    * ``n``: completed trials with a finite value; ``lost``: trials that failed or completed without one.
    * ``mean``, ``spread`` (standard deviation of a single run), and the ends of the 95% interval of the mean,
      ``low`` and ``high``; NaN below two trials.
    * ``in_best_set``: whether it cannot be told apart from the best, at 95% for the whole table.  True for
      all with a value if no configuration has two: nothing says how far luck goes.
    """

    noun = "configurations"


class Runs(NamedTuple):
    """The values of a metric by configuration.

    Attributes:
        first: row in the table of trials of each configuration's first trial.
        number: of each configuration, ascending.
        values: shape (configurations, repeats); NaN without a completed trial.
        lost: trials of each that failed, or completed without a finite value.
        not_finite: number of completed trials without a finite value, of all.
        wall_time_s: mean over the completed trials of each; NaN without any.
    """

    first: NDArray[np.int64]
    number: NDArray[np.int64]
    values: NDArray[np.float64]
    lost: NDArray[np.int64]
    not_finite: int
    wall_time_s: NDArray[np.float64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of runs of each configuration with a value."""
        found: NDArray[np.int64] = np.isfinite(self.values).sum(axis=1)
        return found

    @property
    def is_repeated(self) -> bool:
        """Whether any configuration has two values."""
        return bool((self.counts > 1).any())

    def mean(self, row: int) -> float:
        """Mean of the runs of one configuration that have a value."""
        return float(self.values[row][np.isfinite(self.values[row])].mean())

    def best_mean(self, *, minimize: bool) -> int | None:
        """Row of the best mean, without the luck of seeds; None if no configuration has a value."""
        rows = np.flatnonzero(self.counts)
        if not len(rows):
            return None
        means = fit_means(self.values[rows]).ranked
        return int(rows[np.argmin(means if minimize else -means)])

    def compared(self, *, minimize: bool) -> BestSet | None:
        """Compare all configurations with the best; repeats of one number share their seed."""
        # Commands that show no statistics do not wait for SciPy.
        from mpisweep.statistics.best_set import best_set

        return best_set(self.values, minimize=minimize)


def runs_of(trials: TrialTable, column: str | None, time_column: str = "wall_time") -> Runs:
    """Sort the trials by configuration and repeat; those lost to damage are left out.

    Args:
        trials: all trials.
        column: of the metric; None if no trial has it.
        time_column: the column of their durations.
    """
    known = (trials["configuration"] >= 0) & (trials["repeat"] >= 0)
    rows = np.flatnonzero(known)
    number, first, place = np.unique(trials["configuration"][rows], return_index=True, return_inverse=True)
    repeat = trials["repeat"][rows]
    values = np.full((len(number), int(repeat.max(initial=0)) + 1), np.nan)
    state = trials["state"][rows]
    complete = state == TrialState.COMPLETE.label
    measured = trials[column][rows].astype(float) if column is not None else np.full(len(rows), np.nan)
    measured[~complete] = np.nan
    values[place, repeat] = measured
    not_finite = complete & ~np.isfinite(measured)
    without = (state == TrialState.FAILED.label) | not_finite
    time_s = np.where(complete, trials[time_column][rows].astype(float), np.nan)
    timed = np.isfinite(time_s)
    total = np.bincount(place, weights=np.where(timed, time_s, 0.0), minlength=len(number))
    count = np.bincount(place, weights=timed, minlength=len(number))
    mean_s = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    lost = np.bincount(place, weights=without, minlength=len(number)).astype(np.int64)
    return Runs(rows[first], number, values, lost, int(not_finite.sum()), mean_s)


def configuration_table(
    trials: TrialTable, parameters: dict[str, str], column: str | None, *, minimize: bool
) -> ConfigurationTable:
    """Make the table of all configurations.

    Args:
        trials: all trials.
        parameters: searched parameter -> its column in `trials`.
        column: of the metric; None if no trial has it.
        minimize: whether a smaller value is better.
    """
    from mpisweep.statistics.means import means_of

    runs = runs_of(trials, column)
    means, compared = means_of(runs.values), runs.compared(minimize=minimize)
    count = len(runs.number)
    columns: dict[str, Any] = {"number": runs.number}
    taken = ("number", "n", "lost", "mean", "spread", "low", "high", "in_best_set")
    for name, own in parameters.items():
        while name in taken or name in columns:
            name = f"parameter_{name}"
        columns[name] = trials[own][runs.first]
    columns |= {
        "n": means.count, "lost": runs.lost, "mean": means.mean, "spread": means.spread, "low": means.low,
        "high": means.high,
        "in_best_set": np.zeros(count, dtype=bool) if compared is None else compared.is_in,
    }  # fmt: skip
    return ConfigurationTable(structured(columns, count))
