"""The tables of a sweep beside its trials: runs, workers and attempts."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpisweep.records import TrialState
from mpisweep.results.occupancy import most_workers, run_spans
from mpisweep.results.state import SweepState
from mpisweep.results.suggested import suggested_of
from mpisweep.results.trial_table import Rows, TrialTable, rows_of

__all__ = ["SweepTables"]


class SweepTables:
    """What a sweep's file says besides the trials.

    The base of :class:`mpisweep.results.load.Sweep`.
    """

    trials: TrialTable
    _state: SweepState

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters: searched ones first, then fixed ones."""
        return tuple(self._state.parameters)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that have final values."""
        return tuple(self._state.metrics)

    @property
    def curve_names(self) -> tuple[str, ...]:
        """Names of the metrics that have curves."""
        return tuple(self._state.curve_names)

    @property
    def environment(self) -> dict[str, str]:
        """Versions, the command line and the environment of the last run."""
        return dict(self._state.environment)

    @cached_property
    def allocations(self) -> Rows:
        """One row per run of the program on this sweep."""
        return rows_of(self._state, "allocations")

    @cached_property
    def workers(self) -> Rows:
        """One row per worker of each run."""
        return rows_of(self._state, "workers")

    @cached_property
    def attempts(self) -> Rows:
        """One row per attempt at a trial, including attempts without a result."""
        return rows_of(self._state, "attempts")

    @cached_property
    def ranks(self) -> Rows:
        """One row per rank of each attempt at a trial of several ranks, without rank 0.

        Rank 0 is in :attr:`attempts`.
        """
        return rows_of(self._state, "ranks")

    @property
    def requests(self) -> Rows:
        """One row per request of a user that was applied: retry, skip, first, add and stop."""
        return rows_of(self._state, "requests")

    @property
    def sharing(self) -> Rows:
        """One row each time that another number of trials was to share each GPU of a kind."""
        return rows_of(self._state, "sharing")

    @property
    def last_ranks(self) -> Rows:
        """The rows of :attr:`ranks` that belong to the last attempt of each trial."""
        ranks = self.ranks
        last: Rows = ranks[ranks["attempt"] == self.trials["attempt"][ranks["trial"]]]
        return last

    @cached_property
    def spans(self) -> NDArray[np.float64]:
        """Start and end of each run of the program, shape (runs, 2), in seconds since 1970.

        A run that was killed ends with its last trial; a run whose start was lost to damage starts with its
        first trial.  NaN if it has no trials either.
        """
        return run_spans(self.allocations, self.workers, self.trials)

    @property
    def most_workers(self) -> int:
        """The largest number of workers at one time, over all runs."""
        return most_workers(self.allocations, self.workers, self.attempts, self.spans)

    @cached_property
    def _suggested(self) -> dict[int, dict[str, dict[str, Any]]]:
        return suggested_of(self._state.suggested)

    def user_attrs(self, number: int) -> dict[str, Any]:
        """What an objective of Optuna has set in a trial with ``set_user_attr``; empty for nothing."""
        return dict(self._suggested.get(number, {}).get("user_attrs", {}))

    def distributions(self, number: int) -> dict[str, dict[str, Any]]:
        """What an objective of Optuna has drawn a trial's parameters from, in Optuna's JSON."""
        return dict(self._suggested.get(number, {}).get("distributions", {}))

    def count(self, state: TrialState) -> int:
        """The number of trials in this state."""
        return self._state.trials["state"].count(int(state))
